"""How many times as fast as the original way, on the same rows and to the same weights.

    python perf/speed.py --model embedded llama --pairs 5 --out runs/speed        # make bench

Each measurement is a process of its own, the original way, ours, and ours with a base of bfloat16
in turns (A B C A B C …): it opens the model, does the work once, and says how long the work took
and the peak memory of the process. It prints the median and the range of each turn's ratio to the
original, and the distance of the two results. `llama` is a random
Llama of 111 M parameters (hidden 768, 12 layers, vocabulary 32,000); rows are random tokens of
KnowUnDo's lengths, 40 to 120. Memory is that of the process, and the part beyond the
interpreter and the libraries before the base is opened. Operations are counted in one more turn,
for the share of the machine's matmul rate that was reached.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import original_way
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from knowundo.data.batches import paired, shuffled
from knowundo.data.encoded import Encoded
from knowundo.data.records import Record
from knowundo.localization.gradients import mean_gradients
from knowundo.localization.noise import noisy_copies
from knowundo.memorization import MemorizeSettings, memorize
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.base import base_path
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.modeling.multi_adapter import batched_adapters
from knowundo.modeling.variant import ModelVariant
from knowundo.modeling.weights import save_state
from knowundo.registry import get
from knowundo.scoring.table import fill_a_batch, score_adapters
from knowundo.storage.environment import surroundings
from knowundo.storage.files import write_json
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn

BATCH, LR, SEED = 8, 1e-4, 0
PROCESSES = multiprocessing.get_context("forkserver")
# The ways that are measured for each model; the small one gains nothing from bfloat16.
WAYS = {"embedded": ("original", "ours"), "llama": ("original", "ours", "bfloat16")}
# Rows of a scope; of those, rows that are localized, and scored; copies of each of the former;
# adapters; passes of unlearning.
ROWS = {"embedded": 32, "llama": 8}
FEW, SCORED, COPIES = 3, {"embedded": 16, "llama": 8}, 3
ADAPTERS, PASSES = 8, 2
LENGTHS = 40, 120


def build(name: str, folder: Path) -> str:
    """Path or name of the base; a random Llama is created once."""
    if name == "embedded":
        return name
    place = folder / "llama"
    if not (place / "model.safetensors").exists():
        tokenizer = AutoTokenizer.from_pretrained(base_path("embedded"))
        torch.manual_seed(SEED)
        config = LlamaConfig(
            vocab_size=32_000, hidden_size=768, intermediate_size=2048, num_hidden_layers=12,
            num_attention_heads=12, tie_word_embeddings=True, bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(place)
        tokenizer.save_pretrained(place)
    return str(place)


def rows_of(
    scope: str, count: int, vocabulary: int, lengths: tuple[int, int] = LENGTHS
) -> list[Encoded]:
    """Random rows of 40 to 120 tokens, of which a quarter is the question."""
    rng, rows = Random(f"{scope} {SEED}"), []
    for number in range(count):
        length = rng.randint(*lengths)
        ids = tuple(rng.randrange(10, vocabulary) for _ in range(length))
        record = Record(
            id=f"{scope}/train/{number}", question="q", answer="a", scope=scope,  # type: ignore[arg-type]
            split="train", subject=str(number), kind="qa",
        )  # fmt: skip
        rows.append(Encoded(record, ids, length // 4, (False,) * length))
    return rows


@dataclass(frozen=True)
class Sizes:
    """How much work a measurement does.

    Attributes:
        rows: rows of each scope. If `None`, as many as `ROWS` says.
        length: tokens of every row. If `None`, KnowUnDo's lengths.
        variants: number of adapters that are scored.
        passes: passes of unlearning over the rows.
        dtype: dtype of the base.
    """

    rows: int | None = None
    length: int | None = None
    variants: int = ADAPTERS
    passes: int = PASSES
    dtype: str = "float32"


class Bench:
    """One model with its rows; each job is a pair of methods of the same name.

    Args:
        name: name of the model.
        folder: holds the random base.
        adapters: holds the adapters that are scored.
        sizes: how much work there is.
    """

    def __init__(self, name: str, folder: Path, adapters: Path, sizes: Sizes) -> None:
        self.name, self.adapters, self.base = name, adapters, build(name, folder)
        self.variants, self.passes, self.dtype = sizes.variants, sizes.passes, sizes.dtype
        self.model = self.opened()
        embeddings = self.model.causal_lm().get_input_embeddings()
        vocabulary = int(embeddings.num_embeddings)  # type: ignore[arg-type, union-attr]
        count = sizes.rows or ROWS[name]
        lengths = (sizes.length, sizes.length) if sizes.length else LENGTHS
        self.rows = {s: rows_of(s, count, vocabulary, lengths) for s in ("unlearn", "retention")}
        self.vocabulary = vocabulary
        generator = torch.Generator().manual_seed(SEED)
        state = self.model.state()  # a B that is not zero, as after memorizing
        self.state = {n: 0.02 * torch.randn(v.shape, generator=generator) for n, v in state.items()}
        self.model.overwrite(self.state)

    def opened(self) -> Model:
        return Model(
            self.base,
            Adaptation("lora", 8, 16),
            seed=SEED,
            options=LoadingOptions(dtype=self.dtype),
        )

    def moved(self) -> dict[str, torch.Tensor]:
        """What training changed, to be compared."""
        return {n: v - self.state[n] for n, v in self.model.state().items()}

    def warm_up(self, way: str) -> None:
        """Do what costs time only once: page faults, imports, trials of the model's capabilities.

        The Trainer collects garbage once a training, which takes half a second with so many
        modules. Existing objects are frozen, because steps are measured and not the start.
        """
        gradients = original_way.mean_gradients if way == "original" else mean_gradients
        gradients(self.model, self.rows["unlearn"][:1])
        get("method", "ascent_plus_descent").bind({"ascent": 1.0})
        gc.collect()
        gc.freeze()

    # What is measured: (ours, original) by job.

    def jobs(self) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
        losses: dict[str, tuple[str, dict[str, float], dict[str, float]]] = {
            "gradient ascent": ("gradient_ascent", {}, {"ascent": 1.0}),
            "random label": ("random_label", {}, {"labels": 1.0}),
            "ascent+descent": ("ascent_plus_descent", {}, {"ascent": 1.0, "descent": 1.0}),
            "ascent+KL": ("ascent_plus_kl_divergence", {}, {"ascent": 1.0, "kl": 1.0}),
            "memflex": (
                "ascent_plus_descent", {"ascent": 0.4, "descent": 2.0},
                {"ascent": 0.4, "descent": 2.0},
            ),
        }  # fmt: skip
        found: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
            "memorize": (self.memorize, self.memorize_originally),
            "localize": (self.localize, self.localize_originally),
        }
        for title, (method, arguments, plain) in losses.items():
            region = self.region() if title == "memflex" else None
            found[f"unlearn: {title}"] = (
                lambda m=method, a=arguments, r=region: self.unlearn(m, a, r),
                lambda p=plain, r=region: self.unlearn_originally(p, r),
            )
        found[f"evaluate {self.variants} adapters"] = self.score, self.score_originally
        if self.name == "embedded":  # on the Llama the original way takes minutes for it
            found["all of these"] = tuple(  # type: ignore[assignment]
                partial(self._all, [pair[side] for pair in found.values()]) for side in (0, 1)
            )
        return found

    def _all(self, works: Sequence[Callable[[], Any]]) -> dict[str, torch.Tensor]:
        """A whole comparison of methods, each from the same weights, as in a run."""
        ends = []
        for work in works:
            self.model.overwrite(self.state)
            ends.append(work())
        return {f"{number} {n}": v for number, end in enumerate(ends) for n, v in end.items()}

    def region(self) -> list[str]:
        """The upper half of the layers: a located region is rarely in the lowest ones only."""
        names = [name for name in self.model.parameters() if "layers." in name]
        layers = [int(name.split("layers.")[1].split(".")[0]) for name in names]
        half = (max(layers) + 1) // 2
        return [name for name, layer in zip(names, layers, strict=True) if layer >= half]

    def memorize(self) -> dict[str, torch.Tensor]:
        memorize(
            self.model,
            self.rows["unlearn"],
            settings=MemorizeSettings(
                epochs=1,
                lr=LR,
                batch_size=BATCH,
                accumulation=1,
                weight_decay=0.0,
                known=None,
                seed=SEED,
            ),
        )
        return self.moved()

    def memorize_originally(self) -> dict[str, torch.Tensor]:
        batches = shuffled(self.rows["unlearn"], BATCH, 1, SEED, self.model.pad)
        original_way.memorize(self.model, batches, lr=LR)
        return self.moved()

    def unlearn(
        self, method: str, arguments: dict[str, float], region: Sequence[str] | None
    ) -> dict[str, torch.Tensor]:
        start = Start(self.model, self.rows["unlearn"], self.rows, seed=SEED)
        unlearn(
            start,
            UnlearnSettings(
                method=method,
                arguments=arguments,
                region=region,
                lr=LR,
                epochs=self.passes,
                batch_size=BATCH,
                accumulation=1,
            ),
        )
        return self.moved()

    def unlearn_originally(
        self, weights: dict[str, float], region: Sequence[str] | None
    ) -> dict[str, torch.Tensor]:
        batches = paired(
            self.rows["unlearn"], self.rows["retention"], size=BATCH, epochs=self.passes, seed=SEED,
            pad=self.model.pad,
        )  # fmt: skip
        weights = dict(weights)
        labels = None
        if weights.pop("labels", 0.0):
            start = Start(self.model, self.rows["unlearn"], self.rows, seed=SEED)
            labels = start.columns(get("method", "random_label"))["random"]
            weights = {"ascent": -1.0}  # down, to these
        original_way.unlearn(self.model, batches, weights, lr=LR, region=region, labels=labels)
        return self.moved()

    def _noisy(self) -> list[list[Encoded]]:
        return [
            noisy_copies(rows[:FEW], copies=COPIES, vocabulary=self.vocabulary, seed=SEED)
            for rows in self.rows.values()
        ]

    def localize(self) -> dict[str, torch.Tensor]:
        first, second = (mean_gradients(self.model, rows) for rows in self._noisy())
        return first | {f"retention {name}": value for name, value in second.items()}

    def localize_originally(self) -> dict[str, torch.Tensor]:
        first, second = (original_way.mean_gradients(self.model, r) for r in self._noisy())
        return first | {f"retention {name}": value for name, value in second.items()}

    def _folders(self) -> list[Path]:
        return [self.adapters / str(number) for number in range(self.variants)]

    def write_adapters(self) -> None:
        """As many adapters, which differ."""
        for number, folder in enumerate(self._folders()):
            if (folder / "adapter_config.json").exists():
                continue
            folder.mkdir(parents=True, exist_ok=True)
            self.model.overwrite({n: (1 + 0.1 * number) * v for n, v in self.state.items()})
            save_state(self.model, folder)
        self.model.overwrite(self.state)

    def score(self) -> dict[str, torch.Tensor]:
        rows, splits = self.rows["unlearn"][: SCORED[self.name]], ["train"]
        waiting = [ModelVariant("given", "given", folder) for folder in self._folders()]
        found: list[torch.Tensor] = []
        size = fill_a_batch(rows, splits)
        for group in (waiting[i : i + size] for i in range(0, len(waiting), size)):
            with batched_adapters(self.model, group) as forward:
                tables = score_adapters(forward, rows, generated_splits=splits)
            found += [torch.tensor(table["token_accuracy"].to_numpy()) for table in tables]
        return {str(number): value for number, value in enumerate(found)}

    def score_originally(self) -> dict[str, torch.Tensor]:
        rows = self.rows["unlearn"][: SCORED[self.name]]
        found = original_way.evaluate(self.base, self._folders(), rows, self.opened)
        return {
            str(number): torch.tensor([one[row.record.id] for row in rows])
            for number, one in enumerate(found)
        }


def held_mib(entry: str) -> float:
    """Memory of this process in MiB: `VmRSS` now, or `VmHWM`, the peak since `reset_peak`.

    getrusage's ru_maxrss is not used: it includes the process that this one was forked from.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{entry}:")[1].split()[0]) / 1024


def reset_peak() -> None:
    """Set the peak to the current memory, so that the work is measured and not its start."""
    Path("/proc/self/clear_refs").write_text("5")


class Operations(TorchDispatchMode):
    """Counts the operations of matmuls, including backward passes.

    torch's own counter also follows modules, which fails for gradients that are computed in the
    forward pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self.count += formula(*args, **kwargs, out_val=made)
        return made


def measured(
    sent: Connection, out: Path, name: str, job: str, way: str, count: bool, sizes: Sizes
) -> None:
    """One measurement in this process; sends its figures."""
    torch.set_num_threads(os.cpu_count() or 1)
    if way == "bfloat16":
        sizes = replace(sizes, dtype=way)
    before = held_mib("VmRSS")
    bench = Bench(name, out, out / f"{name}-adapters", sizes)
    bench.write_adapters()
    work = bench.jobs()[job][way == "original"]
    bench.warm_up(way)
    reset_peak()
    counter = Operations() if count else nullcontext()
    began = time.perf_counter()
    with counter:
        result = work()
    seconds = time.perf_counter() - began
    if isinstance(counter, Operations):
        found = {"gflop": counter.count / 1e9}
    else:
        found = {"seconds": seconds, "peak_mib": held_mib("VmHWM"), "before_mib": before}
        # Right after the work, because the rate varies by a third from minute to minute.
        found["rate"] = matmul_rate()
    save_file({n: v.contiguous() for n, v in result.items()}, out / f"{way}.safetensors")
    sent.send(found)


def measure(
    out: Path, name: str, job: str, way: str, *, count: bool = False, sizes: Sizes = Sizes()
) -> dict[str, float]:
    """One measurement in a process of its own.

    The process is forked from one that has imported everything and computed nothing.
    """
    PROCESSES.set_forkserver_preload(["original_way", "peft", "transformers.trainer"])
    received, sent = PROCESSES.Pipe(duplex=False)
    child = PROCESSES.Process(target=measured, args=(sent, out, name, job, way, count, sizes))
    child.start()
    sent.close()
    try:
        found: dict[str, float] = received.recv()
    except EOFError:
        sys.exit(f"{name}, {job}, {way}: failed")
    child.join()
    return found


def apart(out: Path, way: str = "ours") -> float:
    """Distance of a result from the original's, relative to its size."""
    first, second = (load_file(out / f"{one}.safetensors") for one in (way, "original"))
    off = sum(float((first[n].double() - second[n].double()).norm() ** 2) for n in second)
    size = sum(float(value.double().norm() ** 2) for value in second.values())
    return float((off / size) ** 0.5) if size else float(off**0.5)


def matmul_rate(dtype: torch.dtype = torch.float32) -> float:
    """GFLOP/s of a matmul of 1024 × 1024 on this machine."""
    a = torch.randn(1024, 1024).to(dtype)
    for _ in range(3):
        a @ a
    began = time.perf_counter()
    for _ in range(20):
        a @ a
    return 20 * 2 * 1024**3 / (time.perf_counter() - began) / 1e9


def rates() -> dict[str, float]:
    """The matmul rate in both dtypes."""
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    return {name: matmul_rate(dtype) for name, dtype in kinds.items()}


def compared(out: Path, name: str, job: str, pairs: int) -> dict[str, Any]:
    """All measurements of one job, in turns, and their ratios to the original."""
    ways = WAYS[name]
    turns = [{way: measure(out, name, job, way) for way in ways} for _ in range(pairs)]
    row: dict[str, Any] = {"model": name, "job": job, "turns": turns, "rates": rates()}
    for way in ways[1:]:
        row[way] = {
            "times": [turn["original"]["seconds"] / turn[way]["seconds"] for turn in turns],
            "memory": [turn[way]["peak_mib"] / turn["original"]["peak_mib"] for turn in turns],
            "beyond": [_beyond(turn[way]) / _beyond(turn["original"]) for turn in turns],
            "apart": apart(out, way),
        }
    # Generation is bound by memory, so its operations say nothing.
    if job.startswith(("memorize", "localize", "unlearn")):
        for way in ways[:2]:
            counted = measure(out, name, job, way, count=True)["gflop"]
            reached = [counted / turn[way]["seconds"] / turn[way]["rate"] for turn in turns]
            row[f"{way} counted"] = {"gflop": counted, "share": median(reached)}
    return row


def _beyond(found: dict[str, float]) -> float:
    return found["peak_mib"] - found["before_mib"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/speed"))
    parser.add_argument("--model", nargs="+", default=["embedded", "llama"], choices=list(ROWS))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--jobs", nargs="+", help="only these jobs")
    asked = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    asked.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for name in asked.model:
        jobs = list(Bench(name, asked.out, asked.out / f"{name}-adapters", Sizes()).jobs())
        for job in [j for j in jobs if asked.jobs is None or j in asked.jobs]:
            rows.append(compared(asked.out, name, job, asked.pairs))
            for way in WAYS[name][1:]:
                print(" · ".join(_cells(rows[-1], way)), file=sys.stderr, flush=True)
            facts = {"pairs": asked.pairs, **surroundings()}
            write_json(asked.out / "speed.json", facts | {"rows": rows})
    made = rates()
    table = Table(
        title=f"{asked.pairs} turns; matmuls of 1024 × 1024: {made['float32']:.0f} GFLOP/s in "
        f"float32, {made['bfloat16']:.0f} in bfloat16"
    )
    for column in (
        "model", "job", "base in", "original s", "ours s", "times as fast", "memory",
        "beyond libraries", "apart", "of the rate",
    ):  # fmt: skip
        table.add_column(column, justify="left" if column in ("model", "job") else "right")
    for row in rows:
        for way in WAYS[row["model"]][1:]:
            table.add_row(*_cells(row, way))
    Console(width=160).print(table)


def _spread(values: Sequence[float], scale: float = 1.0, digits: int = 1, unit: str = "") -> str:
    middle, low, high = (scale * f(values) for f in (median, min, max))
    return f"{middle:.{digits}f}{unit} ({low:.{digits}f}–{high:.{digits}f})"


def _cells(row: dict[str, Any], way: str) -> list[str]:
    found, turns = row[way], row["turns"]
    seconds = [median(turn[one]["seconds"] for turn in turns) for one in ("original", way)]
    share = row.get("ours counted") if way == "ours" else None
    return [
        row["model"], row["job"], "float32" if way == "ours" else way,
        f"{seconds[0]:.2f}", f"{seconds[1]:.2f}", _spread(found["times"]),
        _spread(found["memory"], 100, 0, " %"), _spread(found["beyond"], 100, 0, " %"),
        f"{found['apart']:.1e}", "–" if share is None else f"{100 * share['share']:.0f} %",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
