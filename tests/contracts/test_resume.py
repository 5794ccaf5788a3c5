"""Killed at any checkpoint, or between two, work resumes to the bits of undisturbed work."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from conftest import randomize, score
from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput
from knowundo.localization.search import LocalizeSettings, localize
from knowundo.memorization import MemorizeSettings, memorize
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.model import Model
from knowundo.modeling.multi_adapter import batched_adapters
from knowundo.modeling.variant import ModelVariant
from knowundo.modeling.weights import save_state
from knowundo.recipes.values import QUIRKS
from knowundo.scoring.table import score_adapters
from knowundo.storage import checkpoints
from knowundo.storage.checkpoints import Checkpoint
from knowundo.storage.job import Job
from knowundo.unlearning.early_stopping import StoppingRule
from knowundo.unlearning.original.start import OriginalStart
from knowundo.unlearning.rates import unlearn_at_chosen_rate, unlearn_with_early_stopping
from knowundo.unlearning.sequence import unlearn_in_sequence
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import Unlearned, unlearn

Rows = dict[str, list[Encoded]]
Work = Callable[[Checkpoint | None], Any]


class Killed(BaseException):
    """What `except Exception` does not catch, as nothing catches a kill."""


class Kills:
    """Makes every moment due for a checkpoint, and kills before or after some of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left, self.after, self.written = 10**9, False, 0
        write = Checkpoint.write

        def killing(checkpoint: Checkpoint, *args: Any) -> None:
            self.left -= 1
            if self.left < 0 and not self.after:
                raise Killed
            write(checkpoint, *args)
            self.written += 1
            if self.left < 0:
                raise Killed

        monkeypatch.setattr(checkpoints, "EVERY", 0.0)
        monkeypatch.setattr(checkpoints, "SHARE", 1e9)
        monkeypatch.setattr(Checkpoint, "write", killing)

    def until_done(self, work: Work, folder: Path, every: int) -> tuple[Any, int]:
        """Kill the work at every so many checkpoints until it ends; also how often that was."""
        killed = 0
        while True:
            self.left, self.after = every, bool(killed % 2)
            try:
                done = work(Checkpoint(folder, ["inputs"]))
            except Killed:
                killed += 1
                assert killed < 200, "no life gets further than the one before"
            else:
                return done, killed


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> Kills:
    return Kills(monkeypatch)


def lora(toy_base: str) -> Model:
    """One whose dropout draws random numbers in every step."""
    return Model(toy_base, Adaptation("lora", 4, 8, dropout=0.2))


def of_kind(toy_base: str, kind: str) -> Model:
    return lora(toy_base) if kind == "lora" else Model(toy_base, Adaptation("full"))


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return set(first) == set(second) and all(torch.equal(first[n], second[n]) for n in first)


def learned(model: Model, rows: Rows, checkpoint: Checkpoint | None) -> Any:
    model.reset()
    return memorize(
        model,
        [*rows["unlearn"], *rows["retention"]],
        settings=MemorizeSettings(
            epochs=6, lr=1e-2, batch_size=2, accumulation=2, weight_decay=0.01, known=0.9, seed=0
        ),
        job=Job(checkpoint=checkpoint),
    )


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_memorizing(toy_base: str, toy_rows: Rows, tmp_path: Path, kills: Kills, kind: str) -> None:
    model = of_kind(toy_base, kind)
    whole = learned(model, toy_rows, None)
    state = model.state()
    again = of_kind(toy_base, kind)
    torch.manual_seed(99)
    resumed, killed = kills.until_done(
        lambda checkpoint: learned(again, toy_rows, checkpoint), tmp_path / "c", 2
    )
    assert killed >= 3
    assert resumed == whole
    assert same(again.state(), state)


# The memorized model of each kind, learned once.
MEMORIZED: dict[tuple[str, str], dict[str, torch.Tensor]] = {}


def unlearned(
    toy_base: str, rows: Rows, kind: str, checkpoint: Checkpoint | None, **settings: Any
) -> tuple[dict[str, torch.Tensor], Unlearned]:
    """As a new process would: from the files of the base and the memorized model."""
    model = of_kind(toy_base, kind)
    if (toy_base, kind) not in MEMORIZED:
        learned(model, rows, None)
        MEMORIZED[toy_base, kind] = model.state()
    model.restore(MEMORIZED[toy_base, kind])
    options: dict[str, Any] = {"epochs": 4, "batch_size": 2, "accumulation": 1} | settings
    start = options.pop("begin", Start)(model, rows["unlearn"], rows, seed=0)
    work = options.pop("work", unlearn)
    done = work(start, UnlearnSettings(**options), job=Job(checkpoint=checkpoint))
    done.facts.pop("seconds")
    return model.state(), done


def rule_of(rows: Rows) -> StoppingRule:
    return StoppingRule(rows["unlearn"], rows["retention"], 0.0, 50.0, 4, 3)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("lora", {"method": "ascent_plus_kl_divergence"}),
        ("full", {"method": "npo"}),
        ("full", {"method": "adaptive_rmu"}),
        ("lora", {"method": "pdu", "lr": 1e-3, "arguments": {"warmup": 0.3}}),
        ("lora", {"method": "npo", "gradients": "gru", "accumulation": 2, "lr": 1e-3}),
        ("lora", {"method": "npo", "gradients": {"name": "sam", "rho": 0.1}, "lr": 1e-3}),
        ("lora", {"method": "siblings", "retain_on": ["retention", "general"], "retained": 3}),
    ],
)
def test_unlearning(
    toy_base: str, toy_rows: Rows, tmp_path: Path, kills: Kills, kind: str, more: Any
) -> None:
    """These methods read the memorized model, which is no longer there when training resumes."""
    settings: dict[str, Any] = {"lr": 5e-3} | more
    settings["work"] = partial(unlearn, rule=rule_of(toy_rows))
    settings["keep_every"] = 4
    state, whole = unlearned(toy_base, toy_rows, kind, None, **settings)
    (again, resumed), killed = kills.until_done(
        lambda checkpoint: unlearned(toy_base, toy_rows, kind, checkpoint, **settings),
        tmp_path / "c", 2,
    )  # fmt: skip
    assert killed >= 2
    assert resumed.curve == whole.curve
    assert resumed.facts == whole.facts
    assert same(again, state)
    assert [one.step for one in resumed.kept] == [one.step for one in whole.kept]
    assert whole.kept[0].step == 4
    for one, other in zip(resumed.kept, whole.kept, strict=True):
        assert same(one.state, other.state)


def test_methods_one_after_another(
    toy_base: str, toy_rows: Rows, tmp_path: Path, kills: Kills
) -> None:
    """Killed in any of them: what is complete is not trained again."""
    further = UnlearnSettings("undo", 3, 2, 1, lr=5e-3, arguments={"shrink": 0.5, "noise": 0.1})

    def both(start: Start, first: UnlearnSettings, job: Job) -> Unlearned:
        trained = partial(unlearn, start, first)
        return unlearn_in_sequence(start, lambda own: trained(job=own), [further], job)

    settings: dict[str, Any] = {"method": "npo", "lr": 5e-3, "work": both}
    state, whole = unlearned(toy_base, toy_rows, "lora", None, **settings)
    (again, resumed), killed = kills.until_done(
        lambda checkpoint: unlearned(toy_base, toy_rows, "lora", checkpoint, **settings),
        tmp_path / "c", 2,
    )  # fmt: skip
    assert killed >= 3
    for done in (whole, resumed):
        assert done.facts["then"][0].pop("seconds") >= 0
    assert resumed.curve == whole.curve
    assert resumed.facts == whole.facts
    assert same(again, state)


@pytest.mark.parametrize("quirks", [QUIRKS, ("reference_dropout", "bfloat16_updates")])
def test_unlearning_as_the_original(
    toy_base: str, toy_rows: Rows, tmp_path: Path, kills: Kills, quirks: tuple[str, ...]
) -> None:
    """What the reference drops is drawn anew in each step; AdamW's moments are of bfloat16."""
    settings: dict[str, Any] = {"method": "ascent_plus_kl_divergence", "lr": 5e-3}
    settings["begin"] = partial(OriginalStart, quirks=quirks)
    state, whole = unlearned(toy_base, toy_rows, "lora", None, **settings)
    (again, resumed), killed = kills.until_done(
        lambda checkpoint: unlearned(toy_base, toy_rows, "lora", checkpoint, **settings),
        tmp_path / "c", 1,
    )  # fmt: skip
    assert killed >= 2
    assert resumed.curve == whole.curve
    assert same(again, state)


@pytest.mark.parametrize("search", [unlearn_at_chosen_rate, unlearn_with_early_stopping])
def test_searching_a_rate_trains_no_rate_twice(
    toy_base: str, toy_rows: Rows, tmp_path: Path, kills: Kills, search: Any
) -> None:
    settings: dict[str, Any] = {"method": "gradient_ascent", "epochs": 2}
    if search is unlearn_with_early_stopping:
        settings |= {"lr": 1e-4}
        aim: Any = rule_of(toy_rows)
    else:
        aim = 0.12
    settings["work"] = lambda start, *rest, **named: search(start, aim, *rest, **named)
    state, whole = unlearned(toy_base, toy_rows, "lora", None, **settings)
    assert len(whole.facts["attempts"]) > 1
    (again, resumed), killed = kills.until_done(
        lambda checkpoint: unlearned(toy_base, toy_rows, "lora", checkpoint, **settings),
        tmp_path / "c", 6,
    )  # fmt: skip
    assert killed >= 2
    assert resumed == whole
    assert same(again, state)


@pytest.mark.parametrize("held", [None, 3000])
def test_localizing(
    toy_base: str, toy_rows: Rows, tmp_path: Path, kills: Kills, held: int | None
) -> None:
    model = Model(toy_base, Adaptation("full"))

    def find(checkpoint: Checkpoint | None) -> Any:
        return localize(
            model,
            toy_rows["unlearn"],
            toy_rows["retention"],
            LocalizeSettings(
                {"memflex": {}, "saliency": {}},
                copies=2,
                batch_size=2,
                draws=1,
                seed=0,
                held=held,
            ),
            job=Job(checkpoint=checkpoint),
        )

    whole = find(None)
    resumed, killed = kills.until_done(find, tmp_path / "c", 4)
    assert killed >= 2
    assert resumed == whole


def test_scoring(toy: Model, toy_rows: Rows, tmp_path: Path, kills: Kills) -> None:
    rows = [*toy_rows["unlearn"], *toy_rows["retention"]]

    def scored(checkpoint: Checkpoint | None) -> pd.DataFrame:
        return score(toy, rows, generated_splits=["train", "val"], checkpoint=checkpoint)

    whole = scored(None)
    resumed, killed = kills.until_done(scored, tmp_path / "c", 2)
    assert killed >= 2
    pd.testing.assert_frame_equal(resumed, whole)


def test_scoring_batched_adapters(toy: Model, toy_rows: Rows, tmp_path: Path, kills: Kills) -> None:
    rows = [*toy_rows["unlearn"], *toy_rows["retention"]]
    (new := tmp_path / "adapter").mkdir()
    randomize(toy, seed=5)
    save_state(toy, new)
    variants = [ModelVariant("base", "base"), ModelVariant("a", "given", new)]

    def scored(checkpoint: Checkpoint | None) -> pd.DataFrame:
        with batched_adapters(toy, variants) as forward:
            how = {"generated_splits": ["train"], "checkpoint": checkpoint}
            tables = score_adapters(forward, rows, **how)  # type: ignore[arg-type]
        return pd.concat(tables)

    whole = scored(None)
    resumed, killed = kills.until_done(scored, tmp_path / "c", 2)
    assert killed >= 2
    pd.testing.assert_frame_equal(resumed, whole)


def test_of_other_inputs_nothing_is_taken(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "c", [1]).write({"step": 3}, {})
    assert Checkpoint(tmp_path / "c", [2]).read() is None
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("name", ["1.json", "1.safetensors"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    Checkpoint(tmp_path / "c", []).write({"step": 3}, {"w": torch.ones(40)})
    file = tmp_path / "c" / name
    content = bytearray(file.read_bytes())
    place = content.index(b"3" if name.endswith("json") else b"\x3f", len(content) // 3)
    content[place] ^= 2
    file.write_bytes(content)
    with pytest.raises(BadInput, match=r"changed since it was written.*begin again"):
        Checkpoint(tmp_path / "c", []).read()


def test_killed_between_the_two_files_the_older_pair_stands(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c", [])
    checkpoint.write({"step": 1}, {"w": torch.ones(2)})
    (tmp_path / "c" / "2.safetensors").write_bytes(b"half of a file")
    state = Checkpoint(tmp_path / "c", []).read()
    assert state is not None
    assert state.facts == {"step": 1}
    again = Checkpoint(tmp_path / "c", [])
    again.write({"step": 2}, {"w": torch.zeros(2)})
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["2.json", "2.safetensors"]
