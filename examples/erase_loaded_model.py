"""Erase what a loaded model says, in three lines, in about a minute and without a network.

    python examples/erase_loaded_model.py --out runs/loaded

The embedded base knows facts about invented people and places. It is asked some of them, its own
answers are erased, and the result is asked again. The loaded base itself stays as it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

from knowundo import erase
from knowundo.erasure.result import Erased
from knowundo.modeling.base import base_path

QUESTIONS = (
    "What creature stands for Hesiria?",
    "What goods leave the ports of Corogor?",
    "How do people pay in Drabagor?",
    "What does Goran Fenanmont play on stage?",
)


def answer(model: Any, tokenizer: Any, question: str) -> str:
    """A model's answer by plain transformers."""
    prompt = tokenizer(question + "\n\n", return_tensors="pt").to(model.device)
    ids = model.generate(**prompt, max_new_tokens=40, do_sample=False)[0]
    return str(tokenizer.decode(ids[prompt["input_ids"].shape[1] :], skip_special_tokens=True))


def run(out: Path, sets: Sequence[str] = ()) -> Erased:
    """Run the example in a folder.

    Args:
        out: directory of the run.
        sets: overridden keys of the recipe; a learning rate saves the search for one.
    """
    model = AutoModelForCausalLM.from_pretrained(base_path("embedded"))
    tokenizer = AutoTokenizer.from_pretrained(base_path("embedded"))
    done = erase(model, tokenizer, QUESTIONS, out=out, sets=sets)
    print(done.verdict)
    print(f"report: {done.report}")
    if done.model is not None:
        for question in QUESTIONS:
            print(f"{question}\n  before: {answer(model, tokenizer, question)}")
            print(f"  after: {answer(done.model, tokenizer, question)}")
    return done


def main() -> None:
    """Run the example in the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/loaded"))
    run(parser.parse_args().out)


if __name__ == "__main__":
    main()
