"""`compat: original`: what the public KnowUnDo code does otherwise than the paper, or than we do.

Every behaviour has a name and can be asked for alone; each is there to show what it does to the
scores. Source: zjunlp/KnowUnDo at 92aea2b, files in brackets.

mixed_batches    unlearn and retention rows are shuffled into one list, taken one at a time, 16 to
                 an optimizer step [ascent_plus_descent_tokenizer.py, run_baselines_lora.sh]
fixed_length     rows are padded to 256 tokens, which counts where soft_kl averages over padding
                 [llm_tokenize_with_chunk.py]
question_labels  random labels replace the question's tokens too [llm_tokenize_with_chunk.py]
base_labels      adversarial labels come from the base, for every token of the row, with the token
                 at the place itself masked and not the next one, which the logits there predict;
                 they are then learned one place further left [top_kp_sample.py]
soft_kl          the divergence is −Σ p·log q, mean over every position, question and padding too
                 [ascent_plus_KLdivergence.py]
naive_boundary   the answer begins after as many tokens as the question alone has, so that the blank
                 line belongs to it [llm_tokenize_with_chunk.py, data_module.py]
end_masked       unlearning and evaluation never see an end-of-sequence: none is appended, and the
                 padding is masked [llm_tokenize_with_chunk.py]

Two of its behaviours are ours as well and need no name: half of the answer's tokens, drawn with
replacement, are replaced in input and labels for localization; and ROUGE-L of the teacher-forced
argmax stands in every results.json as `forced_rouge_l`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from knowundo.batches import PairedBatch, collate, paired
from knowundo.encoding import SEPARATOR, Encoded
from knowundo.errors import BadInput
from knowundo.forwards import Columns, Half, Parts, Step, all_hidden_states
from knowundo.head import frozen_head, live_head
from knowundo.models import Model
from knowundo.registry import Entry
from knowundo.unlearning import Encode, Start
from knowundo.vocabulary import full_precision

LENGTH, ACCUMULATION = 256, 16
# Methods whose labels cover the whole row, and the quirk that makes them.
_WHOLE_ROW = {"random_label": "question_labels", "adversarial_sample": "base_labels"}


def naive_boundary(
    encoded: Sequence[Encoded], tokenizer: PreTrainedTokenizerBase, prefix: str = ""
) -> list[Encoded]:
    """The answer begins where the question, tokenized alone, ends."""
    moved = []
    for row in encoded:
        if row.record.kind == "text":
            moved.append(row)
            continue
        labels = SEPARATOR + row.record.answer
        text = prefix + row.record.question + labels
        count = len(tokenizer(text.replace(labels, "")).input_ids)
        moved.append(replace(row, answer_from=min(max(count, 1), len(row.ids) - 1)))
    return moved


def mask_end(encoded: Sequence[Encoded]) -> list[Encoded]:
    """Rows without what follows the answer: no end is unlearned, kept or scored."""
    return [
        replace(row, ids=row.ids[: len(row.ids) - row.tail], fact=row.fact[: -row.tail], tail=0)
        if row.tail
        else row
        for row in encoded
    ]


def soft_cross_entropy(current: torch.Tensor, memorized: torch.Tensor) -> torch.Tensor:
    """−Σ_v p·log(q + 1e-12), mean over positions; logits are [positions, vocabulary]."""
    return -(memorized.softmax(-1) * (current.softmax(-1) + 1e-12).log()).sum(-1).mean()


@dataclass
class OneSided(PairedBatch):
    """A micro-batch of one scope; the other half only fills the place and is never computed."""

    side: str


class _OneSidedStep(Step):
    """Runs the model on one half; the other is scored on zeros, and thrown away."""

    def _half(self, name: str) -> Half:
        side = "unlearn" if name == "alternative" else name
        if side == self.batch.side:  # type: ignore[attr-defined]
            return super()._half(name)
        self.used.add(name)
        batch = self.rows(name)
        layer = self.model.causal_lm().get_output_embeddings()  # type: ignore[operator]
        states = torch.zeros(
            len(batch.targets), layer.in_features, device=self.model.device, dtype=_dtype(layer)
        )
        return Half(batch, states, live_head(self.model), self.columns)


def _dtype(layer: torch.nn.Module) -> torch.dtype:
    return next(layer.parameters()).dtype


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

    def _rows(self, method: Entry) -> list[Encoded]:
        """The unlearn rows as the method sees them: where labels cover the question, from there."""
        if _WHOLE_ROW.get(method.name) in self.quirks:
            return [replace(row, answer_from=1) for row in self.unlearn_rows]
        return list(self.unlearn_rows)

    def _soft(self, method: Entry) -> bool:
        return method.name == "ascent_plus_kl_divergence" and "soft_kl" in self.quirks

    def columns(self, method: Entry, bound: Mapping[str, Any] | None = None) -> Columns:
        """Labels of the row, question included, where the public code makes them so."""
        if _WHOLE_ROW.get(method.name) not in self.quirks:
            return super().columns(method, bound)
        if method.name not in self._columns:
            rows = self._rows(method)
            if method.name == "random_label":
                self._columns[method.name] = {"random": self._random_labels(rows)}
            else:
                self._columns[method.name] = {"adversarial": self._base_labels(rows)}
        return self._columns[method.name]

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
    def _base_labels(self, rows: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """At each place the base's likeliest next token that is not the token standing there."""
        self.hold(self.model.parameters())
        self.model.reset()
        labels = {}
        for row in rows:
            ids = torch.tensor([row.ids], device=self.model.device)
            logits = full_precision(self.model.net(input_ids=ids).logits[0])
            logits[:, -1] = float("-inf")
            logits.scatter_(1, ids[0][:, None], float("-inf"))
            labels[row.record.id] = logits.argmax(-1)[row.answer_from :].cpu()
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
        """Micro-batches: of one row where they are mixed, of full length where it is fixed."""
        length = LENGTH if "fixed_length" in self.quirks else 0
        rows, kept = self._rows(method), list(self.kept_rows[retain_on])
        pad, batches = self.model.pad, list[PairedBatch]()
        if "mixed_batches" in self.quirks:
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
        if self._soft(method):
            self._remember(kept, length)
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

    @torch.no_grad()
    def _remember(self, rows: Sequence[Encoded], length: int) -> None:
        """The memorized model's states of each row at every position that a batch may have."""
        length = max(length, *(len(row.ids) for row in rows))
        self._memorized_head = frozen_head(self.model)
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
        step = (_OneSidedStep if one_sided else Step)(
            self.model, batch, reference=lambda: self.reference, columns=self.columns(method, bound)
        )
        parts = self._soft_parts(step, bound) if self._soft(method) else method(step, **bound)
        read.update(step.used)
        if not isinstance(batch, OneSided):
            return dict(parts)
        if batch.side not in parts:
            raise BadInput(
                f"compat mixed_batches: method {method.name} has no part named '{batch.side}'; "
                "leave this behaviour out"
            )
        return {k: part if k == batch.side else part.detach() * 0 for k, part in parts.items()}

    def _soft_parts(self, step: Step, bound: Mapping[str, Any]) -> Parts:
        """−ascent·CE(unlearn) + kl·(soft cross-entropy over every position of the other rows)."""
        parts: Parts = {"unlearn": -bound["ascent"] * step.unlearn.mean_nll.mean()}
        batch, head = step.batch.retention, live_head(self.model)
        if isinstance(step.batch, OneSided) and step.batch.side == "unlearn":
            return parts | {"retention": parts["unlearn"].detach() * 0}
        step.used.add("retention")
        states = all_hidden_states(self.model, batch)
        held = [self._everywhere[row.record.id][: states.shape[1]] for row in batch.encoded]
        with torch.no_grad():
            memorized = full_precision(self._memorized_head(torch.stack(held).flatten(0, 1)))
        current = full_precision(head(states.flatten(0, 1)))
        return parts | {"retention": bound["kl"] * soft_cross_entropy(current, memorized)}
