"""`knowundo export` refuses with one line what it cannot do."""

from __future__ import annotations

import pytest

from conftest import Call


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("gone", "--variant", "m", "--to", "x"), "holds no run"),
        (("gone", "--variant", "m", "--to", "x", "--format", "gguf"), "gguf"),
        (("gone", "--variant", "m"), "--to"),
    ],
)
def test_bad_words_are_refused(knowundo: Call, words: tuple[str, ...], said: str) -> None:
    done = knowundo("export", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""
