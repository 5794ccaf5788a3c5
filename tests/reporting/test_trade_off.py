"""The trade-off plot: its front, and its labels."""

from __future__ import annotations

import re

from knowundo.reporting.drawing import Box, Labels
from knowundo.reporting.trade_off import Point, pareto_front, trade_off
from knowundo.reporting.verdict import verdict
from sample_run import sample


def at(name: str, x: float, y: float, kind: str = "other") -> Point:
    return Point(name, kind, x, x, x, y, y, y)


def test_overshoot_earns_no_place_on_the_front() -> None:
    found = [at("target", 39, 100, "target"), at("a", 38, 95), at("b", 39, 90), at("over", 60, 89),
             at("c", 20, 99), at("beaten", 19, 94)]  # fmt: skip
    assert [p.name for p in pareto_front(found)] == ["c", "a", "b"]
    without = [p for p in found if p.kind != "target"]
    assert [p.name for p in pareto_front(without)] == ["c", "a", "b", "over"]


def test_every_model_is_drawn_and_the_ones_that_matter_are_labelled() -> None:
    found, material = sample(60)
    figure = trade_off(found, verdict(found, material.scores))
    assert figure is not None
    assert len(figure.rows) == 63
    for drawn in (figure.wide, figure.narrow):
        assert drawn.count("<title>") == 63
        words = re.findall(r"<text[^>]*>([^<]*)</text>", drawn)
        assert {"target (retain)", "start (memorized)", "method_0"} <= set(words)


def test_labels_cover_no_mark_and_no_other_label() -> None:
    labels = Labels(Box(0, 0, 300, 200))
    for n in range(6):
        labels.avoid(150, 60 + 12 * n, 5)
    for n in range(6):
        labels.place(150, 60 + 12 * n, f"a model {n}", must=True)
    boxes = labels.taken
    assert len(boxes) == 12
    own = boxes[6:]
    assert not [(a, b) for a in own for b in boxes if a is not b and a.meets(b)]
    assert all(box.within(labels.area) for box in own)


def test_no_place_is_no_label() -> None:
    labels = Labels(Box(0, 0, 20, 20))
    assert labels.place(10, 10, "a name that is too long", must=True) is None
