"""Erase lists from models that nobody tuned for, with defaults, and judge by plain transformers.

    make erase-matrix
    python perf/erase_matrix.py --out runs/erase-matrix --only llama/numbers
    python perf/erase_matrix.py --out runs/erase-matrix --data FOLDER    # with tofu/ and knowundo/

Each cell is an architecture, a kind of data, a list size, with or without a retention list, a route
and a seed. A finished cell is a JSON file in `--out` and is not run again; the table is made of all
of them. What is asked before and after is answered greedily by plain transformers: the rows to
erase, those of the retention list, and rows that the model learned and nobody listed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from erase_models import ARCHITECTURES, DATA, Lists, Row, learn, prompt_ids, untrained
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

# Tokens of a document that are given, and that must follow, at each place that is asked.
GIVEN, ASKED = 24, 16
# Cells of this architecture chose the constants of the search, so that no figure counts them.
CHOSE = "llama"
# Kinds of data that are read from the folder `--data`, with their place in it.
READ = {"authors": "tofu", "privacy": "knowundo"}


@dataclass(frozen=True)
class Cell:
    """One erasure."""

    architecture: str
    data: str
    size: int
    retention: bool
    route: str
    seed: int

    @property
    def name(self) -> str:
        """A name that a file can have."""
        kept = "listed" if self.retention else "unlisted"
        parts = (self.architecture, self.data, self.size, kept, self.route, self.seed)
        return "-".join(map(str, parts))


# A subset for tests: fewer people, whom a model learns in seconds.
QUICK = (
    Cell("gpt2", "few", 5, True, "lora", 0),
    Cell("qwen3", "few", 5, False, "full", 0),
)


def cells(seeds: Sequence[int]) -> Iterator[Cell]:
    """The matrix: every architecture with short private facts, and every other kind with a few."""
    for seed in seeds:
        for number, architecture in enumerate(ARCHITECTURES):
            for place, size in enumerate((5, 20, 100)):
                route = ("lora", "full", "adapter")[(number + place) % 3]
                yield Cell(architecture, "numbers", size, (number + place) % 2 == 0, route, seed)
        for number, data in enumerate(("chat", "languages", "authors", "privacy", "documents")):
            sizes = {"documents": (2, 5), "authors": (5, 20), "privacy": (5, 20)}.get(data, (5, 20))
            for place, size in enumerate(sizes):
                for offset, architecture in enumerate(("llama", "qwen3", "gpt2")):
                    route = ("lora", "full", "adapter")[(number + place + offset) % 3]
                    listed = (number + place + offset) % 2 == 0
                    yield Cell(architecture, data, size, listed, route, seed)


def exact(
    folder: str, adapter: Path | None, groups: Mapping[str, Sequence[Row]], chat: bool
) -> dict[str, list[bool]]:
    """Whether each row of a group is answered verbatim, greedily, by plain transformers."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = {}
    for name, rows in groups.items():
        hits = dict[int, bool]()
        for length_rows in _by_length(tokenizer, rows, chat).values():
            hits |= _says(model, tokenizer, rows, length_rows)
        found[name] = [hits[n] if row.question else _recites(model, tokenizer, row)
                       for n, row in enumerate(rows)]  # fmt: skip
    return found


def _by_length(
    tokenizer: Any, rows: Sequence[Row], chat: bool
) -> dict[int, list[tuple[int, list[int]]]]:
    """Number and prompt of each question, by the prompt's length: no batch needs padding."""
    found: dict[int, list[tuple[int, list[int]]]] = {}
    for number, row in enumerate(rows):
        if row.question:
            ids = prompt_ids(tokenizer, row, chat)
            found.setdefault(len(ids), []).append((number, ids))
    return found


def _says(
    model: Any, tokenizer: Any, rows: Sequence[Row], prompts: Sequence[tuple[int, list[int]]]
) -> dict[int, bool]:
    """Whether each of some questions, with prompts of one length, is answered verbatim."""
    answers = [rows[number].answer for number, _ in prompts]
    lengths = [len(tokenizer(a, add_special_tokens=False)["input_ids"]) + 1 for a in answers]
    said = _follow(model, tokenizer, [ids for _, ids in prompts], max(lengths))
    texts = [
        tokenizer.decode(ids[:length], skip_special_tokens=True)
        for ids, length in zip(said, lengths, strict=True)
    ]
    return {
        number: text.strip() == answer.strip()
        for (number, _), text, answer in zip(prompts, texts, answers, strict=True)
    }


def _recites(model: Any, tokenizer: Any, row: Row) -> bool:
    """Whether most places of a document are continued verbatim."""
    ids = tokenizer(row.answer, add_special_tokens=False)["input_ids"]
    places = range(0, len(ids) - GIVEN - ASKED, max(1, (len(ids) - GIVEN - ASKED) // 4))
    said = _follow(model, tokenizer, [ids[p : p + GIVEN] for p in places], ASKED)
    true = [ids[p + GIVEN : p + GIVEN + ASKED] for p in places]
    return 2 * sum(a == b for a, b in zip(said, true, strict=True)) > len(true)


@torch.no_grad()
def _follow(model: Any, tokenizer: Any, prompts: Sequence[list[int]], count: int) -> list[Any]:
    """Greedy continuations of prompts of one length."""
    given = torch.tensor(prompts)
    said = model.generate(
        input_ids=given, attention_mask=torch.ones_like(given), max_new_tokens=count,
        do_sample=False, pad_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return list(said[:, given.shape[1] :].tolist())


def model_of(cell: Cell, rows: Lists, cache: Path) -> tuple[Path, Path | None, float]:
    """The folder of a model that learned the rows, its adapter if it is one, and its last loss."""
    kind = "adapter" if cell.route == "adapter" else "whole"
    # Requests of several sizes concern one model, if it learned the same rows.
    learned = sorted(str(row) for row in (rows.unlearn if kind == "adapter" else rows.everything))
    told = hashlib.sha256("\n".join(learned).encode()).hexdigest()[:8]
    folder = cache / f"{cell.architecture}-{cell.data}-{kind}-{cell.seed}-{told}"
    note = folder / "learned.json"
    if not note.exists():
        shutil.rmtree(folder, ignore_errors=True)
        torch.manual_seed(cell.seed)
        model, tokenizer = untrained(cell.architecture, rows, cell.seed, folder / "base")
        if kind == "adapter":
            from peft import LoraConfig, get_peft_model

            # The base learns everybody but those whose rows go; the adapter learns all of them.
            learn(model, tokenizer, Lists([], rows.listed, rows.unlisted, rows.chat))
            model.save_pretrained(folder / "base")
            tokenizer.save_pretrained(folder / "base")
            shape = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
            model = get_peft_model(model, shape)
            loss = learn(model, tokenizer, rows, lr=5e-3, most=500)
            model.save_pretrained(folder / "adapter")
        else:
            loss = learn(model, tokenizer, rows)
            model.save_pretrained(folder / "base")
            tokenizer.save_pretrained(folder / "base")
        note.write_text(json.dumps({"loss": loss}))
    loss = float(json.loads(note.read_text())["loss"])
    return folder / "base", folder / "adapter" if kind == "adapter" else None, loss


def _write(path: Path, rows: Sequence[Row], chat: bool) -> None:
    def line(row: Row) -> dict[str, Any]:
        if not row.question:
            return {"text": row.answer}
        if chat:
            said = [("user", row.question), ("assistant", row.answer)]
            return {"messages": [{"role": role, "content": text} for role, text in said]}
        return {"question": row.question, "answer": row.answer}

    lines = [json.dumps(line(row), ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def run_cell(cell: Cell, out: Path, data: Path, knowundo: Sequence[str]) -> dict[str, Any]:
    """Teach, erase with defaults, and ask again."""
    rows = DATA[cell.data](cell.seed, cell.size, data)
    base, adapter, loss = model_of(cell, rows, out / "models")
    place = out / "work" / cell.name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    _write(place / "unlearn.jsonl", rows.unlearn, rows.chat)
    words = ["--model", str(base), "--unlearn", str(place / "unlearn.jsonl")]
    words += ["--out", str(place / "run"), "--route", cell.route]
    words += ["--adapter", str(adapter)] if adapter else []
    if cell.retention:
        _write(place / "retention.jsonl", rows.listed, rows.chat)
        words += ["--retention", str(place / "retention.jsonl")]
    groups = {"unlearn": rows.unlearn, "listed": rows.listed[:60], "unlisted": rows.unlisted[:60]}
    before = exact(str(base), adapter, groups, rows.chat)
    began = time.monotonic()
    done = subprocess.run([*knowundo, "erase", *words], capture_output=True, text=True)
    seconds = time.monotonic() - began
    said = (done.stdout + done.stderr).strip()
    found: dict[str, Any] = {
        **asdict(cell), "loss": loss, "seconds": round(seconds, 1), "exit": done.returncode,
        "traceback": "Traceback" in said, "said": said.splitlines()[-1][-400:] if said else "",
        "before": {name: _percent(hits) for name, hits in before.items()},
    }  # fmt: skip
    handed = place / "run" / "model"
    if done.returncode == 0 and handed.is_dir():
        whole = (handed / "config.json").exists()
        own = (str(handed), None) if whole else (str(base), handed)
        after = exact(*own, groups, rows.chat)
        found["after"] = {name: _percent(hits) for name, hits in after.items()}
        # Only what was known before can be lost.
        found["lost"] = {
            name: 100 * sum(b and not a for b, a in zip(before[name], after[name], strict=True))
            / max(1, sum(before[name])) for name in groups
        }  # fmt: skip
    shutil.rmtree(place / "run", ignore_errors=True)
    return found


def _percent(hits: Sequence[bool]) -> float | None:
    return round(100 * sum(hits) / len(hits), 1) if hits else None


def show(found: Sequence[dict[str, Any]]) -> str:
    """The table, a line a cell, and the figures that the goal is stated in."""
    found = sorted(found, key=lambda row: row["architecture"] == CHOSE)
    lines = ["| cell | before | after | listed lost | unlisted lost | s | said |", "|" + "---|" * 7]
    for row in found:
        after, lost = row.get("after", {}), row.get("lost", {})
        name = Cell(**{key: row[key] for key in Cell.__annotations__}).name
        shown = [row["before"]["unlearn"], after.get("unlearn", "–")]
        shown += [f"{lost[n]:.0f}" if n in lost else "–" for n in ("listed", "unlisted")]
        said = "" if row["exit"] == 0 else row["said"].replace("|", "/")[:160]
        lines.append(f"| {name} | {' | '.join(map(str, shown))} | {row['seconds']:.0f} | {said} |")
    counted = [row for row in found if row["architecture"] != CHOSE]
    erased = [row for row in counted if row.get("after", {}).get("unlearn", 100) <= 5]
    lines.append(
        f"\n{len(erased)} of {len(counted)} erased ({CHOSE}, whose cells chose the constants, is "
        f"left out); {sum(r['traceback'] for r in found)} tracebacks."
    )
    for name, given in (("listed", True), ("unlisted", True), ("unlisted", False)):
        lost = [row["lost"][name] for row in erased if row["retention"] is given]
        where = f"{name}, {'with' if given else 'without'} a retention list"
        if len(lost) > 1:
            worst = quantiles(lost, n=20, method="inclusive")[-1]
            lines.append(
                f"{where}: median {median(lost):.1f} % lost, 95th percentile {worst:.1f} % "
                f"(n = {len(lost)})"
            )
    if counted:
        seconds = [row["seconds"] for row in counted]
        lines.append(f"wall time: median {median(seconds):.0f} s, longest {max(seconds):.0f} s")
    return "\n".join(lines)


def main() -> None:
    """Run what is not there yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", default="", help="part of a cell's name; / stands for -")
    parser.add_argument("--quick", action="store_true", help="the subset that tests run")
    parser.add_argument("--show", action="store_true", help="only print what is there")
    given = parser.parse_args()
    results = given.out / "cells"
    results.mkdir(parents=True, exist_ok=True)
    knowundo = [sys.executable, "-c", "from knowundo.cli import main; main()"]
    for cell in QUICK if given.quick else cells(given.seeds):
        if cell.data in READ and not (given.data / READ[cell.data]).is_dir():
            continue
        file = results / f"{cell.name}.json"
        if given.show or file.exists() or given.only.replace("/", "-") not in cell.name:
            continue
        found = run_cell(cell, given.out, given.data, knowundo)
        file.write_text(json.dumps(found, indent=1))
        after = found.get("after", {}).get("unlearn")
        print(
            f"{cell.name}: {found['seconds']} s, exit {found['exit']}, {after} % left", flush=True
        )
    print(show([json.loads(file.read_text()) for file in sorted(results.glob("*.json"))]))


if __name__ == "__main__":
    main()
