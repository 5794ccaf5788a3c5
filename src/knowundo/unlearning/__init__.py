"""unlearn(): train a method's loss, inside a region, from the memorized model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from knowundo.batches import PairedBatch, paired
from knowundo.encoding import Encoded
from knowundo.errors import Diverged, KnowUndoError
from knowundo.forwards import Columns, Parts, Reference, Step, answer_logits
from knowundo.models import Model
from knowundo.progress import Progress
from knowundo.records import Record
from knowundo.registry import Entry, get
from knowundo.scoring import sample, token_accuracy
from knowundo.training import Curve, train
from knowundo.unlearning.watching import Look, Watch, Watcher

# `lr: auto` tries this rate first, searches between these bounds, makes at most so many attempts,
# and is content when the token accuracy comes this near to its goal.
FIRST_RATE, BOUNDS, ATTEMPTS, NEAR = 2e-3, (1e-4, 4e-2), 5, 0.06
# These rates, and guesses, are a LoRA's; training all weights takes a tenth of them (Schulman et
# al. 2025, "LoRA Without Regret").
ALL_WEIGHTS = 0.1
# Share of the way to not knowing that a watched attempt must go.
ENOUGH = 0.5


Encode = Callable[[list[Record]], list[Encoded]]


class Scorer:
    """What a method's `prepare` may ask of the memorized model."""

    def __init__(self, model: Model, seed: int, encode: Encode | None = None) -> None:
        self._model, self.seed, self._encode = model, seed, encode
        self.special = sorted(model.tokenizer.all_special_ids)

    @property
    def vocabulary(self) -> int:
        """Tokens that the model can emit."""
        return len(self._model.tokenizer)

    def logits(self, encoded: Sequence[Encoded]) -> Any:
        """Pairs of row and logits at its answer positions, [answer tokens, vocabulary]."""
        return answer_logits(self._model, encoded)

    def answered(self, row: Encoded, text: str) -> Encoded:
        """The same record with another answer, encoded as the row was.

        Raises:
            KnowUndoError: how rows are encoded was not told.
        """
        if self._encode is None:
            raise KnowUndoError("other answers need Start(…, encode=…), which encodes records")
        return self._encode([replace(row.record, answer=text, alternatives=(), facts=())])[0]

    def sample(
        self, rows: Sequence[Encoded], *, n: int, temperature: float, seed: int
    ) -> dict[str, list[str]]:
        """`n` answers of the memorized model to each row's question, by record id."""
        return sample(self._model, rows, n=n, temperature=temperature, seed=seed)


class Start:
    """The memorized model, where every method starts, and what is computed of it only once."""

    def __init__(
        self,
        model: Model,
        unlearn_rows: Sequence[Encoded],
        kept_rows: Mapping[str, Sequence[Encoded]],
        *,
        seed: int,
        encode: Encode | None = None,
    ) -> None:
        """Remember the model as it is now.

        Args:
            model: the memorized model.
            unlearn_rows: train rows that must go; an epoch is one pass over them.
            kept_rows: by scope, the rows that can fill `step.retention`.
            seed: of the order of rows and of prepared labels; the same for all methods.
            encode: encodes records as the rows were; only other answers need it.
        """
        self.model, self.seed, self._encode = model, seed, encode
        self.unlearn_rows, self.kept_rows = unlearn_rows, kept_rows
        self._state: dict[str, torch.Tensor] = {}
        if model.adaptation.kind == "lora":
            self.hold(model.parameters())
        self._columns: dict[Any, Columns] = {}

    def hold(self, names: Iterable[str]) -> None:
        """Copy what these parameters are in the memorized model, before they change.

        Of all weights only a region's originals are held, never a second model.
        """
        self._state |= self.model.state(name for name in names if name not in self._state)

    @property
    def held(self) -> list[str]:
        """Names of the parameters whose originals are held: all that can have changed."""
        return list(self._state)

    def restore(self) -> Model:
        """Make the model the memorized one again."""
        self.model.overwrite(self._state)
        return self.model

    @cached_property
    def reference(self) -> Reference:
        """The frozen memorized model at every row that a step can hold.

        Computed on first reading, inside the first step: nothing is swapped under a graph.

        Raises:
            KnowUndoError: weights have moved already.
        """
        own = self.model.parameters()
        if not all(torch.equal(own[name].cpu(), value) for name, value in self._state.items()):
            raise KnowUndoError("a loss that reads step.reference must read it in its first step")
        rows = [*self.unlearn_rows, *(row for rows in self.kept_rows.values() for row in rows)]
        return Reference.of(self.model, rows)

    def columns(self, method: Entry, bound: Mapping[str, Any] | None = None) -> Columns:
        """What the method's `prepare` makes of the unlearn rows; call it right after `restore`.

        Args:
            method: its `prepare` is called once for all with equal arguments.
            bound: its hyper-parameters; none: their defaults.
        """
        if method.prepare_function is None:
            return {}
        arguments = method.prepare_arguments(method.bind({}) if bound is None else bound)
        key = method.name, repr(arguments)
        if key not in self._columns:
            made = method.prepare_function(self.unlearn_rows, self._scorer(), **arguments)
            self._columns[key] = made
        return self._columns[key]

    def _scorer(self) -> Scorer:
        return Scorer(self.model, self.seed, self._encode)

    def batches(
        self,
        method: Entry,
        bound: Mapping[str, Any],
        retain_on: str,
        *,
        size: int,
        accumulation: int,
        epochs: int,
        retained: int | None = None,
    ) -> tuple[list[PairedBatch], int]:
        """Micro-batches of all epochs, and how many of them an optimizer step takes."""
        batches = paired(
            self.unlearn_rows,
            self.kept_rows[retain_on],
            size=size,
            retained=retained,
            epochs=epochs,
            seed=self.seed,
            pad=self.model.pad,
        )
        return batches, accumulation

    def parts(
        self, method: Entry, bound: Mapping[str, Any], batch: PairedBatch, read: set[str]
    ) -> Parts:
        """The method's loss on one micro-batch.

        Args:
            method: its loss is called once.
            bound: its hyper-parameters.
            batch: on any device.
            read: halves that the loss has read before; those that it reads now are added.
        """
        device = self.model.device
        batch = PairedBatch(batch.unlearn.to(device), batch.retention.to(device))
        step = Step(
            self.model,
            batch,
            reference=lambda: self.reference,
            columns=self.columns(method, bound),
            read=frozenset(read),
        )
        parts: Parts = method(step, **bound)
        read.update(step.used)
        return parts


@dataclass
class Unlearned:
    """What unlearning leaves beside the changed weights."""

    curve: Curve
    facts: dict[str, Any] = field(default_factory=dict)


def unlearn(
    start: Start,
    *,
    method: str,
    arguments: dict[str, Any] | None = None,
    region: Sequence[str] | None = None,
    retain_on: str = "retention",
    lr: float,
    epochs: int,
    batch_size: int,
    accumulation: int,
    retained: int | None = None,
    optimizer: str = "adamw",
    watch: Watch | None = None,
    look: Callable[[Look], bool] | None = None,
    progress: Progress | None = None,
) -> Unlearned:
    """Train one method from the memorized model.

    Args:
        start: its model is changed in place, inside the region only.
        method: a registered name.
        arguments: its hyper-parameters.
        region: parameter names that may change; None: all of the adaptation.
        retain_on: the scope whose rows fill `step.retention`.
        lr: peak learning rate; warm-up 3 %, then cosine.
        epochs: passes.
        batch_size: unlearn rows a micro-step.
        retained: retention rows a micro-step; none: as many as unlearn rows.
        accumulation: micro-steps an optimizer step.
        optimizer: `adamw` or `paged_adamw_32bit`.
        watch: rows to look at while training: it may stop, and the best moment is kept.
        look: told of every look; True stops. Needs `watch`.
        progress: called after each optimizer step.

    Raises:
        BadInput: unknown method, argument or parameter name.
        Diverged: the loss or a weight is no longer finite.
    """
    entry = get("method", method)
    bound = entry.bind(arguments or {})
    began = time.perf_counter()
    model = start.restore()
    names = list(model.parameters() if region is None else region)
    start.hold(names)
    start.columns(entry, bound)  # of the memorized model, which is the one in memory now
    halves: set[str] = set()
    batches, accumulation = start.batches(
        entry,
        bound,
        retain_on,
        size=batch_size,
        retained=retained,
        accumulation=accumulation,
        epochs=epochs,
    )
    steps = -(-len(batches) // accumulation)
    watcher = Watcher(model, watch, names, steps, look) if watch else None
    curve = train(
        model,
        batches,
        lambda batch: start.parts(entry, bound, batch, halves),
        region=names,
        lr=lr,
        seed=start.seed,
        accumulation=accumulation,
        optimizer=optimizer,
        progress=progress,
        stop=watcher.after_step if watcher else None,
    )
    facts = {
        "method": method,
        "arguments": bound,
        "retain_on": retain_on,
        "lr": lr,
        "epochs": epochs,
        "optimizer_steps": len(curve),
        "reads": sorted(halves),
        "seconds": round(time.perf_counter() - began, 2),
    }
    if watcher:
        facts |= watcher.facts()
        model.overwrite(watcher.best_state)
    return Unlearned(curve, facts)


def first_rate(model: Model) -> float:
    """A rate to begin with, by the width of the model.

    5e-5 · (2000 / hidden size)^0.781, ten times that for a LoRA: the fit to Llama of Schulman et
    al. 2025, "LoRA Without Regret" (published with tinker-cookbook).
    """
    hidden = model.causal_lm().get_input_embeddings().embedding_dim  # type: ignore[operator]
    lora = 1.0 if model.adaptation.kind == "full" else 1 / ALL_WEIGHTS
    return float(f"{5e-5 * lora * (2000 / hidden) ** 0.781:.2g}")


def unlearn_watched(
    start: Start, watch: Watch, *, lr: float | None = None, attempts: int = 3, **settings: Any
) -> Unlearned:
    """`unlearn` with a watch, at a rate that need not be known.

    If the first rate goes less than half of the way it is raised threefold, else lowered, and on in
    that direction as long as the best look gets better. The best look of all attempts is kept.

    Args:
        start: as for `unlearn`.
        watch: what is looked at.
        lr: the first rate; none: `first_rate`.
        attempts: at most so many.
        settings: of `unlearn`, without `lr` and `watch`.

    Raises:
        Diverged: at every rate tried.
    """
    rate = first_rate(start.model) if lr is None else lr
    best: tuple[float, dict[str, torch.Tensor], Unlearned] | None = None
    tried: list[dict[str, Any]] = []
    factor = 1 / 3
    while len(tried) < attempts:
        try:
            done = unlearn(start, lr=rate, watch=watch, **settings)
        except Diverged:
            tried.append({"lr": rate, "unlearn": None, "retention": None, "score": 0.0})
            rate = float(f"{rate / 3:.2g}")
            continue
        end = done.facts["best"]
        tried.append({"lr": rate} | {key: end[key] for key in ("unlearn", "retention", "score")})
        if best is not None and 0 < end["score"] <= best[0]:
            break
        if best is None and end["forgotten"] < ENOUGH:
            factor = 3.0
        best = end["score"], start.model.state(start.held), done
        rate = float(f"{rate * factor:.2g}")
    if best is None:
        raise Diverged("training diverged at every learning rate tried; set unlearn.lr")
    start.model.overwrite(best[1])
    best[2].facts["attempts"] = tried
    return best[2]


def unlearn_at_chosen_rate(
    start: Start, target: float, *, guess: float | None = None, **settings: Any
) -> Unlearned:
    """`unlearn` at the rate that the rule of `choose_rate` picks; the best attempt is kept.

    The facts list every attempt with its token accuracy on the train rows of both scopes; only
    the unlearn scope's is looked at.

    Args:
        start: as for `unlearn`.
        target: token accuracy on the unlearn train rows of a model that never saw them, in
            [0, 1].
        guess: the rate to try second.
        settings: of `unlearn`, without `lr`.

    Raises:
        Diverged: at every rate tried.
    """
    nearest: tuple[tuple[float, float], dict[str, torch.Tensor], Unlearned] | None = None
    attempts: list[dict[str, float | None]] = []
    scale = ALL_WEIGHTS if start.model.adaptation.kind == "full" else 1.0

    def attempt(rate: float) -> float:
        nonlocal nearest
        lr = float(f"{scale * rate:.2g}")
        try:
            unlearned = unlearn(start, lr=lr, **settings)
        except Diverged:
            attempts.append({"lr": lr, "unlearn": None, "retention": None})
            return math.inf
        left = token_accuracy(start.model, start.unlearn_rows)
        off = abs(left - target), rate  # the order of choose_rate
        if nearest is None or off < nearest[0]:
            nearest = off, start.model.state(start.held), unlearned
        retained = token_accuracy(start.model, start.kept_rows["retention"])
        attempts.append({"lr": lr, "unlearn": left, "retention": retained})
        return left

    choose_rate(attempt, target, guess=guess)
    if nearest is None:
        raise Diverged("training diverged at every learning rate tried; set unlearn.lr")
    _, state, unlearned = nearest
    start.model.overwrite(state)
    unlearned.facts["attempts"] = attempts
    return unlearned


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
