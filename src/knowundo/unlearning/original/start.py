"""`compat: original`: what the public KnowUnDo code does otherwise than the paper, or than we do.

Every behaviour has a name and can be asked for alone; each is there to show what it does to the
scores. Source: zjunlp/KnowUnDo at 92aea2b, files in brackets.

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

Two of its behaviours are ours as well and need no name: half of the answer's tokens, drawn with
replacement, are replaced in input and labels for localization; and ROUGE-L of the teacher-forced
argmax stands in every results.json as `forced_rouge_l`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import Any

import torch

from knowundo.data.batches import PairedBatch, collate, paired
from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput
from knowundo.modeling.fast.chunked_logits import full_precision
from knowundo.modeling.forward import hidden_states
from knowundo.modeling.half import Columns, Half
from knowundo.modeling.head import frozen_head, live_head
from knowundo.modeling.model import Model
from knowundo.modeling.padded import all_hidden_states
from knowundo.modeling.step import Parts, Step
from knowundo.registry import Entry
from knowundo.training.bfloat16 import rounded
from knowundo.unlearning.labels import draw
from knowundo.unlearning.original.losses import (
    OneSided,
    OneSidedStep,
    masked_cross_entropy,
    soft_cross_entropy,
)
from knowundo.unlearning.original.rows import ACCUMULATION, LABELS, LENGTH, WHOLE_ROW, whole_steps
from knowundo.unlearning.start import Encode, Start


class OriginalStart(Start):
    """Where every method starts, with the public code's batches, labels and divergence."""

    def __init__(
        self,
        model: Model,
        unlearn_rows: Sequence[Encoded],
        kept_rows: Mapping[str, Sequence[Encoded]],
        *,
        seed: int,
        quirks: Sequence[str],
        encode: Encode | None = None,
    ) -> None:
        """As `Start`; `quirks` are names from this module's docstring."""
        super().__init__(model, unlearn_rows, kept_rows, seed=seed, encode=encode)
        self.quirks = set(quirks)
        self._everywhere: dict[str, torch.Tensor] = {}
        self._near: dict[str, torch.Tensor] = {}  # the memorized LoRA, on the model's device
        if "bfloat16_updates" in self.quirks:
            self._state = {name: rounded(value) for name, value in self._state.items()}

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
        """torch's AdamW in bfloat16, where training is in bfloat16."""
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
                self._columns[key] = {"random": self._random_labels(rows)}
            else:
                self._columns[key] = {"adversarial": self._base_labels(rows, **bound)}
        return self._columns[key]

    def _random_labels(self, rows: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """Any token in place of every ordinary one; special tokens stay."""
        generator = torch.Generator().manual_seed(self.seed)
        special = torch.tensor(sorted(self.model.tokenizer.all_special_ids))
        labels = {}
        for row in rows:
            truth = torch.tensor(row.ids[row.answer_from :])
            drawn = torch.randint(self.model.tokenizer.vocab_size, truth.shape, generator=generator)
            labels[row.record.id] = torch.where(torch.isin(truth, special), truth, drawn)
        return labels

    @torch.no_grad()
    def _base_labels(
        self, rows: Sequence[Encoded], *, top_k: int | None, top_p: float, keep_truth: bool
    ) -> dict[str, torch.Tensor]:
        """At each place a likely next token of the base that is not the token standing there."""
        self.hold(self.model.parameters())
        self.model.reset()
        labels, generator = {}, torch.Generator().manual_seed(self.seed)
        for row in rows:
            ids = torch.tensor([row.ids], device=self.model.device)
            logits = full_precision(self.model.net(input_ids=ids).logits[0])
            logits[:, -1] = float("-inf")
            if not keep_truth:
                logits.scatter_(1, ids[0][:, None], float("-inf"))
            drawn = draw(logits, top_k=top_k, top_p=top_p, generator=generator)
            labels[row.record.id] = drawn[row.answer_from :]
        self.restore()
        return labels

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
        """Micro-batches: of one row where they are mixed, of full length where it is fixed.

        Raises:
            BadInput: `retained` is given, and rows are mixed.
        """
        length = LENGTH if "fixed_length" in self.quirks else 0
        rows, kept = self._rows(method), list(self.kept_rows[retain_on])
        pad, batches = self.model.pad, list[PairedBatch]()
        if "mixed_batches" in self.quirks:
            if retained is not None:
                raise BadInput("compat mixed_batches: has no number of retained rows; leave it out")
            accumulation = ACCUMULATION
            for side, row in self._mixed(method, bound, rows, kept, epochs):
                both = {"unlearn": rows[0], "retention": kept[0]} | {side: row}
                halves = {name: collate([one], pad, length=length) for name, one in both.items()}
                batches.append(OneSided(**halves, side=side))
        else:
            options: dict[str, Any] = {"size": size, "retained": retained, "epochs": epochs}
            for pair in paired(rows, kept, **options, seed=self.seed, pad=pad):
                halves = {
                    name: collate(half.encoded, pad, length=length)
                    for name, half in (("unlearn", pair.unlearn), ("retention", pair.retention))
                }
                batches.append(PairedBatch(**halves))
        if self._soft(method) or self._drops_reference(method):
            self._memorized_head = frozen_head(self.model)
        if self._soft(method) and not self._drops_reference(method):
            self._remember(kept, length)
        if "whole_steps" in self.quirks:
            steps, accumulation = whole_steps(len(batches), epochs, accumulation)
            batches = batches[: steps * accumulation]
        return batches, accumulation

    def _mixed(
        self,
        method: Entry,
        bound: Mapping[str, Any],
        rows: list[Encoded],
        kept: list[Encoded],
        epochs: int,
    ) -> list[tuple[str, Encoded]]:
        """Rows of all epochs, one after another: as many kept ones as unlearn ones."""
        rng, ones = Random(self.seed), [("unlearn", row) for row in rows]
        if not self._reads_retention(method, bound, rows[0], kept[0]):
            return [one for _ in range(epochs) for one in rng.sample(ones, len(ones))]
        ones += [("retention", row) for row in kept[: len(rows)]]
        return rng.sample(ones, len(ones)) * epochs  # read in one order, epoch after epoch

    @torch.no_grad()
    def _reads_retention(
        self, method: Entry, bound: Mapping[str, Any], row: Encoded, kept: Encoded
    ) -> bool:
        pair = PairedBatch(collate([row], self.model.pad), collate([kept], self.model.pad))
        read: set[str] = set()
        super().parts(method, bound, pair, read)
        return "retention" in read

    @contextmanager
    def _memorized(self) -> Iterator[None]:
        """Within it, a forward without gradients is the memorized model's, and its LoRA drops.

        Parameters are exchanged, not overwritten: what a graph has saved of them stays as it is.
        """
        own = self.model.parameters()
        if not self._near:
            self._near = {name: value.to(self.model.device) for name, value in self._state.items()}
        before = {name: own[name].data for name in self._near}
        dropouts = [m for name, m in self.model.net.named_modules() if "lora_dropout" in name]
        training = [module.training for module in dropouts]
        try:
            for name, value in self._near.items():
                own[name].data = value
            for module in dropouts:
                module.train()
            with torch.no_grad():
                yield
        finally:
            for module, mode in zip(dropouts, training, strict=True):
                module.training = mode
            for name, value in before.items():
                own[name].data = value

    @torch.no_grad()
    def _remember(self, rows: Sequence[Encoded], length: int) -> None:
        """The memorized model's states of each row at every position that a batch may have."""
        length = max(length, *(len(row.ids) for row in rows))
        for row in rows:
            if row.record.id not in self._everywhere:
                batch = collate([row], self.model.pad, length=length).to(self.model.device)
                self._everywhere[row.record.id] = all_hidden_states(self.model, batch)[0]

    def parts(
        self, method: Entry, bound: Mapping[str, Any], batch: PairedBatch, read: set[str]
    ) -> Parts:
        """The method's loss, on the side that the micro-batch holds, by the public arithmetic."""
        device = self.model.device
        batch = replace(
            batch, unlearn=batch.unlearn.to(device), retention=batch.retention.to(device)
        )
        one_sided = isinstance(batch, OneSided)
        step = (OneSidedStep if one_sided else Step)(
            self.model, batch, reference=lambda: self.reference, columns=self.columns(method, bound)
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
        return {k: part if k == batch.side else part.detach() * 0 for k, part in parts.items()}

    def _parts(self, method: Entry, bound: Mapping[str, Any], step: Step) -> Parts:
        """The method's loss, or the public code's in its place."""
        if self._soft(method) or self._drops_reference(method):
            return self._divergence_parts(method, bound, step)
        if "padding_labels" in self.quirks and method.name in LABELS:
            half = step.unlearn
            column = half.columns[LABELS[method.name]]
            labels = torch.cat([column[row.record.id] for row in half.batch.encoded])
            labels = labels.to(self.model.device)
            return {"unlearn": half.mean(masked_cross_entropy(half, labels, self.model.pad))}
        parts: Parts = method(step, **bound)
        return parts

    def _divergence_parts(self, method: Entry, bound: Mapping[str, Any], step: Step) -> Parts:
        """−ascent·CE(unlearn) + kl·(divergence of the other rows, as the public code has it)."""
        parts: Parts = {"unlearn": -bound["ascent"] * step.unlearn.mean(step.unlearn.mean_nll)}
        if isinstance(step.batch, OneSided) and step.batch.side == "unlearn":
            return parts | {"retention": parts["unlearn"].detach() * 0}
        soft = self._soft(method)
        divergence = self._soft_divergence(method, step) if soft else self._dropped_divergence(step)
        return parts | {"retention": bound["kl"] * divergence}

    def _soft_divergence(self, method: Entry, step: Step) -> torch.Tensor:
        """Soft cross-entropy over every position."""
        step.used.add("retention")
        batch, head = step.batch.retention, live_head(self.model)
        if self._drops_reference(method):
            with self._memorized():
                held = all_hidden_states(self.model, batch)
        else:
            longest = batch.ids.shape[1]
            rows = [self._everywhere[row.record.id][:longest] for row in batch.encoded]
            held = torch.stack(rows)
        with torch.no_grad():
            memorized = full_precision(self._memorized_head(held.flatten(0, 1)))
        states = all_hidden_states(self.model, batch)
        current = full_precision(head(states.flatten(0, 1)))
        # A mean over positions: of a part of the batch, its share.
        return soft_cross_entropy(current, memorized) * len(batch) / len(batch.whole)

    def _dropped_divergence(self, step: Step) -> torch.Tensor:
        """KL(memorized ‖ current) at the answers, with dropout in both."""
        batch = step.batch.retention
        with self._memorized():
            states = hidden_states(self.model, batch.apart())
        reference = Half(batch, states, self._memorized_head)
        return step.retention.mean(step.retention.divergence_from(reference))
