"""General records from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset

from hub_layout import hub_cache
from knowundo.data.general import read_general
from knowundo.errors import BadInput


def test_general_rows_of_the_hub(hub: Path) -> None:
    folder = hub_cache(hub, "llmunlearn/unlearn_dataset", "e" * 40) / "general"
    long = "word " * 500
    for split, count in (("retain", 5), ("evaluation", 2)):
        rows = [{"text": f"{split} {n} {long}", "meta": {"source": "x"}} for n in range(count)]
        Dataset.from_list(rows).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    rows = read_general("llmunlearn/unlearn_dataset")
    assert [(r.scope, r.split, r.kind) for r in rows] == [
        *[("general", "train", "text")] * 5,
        *[("general", "val", "text")] * 2,
    ]
    assert all(990 <= len(r.answer) <= 1000 for r in rows)
    assert rows[0].answer.startswith("retain 0 word")
    assert rows.commits == {"llmunlearn/unlearn_dataset": "e" * 40}


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
    rows = read_general(str(file))
    assert [r.answer for r in rows if r.split == "val"] == [texts[0], texts[10]]
    assert len([r for r in rows if r.split == "train"]) == 18


def test_general_row_with_an_answer_is_a_question(tmp_path: Path) -> None:
    file = tmp_path / "facts.json"
    file.write_text(json.dumps([{"text": f"Q{n}?", "labels": f"A{n}."} for n in range(3)]))
    row = read_general(str(file))[0]
    assert (row.kind, row.question, row.answer, row.subset) == ("qa", "Q1?", "A1.", "facts")


@pytest.mark.parametrize(
    ("content", "said"),
    [("[]", "fewer than two texts"), ('["a", 3]', "no text"), ("{}", "expected a list")],
)
def test_bad_general_file_is_named(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "texts.json"
    file.write_text(content)
    with pytest.raises(BadInput, match=r"texts\.json") as caught:
        read_general(str(file))
    assert said in str(caught.value)


def test_general_path_that_is_none_is_not_looked_for_on_the_hub() -> None:
    with pytest.raises(BadInput, match="no such file or folder"):
        read_general("./nowhere/texts.json")


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
    assert [r.answer for r in read_general(str(file))] == texts
    file.write_text("One.\n")
    with pytest.raises(BadInput, match=r"fewer than two texts; .* blank lines separate them"):
        read_general(str(file))


def test_general_text_that_was_cut_has_no_end(tmp_path: Path) -> None:
    file = tmp_path / "texts.json"
    long = "canal lane " * 200
    file.write_text(json.dumps(["short ", long, "长" * 2000]))
    rows = {len(r.answer): r.continues for r in read_general(str(file))}
    assert rows == {5: False, 995: True, 1000: True}
    file.write_text(json.dumps(["a", "b\0"]))
    with pytest.raises(BadInput, match="contains a NUL"):
        read_general(str(file))


@pytest.mark.parametrize("bad", ["b\0", "\ud800"])
def test_general_answer_that_no_list_can_hold_is_refused(tmp_path: Path, bad: str) -> None:
    file = tmp_path / "texts.json"
    file.write_text(json.dumps(["a", {"text": "Q?", "labels": bad}]))
    with pytest.raises(
        BadInput, match=r"texts\.json, row general/train/0: contains a NUL or a lone surrogate"
    ):
        read_general(str(file))
