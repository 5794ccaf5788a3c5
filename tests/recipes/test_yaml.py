"""YAML that a user wrote: numbers, errors with their line, and bounds on aliases."""

from __future__ import annotations

import subprocess
import sys

import pytest

from knowundo.errors import BadInput
from knowundo.recipes.yaml import parse_yaml


def test_a_rate_without_a_point_is_a_number() -> None:
    assert parse_yaml("lr: 1e-4", "r.yaml") == {"lr": 1e-4}
    assert parse_yaml("[2E+3, 1.5e-5, 1e, e4]", "r.yaml") == [2000.0, 1.5e-5, "1e", "e4"]


def test_an_empty_file_is_nothing() -> None:
    assert parse_yaml("", "r.yaml") is None
    assert parse_yaml("# only a comment\n", "r.yaml") is None


def test_an_error_names_file_and_line() -> None:
    with pytest.raises(BadInput, match=r"^r\.yaml, line 3: malformed YAML"):
        parse_yaml("a: 1\n\nb: ]\n", "r.yaml")


@pytest.mark.parametrize("text", ["!!python/object/apply:os.system ['true']", "a: !!binary x y"])
def test_no_object_is_made_of_a_tag(text: str) -> None:
    with pytest.raises(BadInput, match=r"r\.yaml"):
        parse_yaml(text, "r.yaml")


def test_a_few_aliases_are_allowed_and_many_are_not() -> None:
    assert parse_yaml("a: &x [1, 2]\nb: *x\n", "r.yaml") == {"a": [1, 2], "b": [1, 2]}
    lines = ["a0: &a0 [" + ", ".join(["x"] * 10) + "]"]
    lines += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, 9)]
    with pytest.raises(BadInput, match="stand for more than 100000 values"):
        parse_yaml("\n".join(lines), "r.yaml")


@pytest.mark.parametrize("text", ["&a [*a]", "d: 2024-13-45", "[" * 5000 + "]" * 5000])
def test_what_has_no_end_or_no_meaning_is_one_line(text: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse_yaml(text, "r.yaml")
    assert "\n" not in str(refused.value)


def test_the_reader_of_recipes_need_not_be_imported() -> None:
    """Numbers such as 1e-4 were read as text in a process that had not imported it."""
    code = (
        "import sys; from knowundo.recipes.yaml import parse_yaml\n"
        "assert 'knowundo.recipes.reading' not in sys.modules\n"
        "print(repr(parse_yaml('1e-4', 'r.yaml')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "0.0001\n", done.stderr
