"""An erasure request from beginning to end, in about a minute and without a network.

    python examples/erasure_request.py --out runs/example

Stage one stands for your own history: a model is finetuned, all of its weights, on facts about
eight people. Then one of them asks to be erased. What comes out is loaded by plain transformers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from knowundo import Run, load_recipe, memorize
from knowundo.erasure import Request, erase
from knowundo.progress import RichReporter


def finetuned_model(out: Path) -> tuple[Path, list[dict[str, str]]]:
    """A model that knows eight people, and what it should not know about one of them."""
    recipe, given = load_recipe(
        "demo",
        ["data.subjects=8", "model.adaptation=full", "memorize.retain_model=false",
         "memorize.epochs=40"],
    )  # fmt: skip
    run = Run(recipe, out, given=given, reporter=RichReporter())
    memorize(run)
    private = [r for r in run.records if r.scope == "unlearn" and r.split in ("train", "val")]
    person = private[0].subject
    rows = [{"question": r.question, "answer": r.answer} for r in private if r.subject == person]
    return run.memorized, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/example"))
    out = parser.parse_args().out

    model, rows = finetuned_model(out / "yours")
    request = out / "rows.jsonl"
    request.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    done = erase(
        Request(model=str(model), unlearn=request, out=out / "request-1", form="merged"),
        RichReporter(),
    )
    print(done.verdict)
    assert done.exported is not None

    # From here on nothing of knowundo is needed.
    tokenizer = AutoTokenizer.from_pretrained(done.exported.folder)
    for name, folder in (("before", model), ("after", done.exported.folder)):
        loaded = AutoModelForCausalLM.from_pretrained(folder)
        prompt = tokenizer(rows[0]["question"] + "\n\n", return_tensors="pt")
        ids = loaded.generate(**prompt, max_new_tokens=40, do_sample=False)[0]
        said = tokenizer.decode(ids[prompt["input_ids"].shape[1] :], skip_special_tokens=True)
        print(f"{name}: {rows[0]['question']} → {said}")


if __name__ == "__main__":
    main()
