"""Which files of a model are certified."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowundo.certificate.delivery import parents_of
from knowundo.certificate.model_files import GUARD, model_files
from knowundo.errors import BadInput
from knowundo.modeling import guard_files
from knowundo.modeling.variant import ModelVariant
from knowundo.runs.run import Run
from knowundo.storage.files import file_hash


def test_what_a_loader_reads_is_certified(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for name in ("a.safetensors", "config.json", "curve.json", "README.md", "inner/b.safetensors"):
        (tmp_path / name).write_text(name)
    found = {one.name: one.sha256 for one in model_files(tmp_path)}
    assert set(found) == {"a.safetensors", "config.json", "inner/b.safetensors"}
    assert found["config.json"] == file_hash(tmp_path / "config.json")


def test_a_folder_without_weights_is_refused_unless_it_is_a_guard(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadInput, match="holds no weights"):
        model_files(tmp_path)
    assert guard_files.GUARD == GUARD
    (tmp_path / GUARD).write_text("{}")
    assert GUARD in {one.name for one in model_files(tmp_path)}


def test_the_model_behind_a_guard_is_named(run: Run) -> None:
    def roles(variant: ModelVariant) -> list[str]:
        return [parent.role for parent in parents_of(run, variant)]

    assert roles(ModelVariant("m", "unlearned", run.memorized)) == ["base"]
    guarded = ModelVariant("m", "unlearned", run.memorized, guard=run.out / "guard")
    assert roles(guarded) == ["base", "memorized"]
    hashes = {one.name for one in parents_of(run, guarded)[1].files}
    assert hashes == {"adapter_model.safetensors", "adapter_config.json"}
