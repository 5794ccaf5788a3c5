"""What a scorer sees of one record: the answer's tokens, a generated answer, or other answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch

from knowundo.data.encoded import Encoded
from knowundo.data.records import Record
from knowundo.data.wording import Overlap, rouge_l


class Tokens:
    """What a model predicts at each token of a true answer (`@scorer(needs="tokens")`).

    It exists while the logits of this one row do; a scorer returns a number and keeps none of it.
    The ids that end the answer are left out, as they are of token accuracy.
    """

    def __init__(self, row: Encoded, log_probs: torch.Tensor, right: Sequence[bool]) -> None:
        """Take a row's log-probabilities.

        Args:
            row: The row.
            log_probs: Of the whole answer, [answer tokens, vocabulary].
            right: Whether each token was the most likely one, without the ids that end the answer.
        """
        self.right = np.array(right, dtype=bool)
        """Whether each token was the most likely one, [tokens]."""
        self.row, self.record = row, row.record
        length = row.answer_length - row.tail
        self._targets = torch.tensor(row.ids[row.answer_from :][:length], device=log_probs.device)
        self.log_probs = log_probs[:length]

    def __len__(self) -> int:
        return len(self._targets)

    @cached_property
    def nll(self) -> np.ndarray:
        """Negative log-likelihood of each token in nats, [tokens]."""
        found = self.log_probs.gather(1, self._targets[:, None])[:, 0]
        return -found.cpu().numpy()

    @cached_property
    def surprise(self) -> np.ndarray:
        """Each token's log-probability, standardized over the vocabulary, [tokens].

        (log p − μ) / σ, where μ and σ are the mean and the standard deviation of log p under p
        itself (Zhang et al. 2024, arXiv:2404.02936, Eq. 3); σ² is at least 1e-6.
        """
        # In float32, in half the time; a token of probability 0 has no part in either moment.
        log_probs = self.log_probs.to(torch.float32).clamp(min=-1e4)
        probabilities = log_probs.exp()
        mean = (probabilities * log_probs).sum(-1)
        variance = (log_probs - mean[:, None]).square_().mul_(probabilities).sum(-1)
        mu, sigma = mean.cpu().numpy(), variance.clamp(min=1e-6).sqrt().cpu().numpy()
        return (-self.nll - mu) / sigma


@dataclass(frozen=True)
class Generated:
    """What a model answers by itself (`@scorer(needs="answer")`).

    Attributes:
        record: With the true answer.
        said: The generated text.
    """

    record: Record
    said: str

    def overlap(self, *, stem: bool) -> Overlap | None:
        """ROUGE-L with the true answer; `None` if that has no word."""
        return _overlap(self.record.answer, self.said, stem)


@lru_cache(maxsize=4096)
def _overlap(answer: str, said: str, stem: bool) -> Overlap | None:
    return rouge_l(answer, said, stem=stem)


@dataclass(frozen=True)
class Alternatives:
    """How likely the answers to one question are (`@scorer(needs="alternatives")`).

    Attributes:
        record: With the answers.
        true: Mean negative log-likelihood of the true answer's tokens, in nats.
        paraphrase: The same of the answer in other words; of the true one, if there is none.
        others: The same of each of `record.alternatives`.
    """

    record: Record
    true: float
    paraphrase: float
    others: Sequence[float]
