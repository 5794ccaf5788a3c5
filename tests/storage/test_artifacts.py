"""Artifacts appear whole or not at all, and their manifest is checked."""

from __future__ import annotations

import errno
import json
import resource
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from knowundo.errors import BadInput, NoRoom
from knowundo.storage.artifacts import MANIFEST, clear_partials, new_folder, read_manifest
from knowundo.storage.files import new_file
from sealed_run import artifact, sealed_run


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return sealed_run(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("schema_version", 7, "schema_version is 7"),
        ("inputs", "abc", "inputs is not a sha256"),
        ("outputs", [], "outputs is not a mapping"),
        ("outputs", {"../../etc/passwd": "0" * 64}, "is outside of the folder"),
        ("outputs", {"/etc/passwd": "0" * 64}, "is outside of the folder"),
        ("outputs", {"weights": 3}, "is not a sha256"),
    ],
)
def test_a_manifest_is_checked_on_reading(out: Path, key: str, value: Any, said: str) -> None:
    file = out / "regions" / MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(BadInput, match=said):
        read_manifest(out / "regions")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
    ],
)
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, error: Exception) -> None:
    folder, file = artifact(tmp_path / "a", weights=b"old"), tmp_path / "f"
    file.write_text("old")
    with (
        pytest.raises(NoRoom, match=r"a: no room left .* run the same again"),
        new_folder(folder, []),
    ):
        raise error
    with pytest.raises(NoRoom, match="f: no room left"), new_file(file):
        raise error
    assert (folder / "weights").read_bytes() == b"old"
    assert file.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "f"]


def test_a_limit_that_the_system_enforces(tmp_path: Path) -> None:
    """As a quota would: the process is not killed, and nothing is half-written."""
    program = """
        import resource, sys
        from pathlib import Path
        import torch
        from safetensors.torch import save_file
        from knowundo.storage.artifacts import new_folder
        from knowundo.errors import NoRoom
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            with new_folder(Path(sys.argv[1]), []) as aside:
                save_file({"w": torch.zeros(5000)}, aside / "weights.safetensors")
        except NoRoom as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "a")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "no room left" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_what_killed_processes_left_is_cleared(tmp_path: Path) -> None:
    artifact(tmp_path / "a", weights=b"whole")
    (tmp_path / ".partial.b.1").mkdir()
    (tmp_path / ".partial.b.1" / "weights").write_text("half")
    (tmp_path / "a" / ".partial.weights.2").write_text("half")
    clear_partials(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", MANIFEST, "weights"]
