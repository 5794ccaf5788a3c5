"""What `model.dtype: auto` means: float32, or bfloat16 for a base that is stored in 16 bits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from knowundo.errors import BadInput
from knowundo.modeling import dtype as precision
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.dtype import choose, gain
from knowundo.modeling.hardware import automatic_device
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.modeling.weights import describe
from knowundo.progress import Reporter
from knowundo.recipes.reading import parse_recipe
from knowundo.runs.base import settle_machine
from knowundo.runs.run import Run


class Said(Reporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def stored(base: str, folder: Path, dtype: str | None, key: str = "dtype") -> str:
    """A copy of a base whose config names another dtype."""
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text())
    config = {name: value for name, value in config.items() if "dtype" not in name}
    (folder / "config.json").write_text(json.dumps(config | ({key: dtype} if dtype else {})))
    return str(folder)


@pytest.fixture
def half_base(toy_base: str, tmp_path: Path) -> str:
    """The toy base as if it were stored in bfloat16."""
    return stored(toy_base, tmp_path / "half", "bfloat16")


@pytest.mark.parametrize(
    ("times", "dtype"), [(2.9, "bfloat16"), (1.5, "bfloat16"), (1.4, "float32"), (0.2, "float32")]
)
def test_what_is_faster_is_taken(
    half_base: str, monkeypatch: pytest.MonkeyPatch, times: float, dtype: str
) -> None:
    monkeypatch.setattr(precision, "SMALL_BASE", 0)
    monkeypatch.setattr(precision, "gain", lambda *_: times)
    found, why = choose(half_base, "cpu")
    assert found == dtype
    assert f"{times:.1f} times as fast" in why


def test_a_small_base_is_left_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "gain", lambda *_: pytest.fail("measured in vain"))
    for device in ("cpu", "cuda", "mps"):
        found, why = choose("embedded", device)
        assert found == "float32"
        assert "1.1 M parameters are too few" in why


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_a_base_that_is_stored_in_float32_keeps_it(
    device: str, toy_base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "SMALL_BASE", 0)
    monkeypatch.setattr(precision, "gain", lambda *_: pytest.fail("measured in vain"))
    assert choose(toy_base, device) == ("float32", "the base is stored in float32")


@pytest.mark.parametrize(
    ("dtype", "able", "taken"),
    [
        ("bfloat16", True, "bfloat16"),
        ("float16", True, "bfloat16"),
        ("float16", False, "float32"),
        ("float32", True, "float32"),
        (None, True, "float32"),
    ],
)
@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_on_a_gpu_it_is_as_stored(
    dtype: str | None, able: bool, taken: str, key: str,
    toy_base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(precision, "SMALL_BASE", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: able)
    base = stored(toy_base, tmp_path / "base", dtype, key)
    assert choose(base, "cuda:0")[0] == taken


def test_all_weights_are_trained_in_float32(half_base: str, tmp_path: Path) -> None:
    given = {"model": {"base": half_base, "device": "mps", "adaptation": "full"}}
    section = settle_machine(parse_recipe(given, "given"), tmp_path / "run", Said()).model
    assert section.dtype == "float32"


def test_threads_of_a_run_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run has the threads that it began with, and says where a new one had others."""
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setenv("KNOWUNDO_THREADS", "3")
    recipe, out, said = parse_recipe({}, "given"), tmp_path / "run", Said()
    run = Run(recipe, out, reporter=said)
    assert (run.recipe.model.device, run.recipe.model.dtype) == (automatic_device(), "float32")
    run.claim()
    assert yaml.safe_load((out / "recipe.yaml").read_text())["effective"]["model"]["threads"] == 3
    assert Run(recipe, out, reporter=said).recipe.model.threads == 3
    assert not [line for line in said.lines if "model.threads" in line]
    monkeypatch.setenv("KNOWUNDO_THREADS", "5")
    assert Run(recipe, out, reporter=said).recipe.model.threads == 3
    assert (
        "model.threads: 3, with which this run was begun, not KNOWUNDO_THREADS=5" in said.lines[-1]
    )
    other = parse_recipe({"model": {"threads": 4}}, "given")
    with pytest.raises(BadInput, match=r"model\.threads is 3, not 4"):
        Run(other, out)


def test_the_gain_is_measured() -> None:
    assert 0 < gain(256, 512, "cpu") < 1000


def test_no_base(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be loaded"):
        choose(str(tmp_path / "nothing"), "cpu")


def test_a_run_resumes_with_the_dtype_it_began_with(
    half_base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe that it writes says what was chosen, and nothing is measured a second time."""
    monkeypatch.setattr(precision, "SMALL_BASE", 0)
    monkeypatch.setattr(precision, "gain", lambda *_: 3.0)
    given = {"model": {"base": half_base, "device": "cpu"}}
    said = Said()
    run = Run(parse_recipe(given, "given"), tmp_path / "run", given=given, reporter=said)
    assert "model.dtype auto: bfloat16; products" in said.lines[0]
    run.claim()
    held = yaml.safe_load((run.out / "recipe.yaml").read_text())
    assert "dtype" not in held["given"]["model"]
    assert held["effective"]["model"]["dtype"] == "bfloat16"
    assert str(run.model.causal_lm().dtype) == "torch.bfloat16"
    monkeypatch.setattr(precision, "gain", lambda *_: pytest.fail("measured again"))
    for again in (Run(parse_recipe(given, "given"), run.out), Run.existing(run.out)):
        assert again.recipe.model.dtype == "bfloat16"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_a_manifest_names_it(toy_base: str, dtype: str) -> None:
    assert (
        describe(Model(toy_base, Adaptation("full"), options=LoadingOptions(dtype=dtype)))["dtype"]
        == dtype
    )
