"""Files that are only read are hashed once a process, and again if they change."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from knowundo.runs import file_hashes
from knowundo.runs.file_hashes import input_hash, named_files


def test_the_hash_is_sha256_of_the_bytes(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"numbers")
    assert input_hash(file) == hashlib.sha256(b"numbers").hexdigest()


def test_a_file_is_read_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    real = file_hashes.file_hash
    monkeypatch.setattr(file_hashes, "file_hash", lambda file: read.append(file) or real(file))
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    (tmp_path / "link").symlink_to(file)
    first = input_hash(file)
    assert input_hash(tmp_path / "link") == first
    assert len(read) == 1
    file.write_bytes(b"two")  # of the same size, so the time of change has to tell
    os.utime(file, ns=(0, 1))
    assert input_hash(file) == hashlib.sha256(b"two").hexdigest() != first
    assert len(read) == 2


def test_the_embedded_base_has_no_files_of_the_user(tmp_path: Path) -> None:
    assert named_files("embedded") == []
    assert named_files("a-lab/a-model-that-is-no-folder") == []
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    names = {file.name for file in named_files(str(tmp_path))}
    assert "model.safetensors" in names
