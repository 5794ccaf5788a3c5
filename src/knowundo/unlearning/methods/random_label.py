"""Descent on random labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from knowundo.data.encoded import Encoded
from knowundo.modeling.half import Columns
from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.scorer import Scorer


@method(reads=("unlearn",))
def random_label(step: Step) -> Parts:
    """CE(uniformly random tokens in place of the answer's).

    Golatkar et al. 2020, arXiv:1911.04933.
    """
    return {"unlearn": step.unlearn.mean(step.unlearn.cross_entropy("random"))}


@random_label.prepare
def random_tokens(records: Sequence[Encoded], scorer: Scorer) -> Columns:
    """Draw, once for each answer position, any token but a special one."""
    generator = torch.Generator().manual_seed(scorer.seed)
    ordinary = torch.tensor([t for t in range(scorer.vocabulary) if t not in scorer.special])
    draws = [torch.randint(len(ordinary), (r.answer_length,), generator=generator) for r in records]
    return {"random": {r.record.id: ordinary[d] for r, d in zip(records, draws, strict=True)}}
