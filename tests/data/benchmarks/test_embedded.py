"""The embedded benchmark."""

from __future__ import annotations

import pytest

from knowundo.data.records import check_records, data_hash, select
from knowundo.registry import get


@pytest.mark.parametrize("domain", ["privacy", "copyright"])
def test_embedded_benchmark(domain: str) -> None:
    build = get("benchmark", "embedded")
    rows = build(domain=domain, seed=3)
    check_records(rows)
    assert data_hash(rows) == data_hash(build(domain=domain, seed=3))
    assert data_hash(rows) != data_hash(build(domain=domain, seed=4))
    own = [row for row in rows if row.scope != "general"]
    assert len(own) >= 300
    assert len({row.subject for row in select(own, split="train")}) >= 40
    for scope in ("unlearn", "retention"):
        train, probe = (select(own, scope=scope, split=s) for s in ("train", "probe"))
        assert [r.answer for r in train] == [r.answer for r in probe]
        assert all(a.question != b.question for a, b in zip(train, probe, strict=True))
        seen = {r.subject for r in train}
        assert not seen & {r.subject for r in select(own, scope=scope, split="holdout")}
        for row in train:
            assert 8 <= len(row.answer.split()) <= 25
            assert row.facts[0] in row.answer
    # The same people in both scopes: that is the boundary.
    scopes = [
        {r.subject for r in select(own, scope=s, split="train")} for s in ("unlearn", "retention")
    ]
    assert scopes[0] == scopes[1]


def test_no_subject_of_the_benchmark_is_known_to_the_base() -> None:
    from knowundo.data.fiction.world import known_subjects

    known = {subject.name for kind in known_subjects() for subject in kind}
    for domain in ("privacy", "copyright"):
        own = [r for r in get("benchmark", "embedded")(domain=domain) if r.scope != "general"]
        assert not known & {r.subject for r in own}
