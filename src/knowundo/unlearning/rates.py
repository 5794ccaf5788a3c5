"""Which learning rate to unlearn at, where the user named none.

The attempts of a search are kept as they are made: killed and begun again, it trains no rate twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from knowundo.modeling.model import Model
from knowundo.scoring.teacher_forcing import token_accuracy
from knowundo.storage.checkpoints import Checkpoint
from knowundo.unlearning.early_stopping import Watch
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import Unlearned, unlearn

# `lr: auto` tries this rate first, searches between these bounds, makes at most so many attempts,
# and is content when the token accuracy comes this near to its goal.
FIRST_RATE, BOUNDS, ATTEMPTS, NEAR = 2e-3, (1e-4, 4e-2), 5, 0.06
# These rates, and guesses, are a LoRA's; training all weights takes a tenth of them (Schulman et
# al. 2025, "LoRA Without Regret").
ALL_WEIGHTS = 0.1
# Share of the way to not knowing that a watched attempt must go.
ENOUGH = 0.5

# What is said of an attempt, and how it ranks: of two, the one that ranks higher is kept.
Judge = Callable[[Unlearned], tuple[dict[str, Any], tuple[float, ...]]]


class _Search:
    """Attempts at several rates, each judged, the best one's weights held."""

    def __init__(
        self, start: Start, judge: Judge, checkpoint: Checkpoint | None, settings: dict[str, Any]
    ) -> None:
        self.start, self.judge, self.checkpoint, self.settings = start, judge, checkpoint, settings
        self.made: list[dict[str, Any]] = []
        self.best: Unlearned | None = None
        self._rank: tuple[float, ...] = ()
        self._state: dict[str, torch.Tensor] = {}
        self._before: dict[float, dict[str, Any]] = {}
        held = checkpoint.read() if checkpoint else None
        if held is not None:
            self._before = {row["lr"]: row for row in held.facts["made"]}
            self.best = Unlearned(held.facts["curve"], held.facts["best"])
            self._rank, self._state = tuple(held.facts["rank"]), held.tensors

    def at(self, lr: float) -> dict[str, Any]:
        """Train at a rate, or read what came of it before."""
        if lr in self._before:
            self.made.append(self._before[lr])
            return self._before[lr]
        training = self.checkpoint.within(f"lr-{lr}", lr) if self.checkpoint else None
        done = unlearn(self.start, lr=lr, checkpoint=training, **self.settings)
        row, rank = self.judge(done)
        self.made.append({"lr": lr} | row)
        if self.best is None or rank > self._rank:
            self.best, self._rank = done, rank
            self._state = self.start.model.state(self.start.held)
        if self.checkpoint and training:
            facts = {"made": self.made, "rank": self._rank}
            best = {"curve": self.best.curve, "best": self.best.facts}
            self.checkpoint.write(facts | best, self._state)
            training.clear()
        return self.made[-1]

    def end(self) -> Unlearned:
        """Make the model that of the best attempt."""
        if self.best is None:
            raise ValueError("no attempt was made")
        self.start.model.overwrite(self._state)
        self.best.facts["attempts"] = self.made
        return self.best


def first_rate(model: Model) -> float:
    """A rate to begin with, by the width of the model.

    5e-5 · (2000 / hidden size)^0.781, ten times that for a LoRA: the fit to Llama of Schulman et
    al. 2025, "LoRA Without Regret" (published with tinker-cookbook).
    """
    hidden = model.causal_lm().get_input_embeddings().embedding_dim  # type: ignore[operator]
    lora = 1.0 if model.adaptation.kind == "full" else 1 / ALL_WEIGHTS
    return float(f"{5e-5 * lora * (2000 / hidden) ** 0.781:.2g}")


def unlearn_watched(
    start: Start,
    watch: Watch,
    *,
    lr: float | None = None,
    attempts: int = 3,
    checkpoint: Checkpoint | None = None,
    **settings: Any,
) -> Unlearned:
    """`unlearn` with a watch, at a rate that need not be known.

    If the first rate goes less than half of the way it is raised threefold, else lowered, and on in
    that direction as long as the best look gets better. The best look of all attempts is kept.

    Args:
        start: as for `unlearn`.
        watch: what is looked at.
        lr: the first rate; none: `first_rate`.
        attempts: at most so many.
        checkpoint: gone on from, and written now and then.
        settings: of `unlearn`, without `lr` and `watch`.
    """
    search = _Search(start, _by_looks, checkpoint, settings | {"watch": watch})
    rate = first_rate(start.model) if lr is None else lr
    best, factor = 0.0, 0.0  # of none yet
    while len(search.made) < attempts:
        seen = search.at(rate)
        if seen["unlearn"] is None:  # diverged
            rate = float(f"{rate / 3:.2g}")
            continue
        if best > 0 and seen["score"] <= best:
            break
        if not factor:
            factor = 3.0 if seen["forgotten"] < ENOUGH else 1 / 3
        best = seen["score"]
        rate = float(f"{rate * factor:.2g}")
    return search.end()


def _by_looks(done: Unlearned) -> tuple[dict[str, Any], tuple[float, ...]]:
    """The best look of an attempt; one that diverged is kept only where no other is."""
    names = ("unlearn", "retention", "forgotten", "score")
    if "diverged" in done.facts:
        return dict.fromkeys(names) | {"score": 0.0}, (0.0,)
    end = done.facts["best"]
    return {name: end[name] for name in names}, (1.0, end["score"])


def unlearn_at_chosen_rate(
    start: Start,
    target: float,
    *,
    guess: float | None = None,
    checkpoint: Checkpoint | None = None,
    **settings: Any,
) -> Unlearned:
    """`unlearn` at the rate that the rule of `choose_rate` picks; the best attempt is kept.

    The facts list every attempt with its token accuracy on the train rows of both scopes; only
    the unlearn scope's is looked at.

    Args:
        start: as for `unlearn`.
        target: token accuracy on the unlearn train rows of a model that never saw them, in
            [0, 1].
        guess: the rate to try second.
        checkpoint: gone on from, and written now and then.
        settings: of `unlearn`, without `lr`.
    """
    scale = ALL_WEIGHTS if start.model.adaptation.kind == "full" else 1.0

    def judge(done: Unlearned) -> tuple[dict[str, Any], tuple[float, ...]]:
        if "diverged" in done.facts:
            return {"unlearn": None, "retention": None}, (0.0, 0.0, -done.facts["lr"])
        left = token_accuracy(start.model, start.unlearn_rows)
        retained = token_accuracy(start.model, start.kept_rows["retention"])
        # The order of choose_rate: the nearest, and of equal ones the lowest rate.
        rank = 1.0, -abs(left - target), -done.facts["lr"]
        return {"unlearn": left, "retention": retained}, rank

    search = _Search(start, judge, checkpoint, settings)

    def attempt(rate: float) -> float:
        left = search.at(float(f"{scale * rate:.2g}"))["unlearn"]
        return math.inf if left is None else float(left)

    choose_rate(attempt, target, guess=guess)
    return search.end()


def choose_rate(
    attempt: Callable[[float], float],
    target: float,
    *,
    guess: float | None = None,
    attempts: int = ATTEMPTS,
) -> float:
    """The rule of `lr: auto`: the rate that forgets just as much as never having learned.

    Looks at unlearn/train rows only: `attempt(rate)` trains at a rate and returns the token
    accuracy on them (infinity: diverged). Of the rates tried, the one whose accuracy comes nearest
    to `target` is taken: less would leave knowledge, more would be overshoot. As forgetting grows
    with the rate, rates after the first (and the guess, if there is one) are tried by false
    position on the logarithm of the rate, kept to the middle half of the bracket, until one is
    within `NEAR` or `attempts` are used up.
    """
    low, high = ((math.log(rate), end) for rate, end in zip(BOUNDS, (1.0, 0.0), strict=True))
    rate, tried = FIRST_RATE, dict[float, float]()
    while rate not in tried and len(tried) < attempts:
        accuracy = tried[rate] = attempt(rate)
        if abs(accuracy - target) <= NEAR:
            break
        # Past the rate at which training diverges there is nothing to find.
        if accuracy <= target or not math.isfinite(accuracy):
            high = math.log(rate), min(accuracy, target)
        else:
            low = math.log(rate), accuracy
        share = (low[1] - target) / max(low[1] - high[1], 1e-9)
        place = low[0] + min(max(share, 0.25), 0.75) * (high[0] - low[0])
        rate = float(f"{math.exp(place):.2g}")
        if guess is not None and low[0] < math.log(guess) < high[0]:
            rate, guess = guess, None
    return min(tried, key=lambda rate: (abs(tried[rate] - target), rate))
