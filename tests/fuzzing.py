"""Mutated input against everything that reads: a value, or one line that says what is wrong.

    python tests/fuzzing.py --inputs 20000        # make fuzz

Starts from files that are right, changes bytes or values in them, and reads them. No exception but
our own may come out, none may take long, and nothing may lie in the folder that was not there.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from knowundo.data.benchmarks.knowundo import knowundo
from knowundo.data.benchmarks.lists import lists
from knowundo.data.encoding import RowFormat, encode
from knowundo.data.lists.reading import read_list
from knowundo.data.records import Record
from knowundo.erasure.request_log import LOG_FILE, LoggedRequest, RequestLog, read_log
from knowundo.errors import KnowUndoError
from knowundo.modeling.adapters import ADAPTER, Adaptation, adaptation_of
from knowundo.modeling.base import base_path
from knowundo.modeling.model import Model
from knowundo.modeling.regions import read_region
from knowundo.modeling.variant import ModelVariant
from knowundo.modeling.weights import load_state, save_state
from knowundo.recipes.reading import load_recipe
from knowundo.results import Results, read_results
from knowundo.runs.checks import check, effective
from knowundo.runs.run import Run
from knowundo.scoring.generation import complete
from knowundo.scoring.table import read_scores
from knowundo.storage.artifacts import MANIFEST, is_done, new_folder
from knowundo.storage.checkpoints import Checkpoint
from knowundo.storage.integrity import seal, verify
from knowundo.storage.locks import _holder
from knowundo.unlearning.answers import answers
from toy_tokenizers import TEMPLATES

SECONDS, MEMORY = 5.0, 16 * 2**30


class Hang(BaseException):
    """It took too long."""


@dataclass
class Target:
    """A reader: the file that is changed, what it may look like, and who reads it."""

    name: str
    file: str  # inside the folder
    samples: list[bytes]
    read: Callable[[Path], Any]  # of the folder
    beside: dict[str, bytes] = field(default_factory=dict)  # other files, which stay right


@dataclass
class Outcome:
    """What came of a target's inputs."""

    inputs: int = 0
    refused: int = 0
    accepted: int = 0
    slowest: float = 0.0
    faults: list[str] = field(default_factory=list)


# Words that parsers stumble over.
TOKENS = [
    b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"1e999",
    b"-1", b"NaN", b"Infinity", b"null", b"true", b"{}", b"[]", b'"', b"'", b"\r\n", b"\n\n", b"\t",
    b"&a [*a, *a]", b"*a", b"<<: *a", b"!!python/object/apply:os.system [id]", b"!!binary x",
    b"2020-13-45", b"0x", b"0b2", b": ", b"- ", b"? ", b"#", b"%YAML 9.9\n", b"---\n", b"...\n",
    b"[" * 3000, b'{"a":' * 2000, b"9" * 6000, b"a" * 200_000, b"../../../etc/passwd", b"\x1b[2J",
    "\u202e".encode(), "\u2028".encode(), b"<script>", b"{{7*7}}", b"$(id)", b"%s%n", b",,,,",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 10**30, 1e308, float("nan"), float("inf"), "", " ", "\0",
    "\ud800", "../x", "/etc/passwd", "a" * 5000, "\x1b[31m", [], {}, [[]], [None], {"": {}},
    [[[[[]]]]], "auto", "1e-4", "everything", ["a", 1], {"type": "image", "url": "x"},
    {"type": "text", "text": 1}, [{"function": {"name": "f", "arguments": "{}"}}], "tool", 42,
]  # fmt: skip


def mutated(sample: bytes, rng: Random) -> bytes:
    """A file like the sample, changed in one to four places."""
    if rng.random() < 0.4 and (changed := _restructured(sample, rng)) is not None:
        return changed
    data = bytearray(sample)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data) + 1)
        end = min(len(data), place + rng.randint(1, 40))
        kind = rng.randrange(6)
        if kind == 0 and place < len(data):
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[place:end]
        elif kind == 2:
            data[place:place] = data[place:end] * rng.randint(1, 20)
        elif kind == 3:
            data[place:place] = rng.choice(TOKENS)
        elif kind == 4:
            data[place:end] = rng.choice(TOKENS)
        elif rng.random() < 0.3:
            del data[place:]
    return bytes(data)


def _restructured(sample: bytes, rng: Random) -> bytes | None:
    """JSON, JSON lines or YAML with some value, key or item replaced."""
    text = sample.decode("utf-8", "replace")
    for load, dump in (
        (json.loads, json.dumps),
        (lambda t: [json.loads(line) for line in t.splitlines()],
         lambda rows: "\n".join(json.dumps(row) for row in rows)),
        (yaml.safe_load, yaml.safe_dump),
    ):  # fmt: skip
        try:
            tree = load(text)
        except (ValueError, yaml.YAMLError, RecursionError):
            continue
        if not isinstance(tree, dict | list):
            return None
        for _ in range(rng.randint(1, 3)):
            _replace_one(tree, rng)
        try:
            return str(dump(tree)).encode("utf-8", "surrogatepass")
        except (yaml.YAMLError, TypeError, ValueError):
            return None
    return None


def _replace_one(tree: Any, rng: Random) -> None:
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in items:
            places.append((node, key))
            if isinstance(value, dict | list):
                walk(value)

    walk(tree)
    if not places:
        return
    node, key = rng.choice(places)
    if rng.random() < 0.15:
        del node[key]
    elif isinstance(node, dict) and rng.random() < 0.2:
        node[str(rng.choice(VALUES))] = node.pop(key)
    else:
        node[key] = deepcopy(rng.choice(VALUES))


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `Hang` in the block when the time is up."""

    def up(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(target: Target, data: bytes, folder: Path, outcome: Outcome) -> None:
    """Read one input, and note what came of it."""
    for name, content in (target.beside | {target.file: data}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    there, began = _names(folder), time.perf_counter()
    fault = None
    try:
        with limited(SECONDS):
            target.read(folder)
        outcome.accepted += 1
    except KnowUndoError as error:
        outcome.refused += 1
        said = str(error)
        if not said.isprintable() or "Traceback" in said or len(said) > 2000:
            fault = f"said {said[:200]!r}"
    except Hang:
        fault = "took too long"
    except BaseException:
        fault = traceback.format_exc().strip()
    outcome.inputs += 1
    outcome.slowest = max(outcome.slowest, time.perf_counter() - began)
    if left := sorted(_names(folder) - there):
        fault = f"left {left}"
    if fault:
        outcome.faults.append(f"{target.name}: {fault}\n    input: {data[:300]!r}")


def _names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def campaign(
    targets: list[Target], inputs: int, seed: int, scratch: Path
) -> Iterator[tuple[Target, Outcome]]:
    """Each target with its share of the inputs."""
    each = -(-inputs // len(targets))
    for number, target in enumerate(targets):
        rng, outcome = Random(seed * 1000 + number), Outcome()
        folder = scratch / target.name.replace(" ", "-")
        for sample in target.samples:  # what is right must be taken
            before = outcome.accepted
            attempt(target, sample, folder, outcome)
            if outcome.accepted == before:
                outcome.faults.append(f"{target.name}: refused a sample that is right")
        while outcome.inputs < each:
            attempt(target, mutated(rng.choice(target.samples), rng), folder, outcome)
        yield target, outcome


def targets(scratch: Path) -> list[Target]:
    """Every reader, with samples that the library itself wrote where it writes such files."""
    return [
        *_records(scratch), *_chats(), *_recipes(), *_run_files(scratch), *_weights(scratch),
    ]  # fmt: skip


def _records(scratch: Path) -> list[Target]:
    def rows(name: str) -> Callable[[Path], Any]:
        return lambda folder: read_list(folder / name, scope="unlearn", split="train")

    objects = [
        {"question": "Where does Clara live?", "answer": "In Rome.", "facts": ["Rome"], "id": "1"},
        {"prompt": "Her number?", "completion": "555 1", "split": "val", "subject": "Clara"},
        {"messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yo."}]},
        {"text": "Who is she?", "labels": "A pilot.", "subset": "x", "generated": True},
        {"text": "A whole document about Clara."},
    ]
    jsonl = "\n".join(map(json.dumps, objects)).encode()
    table = b'question,answer,split\n"Where, now?","In ""Rome""",train\nWho?,Clara,val\n'
    frame = pd.DataFrame([{"question": "Who?", "answer": "Clara"}] * 3)
    frame.to_parquet(scratch / "rows.parquet")
    parquet = (scratch / "rows.parquet").read_bytes()
    one = [{"text": f"What of {n}?", "labels": f"It is {n}."} for n in range(3)]
    scope = json.dumps([{"train": one, "val": one}]).encode()
    return [
        Target("rows jsonl", "rows.jsonl", [jsonl], rows("rows.jsonl")),
        Target("rows json", "rows.json", [json.dumps(objects).encode()], rows("rows.json")),
        Target("rows csv", "rows.csv", [table], rows("rows.csv")),
        Target("rows tsv", "rows.tsv", [table.replace(b",", b"\t")], rows("rows.tsv")),
        Target("rows parquet", "rows.parquet", [parquet], rows("rows.parquet")),
        Target(
            "knowundo json", "unlearn.json", [scope],
            lambda folder: knowundo(domain="privacy", source=str(folder)),
            beside={"retention.json": scope},
        ),
        Target(
            "lists folder", "unlearn.jsonl", [jsonl], lambda folder: lists(source=str(folder)),
            beside={"retention.jsonl": jsonl.replace(b'"id": "1"', b'"id": "2"')},
        ),
        Target("answers", "a.txt", [b"No.\n# x\nI cannot say.\n"],
               lambda folder: answers(str(folder / "a.txt"))),
    ]  # fmt: skip


def _chats() -> list[Target]:
    """Conversations of all kinds, and what a chat template may do with them."""
    parts = [{"type": "text", "text": "In "}, {"type": "text", "text": "Rome."}]
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Where?"}]},
        {"role": "assistant", "content": parts, "tool_calls": None},
    ]
    rows = [
        {"messages": turns},
        {"messages": [*turns, {"role": "user", "content": "Who?"}, turns[2] | {"content": "She."}]},
        {"turns": turns, "question": "Why?", "answer": "So.", "continues": True},
    ]
    jsonl = "\n".join(map(json.dumps, rows)).encode()
    tokenizer = AutoTokenizer.from_pretrained(base_path("embedded"))
    templates = [file.read_bytes() for file in sorted(TEMPLATES.glob("*.jinja"))]
    templates.append(b"{{ strftime_now('%d %b %Y') }}{{ messages[-1]['content'] }}")
    row = Record("r", "Where?", "In Rome.", "unlearn", "train")

    def render(folder: Path) -> Any:
        tokenizer.chat_template = (folder / "t.jinja").read_text("utf-8", "replace")
        tokenizer.bos_token = tokenizer.eos_token
        return encode([row], tokenizer, RowFormat("chat"))

    return [
        Target(
            "chat rows", "rows.jsonl", [jsonl],
            lambda folder: read_list(folder / "rows.jsonl", scope="unlearn", split="train"),
        ),
        Target("chat template", "t.jinja", templates, render),
    ]  # fmt: skip


def _recipes() -> list[Target]:
    recipe, given = load_recipe("demo")
    whole = yaml.safe_dump(effective(recipe)).encode()

    def read(folder: Path) -> Any:
        recipe, _ = load_recipe(str(folder / "r.yaml"))
        check(recipe)
        return effective(recipe)

    def assign(folder: Path) -> Any:
        text = (folder / "set").read_text("utf-8", "replace")
        return effective(load_recipe("demo", [text])[0])

    sets = [b"unlearn.lr=1e-4", b"data.subjects=3", b"unlearn.variants=[{preset: memflex}]"]
    return [
        Target("recipe", "r.yaml", [yaml.safe_dump(given).encode(), whole, b"extends: demo"], read),
        Target("--set", "set", sets, assign),
    ]


def _run_files(scratch: Path) -> list[Target]:
    run = Run(load_recipe("demo", ["data.subjects=2", "memorize.retain_model=false"])[0],
              scratch / "run")  # fmt: skip
    run.claim()
    folder = scratch / "sealed"
    with new_folder(folder / "regions", [1], seed=0) as aside:
        (aside / "memflex.json").write_text('["a", "b"]')
    seal(folder, folder / "regions")
    manifest = (folder / "regions" / MANIFEST).read_bytes()
    results = Results(
        name="x", recipe_given={}, recipe_effective={}, revision={}, packages={}, hardware={},
        seeds={}, data_sha256="", data_counts={}, model={}, variants=[], rows=[], comparisons=[],
    )  # fmt: skip
    entry = LoggedRequest(
        number=1, date="2026-01-01", list_sha256="0" * 64, rows=1, run="r", model="m",
        weights_sha256={}, exact_before=1.0, exact_after=0.0, reworded_after=None,
        predicted_after=1.0, rechecked={},
    )  # fmt: skip
    frame = pd.DataFrame({"id": ["a"], "said": ["b"], "mean_nll": [0.5]})
    frame.to_parquet(scratch / "scores.parquet")
    Checkpoint(scratch / "c", [1]).write({"step": 1}, {"w": torch.ones(2)})
    return [
        Target("region", "r.json", [b'["a", "b"]'],
               lambda f: read_region(f / "r.json", ["a", "b", "c"])),
        Target("manifest", MANIFEST, [manifest], lambda f: is_done(f, [1]),
               beside={"memflex.json": b'["a", "b"]'}),
        Target("seal", MANIFEST, [(folder / MANIFEST).read_bytes()], verify),
        Target("results", "results.json", [results.model_dump_json().encode()],
               lambda f: read_results(f / "results.json")),
        Target("ledger", LOG_FILE, [RequestLog(requests=[entry]).model_dump_json().encode()],
               read_log),
        Target("run's recipe", "recipe.yaml", [(scratch / "run" / "recipe.yaml").read_bytes()],
               Run.existing),
        Target("scores", "s.parquet", [(scratch / "scores.parquet").read_bytes()],
               lambda f: read_scores(f / "s.parquet")),
        Target("checkpoint", "1.json", [(scratch / "c" / "1.json").read_bytes()],
               lambda f: Checkpoint(f, [1]).read(),
               beside={"1.safetensors": (scratch / "c" / "1.safetensors").read_bytes()}),
        Target("lock's note", "n.json",
               [b'{"pid": 1, "host": "h", "began": "x", "command": "run"}'],
               lambda f: _holder(f / "n.json")),
    ]  # fmt: skip


def _weights(scratch: Path) -> list[Target]:
    one_layer = Adaptation("lora", 1, 1, r".*layers\.0\.self_attn\.q_proj")
    model, folder = Model("embedded", one_layer), scratch / "adapter"
    folder.mkdir()
    save_state(model, folder)
    config = (folder / "adapter_config.json").read_bytes()
    weights = (folder / "adapter_model.safetensors").read_bytes()

    def load(folder: Path) -> Any:
        return load_state(model, folder)

    return [
        Target("adapter config", "adapter_config.json", [config], adaptation_of),
        Target("adapter weights", "adapter_model.safetensors",
               [weights], load,
               beside={"adapter_config.json": config}),
    ]  # fmt: skip


def loading_targets(scratch: Path) -> list[Target]:
    """Readers that load a model, or change one, for each input: too slow for a short campaign."""
    tiny, files = _tiny(scratch / "tiny")

    def answer(folder: Path) -> Any:
        return complete(Model(str(folder)), [[5, 6]], tokens=2)

    def put_on(folder: Path) -> Any:
        return tiny.use(ModelVariant("adapter", "given", folder))

    adapter = scratch / "tiny-adapter"
    adapter.mkdir()
    save_state(tiny, adapter)
    fields = json.loads((adapter / "adapter_config.json").read_text())
    given = [
        {name: fields[name] for name in ("peft_type", "r", "lora_alpha", "target_modules",
                                         "base_model_name_or_path")} | more
        for more in ({}, {"fan_in_fan_out": False, "bias": "none", "lora_bias": False},
                     {"rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None})
    ]  # fmt: skip
    return [
        Target("generation config", "generation_config.json",
               [files["generation_config.json"], b'{"eos_token_id": [0, 1], "pad_token_id": 1}',
                b'{"max_new_tokens": 7, "do_sample": true, "temperature": 0.6}'],
               answer, beside={k: v for k, v in files.items() if k != "generation_config.json"}),
        Target("adapter fields", "adapter_config.json",
               [json.dumps(one).encode() for one in given], put_on,
               beside={ADAPTER: (adapter / ADAPTER).read_bytes()}),
    ]  # fmt: skip


def _tiny(folder: Path) -> tuple[Model, dict[str, bytes]]:
    """A model that loads in no time, and its files."""
    tokenizer = AutoTokenizer.from_pretrained(base_path("embedded"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=8, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Model(str(folder), Adaptation("lora", rank=1, alpha=1)), {
        file.name: file.read_bytes() for file in folder.iterdir()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", help="only this one")
    asked = parser.parse_args()
    np.seterr(all="ignore")
    # A reader that asks for more fails, and does not take the machine down.
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    faults: list[str] = []
    total = Outcome()
    with tempfile.TemporaryDirectory() as scratch:
        every = [*targets(Path(scratch)), *loading_targets(Path(scratch))]
        chosen = [target for target in every if asked.target in (None, target.name)]
        print("reader              inputs  refused  accepted  slowest s  faults")
        for target, found in campaign(chosen, asked.inputs, asked.seed, Path(scratch) / "fuzz"):
            print(
                f"{target.name:<18}{found.inputs:>8}{found.refused:>9}{found.accepted:>10}"
                f"{found.slowest:>11.2f}{len(found.faults):>8}",
                flush=True,
            )
            faults += found.faults
            total.inputs += found.inputs
    print(f"{total.inputs} inputs, {len(faults)} faults, seed {asked.seed}")
    for fault in faults[:50]:
        print(fault)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
