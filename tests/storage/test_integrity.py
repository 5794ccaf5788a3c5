"""Every kind of damage to a run is found and named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Call
from knowundo.errors import BadInput
from knowundo.storage import artifacts
from knowundo.storage.artifacts import MANIFEST
from knowundo.storage.integrity import check_seal, read_seal, seal, verify
from sealed_run import sealed_run


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return sealed_run(tmp_path)


def flip(file: Path, place: int = -1) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def swap(first: Path, second: Path) -> None:
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


DAMAGE: dict[str, tuple[Callable[[Path], Any], str, str, str]] = {
    "a flipped bit": (
        lambda o: flip(o / "unlearned/a/weights"), "unlearned/a", "changed", "weights",
    ),
    "a flipped bit in the middle": (
        lambda o: flip(o / "memorized/weights", 7), "memorized", "changed", "weights",
    ),
    "a truncated file": (
        lambda o: os.truncate(o / "scores/a/rows.parquet", 99),
        "scores/a", "changed", "rows.parquet",
    ),
    "a file removed": (lambda o: (o / "regions/curve").unlink(), "regions", "missing", "curve"),
    "a folder removed": (lambda o: shutil.rmtree(o / "unlearned/b"), "unlearned/b", "missing", ""),
    "a file added": (
        lambda o: (o / "unlearned/a/more").write_text("x"), "unlearned/a", "extra", "more",
    ),
    "swapped adapters": (
        lambda o: swap(o / "unlearned/a", o / "unlearned/b"),
        "unlearned/a", "swapped", "unlearned/b",
    ),
    "swapped weights": (
        lambda o: swap(o / "unlearned/a/weights", o / "unlearned/b/weights"),
        "unlearned/b", "changed", "weights",
    ),
    "an edited manifest": (
        lambda o: (o / "regions" / MANIFEST).write_text(
            (o / "regions" / MANIFEST).read_text().replace('"seed": 0', '"seed": 1')
        ),
        "regions", "changed", MANIFEST,
    ),
    "edited results": (
        lambda o: (o / "results.json").write_text("100 %"), "results.json", "changed", "",
    ),
    "results removed": (lambda o: (o / "results.json").unlink(), "results.json", "missing", ""),
    "an artifact that nobody made here": (
        lambda o: shutil.copytree(o / "unlearned/a", o / "unlearned/c"),
        "unlearned/c", "not sealed", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_named(out: Path, knowundo: Call, damage: str) -> None:
    assert not [one for one in verify(out) if one.bad]
    harm, name, state, detail = DAMAGE[damage]
    harm(out)
    bad = {one.name: one for one in verify(out) if one.bad}
    assert bad[name].state == state
    assert detail in bad[name].detail
    asked = knowundo("verify", str(out))
    assert asked.returncode == 2
    assert f"{name} ({state})" in asked.stderr
    assert len(asked.stderr.splitlines()) == 1
    assert len(asked.stdout.splitlines()) == len(verify(out))


def test_all_is_well(out: Path, knowundo: Call) -> None:
    asked = knowundo("verify", str(out), "--json")
    assert asked.returncode == 0
    found = {one["name"]: one["state"] for one in json.loads(asked.stdout)}
    assert set(found.values()) == {"ok"}
    assert set(found) == set(read_seal(out).files)


def test_lists_may_be_edited(out: Path) -> None:
    (out / "lists" / "unlearn").write_text("one less")
    assert {one.name: one.state for one in verify(out)}["lists"] == "edited"
    assert not any(one.bad for one in verify(out))


def test_an_input_that_changed(out: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}")
    seal(out, inputs={str(rows): artifacts.file_hash(rows)})
    assert not any(one.bad for one in verify(out))
    rows.write_text("{ }")
    assert [one.state for one in verify(out) if one.bad] == ["changed"]


def test_a_stage_reads_nothing_that_was_swapped(out: Path) -> None:
    swap(out / "unlearned/a", out / "unlearned/b")
    with pytest.raises(
        BadInput, match=r"unlearned/a: swapped: it is the artifact that was made as unlearned/b"
    ):
        check_seal(out, out / "unlearned" / "a")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a\0", "a" * 300, ""])
def test_a_seal_names_nothing_outside(out: Path, name: str) -> None:
    held = json.loads((out / MANIFEST).read_text())
    held["files"][name] = "0" * 64
    (out / MANIFEST).write_text(json.dumps(held))
    with pytest.raises(BadInput, match=r"manifest\.json: files: "):
        verify(out)


def test_a_damaged_seal_is_named(out: Path) -> None:
    (out / MANIFEST).write_text('{"schema_version": 1, "files": 3}')
    with pytest.raises(BadInput, match=r"manifest\.json: files: .*seal is damaged"):
        verify(out)
