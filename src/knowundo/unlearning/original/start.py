"""`compat: original`: where the public KnowUnDo code differs from the paper, or from this package.

Every behaviour has a name and can be switched on alone, to show what it does to the scores.
Source: zjunlp/KnowUnDo at 92aea2b, files in brackets.

mixed_batches      unlearn and retention rows are shuffled into one list, taken one at a time, 16 to
                   an optimizer step [ascent_plus_descent_tokenizer.py, run_baselines_lora.sh]
fixed_length       rows are padded to 256 tokens, which counts where soft_kl averages over padding
                   [llm_tokenize_with_chunk.py]
question_labels    random labels replace the question's tokens too [llm_tokenize_with_chunk.py]
base_labels        adversarial labels come from the base, for every token of the row, with the token
                   at the place itself masked and not the next one, which the logits there predict;
                   they are then learned one place further left [top_kp_sample.py]
soft_kl            the divergence is −Σ p·log q, mean over every position, question and padding too
                   [ascent_plus_KLdivergence.py]
naive_boundary     the answer begins after as many tokens as the question alone has, so that the
                   blank line belongs to it [llm_tokenize_with_chunk.py, data_module.py]
end_masked         unlearning and evaluation never see an end-of-sequence: none is appended, and the
                   padding is masked [llm_tokenize_with_chunk.py]
reference_dropout  the memorized model, from which the divergence is measured, drops inputs of its
                   LoRA as the trained one does, other ones: the copy of the model is never put into
                   evaluation mode [run_unlearn_lora.py, ascent_plus_KLdivergence.py]; with
                   model.dropout 0 there is nothing to drop
bfloat16_updates   unlearning trains the LoRA in bfloat16, without a copy in float32: the memorized
                   adapter, each gradient, AdamW's moments and every update are rounded; the
                   optimizer is torch's AdamW [run_unlearn_lora.py]
whole_steps        an epoch has ⌊n / 16⌋ optimizer steps, at least one; the rows beyond the last
                   epoch's are left out [transformers' Trainer, 4.37]
padding_labels     random and adversarial labels that are the padding token are masked, and with it,
                   where padding is end-of-sequence, every label that says that the answer ends
                   [llm_tokenize_with_chunk.py]

Two of its behaviours are those of this package as well and need no name: half of the answer's
tokens, drawn with replacement, are replaced in input and labels for localization; and ROUGE-L of
the teacher-forced argmax stands in every results.json as `forced_rouge_l`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from random import Random
from typing import Any

import torch

from knowundo.data.batches import PairedBatch, collate, paired
from knowundo.data.encoded import Encoded
from knowundo.entry import Entry
from knowundo.errors import BadInput
from knowundo.modeling.forward import Forward
from knowundo.modeling.half import Columns
from knowundo.modeling.model import Model
from knowundo.modeling.step import Parts, Step
from knowundo.training.bfloat16 import rounded
from knowundo.unlearning.original.divergence import OriginalDivergence
from knowundo.unlearning.original.labels import base_labels, random_row_labels
from knowundo.unlearning.original.losses import OneSided, OneSidedStep, masked_cross_entropy
from knowundo.unlearning.original.rows import ACCUMULATION, LABELS, LENGTH, WHOLE_ROW, whole_steps
from knowundo.unlearning.scorer import Encode
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start


class OriginalStart(Start):
    """Where every method starts, with the public code's batches, labels and divergence.

    Attributes:
        quirks: Names from this module's docstring.
        divergence: Takes the place of a method's own, once a method that has one makes batches.
    """

    def __init__(
        self,
        model: Model,
        unlearn_rows: Sequence[Encoded],
        retention_rows: Mapping[str, Sequence[Encoded]],
        *,
        seed: int,
        quirks: Sequence[str],
        encode: Encode | None = None,
    ) -> None:
        """As `Start`; `quirks` are names from this module's docstring."""
        super().__init__(model, unlearn_rows, retention_rows, seed=seed, encode=encode)
        self.quirks = set(quirks)
        self.divergence: OriginalDivergence | None = None
        if "bfloat16_updates" in self.quirks:
            # The public code loads the memorized adapter in bfloat16: every training starts there.
            tensors = self._memorized.tensors
            self._memorized.tensors = {name: rounded(value) for name, value in tensors.items()}

    def _rows(self, method: Entry) -> list[Encoded]:
        """The unlearn rows as the method sees them: where labels cover the question, from there."""
        if WHOLE_ROW.get(method.name) in self.quirks:
            return [replace(row, answer_from=1) for row in self.unlearn_rows]
        return list(self.unlearn_rows)

    def _soft(self, method: Entry) -> bool:
        return method.name == "ascent_plus_kl_divergence" and "soft_kl" in self.quirks

    def _drops_reference(self, method: Entry) -> bool:
        """True if the memorized model has something to drop, and does."""
        drops = self.model.adaptation.kind == "lora" and self.model.adaptation.dropout > 0
        wanted = method.name == "ascent_plus_kl_divergence" and "reference_dropout" in self.quirks
        return wanted and drops

    def optimizer(self, name: str) -> str:
        """Return torch's AdamW in bfloat16, where training is in bfloat16."""
        return "adamw_bfloat16" if "bfloat16_updates" in self.quirks else name

    def columns(self, method: Entry, bound: Mapping[str, Any] | None = None) -> Columns:
        """Labels of the row, question included, where the public code makes them so."""
        if WHOLE_ROW.get(method.name) not in self.quirks:
            return super().columns(method, bound)
        bound = method.bind({}) if bound is None else bound
        key = method.name, repr(method.prepare_arguments(bound))
        if key not in self._columns:
            rows = self._rows(method)
            if method.name == "random_label":
                labels = random_row_labels(self.model, rows, self.seed)
            else:
                self.copy_memorized(self.model.parameters())
                self.model.reset()
                labels = base_labels(self.model, rows, self.seed, **bound)
                self.restore()
            self._columns[key] = {LABELS[method.name]: labels}
        return self._columns[key]

    def batches(
        self, method: Entry, bound: Mapping[str, Any], settings: UnlearnSettings
    ) -> tuple[list[PairedBatch], int]:
        """Batches of one row where they are mixed, of full length where that is fixed.

        Raises:
            BadInput: `settings.retained` is given, and rows are mixed.
        """
        length = LENGTH if "fixed_length" in self.quirks else 0
        rows, retained = self._rows(method), self.retained(settings)
        retention = list(chain.from_iterable(retained))
        accumulation = settings.accumulation
        if "mixed_batches" in self.quirks:
            if settings.retained is not None:
                raise BadInput("compat mixed_batches: has no number of retained rows; leave it out")
            accumulation = ACCUMULATION
            batches = self._one_sided(method, bound, rows, retention, settings.epochs)
        else:
            batches = paired(
                rows, *retained, size=settings.batch_size, retained=settings.retained,
                epochs=settings.epochs, seed=self.seed, pad=self.model.pad,
            )  # fmt: skip
        batches = [self._padded(batch, length) for batch in batches]
        self._take_divergence(method, retention, length)
        if "whole_steps" in self.quirks:
            steps, accumulation = whole_steps(len(batches), settings.epochs, accumulation)
            batches = batches[: steps * accumulation]
        return batches, accumulation

    def _padded(self, batch: PairedBatch, length: int) -> PairedBatch:
        """The batch, each half padded as far as its own rows need, or to `length` tokens."""
        unlearn, retention = (
            collate(half.encoded, self.model.pad, length=length)
            for half in (batch.unlearn, batch.retention)
        )
        return replace(batch, unlearn=unlearn, retention=retention)

    def _take_divergence(self, method: Entry, retention: Sequence[Encoded], length: int) -> None:
        """Take from the memorized model, which is in memory now, what the divergence needs."""
        soft, drops = self._soft(method), self._drops_reference(method)
        if not soft and not drops:
            return
        found = self.divergence
        if found is None or (found.soft, found.drops) != (soft, drops):
            tensors = self._memorized.tensors
            found = OriginalDivergence(self.model, tensors, soft=soft, drops=drops)
        found.remember(retention, length)
        self.divergence = found

    def _one_sided(
        self,
        method: Entry,
        bound: Mapping[str, Any],
        rows: list[Encoded],
        retention: list[Encoded],
        epochs: int,
    ) -> list[PairedBatch]:
        """One row after another, of all epochs: as many retention rows as unlearn rows."""
        rng, ones = Random(self.seed), [("unlearn", row) for row in rows]
        if self._reads_retention(method, bound, rows[0], retention[0]):
            ones += [("retention", row) for row in retention[: len(rows)]]
            order = rng.sample(ones, len(ones)) * epochs  # the same order in each epoch
        else:
            order = [one for _ in range(epochs) for one in rng.sample(ones, len(ones))]
        pad, batches = self.model.pad, list[PairedBatch]()
        for number, (side, row) in enumerate(order):
            # The other half is never computed, but a paired batch has to have one.
            both = {"unlearn": rows[0], "retention": retention[0]} | {side: row}
            halves = {name: collate([one], pad) for name, one in both.items()}
            batches.append(OneSided(**halves, side=side, epoch=number // len(ones)))
        return batches

    @torch.no_grad()
    def _reads_retention(
        self, method: Entry, bound: Mapping[str, Any], row: Encoded, retention: Encoded
    ) -> bool:
        pair = PairedBatch(collate([row], self.model.pad), collate([retention], self.model.pad))
        read: set[str] = set()
        super().parts(method, bound, pair, read)
        return "retention" in read

    def parts(
        self,
        method: Entry,
        bound: Mapping[str, Any],
        batch: PairedBatch,
        read: set[str],
        forward: Forward | None = None,
        state: Mapping[str, float] | None = None,
    ) -> Parts:
        """The method's loss, on the side that the batch holds, by the public arithmetic."""
        device = self.model.device
        batch = replace(
            batch, unlearn=batch.unlearn.to(device), retention=batch.retention.to(device)
        )
        one_sided = isinstance(batch, OneSided)
        step = (OneSidedStep if one_sided else Step)(
            forward or Forward(self.model),
            batch,
            reference=lambda: self.reference,
            columns=self.columns(method, bound),
            state=method.first_state(bound) if state is None else state,
        )
        parts = self._parts(method, bound, step)
        read.update(step.used)
        if not isinstance(batch, OneSided):
            return dict(parts)
        if batch.side not in parts:
            raise BadInput(
                f"compat mixed_batches: method {method.name} has no part named '{batch.side}'; "
                "leave this behaviour out"
            )
        # Both parts stay named, so that the curve has a row for each; one of them is 0.
        return {k: part if k == batch.side else part.detach() * 0 for k, part in parts.items()}

    def _parts(self, method: Entry, bound: Mapping[str, Any], step: Step) -> Parts:
        """The method's loss, or the public code's in its place."""
        if self._soft(method) or self._drops_reference(method):
            return self._divergence_parts(bound, step)
        if "padding_labels" in self.quirks and method.name in LABELS:
            half = step.unlearn
            column = half.columns[LABELS[method.name]]
            labels = torch.cat([column[row.record.id] for row in half.batch.encoded])
            labels = labels.to(self.model.device)
            return {"unlearn": half.mean(masked_cross_entropy(half, labels, self.model.pad))}
        parts: Parts = method(step, **bound)
        return parts

    def _divergence_parts(self, bound: Mapping[str, Any], step: Step) -> Parts:
        """−ascent·CE(unlearn) + kl·(divergence of the other rows, as the public code has it)."""
        parts: Parts = {"unlearn": -bound["ascent"] * step.unlearn.mean(step.unlearn.mean_nll)}
        if isinstance(step.batch, OneSided) and step.batch.side == "unlearn":
            return parts | {"retention": parts["unlearn"].detach() * 0}
        assert self.divergence is not None, "batches() comes before parts()"
        return parts | {"retention": bound["kl"] * self.divergence(step)}
