"""What a model predicts at each position of the true answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import nll_loss

from knowundo.data.encoded import Encoded
from knowundo.distributed.sums import own_share
from knowundo.entry import Entry
from knowundo.modeling.fast.chunked_logits import full_precision
from knowundo.modeling.forward import Forward, answer_logits, answer_states
from knowundo.modeling.head import live_head
from knowundo.modeling.model import Model
from knowundo.scoring.columns import numbers
from knowundo.scoring.progress import ScoringState, merged
from knowundo.scoring.seen import Tokens
from knowundo.scoring.token_probabilities import token_probabilities

# Probability of a whole answer, from which most sampled answers would be the same.
SURE = 0.5


def teacher_forced(model: Model, encoded: Sequence[Encoded]) -> dict[str, dict[str, Any]]:
    """Per record id, with the true answer given as far as each position.

    Args:
        model: not changed.
        encoded: the rows.

    Returns:
        `tokens`: answer tokens without the tail that ends it; `token_accuracy`: share of them that
        were the most likely ones; `fact_accuracy`: the same over the fact's tokens, None where
        none is marked; `mean_nll`: negative log-likelihood per token in nats, the tail included,
        None where it is no finite number;
        `likeliest`: the most likely tokens themselves, without the tail;
        `token_probabilities`: of the first true tokens, in whole percent, without the tail.
    """
    state = ScoringState(1)
    force_answers(Forward(model), encoded, state)
    return state.forced[0]


def force_answers(
    forward: Forward,
    encoded: Sequence[Encoded],
    state: ScoringState,
    scorers: Sequence[Entry] = (),
) -> None:
    """Score the true answers that the state does not hold yet, and put the scores into it.

    Of several processes each takes its share of the rows, and gets the scores of all.

    Args:
        forward: Of one or several models.
        encoded: The rows.
        state: Gets what `teacher_forced` says of each row.
        scorers: Those that need tokens; what they make of a row is put beside it.
    """
    left = [row for row in encoded if row.record.id not in state.forced[0]]
    missing = set(left[own_share()])
    for row, each in _logits_of_each(forward, encoded, missing):
        if row not in missing:
            continue
        for rows, logits in zip(state.forced, each, strict=True):
            rows[row.record.id] = _judged(row, logits, scorers)
        state.keep()
    state.forced = merged(state.forced, encoded)


def _logits_of_each(
    forward: Forward, encoded: Sequence[Encoded], missing: set[Encoded]
) -> Iterator[tuple[Encoded, Iterable[torch.Tensor]]]:
    """Rows, and the logits of each model in turn: those of several adapters are never all held."""
    if forward.guard is not None:
        for row, logits in answer_logits(forward, encoded, only=missing):
            yield row, [logits]
        return
    head = live_head(forward.model)

    def logits_of(states: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return full_precision(head(states))

    for row, states in answer_states(forward, encoded, only=missing):
        yield row, map(logits_of, states if forward.adapters > 1 else states[None])


def _judged(row: Encoded, logits: torch.Tensor, scorers: Sequence[Entry]) -> dict[str, Any]:
    """What `teacher_forced` says of a row, and what scorers make of its logits."""
    truth = torch.tensor(row.ids[row.answer_from :], device=logits.device)
    likeliest = logits.argmax(-1)[: row.answer_length - row.tail]
    right = (likeliest == truth[: len(likeliest)]).tolist()
    fact = [hit for hit, inside in zip(right, row.fact[row.answer_from :], strict=False) if inside]
    log_probs = logits.double().log_softmax(-1)
    mean_nll = float(nll_loss(log_probs, truth))
    return {
        "tokens": len(right),
        "token_accuracy": sum(right) / len(right) if right else None,
        "fact_accuracy": sum(fact) / len(fact) if fact else None,
        "mean_nll": mean_nll if math.isfinite(mean_nll) else None,
        "likeliest": likeliest.tolist(),
        "token_probabilities": token_probabilities(log_probs, truth[: len(likeliest)]),
        **numbers(scorers, Tokens(row, log_probs, right)),
    }


def token_accuracy(model: Model, encoded: Sequence[Encoded]) -> float:
    """Token accuracy, mean over rows, in [0, 1]."""
    return mean_accuracy(teacher_forced(model, encoded).values())


def mean_accuracy(forced: Iterable[Mapping[str, Any]]) -> float:
    """Mean token accuracy of rows of `teacher_forced`, in [0, 1]."""
    rows = [row["token_accuracy"] for row in forced]
    measured = [value for value in rows if value is not None]
    return sum(measured) / len(measured)


def answer_probability(row: Encoded, forced: Mapping[str, Any]) -> float:
    """Probability of a row's whole answer, in [0, 1], from what `teacher_forced` says of it."""
    mean_nll = forced["mean_nll"]
    return 0.0 if mean_nll is None else math.exp(-mean_nll * row.answer_length)
