"""What the memorized model says of somebody it has never heard of, at each token of an answer.

The question about a person is asked about invented people instead, and their answers' distributions
are averaged. That is what a model that never saw the person would say: the format of a telephone
number, but no digit of this one (Liu et al. 2024, arXiv:2407.16997, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

import torch
from torch.nn.functional import logsigmoid

from knowundo.data.encoded import Encoded
from knowundo.data.neighbours import invented_names
from knowundo.modeling.half import Columns, Half
from knowundo.modeling.step import Step
from knowundo.unlearning.scorer import Scorer

# Likeliest tokens whose probabilities are held for each position; all others are one outcome more.
# Whole distributions of a list of 100 answers would take gigabytes with today's vocabularies.
HELD_TOKENS = 256


def teachers(encoded: Sequence[Encoded], scorer: Scorer, *, names: int = 8) -> Columns:
    """Averaged distributions of invented people, for the rows whose question names its subject.

    Args:
        encoded: the unlearn rows.
        scorer: of the memorized model.
        names: invented people that are asked about.

    Returns:
        Two columns by record id, both [answer tokens, `HELD_TOKENS` or the vocabulary]:
        `teacher_tokens`, the ids of the likeliest tokens and of the true one, and `teacher`, their
        probabilities. A row without a subject in its question has neither.
    """
    known = {row.record.subject or "" for row in encoded}
    strangers = invented_names(names, scorer.seed, known)
    tokens, probabilities = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    for row in encoded:
        others = [other for name in strangers if (other := scorer.about(row, name)) is not None]
        if not others:
            continue
        mean = _mean_distribution(row, others, scorer)
        count = min(HELD_TOKENS, mean.shape[-1])
        truth = torch.tensor(row.ids[row.answer_from :], device=mean.device)[:, None]
        # The true token must be among those held: it is the one whose probability has to fall.
        top = mean.scatter(1, truth, 2.0).topk(count, dim=-1).indices
        tokens[row.record.id], probabilities[row.record.id] = top, mean.gather(1, top)
    return {"teacher_tokens": tokens, "teacher": probabilities}


def _mean_distribution(row: Encoded, others: Sequence[Encoded], scorer: Scorer) -> torch.Tensor:
    """Mean over strangers of the distribution at each answer token, [answer tokens, vocabulary].

    An answer may repeat the name, whose tokens differ. Tokens are therefore aligned, and a token of
    the name itself, which no stranger's answer has, keeps the memorized model's own distribution:
    that somebody is called by the name they were asked about is no secret.
    """
    found = {id(held): logits.softmax(-1) for held, logits in scorer.logits([row, *others])}
    own = found[id(row)]
    total, counts = torch.zeros_like(own), own.new_zeros(len(own))
    for other in others:
        answers = row.ids[row.answer_from :], other.ids[other.answer_from :]
        for block in SequenceMatcher(None, *answers, autojunk=False).get_matching_blocks():
            mine = slice(block.a, block.a + block.size)
            total[mine] += found[id(other)][block.b : block.b + block.size]
            counts[mine] += 1
    return torch.where(counts[:, None] > 0, total / counts.clamp_min(1)[:, None], own)


def divergence_from_strangers(step: Step, beta: float) -> torch.Tensor:
    """Divergence of the unlearn rows from what is said of strangers, in nats, [rows].

    A row whose question names nobody has no teacher: there it is NPO, −(2/β)·log σ(−β·log ratio).

    Args:
        step: Its columns are those of `teachers`.
        beta: β of NPO.
    """
    unlearn = step.unlearn
    named = torch.tensor([r.record.id in step.columns["teacher"] for r in unlearn.batch.encoded])
    lost = torch.zeros(len(named), device=unlearn.states.device)
    if named.any():
        lost = divergence_from_teacher(unlearn, step.columns)
    if not named.all():
        log_ratio = step.reference.unlearn.nll - unlearn.nll
        npo = -2 / beta * logsigmoid(-beta * log_ratio)
        lost = torch.where(named.to(npo.device), lost, npo)
    return lost


def divergence_from_teacher(half: Half, columns: Columns) -> torch.Tensor:
    """Sum over answer tokens of KL(teacher ‖ current), [rows]; 0 for a row without a teacher.

    The tokens that are not held count as one outcome, which makes it a lower bound of the
    divergence of the whole distributions, zero for equal ones (data processing inequality).
    """

    def column(name: str) -> torch.Tensor:
        held = columns[name]
        any_row = next(iter(held.values()))
        rows = [
            held[row.record.id]
            if row.record.id in held
            else any_row.new_zeros(row.answer_length, any_row.shape[-1])
            for row in half.batch.encoded
        ]
        return torch.cat(rows).to(half.states.device)

    teacher = column("teacher").to(half.states.dtype)

    def divergence(
        logits: torch.Tensor, ids: torch.Tensor, before: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        now = logits.log_softmax(-1).gather(-1, ids)
        rest = (1 - before.sum(-1)).clamp_min(0.0)
        left = (1 - now.exp().sum(-1)).clamp_min(1e-9).log()
        inside = torch.xlogy(before, before) - before * now
        known = before.sum(-1) > 0  # a row without a teacher has zeros only
        return ((inside.sum(-1) + torch.xlogy(rest, rest) - rest * left) * known,)

    values = half.by_token(divergence, column("teacher_tokens"), teacher)[0]
    return half.per_row(values) * half.batch.lengths
