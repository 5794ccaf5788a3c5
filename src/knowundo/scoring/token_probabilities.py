"""Probabilities of the true answer's tokens, small enough to be kept for every record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from knowundo.data.decoding import true_ids
from knowundo.data.encoded import Encoded

# Tokens of an answer that are kept; a document of thousands is not shown token by token.
MOST_TOKENS = 96


def token_probabilities(log_probs: torch.Tensor, truth: torch.Tensor) -> list[float]:
    """Probability of each true token, given those before it, in whole percent.

    Args:
        log_probs: [tokens, vocabulary], in nats.
        truth: [tokens], the true ids.
    """
    kept = truth[:MOST_TOKENS]
    own = log_probs[: len(kept)].gather(-1, kept[:, None])[:, 0]
    # A model that diverged gives no number; 0 would claim that it excludes the token.
    return [round(100 * p) if p == p else -1 for p in own.exp().tolist()]


def token_ends(tokenizer: PreTrainedTokenizerBase, row: Encoded) -> list[int] | None:
    """Where each of the answer's tokens ends in the answer, in characters.

    Returns:
        `None` where the tokens do not spell the answer: a tokenizer that normalizes, or an answer
        that was truncated.
    """
    answer, ids = row.record.answer, list(true_ids(row)[:MOST_TOKENS])
    whole = str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
    shift = len(whole) - len(whole.lstrip())
    if not ids or not answer.lstrip().startswith(whole.strip()):
        return None
    lead = len(answer) - len(answer.lstrip())
    ends = [
        lead + len(tokenizer.decode(ids[: n + 1], clean_up_tokenization_spaces=False)) - shift
        for n in range(len(ids))
    ]
    # A character of several tokens is not whole before its last one.
    return [min(max(end, 0), len(answer)) for end in ends]


def digits(probabilities: Sequence[float] | Any) -> str:
    """A digit for each token, tenths of its probability from 0 to 9; `-` where it is no number."""
    if probabilities is None or isinstance(probabilities, float):
        return ""
    return "".join("-" if p < 0 else str(min(9, int(p) // 10)) for p in probabilities)
