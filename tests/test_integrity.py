"""Every kind of damage is found and named; nobody else works in a directory that is in use."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors import SafetensorError

from conftest import Call
from knowundo.errors import BadInput, NoRoom
from knowundo.progress import Reporter
from knowundo.reporting.report import REDACTED
from knowundo.runs.purge import holdings, purge
from knowundo.storage import artifacts
from knowundo.storage.artifacts import MANIFEST, clear_partials, new_folder, read_manifest
from knowundo.storage.files import new_file
from knowundo.storage.integrity import check_seal, read_seal, seal, verify
from knowundo.storage.locks import exclusive

PRIVATE = "+44 020 7946 0991"


def artifact(folder: Path, **files: bytes) -> Path:
    with new_folder(folder, ["inputs"], seed=0) as aside:
        for name, content in files.items():
            (aside / name).write_bytes(content)
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A directory laid out as a run's, with small files."""
    out = tmp_path / "run"
    for name in ("memorized", "regions", "unlearned/a", "unlearned/b"):
        seal(out, artifact(out / name, weights=name.encode() * 50, curve=b"[]"))
    for name in ("a", "b"):
        with new_folder(out / "scores" / name, ["inputs"]) as aside:
            rows = {
                "scope": ["unlearn", "retention"],
                "question": ["What is her number?", "What is her job?"],
                "answer": [PRIVATE, "Pilot."],
                "said": [PRIVATE, "Pilot."],
                "token_accuracy": [1.0, 1.0],
            }
            pd.DataFrame(rows).to_parquet(aside / "rows.parquet")
        seal(out, out / "scores" / name)
    seal(out, artifact(out / "lists", unlearn=PRIVATE.encode()))
    for name in ("recipe.yaml", "results.json", "report.html"):
        (out / name).write_text(f"{name} {PRIVATE if name == 'report.html' else ''}")
        seal(out, out / name)
    return out


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
    with pytest.raises(BadInput, match=r"unlearned/a: swapped: it is what was made as unlearned/b"):
        check_seal(out, out / "unlearned" / "a")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("schema_version", 7, "schema_version is 7"),
        ("inputs", "abc", "inputs is no sha256"),
        ("outputs", [], "outputs is no mapping"),
        ("outputs", {"../../etc/passwd": "0" * 64}, "lies outside"),
        ("outputs", {"/etc/passwd": "0" * 64}, "lies outside"),
        ("outputs", {"weights": 3}, "is no sha256"),
    ],
)
def test_a_manifest_is_checked_on_reading(out: Path, key: str, value: Any, said: str) -> None:
    file = out / "regions" / MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(BadInput, match=said):
        read_manifest(out / "regions")


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


# No room.


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


def test_other_errors_are_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), new_file(tmp_path / "f"):
        raise PermissionError(errno.EACCES, "Permission denied")


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


# One process at a time.

HOLDS = """
import sys, time
from pathlib import Path
from knowundo.storage.locks import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


class Said(Reporter):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_the_second_process_is_refused_and_a_dead_one_is_not_waited_for(tmp_path: Path) -> None:
    out, said = tmp_path / "run", Said()
    first = subprocess.Popen([sys.executable, "-c", HOLDS, str(out)], stdout=subprocess.PIPE)
    assert first.stdout is not None
    assert first.stdout.readline() == b"held\n"
    said_of_it = rf"run: in use by process {first.pid} on \S+ \("
    with pytest.raises(BadInput, match=said_of_it), exclusive(out):
        pass
    first.kill()
    first.wait()
    with exclusive(out, said), exclusive(out, said):  # a stage calls another
        pass
    assert len(said.lines) == 1
    assert f"process {first.pid}" in said.lines[0]
    assert "ended before its work did" in said.lines[0]


def test_what_failed_before_it_wrote_leaves_no_directory(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="row 3"), exclusive(tmp_path / "runs" / "one"):
        raise BadInput("rows.jsonl, row 3: empty")
    assert list(tmp_path.iterdir()) == []


# Disposing of it.


def contains(out: Path, text: str) -> list[str]:
    found = []
    for file in out.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            if file.suffix == ".parquet":
                content = pd.read_parquet(file).to_csv().encode()
            if text.encode() in content:
                found.append(str(file.relative_to(out)))
    return found


def test_purge(out: Path, knowundo: Call) -> None:
    (out / "checkpoints" / "unlearned").mkdir(parents=True)
    (out / "checkpoints" / "unlearned" / "1.json").write_text(PRIVATE)
    assert len(contains(out, PRIVATE)) == 5
    asked = knowundo("purge", str(out))
    assert asked.returncode == 2
    assert "add --yes" in asked.stderr
    assert len(contains(out, PRIVATE)) == 5
    asked = knowundo("purge", str(out), "--yes")
    assert asked.returncode == 0
    assert contains(out, PRIVATE) == []
    assert holdings(out) == []
    left = {str(p.relative_to(out)) for p in out.iterdir() if not p.name.startswith(".")}
    assert left == {
        "regions", "unlearned", "scores", "recipe.yaml", "results.json", "purged.json", MANIFEST,
    }  # fmt: skip
    rows = pd.read_parquet(out / "scores" / "a" / "rows.parquet")
    assert rows["answer"][0].startswith("sha256:")
    assert rows["answer"][0].endswith(f"({len(PRIVATE)} characters)")
    assert rows["answer"][1] == "Pilot."
    found = {one.name: one.state for one in verify(out)}
    assert found["memorized"] == found["lists"] == found["report.html"] == "purged"
    assert found["scores/a"] == found["unlearned/a"] == "ok"
    assert not any(one.bad for one in verify(out))
    record = json.loads((out / "purged.json").read_text())
    assert set(record["removed"]) == {"memorized", "checkpoints", "lists", "report.html"}
    assert set(record["redacted"]) == {"scores/a", "scores/b"}


def test_purge_keeps_a_redacted_report(out: Path) -> None:
    (out / "report.html").write_text(f"<head>{REDACTED}</head>")
    assert "report.html" not in holdings(out)


def test_purge_killed_in_the_middle_goes_on(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, remove, calls = read_seal(out).files["memorized"], shutil.rmtree, 0

    def killed(path: Any, *args: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyboardInterrupt
        remove(path, *args, **options)

    monkeypatch.setattr("knowundo.runs.purge.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        purge(out)
    done = purge(out)
    assert done["memorized"] == before
    assert contains(out, PRIVATE) == []


def test_purge_names_a_directory_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no run"):
        purge(tmp_path)
