"""bfloat16 where it was measured to be faster, and only where that was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from knowundo.errors import BadInput
from knowundo.modeling import dtype as precision
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.dtype import choose, gain
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.modeling.weights import describe
from knowundo.progress import Reporter
from knowundo.recipes.reading import parse_recipe
from knowundo.runs.run import Run


class Said(Reporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.parametrize(
    ("times", "dtype"), [(2.9, "bfloat16"), (1.5, "bfloat16"), (1.4, "float32"), (0.2, "float32")]
)
def test_what_is_faster_is_taken(
    toy_base: str, monkeypatch: pytest.MonkeyPatch, times: float, dtype: str
) -> None:
    monkeypatch.setattr(precision, "SMALL_BASE", 0)
    monkeypatch.setattr(precision, "gain", lambda *_: times)
    found, why = choose(toy_base, "cpu")
    assert found == dtype
    assert f"{times:.1f} times as fast" in why


def test_a_small_base_is_left_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "gain", lambda *_: pytest.fail("measured in vain"))
    found, why = choose("embedded", "cpu")
    assert found == "float32"
    assert "1.1 M parameters are too few" in why


def test_the_gain_is_measured() -> None:
    assert 0 < gain(256, 512, "cpu") < 1000


def test_no_base(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be loaded"):
        choose(str(tmp_path / "nothing"), "cpu")


def test_a_run_resumes_with_the_dtype_it_began_with(
    toy_base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe that it writes says what was chosen, and nothing is measured a second time."""
    monkeypatch.setattr(precision, "SMALL_BASE", 0)
    monkeypatch.setattr(precision, "gain", lambda *_: 3.0)
    given = {"model": {"base": toy_base, "dtype": "auto"}}
    said = Said()
    run = Run(parse_recipe(given, "given"), tmp_path / "run", given=given, reporter=said)
    assert "model.dtype auto: bfloat16; products" in said.lines[0]
    run.claim()
    held = yaml.safe_load((run.out / "recipe.yaml").read_text())
    assert held["given"]["model"]["dtype"] == "auto"
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
