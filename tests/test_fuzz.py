"""A short campaign of `fuzzing`; `make fuzz` runs the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import Call
from fuzzing import campaign, targets
from knowundo.errors import BadInput
from knowundo.recipes.yaml import parse_yaml


def test_no_reader_lets_anything_out_but_one_line(tmp_path: Path) -> None:
    faults = []
    for target, found in campaign(targets(tmp_path), 920, 7, tmp_path / "fuzz"):
        faults += found.faults
        assert found.accepted, target.name
        assert found.inputs == 40
    assert not faults, "\n".join(faults)


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "aliases stand for more than"),
        ("a: &a [*a]", "aliases stand for more than"),
        ("a: 2020-13-45", "beyond any bound"),
        ("[" * 5000, "beyond any bound"),
        ("a: !!python/object/apply:os.system [id]", "line 1: malformed YAML"),
        ("a: \0", "malformed YAML"),
    ],
)
def test_yaml_that_would_hurt(text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        parse_yaml(text, "r.yaml")


def test_aliases_that_do_not_hurt() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: *a", "r.yaml") == {"a": {"x": 1}, "b": {"x": 1}}


def test_a_name_that_the_system_refuses(knowundo: Call) -> None:
    asked = knowundo("run", "--config", "a" * 5000)
    assert asked.returncode in (1, 2)
    assert asked.stderr.startswith("error: ")
    assert asked.stderr.strip().isprintable()


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--config", "bad.yaml", "--out", "out"),
        ("erase", "--model", "embedded", "--unlearn", "bad.yaml", "--out", "out"),
        ("erase", "--model", "no\x1b[31m\nsuch", "--unlearn", "rows.jsonl", "--out", "out"),
        ("run", "--config", "demo", "--set", "data.benchmark=\x1b]8;;x\x07", "--out", "out"),
        ("run", "--config", "demo", "--set", "unlearn.variants=[{preset: ../recipes/demo}]"),
        ("run", "--config", "../../etc/passwd", "--out", "out"),
        ("run", "--config", "demo", "--set", "unlearn.lr=.inf", "--out", "out"),
        ("run", "--config", "demo", "--set", "memorize.lr=.nan", "--out", "out"),
        ("verify", "nowhere"),
        ("compare", "nowhere", "else\nwhere"),
    ],
)
def test_the_command_line_says_one_line_and_leaves_nothing(
    knowundo: Call, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "bad.yaml").write_bytes(b"a: [\x80\x00 &")
    (tmp_path / "rows.jsonl").write_text('{"question": "Who?", "answer": "Clara."}')
    before = sorted(tmp_path.iterdir())
    asked = knowundo(*words)
    assert asked.returncode == 2
    assert asked.stderr.startswith("error: ")
    assert asked.stderr.strip().isprintable()
    assert sorted(tmp_path.iterdir()) == before
