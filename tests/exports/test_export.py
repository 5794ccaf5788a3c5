"""What is exported where, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import LocalTokenNotFoundError

from conftest import Call
from knowundo.errors import BadInput, NoRoom
from knowundo.exports.export import export
from knowundo.exports.merging import BESIDE, GIB
from knowundo.runs.run import Run


def test_what_does_not_exist_is_named(done: Run, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="did you mean 'memorized'"):
        export(done, "memorised", tmp_path / "x")
    with pytest.raises(BadInput, match="known: m, memorized"):
        export(done, "zzz", tmp_path / "x")
    for words, said in (
        ({"shard_size": "big"}, "--shard-size big: not a size; say 500MB or 5GB"),
        ({"form": "gguf"}, "unknown format 'gguf'"),
        ({"push_to_hub": "a/b/c"}, "--push-to-hub a/b/c: not an id"),
    ):
        with pytest.raises(BadInput, match=said):
            export(done, "m", tmp_path / "x", **words)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_not_unlearned_yet(full: Run, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"unlearned/m: not there; run `knowundo unlearn"):
        export(full, "m", tmp_path / "x")


def test_a_folder_of_others_is_left_alone(done: Run, adapter: Path, tmp_path: Path) -> None:
    def refused(folder: Path, said: str) -> None:
        before = {f: f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
        with pytest.raises(BadInput, match=said):
            export(done, "m", folder)
        assert {f: f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()} == before

    mine = tmp_path / "mine"
    (mine / "deep").mkdir(parents=True)
    (mine / "deep" / "thesis.txt").write_text("years")
    refused(mine, "holds deep/thesis.txt, which no export wrote")
    (mine / "manifest.json").write_text("[]")
    refused(mine, "which no export wrote")
    refused(done.memorized, "which no export wrote")  # it has a manifest, of a stage
    earlier = shutil.copytree(adapter, tmp_path / "earlier")
    (earlier / "notes.md").write_text("mine")
    refused(earlier, "holds notes.md, which no export wrote")
    with pytest.raises(BadInput, match=r"notes\.md: is a file"):
        export(done, "m", earlier / "notes.md")
    (earlier / "notes.md").unlink()
    export(done, "memorized", earlier)
    assert "# demo: memorized" in (earlier / "README.md").read_text()
    (tmp_path / "empty").mkdir()
    export(done, "m", tmp_path / "empty")


def test_no_room(done: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(GIB, GIB - BESIDE, BESIDE))
    said = r"--to .*new/x: needs 0\.06 GiB, and 0\.06 GiB are free there; make room"
    with pytest.raises(BadInput, match=said):
        export(done, "m", tmp_path / "new" / "x", form="merged")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_leaves_nothing(
    done: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*words: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("knowundo.exports.adapters.save_state", full)
    with pytest.raises(NoRoom, match=r"no room left to write it"):
        export(done, "m", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


class Hub:
    """Stands for the hub's client."""

    calls: list[tuple[str, dict[str, Any]]] = []  # noqa: RUF012
    error: Exception | None = None

    def create_repo(self, repo_id: str, **rest: Any) -> str:
        self.calls.append((repo_id, rest))
        if self.error:
            raise self.error
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, **rest: Any) -> None:
        assert (rest["folder_path"] / "README.md").is_file()
        self.calls.append((rest["repo_id"], rest))


def test_it_is_pushed_privately(done: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("knowundo.exports.export.HfApi", Hub)
    monkeypatch.setattr(Hub, "calls", [])
    handed = export(done, "m", tmp_path / "x", push_to_hub="me/forgetful")
    assert handed.url == "https://huggingface.co/me/forgetful"
    (created, options), (uploaded, _) = Hub.calls
    assert created == uploaded == "me/forgetful"
    assert options == {"exist_ok": True, "private": True}
    assert 'model_id = "me/forgetful"' in (tmp_path / "x" / "README.md").read_text()
    monkeypatch.setattr(Hub, "error", LocalTokenNotFoundError("Token is required\nlong advice"))
    with pytest.raises(BadInput, match=r"not uploaded \(Token is required\); .* is complete") as e:
        export(done, "m", tmp_path / "x", push_to_hub="me/forgetful")
    assert "\n" not in str(e.value)
    assert (tmp_path / "x" / "README.md").is_file()


def test_without_a_network_the_push_is_one_line(done: Run, tmp_path: Path) -> None:
    """The real client; the tests run with HF_HUB_OFFLINE."""
    with pytest.raises(BadInput, match="--push-to-hub me/forgetful: not uploaded") as error:
        export(done, "m", tmp_path / "x", push_to_hub="me/forgetful")
    assert "\n" not in str(error.value)


def test_command(done: Run, knowundo: Call, tmp_path: Path) -> None:
    out = str(done.out)
    asked = knowundo("export", out, "--variant", "m", "--to", "handed", "--json")
    assert asked.returncode == 0, asked.stderr
    found = json.loads(asked.stdout)
    assert (found["folder"], found["form"], found["probes"]) == ("handed", "adapter", 9)
    assert found["largest_difference"] == 0
    assert found["url"] is None
    assert "adapter_model.safetensors" in found["files"]
    again = knowundo("export", out, "--variant", "m", "--to", "handed", "--format", "merged")
    assert again.returncode == 0, again.stderr
    for words in ("folder: handed", "form: merged", "largest difference of a logit: "):
        assert words in again.stdout
    assert not (tmp_path / "handed" / "adapter_config.json").exists()
    wrong = knowundo("export", out, "--variant", "mm", "--to", "x")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.strip().split("\n")[-1] == (
        "error: unknown variant 'mm'; did you mean 'm'?"
    )
    assert "holds no run" in knowundo("export", "gone", "--variant", "m", "--to", "x").stderr
