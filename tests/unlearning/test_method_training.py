"""Going back to good weights: a training that diverged is repeated, not copied."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import randomize
from knowundo.data.encoded import Encoded
from knowundo.errors import Diverged
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.model import Model
from knowundo.recipes.schema import QUIRKS
from knowundo.storage.job import Job
from knowundo.unlearning.method_training import MethodTraining
from knowundo.unlearning.original.start import OriginalStart
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn
from plugin_methods import FICKLE, STEEP, install
from unlearning.descents import Weights, between, descend, same


@pytest.fixture
def steep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(STEEP, tmp_path, monkeypatch)


@pytest.mark.usefixtures("steep")
@pytest.mark.parametrize("kind", ["lora", "full", "dropout"])
def test_the_last_good_weights_stay(
    toy_base: str, toy_rows: dict[str, list[Encoded]], kind: str
) -> None:
    """Of a training that diverges the last step stays whose loss and gradients were finite."""
    lora = Adaptation("lora", 4, 8, dropout=0.2 if kind == "dropout" else 0.0)
    model = Model(toy_base, Adaptation("full") if kind == "full" else lora)
    if kind != "full":
        randomize(model)
    start = Start(model, toy_rows["unlearn"], toy_rows, seed=0)
    whole, states = descend(start)
    assert "diverged" not in whole.facts
    losses = [row["parts"]["unlearn"] for row in whole.curve]
    first, second = sorted(losses)[:2]
    lowest = losses.index(first) + 1
    assert lowest > 2
    done, _ = descend(start, below=(first + second) / 2)
    assert done.facts["diverged"] == f"step {lowest}: a gradient is no longer finite"
    # Weights are good if the step after them was finite: those before the bad step are not.
    assert done.facts["kept_step"] == lowest - 2
    assert done.curve == whole.curve[: lowest - 1]
    assert same(model.state(), states[lowest - 2])
    assert not same(states[lowest - 2], states[lowest - 1])
    assert model.notes.texts == ()


@pytest.mark.usefixtures("steep")
def test_training_copies_no_weights(toy: Model, toy_rows: dict[str, list[Encoded]]) -> None:
    """Going back to good weights costs no copy at any step, whether training diverges or not."""
    start = Start(toy, toy_rows["unlearn"], toy_rows, seed=0)
    before = toy.snapshots.taken
    whole, _ = descend(start)
    done, _ = descend(start, below=between(whole, 4))
    assert done.facts["kept_step"] == 2
    assert toy.snapshots.taken == before
    assert set(toy.snapshots.nbytes()) == {"initial", "memorized"}


def test_a_training_that_cannot_be_repeated_says_so(
    toy: Model, toy_rows: dict[str, list[Encoded]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(FICKLE, tmp_path, monkeypatch)
    memorized = toy.state()
    start = Start(toy, toy_rows["unlearn"], toy_rows, seed=0)
    done = unlearn(start, UnlearnSettings("fickle", 6, 5, 1, lr=1e-2))
    assert "step 4" in done.facts["diverged"]
    assert done.facts["kept_step"] == 0
    assert same(toy.state(), memorized)
    assert toy.notes.texts == ("training: repeated, it diverged earlier than before",)


@pytest.mark.parametrize("quirks", [QUIRKS, ("reference_dropout", "bfloat16_updates")])
def test_trainings_of_the_original_repeat_themselves(
    toy_base: str, toy_rows: dict[str, list[Encoded]], quirks: tuple[str, ...]
) -> None:
    """To the bit, though the reference drops at random and moments are of bfloat16."""
    model = Model(toy_base, Adaptation("lora", 4, 8, dropout=0.2))
    randomize(model)
    start = OriginalStart(model, toy_rows["unlearn"], toy_rows, seed=0, quirks=quirks)
    settings = UnlearnSettings("ascent_plus_kl_divergence", 4, 2, 1, lr=5e-3)
    training, states = MethodTraining(start, settings), dict[int, Weights]()

    def note(step: int, _: int) -> None:
        states.setdefault(step, model.state())

    diverged = Diverged("as if")
    diverged.curve = training.train(job=Job(progress=note))
    diverged.step = len(diverged.curve) - 1
    assert diverged.step > 1
    assert training.repeat(diverged) == diverged.step
    assert same(model.state(), states[diverged.step])
    assert not same(states[diverged.step], states[diverged.step + 1])
    assert model.notes.texts == ()
