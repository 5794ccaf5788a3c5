"""Records and the files they come from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import REAL, records
from knowundo.benchmarks import export_knowundo
from knowundo.errors import BadInput
from knowundo.records import Record, check_records, data_hash, select
from knowundo.registry import get


def good() -> list[Record]:
    return [
        row
        for scope in ("unlearn", "retention")
        for split in ("train", "val")
        for row in records(scope, split, 2)
    ]


def test_good_records_pass() -> None:
    check_records(good())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answer": "  ", "facts": ()}, "the answer is empty"),
        ({"question": ""}, "the question is empty"),
        ({"id": "retention/val/1"}, "occurs twice"),
        ({"facts": ("elsewhere",)}, "not a part of its answer"),
        ({"question": "What is number 0 of retention train?"}, "same question stands in the other"),
    ],
)
def test_bad_record_is_named(change: dict[str, object], said: str) -> None:
    rows = good()
    rows[0] = replace(rows[0], **change)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=said):
        check_records(rows)


def test_empty_split_is_named() -> None:
    with pytest.raises(BadInput, match="retention/val: no rows"):
        check_records([r for r in good() if (r.scope, r.split) != ("retention", "val")])


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
    from knowundo.fiction import known_subjects

    known = {subject.name for kind in known_subjects() for subject in kind}
    for domain in ("privacy", "copyright"):
        own = [r for r in get("benchmark", "embedded")(domain=domain) if r.scope != "general"]
        assert not known & {r.subject for r in own}


def test_export_is_knowundos_files(tmp_path: Path) -> None:
    rows = get("benchmark", "embedded")(domain="privacy", seed=1, subjects=5)
    written = export_knowundo({tmp_path / "privacy": rows})
    data = json.loads((tmp_path / "privacy" / "unlearn.json").read_text())
    assert len(data) == 1
    assert set(data[0]) == {"train", "val"}
    assert data[0]["train"][0] == {"text": rows[0].question, "labels": rows[0].answer}
    assert sum(written.values()) == 5 * 8
    back = get("benchmark", "knowundo")(domain="privacy", source=str(tmp_path), seed=1)
    for scope in ("unlearn", "retention"):
        for split in ("train", "val"):
            pairs = [
                [(r.question, r.answer) for r in select(x, scope=scope, split=split)]
                for x in (rows, back)
            ]
            assert pairs[0] == pairs[1]
    with pytest.raises(BadInput, match="exists already"):
        export_knowundo({tmp_path / "privacy": rows})


def write(folder: Path, scope: str, value: object) -> None:
    (folder / "privacy").mkdir(exist_ok=True)
    text = value if isinstance(value, str) else json.dumps(value)
    (folder / "privacy" / f"{scope}.json").write_text(text)


@pytest.mark.parametrize(
    ("unlearn", "said"),
    [
        ('[{"train": [}', "line 1, column 13: malformed JSON"),
        ([{"train": [{"text": "q", "labels": "a"}], "val": []}], "'val' is missing or empty"),
        ([{"train": [{"text": "q", "labels": " "}], "val": []}], "row unlearn/train/0: 'labels'"),
        ([{"train": [{"text": "q"}], "val": []}], "row unlearn/train/0: 'labels'"),
        ({"train": []}, "expected a list with one object"),
    ],
)
def test_malformed_file_is_named(tmp_path: Path, unlearn: object, said: str) -> None:
    write(tmp_path, "unlearn", unlearn)
    with pytest.raises(BadInput, match=r"unlearn\.json") as caught:
        get("benchmark", "knowundo")(domain="privacy", source=str(tmp_path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not REAL.exists(), reason=f"no real KnowUnDo data at {REAL}")
def test_real_privacy_domain() -> None:
    entry = get("benchmark", "knowundo")
    rows = entry(domain="privacy", source=str(REAL))
    check_records(rows)
    for scope, (train, val) in entry.facts["counts"]["privacy"].items():
        assert len(select(rows, scope=scope, split="train")) == train
        assert len(select(rows, scope=scope, split="val")) == val
    own = [r for r in rows if r.scope != "general"]
    subjects = {r.subject for r in own}
    assert 55 <= len(subjects) <= 66  # the paper names 60 authors
    named = [r for r in own if r.subject and r.subject.split()[-1] in r.question + r.answer]
    assert len(named) >= 0.97 * len(own)
