"""Which models a run scores, and under which names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from knowundo.errors import BadInput
from knowundo.runs.run import Run
from knowundo.storage.artifacts import new_folder
from tiny_run import tiny_run


@pytest.fixture
def run(toy_base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose inputs need no model."""
    run = tiny_run(tmp_path / "run", toy_base)
    for name in ("inputs", "variants"):
        monkeypatch.setattr(f"knowundo.runs.{name}.unlearn_inputs", lambda _, plan: [plan.lr])
    return run


def make(run: Run, name: str, inputs: list[object], **facts: object) -> None:
    with new_folder(run.unlearned(name), inputs, **facts) as aside:
        (aside / "weights").write_text(name)


def test_given_models_have_names_of_their_own(toy_base: str, tmp_path: Path) -> None:
    for name in ("x/a b", "y/a_b", "z/memorized"):
        (tmp_path / name).mkdir(parents=True)
    paths = [str(tmp_path / name) for name in ("x/a b", "y/a_b", "z/memorized")]
    run = tiny_run(tmp_path / "run", toy_base, f"evaluate.models={json.dumps(paths)}")
    names = [variant.name for variant in run.given_models()]
    assert names == ["a_b", "y_a_b", "z_memorized"]


def test_kept_steps_come_before_their_variant(run: Run) -> None:
    name = "gradient_ascent"
    assert [v.name for v in run.variants()] == ["base", "memorized"]
    make(run, f"{name}.step-2", [None, 2])
    make(run, name, [None], kept_steps=[2, 4])  # step 4 was removed
    assert [v.name for v in run.variants()][2:] == [f"{name}.step-2", name]
    assert {v.role for v in run.variants()[2:]} == {"unlearned"}


def test_an_outdated_variant_is_refused(run: Run) -> None:
    make(run, "gradient_ascent", ["of other inputs"])
    assert run.made_variants() == ([], ["gradient_ascent"])
    with pytest.raises(BadInput, match=r"gradient_ascent: made of other inputs .*knowundo unlearn"):
        run.variants()
