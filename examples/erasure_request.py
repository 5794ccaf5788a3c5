"""An erasure request from start to end, in about a minute and without a network.

    python examples/erasure_request.py --out runs/example

First a model is finetuned with all of its weights on facts about eight people, as yours may have
been. Then one of them asks to be erased. Plain transformers loads the result.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from knowundo import Run, load_recipe, memorize
from knowundo.erasure.erase import Erased, run_request
from knowundo.erasure.request import ErasureRequest
from knowundo.progress import RichReporter


def finetuned_model(out: Path, people: int) -> tuple[Path, list[dict[str, str]]]:
    """A model that knows some people, and the private rows of one of them."""
    recipe, given = load_recipe(
        "demo",
        [f"data.subjects={people}", "model.adaptation=full", "memorize.retain_model=false",
         "memorize.epochs=40"],
    )  # fmt: skip
    run = Run(recipe, out, given=given, reporter=RichReporter())
    memorize(run)
    private = [r for r in run.records if r.scope == "unlearn" and r.split in ("train", "val")]
    person = private[0].subject
    rows = [{"question": r.question, "answer": r.answer} for r in private if r.subject == person]
    return run.memorized, rows


def answer(folder: Path, question: str) -> str:
    """A model's answer by plain transformers, without knowundo."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    prompt = tokenizer(question + "\n\n", return_tensors="pt")
    ids = model.generate(**prompt, max_new_tokens=40, do_sample=False)[0]
    return str(tokenizer.decode(ids[prompt["input_ids"].shape[1] :], skip_special_tokens=True))


def run(out: Path, people: int = 8, sets: Sequence[str] = ()) -> Erased:
    """Run the example in a folder.

    Args:
        out: the folder.
        people: how many people the model knows.
        sets: overridden keys of the recipe; a learning rate saves the search for one.
    """
    model, rows = finetuned_model(out / "yours", people)
    request = out / "rows.jsonl"
    request.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done = run_request(
        ErasureRequest(
            model=str(model),
            unlearn=request,
            out=out / "request-1",
            form="merged",
            sets=tuple(sets),
        ),
        RichReporter(),
    )
    print(done.verdict)
    if done.exported is not None:
        question = rows[0]["question"]
        for name, folder in (("before", model), ("after", done.exported.folder)):
            print(f"{name}: {question} → {answer(folder, question)}")
    return done


def main() -> None:
    """Run the example in the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/example"))
    run(parser.parse_args().out)


if __name__ == "__main__":
    main()
