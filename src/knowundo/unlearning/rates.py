"""Search for the learning rate to unlearn at, where the user gave none.

The attempts of a search stand in its checkpoint: resumed, it trains no rate twice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from knowundo.modeling.model import Model
from knowundo.modeling.snapshots import BEST_RATE, Snapshot
from knowundo.scoring.teacher_forcing import token_accuracy
from knowundo.storage.checkpoints import State
from knowundo.storage.job import Job
from knowundo.unlearning.early_stopping import StoppingRule, percent_verbatim
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import Unlearned, unlearn

# `lr: auto` tries this rate first, searches between these bounds, makes at most so many attempts,
# and is content when the token accuracy comes this near to its goal.
FIRST_RATE, BOUNDS, ATTEMPTS, NEAR = 2e-3, (1e-4, 4e-2), 5, 0.06
# These rates, and guesses, are a LoRA's; training all weights takes a tenth of them (Schulman et
# al. 2025, "LoRA Without Regret").
ALL_WEIGHTS = 0.1
# A search with early stopping begins at this share of `first_rate`: what is unlearned at a gentle
# rate spreads less to rows that nobody named. It ends when two rates are within this ratio.
GENTLE, CLOSE = 0.1, 1.3
# A rate that unlearns enough, but loses more than this share of the floor, is followed by a lower
# one, if none within this ratio does too little.
NOTICEABLE, ROOM = 0.2, 2.0
# How many times the epochs where a rate unlearns too little and loses too much.
LONGER = 3

# What is said of an attempt, and how it ranks: of two, the one that ranks higher is kept.
Judge = Callable[[Unlearned], tuple[dict[str, Any], tuple[float, ...]]]


class _Search:
    """Attempts at several rates, each judged. It holds the weights of the best one."""

    def __init__(
        self,
        start: Start,
        settings: UnlearnSettings,
        judge: Judge,
        rule: StoppingRule | None,
        job: Job,
    ) -> None:
        self.start, self.settings, self.judge = start, settings, judge
        self.rule, self.job = rule, job
        self._began = time.perf_counter()
        self.made: list[dict[str, Any]] = []
        self.best: Unlearned | None = None
        self._rank: tuple[float, ...] = ()
        self._weights: Snapshot | None = None
        self._before: dict[tuple[float, int], dict[str, Any]] = {}
        if (held := job.resumed()) is not None:
            self._before = {(row["lr"], row["epochs"]): row for row in held.facts["made"]}
            self.best = Unlearned(held.facts["curve"], held.facts["best"])
            self._rank = tuple(held.facts["rank"])
            self._weights = start.model.snapshots.adopt(BEST_RATE, held.tensors)

    def at(self, lr: float, longer: int = 1) -> dict[str, Any]:
        """Train at a rate, or read what came of it before the search was resumed.

        Args:
            lr: The peak rate.
            longer: How many times the epochs of the settings.
        """
        epochs = longer * self.settings.epochs
        if (lr, epochs) in self._before:
            self.made.append(self._before[lr, epochs])
            return self.made[-1]
        training = self.job.part(f"lr-{lr}-epochs-{epochs}", lr)
        settings = replace(self.settings, lr=lr, epochs=epochs)
        done = unlearn(self.start, settings, rule=self.rule, job=training)
        row, rank = self.judge(done)
        self.made.append({"lr": lr, "epochs": epochs} | row)
        if self.best is None or rank > self._rank:
            self.best, self._rank = done, rank
            self._weights = None  # first, so that there are never two copies
            self._weights = self.start.model.snapshot(BEST_RATE, self.start.changed)
        # The search's state is written before the attempt's own is removed: killed in between, the
        # attempt is known and not trained again.
        if training.checkpoint is not None:
            self.job.write(self._state(self.best))
            training.checkpoint.clear()
        return self.made[-1]

    @property
    def minutes(self) -> float:
        """How long the search has taken, also before it was resumed."""
        return self.job.seconds(self._began) / 60

    def _state(self, best: Unlearned) -> State:
        facts = {"made": self.made, "rank": self._rank, "curve": best.curve, "best": best.facts}
        return State(facts, self._weights.tensors if self._weights else {})

    def end(self) -> Unlearned:
        """Make the model that of the best attempt."""
        if self.best is None or self._weights is None:
            raise ValueError("no attempt was made")
        self.start.model.overwrite(self._weights.tensors)
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


def unlearn_with_early_stopping(
    start: Start,
    rule: StoppingRule,
    settings: UnlearnSettings,
    *,
    attempts: int = 8,
    job: Job = Job(),
) -> Unlearned:
    """`unlearn` with early stopping, at the gentlest rate found that unlearns enough.

    A constrained search: unlearn enough, and answer at most `rule.left` percent of the rows
    verbatim in any wording, without losing more retention than the floor. The rate is raised
    threefold while too little is unlearned, lowered threefold while too much is lost, and bisected
    (on its logarithm) between a rate of either kind. One that does both ends the search, unless its
    loss is noticeable and there is room below it. Where a rate unlearns too little and loses too
    much, and more than a lower one, lower ones are tried with more epochs. Every attempt starts
    from the memorized model.

    Args:
        start: As for `unlearn`.
        rule: What is evaluated, what ends an attempt, and what is asked after it.
        settings: Of each attempt. Its rate is the first; if that is `None`, a tenth of
            `first_rate`.
        attempts: At most so many.
        job: Progress and checkpoint.
    """

    def judge(done: Unlearned) -> tuple[dict[str, Any], tuple[float, ...]]:
        return _by_evaluation(done, start.model, rule)

    search = _Search(start, settings, judge, rule, job)
    rate = GENTLE * first_rate(start.model) if settings.lr is None else settings.lr
    # The highest rate that does too little, and the lowest that does too much.
    low, high, longer = 0.0, math.inf, 1
    while len(search.made) < attempts and not (search.made and search.minutes > rule.minutes):
        found = search.at(float(f"{rate:.2g}"), longer)
        done = found["unlearned"] and found["within"]
        if done and (_harmless(found["lost"], rule) or rate < ROOM * low):
            break
        if _grows(search.made) and longer == 1:
            # Too little and too much, and more so above: smaller steps, and more of them.
            low, high, longer = 0.0, rate, LONGER
        elif found["unlearned"] is False and (found["within"] or longer == 1):
            low = max(low, rate)
        else:  # lost too much, diverged, or did enough and might do so at a lower rate
            high = min(high, rate)
        if high < CLOSE * low:  # as near to each other as makes a difference
            break
        rate = 3 * low if high == math.inf else high / 3 if not low else math.sqrt(low * high)
    return search.end()


def _grows(made: Sequence[Mapping[str, Any]]) -> bool:
    """True if the last attempt did too little and lost too much, and more than at a lower rate.

    Without that, a few answers that anything would change may be all that is lost.
    """
    last = made[-1]
    if last["unlearned"] is not False or last["within"]:
        return False
    return any(one["lr"] < last["lr"] and one["lost"] < last["lost"] for one in made)


def _harmless(lost: float, rule: StoppingRule) -> bool:
    """True if a loss is not noticeable. Where no row is known, that cannot be seen of any."""
    return math.isfinite(rule.floor) and lost <= NOTICEABLE * rule.floor


def _by_evaluation(
    done: Unlearned, model: Model, rule: StoppingRule
) -> tuple[dict[str, Any], tuple[float, ...]]:
    """Judge an attempt, whose weights are in the model, by its best evaluation and by generation.

    Of two, the one that unlearned enough is kept, then the one within the floor. Of two that are
    both, the one that lost less is kept, else the one with the better score. One that diverged is
    kept only where no other is.
    """
    names = ("unlearn", "retention", "forgotten", "lost", "score")
    if "diverged" in done.facts:
        return dict.fromkeys((*names, "answered", "unlearned", "within")), (0.0,)
    end = done.facts["best"]
    if (answered := end.get("answered")) is None:  # the target was not reached
        answered = percent_verbatim(model, rule.asked)
    unlearned = end["forgotten"] >= rule.enough and (answered is None or answered <= rule.left)
    within = end["lost"] <= rule.floor
    row = {name: end[name] for name in names}
    row |= {"answered": answered, "unlearned": unlearned, "within": within}
    both = unlearned and within
    return row, (1.0, float(unlearned), float(both), -end["lost"] if both else end["score"])


def unlearn_at_chosen_rate(
    start: Start,
    target: float,
    settings: UnlearnSettings,
    *,
    guess: float | None = None,
    job: Job = Job(),
) -> Unlearned:
    """`unlearn` at the rate that the rule of `choose_rate` picks; the best attempt is kept.

    The facts list every attempt with its token accuracy on the train rows of both scopes; only
    the unlearn scope's chooses.

    Args:
        start: As for `unlearn`.
        target: Token accuracy on the unlearn train rows of a model that never saw them, in
            [0, 1].
        settings: Of each attempt; its rate is not read.
        guess: The rate to try second. If `None`, the rule picks that one too.
        job: Progress and checkpoint.
    """
    scale = ALL_WEIGHTS if start.model.adaptation.kind == "full" else 1.0

    def judge(done: Unlearned) -> tuple[dict[str, Any], tuple[float, ...]]:
        if "diverged" in done.facts:
            return {"unlearn": None, "retention": None}, (0.0, 0.0, -done.facts["lr"])
        unlearn = token_accuracy(start.model, start.unlearn_rows)
        retention = token_accuracy(start.model, start.retention_rows["retention"])
        # The order of choose_rate: the nearest, and of equal ones the lowest rate.
        rank = 1.0, -abs(unlearn - target), -done.facts["lr"]
        return {"unlearn": unlearn, "retention": retention}, rank

    search = _Search(start, settings, judge, None, job)

    def attempt(rate: float) -> float:
        accuracy = search.at(float(f"{scale * rate:.2g}"))["unlearn"]
        return math.inf if accuracy is None else float(accuracy)

    choose_rate(attempt, target, guess=guess)
    return search.end()


def choose_rate(
    attempt: Callable[[float], float],
    target: float,
    *,
    guess: float | None = None,
    attempts: int = ATTEMPTS,
) -> float:
    """The rule of `lr: auto`: the rate that unlearns just as much as never having learned.

    Of the rates tried, the one whose accuracy comes nearest to `target` is taken: less would leave
    knowledge, more would be overshoot. As unlearning grows with the rate, rates after the first
    (and the guess, if there is one) are tried by false position on the logarithm of the rate, kept
    to the middle half of the bracket, until one is within `NEAR` or `attempts` are used up.

    Args:
        attempt: Trains at a rate, and returns the token accuracy on unlearn/train rows, in [0, 1];
            infinity if it diverged.
        target: The accuracy that is aimed at.
        guess: The rate to try second.
        attempts: At most so many.

    Returns:
        The rate, one of those tried.
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
        # False position alone creeps where the curve is flat at one end, as accuracy is at 0 and 1.
        share = (low[1] - target) / max(low[1] - high[1], 1e-9)
        place = low[0] + min(max(share, 0.25), 0.75) * (high[0] - low[0])
        rate = float(f"{math.exp(place):.2g}")
        if guess is not None and low[0] < math.log(guess) < high[0]:
            rate, guess = guess, None
    return min(tried, key=lambda rate: (abs(tried[rate] - target), rate))
