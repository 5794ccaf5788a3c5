"""ECO: prompts that ask for the unlearn scope get corrupted embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt

from knowundo.data.encoded import Encoded
from knowundo.modeling.guard import Asked
from knowundo.registry import guard
from knowundo.unlearning.contexts import with_questions
from knowundo.unlearning.prompt_classifier import probability, train_classifier
from knowundo.unlearning.scorer import Scorer


@guard(changes="embeddings")
def eco(
    asked: Asked,
    embeddings: torch.Tensor,
    *,
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5,
    dims: PositiveInt = 1,
    strength: NonNegativeFloat = 100.0,
) -> torch.Tensor:
    """Noise on the embeddings of prompts that a classifier takes for those of the unlearn scope.

    Liu et al. 2024, arXiv:2406.07933. The authors' classifier is a RoBERTa, and a second one finds
    the tokens that get noise; here the first is a logistic regression on the mean embedding of the
    prompt, and all tokens but the last get noise, as in their code where the second finds none. The
    noise is drawn anew for each prompt, and always the same for the same one.

    Args:
        asked: The prompt and the classifier.
        embeddings: Of the prompt's tokens.
        threshold: Probability above which a prompt counts as one of the unlearn scope.
        dims: First dimensions of an embedding that get noise.
        strength: Standard deviation of the noise.
    """
    if probability(asked.learned, embeddings) <= threshold:
        return embeddings
    text = repr((asked.learned["seed"], *asked.ids)).encode()
    generator = torch.Generator().manual_seed(int.from_bytes(sha256(text).digest()[:7], "big"))
    changed = embeddings.clone()
    part = changed[:-1, :dims]
    part += strength * torch.randn(part.shape, generator=generator, dtype=torch.float64).to(part)
    return changed


@eco.prepare
def classifier(rows: Mapping[str, Sequence[Encoded]], scorer: Scorer) -> dict[str, Any]:
    """The classifier of the prompts of unlearn rows against those of retention rows."""
    both = [with_questions(rows[scope], "eco") for scope in ("unlearn", "retention")]
    prompts = ([scorer.embeddings(row.prompt) for row in scope] for scope in both)
    return {"seed": scorer.seed} | train_classifier(*prompts)
