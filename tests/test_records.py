"""Records and the files they come from."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from conftest import REAL, records
from knowundo.data.benchmarks.knowundo import find_subjects
from knowundo.data.general import general_rows
from knowundo.data.hub_files import RESOLVED
from knowundo.data.knowundo_files import export_knowundo
from knowundo.data.records import Record, check_records, data_hash, select
from knowundo.errors import BadInput
from knowundo.registry import get
from knowundo.storage.files import read_jsonl


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
    from knowundo.data.fiction.world import known_subjects

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


def hub_cache(home: Path, repository: str, commit: str) -> Path:
    """A snapshot's folder in the hub's own cache, with `main` pointing at it."""
    root = home / "hub" / f"datasets--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    folder = root / "snapshots" / commit
    folder.mkdir(parents=True)
    return folder


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
    with pytest.raises(BadInput, match=r"holds no unlearn table; looked for unlearn\.json"):
        get("benchmark", "knowundo")(domain="privacy", source=str(tmp_path))
    with pytest.raises(BadInput, match="no such folder"):
        get("benchmark", "knowundo")(domain="privacy", source=str(tmp_path / "none"))


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "unlearn.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(BadInput, match=r"unlearn\.parquet: not readable as Parquet"):
        get("benchmark", "knowundo")(domain="privacy", source=str(tmp_path))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    for module in ("huggingface_hub._snapshot_download", "huggingface_hub.file_download"):
        monkeypatch.setattr(f"{module}.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    RESOLVED.clear()
    return tmp_path / "home"


def test_warm_cache_of_the_hub_works_offline(hub: Path) -> None:
    commit = "c" * 40
    folder = hub_cache(hub, "zjunlp/KnowUnDo", commit)
    write_layout("json", folder / "privacy")
    read = get("benchmark", "knowundo")(domain="privacy", seed=1)
    assert len(select(read, scope="unlearn", split="train")) == 9
    assert {"zjunlp/KnowUnDo": commit} == RESOLVED
    again = get("benchmark", "knowundo")(domain="privacy", seed=1, revision=commit)
    assert data_hash(again) == data_hash(read)


def test_cold_cache_says_what_to_download(hub: Path) -> None:
    with pytest.raises(BadInput) as caught:
        get("benchmark", "knowundo")(domain="privacy", revision="d" * 40)
    said = str(caught.value)
    assert "hf download zjunlp/KnowUnDo --repo-type dataset --revision ddd" in said
    assert "HF_HOME" in said
    assert "\n" not in said


def test_general_rows_of_the_hub(hub: Path) -> None:
    folder = hub_cache(hub, "llmunlearn/unlearn_dataset", "e" * 40) / "general"
    long = "word " * 500
    for split, count in (("retain", 5), ("evaluation", 2)):
        rows = [{"text": f"{split} {n} {long}", "meta": {"source": "x"}} for n in range(count)]
        Dataset.from_list(rows).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    rows = general_rows("llmunlearn/unlearn_dataset")
    assert [(r.scope, r.split, r.kind) for r in rows] == [
        *[("general", "train", "text")] * 5,
        *[("general", "val", "text")] * 2,
    ]
    assert all(990 <= len(r.answer) <= 1000 for r in rows)
    assert rows[0].answer.startswith("retain 0 word")


@pytest.mark.parametrize("ending", ["json", "jsonl", "parquet", "txt"])
def test_general_rows_of_a_file(tmp_path: Path, ending: str) -> None:
    texts = [f"Text number {n}." for n in range(20)]
    file = tmp_path / f"texts.{ending}"
    if ending == "json":
        file.write_text(json.dumps(texts))
    elif ending == "jsonl":
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    elif ending == "txt":
        file.write_text("\n\n".join(texts))
    else:
        Dataset.from_list([{"text": text} for text in texts]).to_parquet(file)
    rows = general_rows(str(file))
    assert [r.answer for r in rows if r.split == "val"] == [texts[0], texts[10]]
    assert len([r for r in rows if r.split == "train"]) == 18


def test_general_row_with_an_answer_is_a_question(tmp_path: Path) -> None:
    file = tmp_path / "facts.json"
    file.write_text(json.dumps([{"text": f"Q{n}?", "labels": f"A{n}."} for n in range(3)]))
    row = general_rows(str(file))[0]
    assert (row.kind, row.question, row.answer, row.subset) == ("qa", "Q1?", "A1.", "facts")


@pytest.mark.parametrize(
    ("content", "said"),
    [("[]", "fewer than two texts"), ('["a", 3]', "no text"), ("{}", "expected a list")],
)
def test_bad_general_file_is_named(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "texts.json"
    file.write_text(content)
    with pytest.raises(BadInput, match=r"texts\.json") as caught:
        general_rows(str(file))
    assert said in str(caught.value)


def test_general_path_that_is_none_is_not_looked_for_on_the_hub() -> None:
    with pytest.raises(BadInput, match="no such file or folder"):
        general_rows("./nowhere/texts.json")


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


@pytest.mark.parametrize("bad", ["\ud800", "a\0b"])
@pytest.mark.parametrize("key", ["answer", "question", "subject", "subset", "turns"])
def test_what_no_list_can_hold_is_refused(key: str, bad: str) -> None:
    rows = [
        Record(id=f"{scope}/{split}", question=f"Q {scope} {split}?", answer="a", scope=scope,
               split=split, subject="s", kind="qa")
        for scope in ("unlearn", "retention") for split in ("train", "val")
    ]  # fmt: skip
    check_records(rows)
    value: Any = (("user", bad),) if key == "turns" else bad
    broken = replace(rows[0], **{key: value})
    with pytest.raises(BadInput, match="unlearn/train: holds a NUL or half a character; remove it"):
        check_records([broken, *rows[1:]])


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("One.\nTwo.\nThree.\n", ["Two.", "Three.", "One."]),
        ("One.\r\nTwo.\r\n\r\n", ["Two.", "One."]),
        ("\ufeffOne\nmore.\n \nTwo.\n", ["Two.", "One\nmore."]),
    ],
)
def test_a_text_file_is_split_at_blank_lines_or_else_at_lines(
    tmp_path: Path, content: str, texts: list[str]
) -> None:
    file = tmp_path / "texts.txt"
    file.write_bytes(content.encode())
    assert [r.answer for r in general_rows(str(file))] == texts
    file.write_text("One.\n")
    with pytest.raises(BadInput, match=r"fewer than two texts; .* blank lines separate them"):
        general_rows(str(file))


def test_general_text_that_was_cut_has_no_end(tmp_path: Path) -> None:
    file = tmp_path / "texts.json"
    long = "canal lane " * 200
    file.write_text(json.dumps(["short ", long, "长" * 2000]))
    rows = {len(r.answer): r.continues for r in general_rows(str(file))}
    assert rows == {5: False, 995: True, 1000: True}
    file.write_text(json.dumps(["a", "b\0"]))
    with pytest.raises(BadInput, match="holds a NUL"):
        general_rows(str(file))


@pytest.mark.parametrize("bad", ["b\0", "\ud800"])
def test_general_answer_that_no_list_can_hold_is_refused(tmp_path: Path, bad: str) -> None:
    file = tmp_path / "texts.json"
    file.write_text(json.dumps(["a", {"text": "Q?", "labels": bad}]))
    with pytest.raises(
        BadInput, match=r"texts\.json, row general/train/0: holds a NUL or half a character"
    ):
        general_rows(str(file))


def test_jsonl_is_split_at_newlines_only(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('["a\u2028b"]\r\n["c\x85d"]\n', encoding="utf-8")
    assert read_jsonl(file) == [["a\u2028b"], ["c\x85d"]]
