"""An exported guard, loaded again, says what the run's own guarded model says."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from exports.runs import tiny
from knowundo import load_guarded
from knowundo.errors import BadInput
from knowundo.exports.export import _chosen, export
from knowundo.modeling.forward import Forward, answer_logits
from knowundo.modeling.guarded import guarded_forward
from knowundo.modeling.variant import ModelVariant
from knowundo.pipeline.localization import localize
from knowundo.pipeline.memorization import memorize
from knowundo.pipeline.unlearning import unlearn
from knowundo.runs.run import Run
from knowundo.scoring.generation import complete

GUARDS = ("prompt_refusal", "icul", "eco", "uld")


@pytest.fixture(scope="module")
def guards(base: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with every guard, not evaluated."""
    presets = ", ".join(f"{{preset: {name}}}" for name in GUARDS)
    sets = (f"unlearn.variants=[{presets}]", "data.subjects=1")
    run = tiny(base, tmp_path_factory.mktemp("runs") / "guards", *sets)
    for stage in (memorize, localize, unlearn):
        stage(run)
    return run


@pytest.mark.parametrize(
    ("name", "form"), [("prompt_refusal", "adapter"), ("uld", "adapter"), ("eco", "merged")]
)
def test_it_says_what_the_run_says(guards: Run, tmp_path: Path, name: str, form: str) -> None:
    rows = guards.encoded("unlearn", "train")[:2]
    (variant,) = (v for v in guards.variants() if v.name == name)
    with guarded_forward(guards.model, variant) as forward:
        wanted = dict(answer_logits(forward, rows))
        asked = [row.prompt for row in rows]
        said = complete(guards.model, asked, tokens=5, forward=forward)
    done = export(guards, name, tmp_path / "out", form=form)  # type: ignore[arg-type]
    assert done.form == form
    loaded = load_guarded(done.folder, device="cpu")
    for row, logits in wanted.items():
        found = loaded.logits(row.prompt, row.ids[row.answer_from :])
        torch.testing.assert_close(found, logits, rtol=1e-3, atol=1e-3)
        text = f"{row.record.question}\n\n"
        assert loaded.ids(text) == row.prompt
    assert loaded.generate(asked, max_new_tokens=5) == [text for text, _ in said]
    # The model behind the guard answers otherwise, which is why it has to be kept as the records.
    guards.model.use(guards.start)
    for row, logits in answer_logits(Forward(guards.model), rows):
        assert not torch.allclose(logits, wanted[row], atol=1e-2)


def test_the_card_says_what_the_folder_holds(guards: Run, tmp_path: Path) -> None:
    export(guards, "eco", tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "weights still hold all of them**" in text
    assert "| classifier accuracy unseen |" in text
    code = text.split("```python\n")[1].split("\n```")[0]
    compile(code, "card", "exec")
    assert 'load_guarded("path/to/this/folder")' in code
    assert "nothing\nwas removed" in text
    held = json.loads((tmp_path / "out" / "guard.json").read_text())
    assert (held["guard"], held["changes"]) == ("eco", "embeddings")


def test_an_assistant_needs_the_base_itself(guards: Run, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="assistant is a LoRA beside the base"):
        export(guards, "uld", tmp_path / "out", form="merged")
    assert not (tmp_path / "out").exists()


def test_what_is_no_guard_is_refused(guards: Run, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"guard\.json: no such file; name a folder that a guard"):
        load_guarded(guards.memorized)
    (tmp_path / "guard.json").write_text('{"guard": "eco"}')
    with pytest.raises(BadInput, match=r"guard\.json: not a guard; make it again"):
        load_guarded(tmp_path)
    export(guards, "eco", tmp_path / "out")
    (tmp_path / "out" / "guard.safetensors").write_bytes(b"no tensors")
    with pytest.raises(BadInput, match=r"guard\.safetensors: damaged"):
        load_guarded(tmp_path / "out", device="cpu")


@pytest.mark.parametrize(
    ("guard", "said"),
    [(Path("guard"), "a guard before the base itself"), (None, "this is the base")],
)
def test_there_are_no_weights_to_export_of_the_base(guard: Path | None, said: str) -> None:
    """The base itself knew the records, so that nothing was trained."""
    variant = ModelVariant("own", "unlearned", None, guard=guard)
    run: Any = SimpleNamespace(check_current=lambda: None, variants=lambda: [variant])
    with pytest.raises(BadInput, match=f"variant own: {said}.*no weights to export"):
        _chosen(run, "own")
