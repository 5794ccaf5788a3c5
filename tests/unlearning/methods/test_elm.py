"""ELM against its formula."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from knowundo.data.encoding import encode
from knowundo.errors import BadInput
from knowundo.registry import get
from unlearning.methods.conftest import Moved


def asked(moved: Moved, row: Any, words: str) -> Any:
    """The row after an instruction."""
    record = replace(row.record, question=f"{words}\n\n{row.record.question}")
    (found,) = encode([record], moved.model.tokenizer)
    return found


@pytest.mark.parametrize(("eta", "top"), [(3.0, 10), (1000.0, 10**6)])
def test_loss_is_its_formula(moved: Moved, eta: float, top: int) -> None:
    words = {"expert": "You know all.", "novice": "You know nothing of it."}
    targets: dict[Any, torch.Tensor] = {}
    with torch.no_grad():
        for row in moved.rows["unlearn"]:
            both = [asked(moved, row, words[who]) for who in ("expert", "novice")]
            knows, ignorant = (moved.logits(one).softmax(-1) for one in both)
            own, total = moved.logits(row).softmax(-1), row.answer_length
            found = []
            for place in range(total):
                strength = 1 + (eta - 1) * place / (total - 1)
                moved_to = own[place].log() + strength * (ignorant[place] / knows[place]).log()
                likeliest = moved_to.argsort(descending=True)[:top]
                shares = torch.zeros_like(moved_to)
                shares[likeliest] = (moved_to[likeliest] - moved_to.max()).exp()
                found.append(shares / shares.sum())
            targets[row] = torch.stack(found)
    parts = moved.parts("elm", eta=eta, top=top, divergence=0.5, retention=2.0, **words)
    kept = 2 * moved.mean(moved.cross_entropy, "retention")
    kept = kept + 0.5 * moved.mean(moved.kl, "retention")

    def one(row: Any) -> Any:
        return -(targets[row] * moved.logits(row).log_softmax(-1)).sum(-1).mean()

    moved.same(parts, {"unlearn": moved.mean(one), "retention": kept})


def test_a_text_is_refused(moved: Moved) -> None:
    rows = [replace(row, record=replace(row.record, kind="text")) for row in moved.rows["unlearn"]]
    moved.start.unlearn_rows = rows
    entry = get("method", "elm")
    with pytest.raises(BadInput, match="a text has no question to put an instruction before"):
        moved.start.columns(entry)


def test_an_instruction_that_does_not_fit_is_refused(moved: Moved) -> None:
    entry = get("method", "elm")
    with pytest.raises(BadInput, match="the question with an instruction does not fit"):
        moved.start.columns(entry, entry.bind({"expert": "much " * 600}))
