"""Names of a base: a folder, the embedded one, a name on the hub, or nothing that can exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowundo.modeling.base import base_files, base_folder, base_path, hub_commit, same_base

# What a file that anyone may have written can name as its base.
NEVER = ["a" * 4096, "a" * 300, "./" + "b/" * 3000, "\0", ""]


@pytest.mark.parametrize("name", NEVER)
def test_a_name_that_no_folder_can_have_is_no_base(name: str) -> None:
    assert base_folder(name) is None
    assert base_files(name) == []
    assert hub_commit(name) is None
    assert not same_base(name, "embedded")


def test_two_names_of_one_folder_are_one_base(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "Llama"
    folder.mkdir(parents=True)
    assert same_base(str(folder), str(folder / ".." / "Llama"))
    assert same_base("../elsewhere/Llama", str(folder))
    assert not same_base("../elsewhere/Qwen", str(folder))
    assert same_base(base_path("embedded"), "embedded")
