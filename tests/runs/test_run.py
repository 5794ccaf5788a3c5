"""One run: its model is loaded once, and its rows are encoded once."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowundo.errors import BadInput
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.model import Model
from knowundo.runs import run as runs
from knowundo.runs.run import Run
from tiny_run import tiny_run


def test_the_model_is_loaded_once_and_again_after_its_release(
    toy_base: str, tmp_path: Path
) -> None:
    run = tiny_run(tmp_path, toy_base)
    first = run.model
    assert run.model is first
    run.release_model()
    assert run.model is not first


def test_a_model_that_is_there_is_taken(toy_base: str, tmp_path: Path) -> None:
    model = Model(toy_base, Adaptation("lora", 2, 4))
    assert tiny_run(tmp_path, toy_base, model=model).model is model


def test_rows_are_encoded_once_and_outlive_the_model(
    toy_base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(tmp_path, toy_base)
    rows = run.encoded("unlearn", ["train"])
    assert {row.record.scope for row in rows} == {"unlearn"}
    run.release_model()
    monkeypatch.setattr(runs, "open_model", lambda _: pytest.fail("the model was loaded"))
    again = run.encoded("unlearn", ("train",))
    assert all(one is other for one, other in zip(again, rows, strict=True))
    again.clear()
    assert run.encoded("unlearn", ("train",)) == rows


def test_nothing_is_written_before_the_claim(toy_base: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = tiny_run(out, toy_base)
    assert not out.exists()
    with pytest.raises(BadInput, match="holds no run"):
        Run.existing(out)
    run.claim()
    assert Run.existing(out).effective == run.effective
    with pytest.raises(BadInput, match=r"memorize\.lr is 0\.0001, not 0\.001"):
        Run.existing(out, sets=["memorize.lr=1e-3"])


@pytest.mark.parametrize(
    "variant",
    [
        "{method: ascent_plus_descent, retain_on: general}",
        "{method: npo, then: [{method: undo, retain_on: general}]}",
    ],
)
def test_a_run_without_rows_to_retain_on_is_refused(
    toy_base: str, tmp_path: Path, variant: str
) -> None:
    planned = f"unlearn.variants=[{variant}]"
    source = tmp_path / "lists"
    source.mkdir()
    for scope in ("unlearn", "retention"):
        (source / f"{scope}.jsonl").write_text(
            f'{{"question": "Who is {scope}?", "answer": "Somebody."}}\n'
        )
    sets = [
        "data.benchmark=lists",
        "data.domain=lists",
        "data.subjects=null",
        f"data.source={source}",
    ]
    with pytest.raises(BadInput, match="there are no general/train rows to retain on"):
        tiny_run(tmp_path / "run", toy_base, *sets, planned)
