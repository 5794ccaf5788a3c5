"""Forward passes that compute logits at answer positions only, and the Step that a loss sees."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch.nn.functional import cross_entropy, kl_div

from knowundo import packing
from knowundo.batches import Batch, PairedBatch, collate
from knowundo.encoding import Encoded
from knowundo.errors import BadInput, KnowUndoError
from knowundo.head import TRIED, Head, frozen_head, live_head, own_head, trained_head
from knowundo.lower import Lower
from knowundo.memory import in_portions, ran_out
from knowundo.models import Model, Variant
from knowundo.positions import reset, together
from knowundo.records import Record
from knowundo.vocabulary import by_token, full_precision, portion

# Columns made by a method's `prepare`: name → record id → labels in place of the answer's tokens,
# [answer tokens]; in the column "alternative", the row with another answer, Encoded.
Columns = Mapping[str, Mapping[str, Any]]
# What a loss may read of a step, in the order in which it lies in one forward.
HALVES = ("unlearn", "retention", "alternative")


def _of_each(model: Model, places: torch.Tensor, size: int) -> torch.Tensor:
    """Places in a batch of this size, and in its repetitions for adapters abreast, flat."""
    first = size * torch.arange(model.abreast, device=places.device)
    return (first[:, None] + places).flatten()


def all_hidden_states(model: Model, batch: Batch) -> torch.Tensor:
    """Final hidden states at every position, padding too, [rows, tokens, hidden].

    Logits, [rows, tokens, vocabulary], of a model whose head is not computed apart (`own_head`). Of
    a batched multi-adapter forward: [adapters · rows, tokens, …].
    """
    module: Any = model.causal_lm()
    ids, mask = (value.repeat(model.abreast, 1) for value in (batch.ids, batch.mask))
    if not own_head(model):
        logits: torch.Tensor = module(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return logits
    output = module.get_decoder()(input_ids=ids, attention_mask=mask, use_cache=False)
    states: torch.Tensor = output.last_hidden_state
    return states


def packs(model: Model) -> bool:
    """True if rows can be packed into one sequence in a forward of this model.

    Asked once, and tried on two short rows: a layer that looks back by other means than attention,
    or attention that is not told of the packing, gives other states.
    """
    if model.packs is None:
        able = own_head(model) and packing.prepare(model.causal_lm())
        model.packs = able and _same_as_alone(model, _packed)
    return model.packs


def pads(model: Model) -> bool:
    """True if rows of several lengths can share a batch, padded on the right; tried likewise."""
    if model.pads is None:
        model.pads = _same_as_alone(model, _padded)
        if not model.pads:
            model.notes.append("padding changes this model's states: only equal lengths share it")
    return model.pads


def _two_rows(model: Model) -> Batch:
    record = Record(id="", question="", answer="", scope="unlearn", split="train", kind="text")
    rows = [Encoded(record, ids, 1, (False,) * len(ids)) for ids in (TRIED, TRIED[::-2])]
    return collate(rows, model.pad).to(model.device)


def _packed(model: Model, batch: Batch) -> torch.Tensor | None:
    """States of a batch's tokens in its order; `None` where nothing took note of the packing."""
    module: Any = model.causal_lm()
    states, how = packing.packed_states(module.get_decoder(), batch, model.abreast)
    model.window = packing.unseen_window(module.config.get_text_config(), how)
    return states[: len(batch.filled)] if how.used else None


def packable(model: Model, batch: Batch) -> bool:
    """True if these rows can be packed: none is longer than a window that packing cannot see."""
    return packs(model) and batch.ids.shape[1] <= model.window


def _padded(model: Model, batch: Batch) -> torch.Tensor:
    return all_hidden_states(model, batch).flatten(0, 1)[batch.filled]


@torch.no_grad()
def _same_as_alone(model: Model, forward: Callable[[Model, Batch], torch.Tensor | None]) -> bool:
    """True if two rows that share a forward have the logits of each row in one of its own."""
    batch, training = _two_rows(model), model.net.training
    model.net.eval()  # no dropout
    try:
        head = live_head(model)
        alone = [_padded(model, collate([r], model.pad).to(model.device)) for r in batch.encoded]
        expected = head(torch.cat(alone))
        try:
            found = forward(model, batch)
        except Exception as error:  # whatever an architecture raises at what it was not made for
            if ran_out(error):
                raise
            return False
        return found is not None and model.alike(head(found), expected)
    finally:
        model.net.train(training)


def shares(model: Model) -> bool:
    """True if training computes what rows begin with alike once: nothing is dropped at random."""
    return packs(model) and not model.drops


def go_abreast(model: Model, variants: Sequence[Variant]) -> bool:
    """True if one forward of these variants (`Model.all_of`) is that of each.

    Tried with the first and the last on two short rows: a layer that does not see all tokens, or
    sees them in another order, gives other logits. The head is one for all of them.
    """
    model.use(next((v for v in variants if v.folder is not None), variants[0]))
    if not model.all_linear() or not own_head(model) or trained_head(model):
        return False
    batch, head = _two_rows(model), live_head(model)
    packs(model)  # what the model allows is tried with one adapter
    with torch.no_grad():
        with model.all_of(variants):
            together = hidden_states(model, batch).chunk(len(variants))
        for number in (0, -1):
            model.use(variants[number])
            if not model.alike(head(together[number]), head(hidden_states(model, batch))):
                return False
    return True


def hidden_states(model: Model, batch: Batch) -> torch.Tensor:
    """Final hidden states at the positions that predict the answers, [answer tokens, hidden].

    Without padding where the model allows it, and without the layers below what is trained where
    `model.lower` stands in for them; rows that would change each other in separate forwards. Logits
    of a model whose head is not computed apart (`own_head`). Of a
    batched multi-adapter forward: [adapters · answer tokens, …].

    Raises:
        BadInput: Layers are trained, and no gradient reaches them.
    """
    states = _in_groups(model, batch)
    if torch.is_grad_enabled() and not states.requires_grad:
        _check_reached(model)
    return states


def _check_reached(model: Model) -> None:
    """Refuse to train what the states do not depend on, as far as autograd knows.

    Raises:
        BadInput: Layers are trained, and no gradient reaches them.
    """
    module: Any = model.causal_lm()
    layers = module.get_decoder() if own_head(model) else module
    if any(parameter.requires_grad for parameter in layers.parameters()):
        raise BadInput(
            f"model.base '{model.base}': no gradient reaches the layers that are to be trained; "
            "train all weights instead (--route full, or model.adaptation=full)"
        )


def _in_groups(model: Model, batch: Batch) -> torch.Tensor:
    """The same, in as many forwards as it takes."""
    equal = not packable(model, batch) and not pads(model)
    groups = together(model, [len(row.ids) for row in batch.encoded], equal=equal)
    if len(groups) == 1:
        reset(model)
        return _states(model, batch)
    rows = dict[int, torch.Tensor]()
    for group in groups:
        reset(model)
        part = collate([batch.encoded[n] for n in group], batch.pad).to(model.device)
        states = _states(model, part).unflatten(0, (model.abreast, -1))
        rows |= zip(group, states.split(part.lengths.tolist(), dim=1), strict=True)
    return torch.cat([rows[number] for number in range(len(batch))], dim=1).flatten(0, 1)


def _states(model: Model, batch: Batch) -> torch.Tensor:
    """The same of rows that share one forward."""
    if not packable(model, batch):
        cells = _of_each(model, batch.positions, batch.ids.numel())
        return all_hidden_states(model, batch).flatten(0, 1)[cells]
    if model.drops and model.net.training:
        batch = batch.apart()
    lower: Lower | None = model.lower
    held = lower is not None and lower.holds(batch.encoded)
    with lower.standing_in(batch) if lower and held else nullcontext():
        decoder = model.causal_lm().get_decoder()  # type: ignore[operator]
        states, _ = packing.packed_states(decoder, batch, model.abreast)
    return states[_of_each(model, batch.packed.flatten()[batch.positions], len(batch.filled))]


@dataclass
class Half:
    """The unlearn, retention or alternative rows of a step, as a loss sees them.

    All log-probabilities are of the answers' tokens (end-of-sequence included), shifted: the
    logits of a position predict the next token.
    """

    batch: Batch
    states: torch.Tensor
    head: Head
    columns: Columns = field(default_factory=dict)

    @cached_property
    def logits(self) -> torch.Tensor:
        """[answer tokens, vocabulary], rows one after another, in float32 or better.

        All at once: what can be said token by token should be (`by_token`), in a fraction of the
        memory.
        """
        return full_precision(self.head(self.states))

    def by_token(
        self, function: Callable[..., tuple[torch.Tensor, ...]], *given: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """What a function makes of each token's logits, a portion of the tokens at a time.

        Args:
            function: logits [tokens, vocabulary] and a portion of `given` → numbers, [tokens] each;
                gradients flow through the first of them.
            given: [answer tokens, …] each, without gradients.
        """

        def of_states(states: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return function(full_precision(self.head(states)), *rest)

        size, frozen = portion(self.head.vocabulary), self.head.frozen
        return by_token(self.states, of_states, *given, size=size, frozen=frozen)

    def mean(
        self, values: torch.Tensor, *, over: Literal["rows", "tokens"] = "rows"
    ) -> torch.Tensor:
        """Sum of values, divided by the count of the whole batch.

        A step may see a part of the batch only: then its value is that part's share of the mean,
        so that micro-batches add up to the batch.

        Args:
            values: [rows], or [answer tokens] if the mean is over tokens.
            over: what is counted.
        """
        rows = self.batch.whole
        count = len(rows) if over == "rows" else sum(row.answer_length for row in rows)
        return values.sum() / count

    def per_row(self, values: torch.Tensor) -> torch.Tensor:
        """Mean over each row's answer tokens: [answer tokens] → [rows]."""
        sums = torch.zeros(len(self.batch), dtype=values.dtype, device=values.device)
        return sums.index_add(0, self.batch.rows, values) / self.batch.lengths

    @cached_property
    def _predicted(self) -> tuple[torch.Tensor, ...]:
        return self.by_token(_predicted, self.batch.targets)

    @cached_property
    def mean_nll(self) -> torch.Tensor:
        """Negative log-likelihood per answer token, [rows]: KnowUnDo's cross-entropy."""
        return self.per_row(self._predicted[0])

    @property
    def right(self) -> torch.Tensor:
        """Whether the token to predict was the most likely one, [answer tokens]."""
        return self._predicted[1]

    @cached_property
    def nll(self) -> torch.Tensor:
        """Negative log-likelihood of the whole answer, [rows]."""
        return self.mean_nll * self.batch.lengths

    def cross_entropy(self, column: str) -> torch.Tensor:
        """Mean cross-entropy to a prepared column of labels in place of the answer, [rows]."""
        values = self.columns[column]
        labels = torch.cat([values[row.record.id] for row in self.batch.encoded])
        return self.per_row(self.by_token(_predicted, labels.to(self.states.device))[0])

    def divergence_from(self, memorized: Half) -> torch.Tensor:
        """KL(memorized ‖ current), mean over each row's answer tokens, [rows].

        Args:
            memorized: the same rows, seen by the frozen model.
        """

        def divergence(logits: torch.Tensor, states: torch.Tensor) -> tuple[torch.Tensor, ...]:
            with torch.no_grad():
                before = full_precision(memorized.head(states)).log_softmax(-1)
            now = logits.log_softmax(-1)
            return (kl_div(now, before, reduction="none", log_target=True).sum(-1),)

        return self.per_row(self.by_token(divergence, memorized.states)[0])


def _predicted(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Cross-entropy of each token, and whether it was the most likely one."""
    return cross_entropy(logits, labels, reduction="none"), logits.detach().argmax(-1) == labels


@dataclass
class _HeldHalf(Half):
    """The reference's view of rows: their likelihoods are computed once a row."""

    known: dict[Encoded, torch.Tensor] = field(default_factory=dict)

    @cached_property
    def mean_nll(self) -> torch.Tensor:
        parts = self.states.split(self.batch.lengths.tolist())
        targets = self.batch.targets.split(self.batch.lengths.tolist())
        for row, states, labels in zip(self.batch.encoded, parts, targets, strict=True):
            if row not in self.known:  # alone: its bits depend on no other row
                with torch.no_grad():
                    logits = full_precision(self.head(states))
                    self.known[row] = cross_entropy(logits, labels)
        return torch.stack([self.known[row] for row in self.batch.encoded])


@dataclass
class Reference:
    """The memorized model's hidden states at the answers' positions, by row.

    Frozen and computed once: logits of the reference cost one product with the head, likelihoods
    not even that, and there is no second model, and no switching of adapters inside the training
    loop. Rows that no loss reads are not held.
    """

    model: Model
    rows: Sequence[Encoded]
    head: Head
    states: dict[Encoded, torch.Tensor] = field(default_factory=dict)
    known: dict[Encoded, torch.Tensor] = field(default_factory=dict)  # mean likelihoods, by row

    @classmethod
    def of(cls, model: Model, encoded: Sequence[Encoded]) -> Reference:
        """A reference that can hold these rows, over the head as it is now."""
        return cls(model, list(dict.fromkeys(encoded)), frozen_head(model))

    def hold(self, wanted: Iterable[Encoded], among: Sequence[Encoded] | None = None) -> None:
        """Take the states of rows that are not held yet, of the model as it is now.

        Args:
            wanted: the rows.
            among: rows whose batches they share; none: all that the reference can hold, so that a
                row's bits do not depend on what else is wanted.
        """
        missing = {row for row in wanted if row not in self.states}
        if not missing:
            return
        training = self.model.net.training
        self.model.net.eval()  # no dropout in what is frozen
        among = self.rows if among is None else among
        taken = answer_states(self.model, among, only=missing)
        self.states |= {row: part.clone() for row, part in taken if row in missing}
        self.model.net.train(training)

    def half(self, batch: Batch) -> Half:
        """The reference's view of a batch of rows that are held."""
        states = torch.cat([self.states[row] for row in batch.encoded])
        return _HeldHalf(batch, states, self.head, known=self.known)


class ReferenceStep:
    """`step.reference`: the frozen memorized model on the rows of a step."""

    def __init__(self, step: Step, reference: Callable[[], Reference], *, first: bool) -> None:
        self._step, self._reference, self._first = step, reference, first

    def _half(self, name: str) -> Half:
        """All rows that may come to lie in this half are taken at once: later, weights move.

        Raises:
            KnowUndoError: weights may have moved already.
        """
        reference, batch = self._reference(), self._step.rows(name)
        if not all(row in reference.states for row in batch.encoded):
            if not self._first:
                raise KnowUndoError(
                    "a loss that reads step.reference must read it in its first step"
                )
            if name == "alternative":
                rows = list(self._step.columns[name].values())
                reference.hold(rows, among=rows)
            else:
                scopes = {row.record.scope for row in batch.encoded}
                reference.hold(row for row in reference.rows if row.record.scope in scopes)
        return reference.half(batch)

    @cached_property
    def unlearn(self) -> Half:
        return self._half("unlearn")

    @cached_property
    def retention(self) -> Half:
        return self._half("retention")

    @cached_property
    def alternative(self) -> Half:
        return self._half("alternative")


class Step:
    """One paired batch, computed as far as the loss reads it.

    `step.unlearn`, `step.retention` and `step.alternative` run the current model on first reading;
    a method gets what it has `read` before from one forward.
    """

    def __init__(
        self,
        model: Model,
        batch: PairedBatch,
        *,
        reference: Callable[[], Reference],
        columns: Columns | None = None,
        read: Collection[str] = (),
    ) -> None:
        """Nothing is computed yet.

        Args:
            model: the current one.
            batch: on its device.
            reference: asked only if the loss reads it.
            columns: what the method's `prepare` made.
            read: halves that the loss read in earlier steps; none: this is the first one.
        """
        self.model, self.batch, self.columns = model, batch, columns or {}
        self.reference = ReferenceStep(self, reference, first=not read)
        self.used: set[str] = set()
        self._read = read if len(read) > 1 else ()

    @cached_property
    def _alternatives(self) -> Batch:
        if "alternative" not in self.columns:
            raise KnowUndoError("step.alternative: the method's `prepare` made no such column")
        others = self.columns["alternative"]
        rows = [others[row.record.id] for row in self.batch.unlearn.encoded]
        whole = [others[row.record.id] for row in self.batch.unlearn.whole]
        return collate(rows, self.model.pad, whole=whole).to(self.model.device)

    def rows(self, half: str) -> Batch:
        """The rows of a half by its name."""
        if half == "alternative":
            return self._alternatives
        batch: Batch = getattr(self.batch, half)
        return batch

    @cached_property
    def _joint(self) -> dict[str, torch.Tensor]:
        halves = {name: self.rows(name) for name in HALVES if name in self._read}
        encoded = [row for half in halves.values() for row in half.encoded]
        states = hidden_states(self.model, collate(encoded, self.model.pad).to(self.model.device))
        parts, begin = {}, 0
        for name, half in halves.items():
            parts[name] = states[begin : begin + len(half.targets)]
            begin += len(half.targets)
        return parts

    def _half(self, name: str) -> Half:
        self.used.add(name)
        batch = self.rows(name)
        joint = name in self._read
        states = self._joint[name] if joint else hidden_states(self.model, batch)
        return Half(batch, states, live_head(self.model), self.columns)

    @cached_property
    def unlearn(self) -> Half:
        """The current model on rows that must go."""
        return self._half("unlearn")

    @cached_property
    def retention(self) -> Half:
        """The current model on rows that must stay."""
        return self._half("retention")

    @cached_property
    def alternative(self) -> Half:
        """The current model on the unlearn rows' questions with the alternative answers."""
        return self._half("alternative")


Parts = dict[str, torch.Tensor]


def answer_states(
    model: Model,
    encoded: Sequence[Encoded],
    size: int = 64,
    *,
    only: Collection[Encoded] | None = None,
) -> Iterator[tuple[Encoded, torch.Tensor]]:
    """Hidden states of each row's answer, [answer tokens, hidden], shortest rows first.

    Batches without a row of `only`, if that is given, are passed over. Where memory runs out, a
    batch is halved. Of adapters abreast: [adapters, answer tokens, hidden].
    """

    def states(rows: Sequence[Encoded]) -> list[tuple[Encoded, torch.Tensor]]:
        if only is not None and not any(row in only for row in rows):
            return []
        batch = collate(rows, model.pad).to(model.device)
        with torch.no_grad():
            found = hidden_states(model, batch)
        if model.abreast > 1:
            found = found.unflatten(0, (model.abreast, -1))
        return list(zip(rows, found.split(batch.lengths.tolist(), dim=-2), strict=True))

    order = sorted(encoded, key=lambda row: len(row.ids))
    for part in in_portions(order, max(1, size // model.abreast), states, model.notes, "scoring"):
        yield from part


def answer_logits(
    model: Model, encoded: Sequence[Encoded], *, only: Collection[Encoded] | None = None
) -> Iterator[tuple[Encoded, torch.Tensor]]:
    """Logits of each row's answer, [answer tokens, vocabulary], shortest rows first.

    Batches without a row of `only`, if that is given, are passed over.
    """
    head = live_head(model)
    for row, states in answer_states(model, encoded, only=only):
        with torch.no_grad():
            logits = full_precision(head(states))
        yield row, logits  # outside, or whoever reads two streams at once stays without gradients
