"""How the base of a recipe is loaded, and with which tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from knowundo.errors import BadInput
from knowundo.recipes.reading import load_recipe
from knowundo.recipes.schema import Recipe
from knowundo.runs import base as module
from knowundo.runs.base import (
    NamedBase,
    adopting_model,
    base_knows,
    model_options,
    say_remote_code,
    settle_machine,
    tokenizer_of,
)  # fmt: skip
from knowundo.runs.recipe_file import write_recipe_file
from tiny_run import Said


def recipe(*sets: str) -> Recipe:
    return load_recipe(None, list(sets))[0]


def test_a_base_knows_the_records_if_it_adopts_itself(toy_base: str) -> None:
    assert not base_knows(recipe(f"model.base={toy_base}"))
    own = recipe(
        f"model.base={toy_base}", f"memorize.adopt={toy_base}", "memorize.retain_model=false"
    )
    assert base_knows(own)
    assert not base_knows(recipe(f"model.base={toy_base}", "memorize.adopt=elsewhere"))


def test_code_of_others_is_told(toy_base: str) -> None:
    said = Said()
    say_remote_code(recipe().model, said)
    assert said.lines == []
    trusting = recipe(f"model.base={toy_base}", "model.trust_remote_code=true")
    say_remote_code(trusting.model, said)
    assert len(said.lines) == 1
    assert toy_base in said.lines[0]


def test_a_dtype_is_chosen_once_for_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run keeps it, though the machine would choose another one now."""
    chosen = iter([("bfloat16", "first"), ("float32", "second")])
    monkeypatch.setattr(module, "choose", lambda *_, **__: next(chosen))
    own = ("model.device=cpu", "model.threads=1", "model.adaptation=lora")
    said, asked = Said(), recipe("model.dtype=auto", *own)
    settled = settle_machine(asked, tmp_path, said)
    assert settled.model.dtype == "bfloat16"
    assert "model.dtype auto: bfloat16; first" in said.lines
    told = said.lines.count("model.dtype auto: bfloat16; first")
    write_recipe_file(tmp_path, {}, settled.model_dump(mode="json"))
    assert settle_machine(asked, tmp_path, said).model.dtype == "bfloat16"
    assert told == said.lines.count("model.dtype auto: bfloat16; first") == 1
    assert next(chosen) == ("float32", "second")  # nobody has asked for it
    assert (
        settle_machine(recipe("model.dtype=float32", *own), tmp_path, said).model.dtype == "float32"
    )


def test_options_of_the_model_are_those_of_the_recipe() -> None:
    settled = ("model.device=cpu", "model.threads=1", "model.dtype=float32")
    options = model_options(recipe("seed=3", "model.gradient_checkpointing=true", *settled))
    with pytest.raises(ValueError, match=r"model\.dtype is auto; call settle_machine first"):
        model_options(recipe(*settled[:2], "model.dtype=auto"))
    assert options["seed"] == 3
    assert options["options"].gradient_checkpointing is True


def test_an_adopted_model_of_another_kind_is_refused(toy_base: str) -> None:
    asked = recipe(
        f"model.base={toy_base}", f"memorize.adopt={toy_base}-other", "model.adaptation=lora"
    )
    full: Any = module.Adaptation("full")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "adaptation_of", lambda _: full)
        with pytest.raises(BadInput, match="set it to full or auto"):
            adopting_model(asked)


def test_a_named_base_is_known_by_the_hashes_of_its_files(toy_base: str) -> None:
    base = NamedBase(toy_base)
    *hashes, commit = base.identity()
    assert len(hashes) == len(base.files()) > 0
    assert all(len(one) == 64 for one in hashes)
    assert commit is None  # a folder is on no hub


@pytest.mark.parametrize(
    ("kinds", "taken", "said"),
    [
        ({"a": None, "b": None}, None, None),
        ({"a": "x", "b": "x"}, "a", "its own tokenizer and chat template are used"),
        ({"a": None, "b": "x"}, None, "the base's is taken for all of them"),
        ({"a": "x", "b": "y"}, None, "the base's is taken for all of them"),
    ],
)
def test_adapters_that_agree_bring_their_tokenizer(
    monkeypatch: pytest.MonkeyPatch,
    kinds: dict[str, str | None],
    taken: str | None,
    said: str | None,
) -> None:
    monkeypatch.setattr(module, "own_tokenizer", lambda folder, *_: kinds[folder.name])
    folder, note = tokenizer_of("base", [Path(name) for name in kinds])
    assert folder == taken
    assert (note is None) if said is None else (said in str(note))
