"""A linear classifier of prompts: whether they ask for the unlearn scope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

# Weight of the squared norm of the weights of standardized features.
DECAY = 1e-2
FOLDS = 5


def train_classifier(
    unlearn: Sequence[torch.Tensor], others: Sequence[torch.Tensor]
) -> dict[str, Any]:
    """Logistic regression on the mean embedding of a prompt's tokens; both classes weigh the same.

    Args:
        unlearn: Embeddings of prompts that ask for the unlearn scope, [tokens, hidden] each.
        others: Embeddings of prompts that do not.

    Returns:
        `weight` [hidden] and `bias` [1]; under `measured` the accuracy in [0, 1] on these prompts,
        and on a fifth of them that a classifier of the others did not see, mean over five such.
    """
    rows = torch.stack([_feature(one) for one in (*unlearn, *others)]).double().cpu()
    labels = torch.tensor([1.0] * len(unlearn) + [0.0] * len(others), dtype=torch.float64)
    weight, bias = _fitted(rows, labels)
    measured = {"classifier_accuracy": _accuracy(rows, labels, weight, bias)}
    folds = torch.arange(len(rows)) % FOLDS
    unseen = [_unseen(rows, labels, folds == n) for n in range(FOLDS)]
    if not any(one is None for one in unseen):
        found = [one for one in unseen if one is not None]
        measured["classifier_accuracy_unseen"] = sum(found) / len(found)
    return {"weight": weight.float(), "bias": bias.float(), "measured": measured}


def probability(learned: Mapping[str, Any], embeddings: torch.Tensor) -> float:
    """Probability that a prompt asks for the unlearn scope, in [0, 1].

    Args:
        learned: What `train_classifier` returned.
        embeddings: Of the prompt's tokens, [tokens, hidden].
    """
    feature = _feature(embeddings)
    return float((feature @ learned["weight"].to(feature) + learned["bias"].to(feature)).sigmoid())


def _feature(embeddings: torch.Tensor) -> torch.Tensor:
    return embeddings.float().mean(0)


def _fitted(rows: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight [hidden] and bias [1] for features as they are; they are standardized meanwhile."""
    mean, spread = rows.mean(0), rows.std(0).clamp_min(1e-6)
    scaled = (rows - mean) / spread
    weight = torch.zeros(rows.shape[1], dtype=rows.dtype, requires_grad=True)
    bias = torch.zeros(1, dtype=rows.dtype, requires_grad=True)
    share = labels.mean()
    balance = torch.where(labels > 0, 0.5 / share, 0.5 / (1 - share))
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        wrong = binary_cross_entropy_with_logits(scaled @ weight + bias, labels, balance)
        value = wrong + DECAY * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    found = weight.detach() / spread
    return found, bias.detach() - mean @ found


def _accuracy(
    rows: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> float:
    right = (rows @ weight + bias > 0) == (labels > 0)
    return float(right.double().mean())


def _unseen(rows: torch.Tensor, labels: torch.Tensor, fold: torch.Tensor) -> float | None:
    """Accuracy on a fold of a classifier of the other rows; `None` if these are of one class."""
    seen = labels[~fold]
    if not fold.any() or not 0 < float(seen.mean()) < 1:
        return None
    return _accuracy(rows[fold], labels[fold], *_fitted(rows[~fold], seen))
