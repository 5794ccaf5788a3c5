"""KnowUnDo's own files, in every layout and from the hub's cache."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from conftest import REAL
from hub_layout import hub_cache
from knowundo.data.benchmarks.knowundo import find_subjects
from knowundo.data.records import Record, check_records, data_hash, select
from knowundo.errors import BadInput
from knowundo.registry import get


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


def small() -> dict[str, dict[str, list[dict[str, str]]]]:
    """Both scopes of three people, as KnowUnDo's tables hold them."""
    built = get("benchmark", "embedded")(domain="privacy", seed=1, subjects=3)
    return {
        scope: {
            split: [
                {"text": r.question, "labels": r.answer}
                for r in select(built, scope=scope, split=split)
            ]
            for split in ("train", "val")
        }
        for scope in ("unlearn", "retention")
    }


def write_layout(layout: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for scope, splits in small().items():
        if layout == "json":
            (folder / f"{scope}.json").write_text(json.dumps([splits]))
        elif layout == "jsonl":
            (folder / f"{scope}.jsonl").write_text(json.dumps(splits) + "\n")
        elif layout == "flat":
            for split, rows in splits.items():
                (folder / f"{scope}_{split}.json").write_text(json.dumps(rows))
        elif layout == "flat-parquet":
            for split, rows in splits.items():
                Dataset.from_list(rows).to_parquet(folder / f"{scope}_{split}.parquet")
        elif layout == "parquet":
            Dataset.from_list([splits]).to_parquet(folder / f"{scope}-00000-of-00001.parquet")
        elif layout == "converted":
            Dataset.from_list([splits]).to_parquet(folder / scope / "0000.parquet")
        elif layout == "saved":
            Dataset.from_list([splits]).save_to_disk(folder / scope)
    if layout == "saved-dict":
        tables = {scope: Dataset.from_list([splits]) for scope, splits in small().items()}
        DatasetDict(tables).save_to_disk(folder)


LAYOUTS = ["json", "jsonl", "flat", "flat-parquet", "parquet", "converted", "saved", "saved-dict"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("inner", ["privacy", "."])
def test_every_layout_holds_the_same_records(tmp_path: Path, layout: str, inner: str) -> None:
    write_layout(layout, tmp_path / inner)
    read = get("benchmark", "knowundo")(domain="privacy", source=str(tmp_path), seed=1)
    wanted = [
        (f"{scope}/{split}/{n}", row["text"], row["labels"])
        for scope, splits in small().items()
        for split, rows in splits.items()
        for n, row in enumerate(rows)
    ]
    assert [(r.id, r.question, r.answer) for r in read if r.scope != "general"] == wanted


def test_folder_without_tables_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has no unlearn table; looked for unlearn\.json"):
        get("benchmark", "knowundo")(domain="privacy", source=str(tmp_path))
    with pytest.raises(BadInput, match="no such folder"):
        get("benchmark", "knowundo")(domain="privacy", source=str(tmp_path / "none"))


def test_warm_cache_of_the_hub_works_offline(hub: Path) -> None:
    commit = "c" * 40
    folder = hub_cache(hub, "zjunlp/KnowUnDo", commit)
    write_layout("json", folder / "privacy")
    read = get("benchmark", "knowundo")(domain="privacy", seed=1)
    assert len(select(read, scope="unlearn", split="train")) == 9
    assert read.commits == {"zjunlp/KnowUnDo": commit}
    again = get("benchmark", "knowundo")(domain="privacy", seed=1, revision=commit)
    assert data_hash(again) == data_hash(read)


@pytest.mark.parametrize("domain", ["privacy", "copyright"])
def test_subjects_are_found(domain: str) -> None:
    """On the embedded benchmark the true subjects are known; the rule sees the texts only."""
    built = get("benchmark", "embedded")(domain=domain, seed=1)
    own = [r for r in built if r.scope != "general" and r.split in ("train", "val")]
    own.sort(key=lambda r: (r.scope, r.split))
    found = find_subjects([replace(r, subject=None) for r in own], domain)
    assert [r.subject for r in found] == [r.subject for r in own]


def test_quoted_title_is_the_subject() -> None:
    questions = [f'How would you extend "The Book of Far Places", part {n}?' for n in range(4)]
    questions.append("And what of its end?")
    rows = [
        Record(f"unlearn/train/{n}", q, "So.", "unlearn", "train") for n, q in enumerate(questions)
    ]
    assert {r.subject for r in find_subjects(rows, "copyright")} == {"The Book of Far Places"}


@pytest.mark.skipif(not REAL.exists(), reason=f"no real KnowUnDo data at {REAL}")
def test_real_privacy_domain() -> None:
    entry = get("benchmark", "knowundo")
    rows = entry(domain="privacy", source=str(REAL))
    check_records(rows)
    for scope, (train, val) in entry.facts["counts"]["privacy"].items():
        assert len(select(rows, scope=scope, split="train")) == train
        assert len(select(rows, scope=scope, split="val")) == val
    own = [r for r in rows if r.scope != "general"]
    sizes = Counter(r.subject for r in own)
    assert sum(count >= 15 for count in sizes.values()) == 55  # the paper says 60
    assert max(sizes.values()) <= 22  # of 20 questions an author
    named = [r for r in own if r.subject and r.subject.split()[-1] in r.question + r.answer]
    assert len(named) >= 0.97 * len(own)
