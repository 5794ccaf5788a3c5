"""How many times as fast as the original way, on the same rows and to the same weights.

    python perf/speed.py --model embedded llama --pairs 5 --out runs/speed        # make bench

Each measurement is a process of its own, ours and the original way's in turns (A B A B …): it
opens the model, does the work once, and says how long the work took and how much memory the process
held at most. Of every pair the ratio is taken; printed are the median and the range, and how far
the two results are apart. `llama` is a random Llama of 111 M parameters (hidden 768, 12 layers,
vocabulary 32,000); rows are random tokens of KnowUnDo's lengths, 40 to 120.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import original_way
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from knowundo.artifacts import surroundings, write_json
from knowundo.batches import paired, shuffled
from knowundo.encoding import Encoded
from knowundo.localization import mean_gradients, noisy_copies
from knowundo.memorization import memorize
from knowundo.models import Adaptation, Model, Variant, base_path, save_state
from knowundo.records import Record
from knowundo.scoring import score
from knowundo.unlearning import Start, unlearn

BATCH, LR, SEED = 16, 1e-4, 0
# Rows of a scope, optimizer steps' worth; rows that are localized and scored; adapters.
ROWS = {"embedded": 64, "llama": 16}
FEW, ADAPTERS, COPIES = 8, 8, 3
LENGTHS = 40, 120


def build(name: str, folder: Path) -> str:
    """Path or name of the base; a random Llama is made once."""
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


class Bench:
    """One model with its rows; each job is a pair of methods of the same name.

    Args:
        name: of the model.
        folder: where a random base lies.
        adapters: where the adapters lie that are scored.
        rows: of a scope; none: as many as `ROWS` says.
        length: tokens of every row; none: KnowUnDo's lengths.
        variants: adapters that are scored.
    """

    def __init__(
        self, name: str, folder: Path, adapters: Path, *, rows: int | None = None,
        length: int | None = None, variants: int = ADAPTERS,
    ) -> None:  # fmt: skip
        self.name, self.adapters, self.base = name, adapters, build(name, folder)
        self.variants = variants
        self.model = self.opened()
        embeddings = self.model.causal_lm().get_input_embeddings()
        vocabulary = int(embeddings.num_embeddings)  # type: ignore[arg-type, union-attr]
        count, lengths = rows or ROWS[name], (length, length) if length else LENGTHS
        self.rows = {s: rows_of(s, count, vocabulary, lengths) for s in ("unlearn", "retention")}
        self.vocabulary = vocabulary
        generator = torch.Generator().manual_seed(SEED)
        state = self.model.state()  # a B that is not zero, as after memorizing
        self.state = {n: 0.02 * torch.randn(v.shape, generator=generator) for n, v in state.items()}
        self.model.overwrite(self.state)

    def opened(self) -> Model:
        return Model(self.base, Adaptation("lora", 8, 16), seed=SEED)

    def moved(self) -> dict[str, torch.Tensor]:
        """What training changed, to be compared."""
        return {n: v - self.state[n] for n, v in self.model.state().items()}

    # What is measured: (ours, original) by job.

    def jobs(self) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
        losses: dict[str, tuple[str, dict[str, float], dict[str, float]]] = {
            "gradient ascent": ("gradient_ascent", {}, {"ascent": 1.0}),
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
        return found | {f"evaluate {self.variants} adapters": (self.score, self.score_originally)}

    def region(self) -> list[str]:
        """The upper half of the layers: a located region is rarely in the lowest ones only."""
        names = [name for name in self.model.parameters() if "layers." in name]
        layers = [int(name.split("layers.")[1].split(".")[0]) for name in names]
        half = (max(layers) + 1) // 2
        return [name for name, layer in zip(names, layers, strict=True) if layer >= half]

    def memorize(self) -> dict[str, torch.Tensor]:
        memorize(
            self.model, self.rows["unlearn"], epochs=1, lr=LR, batch_size=BATCH, accumulation=1,
            weight_decay=0.0, known=None, seed=SEED,
        )  # fmt: skip
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
            start, method=method, arguments=arguments, region=region, lr=LR, epochs=1,
            batch_size=BATCH, accumulation=1,
        )  # fmt: skip
        return self.moved()

    def unlearn_originally(
        self, weights: dict[str, float], region: Sequence[str] | None
    ) -> dict[str, torch.Tensor]:
        batches = paired(
            self.rows["unlearn"], self.rows["retention"], size=BATCH, epochs=1, seed=SEED,
            pad=self.model.pad,
        )  # fmt: skip
        original_way.unlearn(self.model, batches, lr=LR, region=region, **weights)
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
        found, rows = {}, self.rows["unlearn"][:FEW]
        for number, folder in enumerate(self._folders()):
            self.model.use(Variant("given", "given", folder))
            table = score(self.model, rows, generated_splits=["train"])
            found[str(number)] = torch.tensor(table["token_accuracy"].to_numpy())
        return found

    def score_originally(self) -> dict[str, torch.Tensor]:
        rows = self.rows["unlearn"][:FEW]
        found = original_way.evaluate(self.base, self._folders(), rows, self.opened)
        return {
            str(number): torch.tensor([one[row.record.id] for row in rows])
            for number, one in enumerate(found)
        }


def held_mib(entry: str) -> float:
    """What this process holds, `VmRSS`, or held at most, `VmHWM`.

    Not getrusage's ru_maxrss: it counts in the process that this one was started from.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{entry}:")[1].split()[0]) / 1024


def measured(asked: argparse.Namespace) -> None:
    """One measurement, in this process; says it in JSON."""
    name, job, way, file = asked.measure
    before = held_mib("VmRSS")
    bench = Bench(name, asked.out, asked.out / f"{name}-adapters", **json.loads(asked.sizes))
    bench.write_adapters()
    work = bench.jobs()[job][way == "original"]
    began = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - began
    peak = held_mib("VmHWM")
    save_file({n: v.contiguous() for n, v in result.items()}, file)
    print(json.dumps({"seconds": seconds, "peak_mib": peak, "before_mib": before}))


def measure(out: Path, name: str, job: str, way: str, **sizes: int) -> dict[str, float]:
    """The same in a process of its own; sizes are Bench's `rows`, `length` and `variants`."""
    file = out / f"{way}.safetensors"
    command = [sys.executable, __file__, "--out", str(out), "--measure", name, job, way, str(file)]
    command += ["--sizes", json.dumps(sizes)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name}, {job}, {way}: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def apart(out: Path) -> float:
    """Distance of the two results, relative to their size."""
    first, second = (load_file(out / f"{way}.safetensors") for way in ("ours", "original"))
    off = sum(float((first[n].double() - second[n].double()).norm() ** 2) for n in second)
    size = sum(float(value.double().norm() ** 2) for value in second.values())
    return float((off / size) ** 0.5) if size else float(off**0.5)


def matmul_rate() -> float:
    """GFLOP/s of a float32 product of this machine, 1024 × 1024."""
    a = torch.randn(1024, 1024)
    for _ in range(3):
        a @ a
    began = time.perf_counter()
    for _ in range(20):
        a @ a
    return 20 * 2 * 1024**3 / (time.perf_counter() - began) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/speed"))
    parser.add_argument("--model", nargs="+", default=["embedded", "llama"], choices=list(ROWS))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--jobs", nargs="+", help="only these")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--sizes", default="{}", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    if asked.measure:
        measured(asked)
        return
    asked.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for name in asked.model:
        jobs = list(Bench(name, asked.out, asked.out / f"{name}-adapters").jobs())
        for job in [j for j in jobs if asked.jobs is None or j in asked.jobs]:
            pairs = []
            for _ in range(asked.pairs):
                ours, original = (measure(asked.out, name, job, w) for w in ("ours", "original"))
                pairs.append((ours, original))
            times = [o["seconds"] / u["seconds"] for u, o in pairs]
            memory = [u["peak_mib"] / o["peak_mib"] for u, o in pairs]
            rows.append(
                {
                    "model": name, "job": job, "times": times, "memory": memory,
                    "ours_s": median(u["seconds"] for u, _ in pairs),
                    "original_s": median(o["seconds"] for _, o in pairs),
                    "apart": apart(asked.out),
                }
            )  # fmt: skip
            print(_line(rows[-1]), file=sys.stderr, flush=True)
            facts = {"pairs": asked.pairs, "gflops_float32": matmul_rate(), **surroundings()}
            write_json(asked.out / "speed.json", facts | {"rows": rows})
    table = Table(
        title=f"{asked.pairs} pairs, in turns; a matrix product: {matmul_rate():.0f} GFLOP/s"
    )
    for column in ("model", "job", "original s", "ours s", "times as fast", "memory", "apart"):
        table.add_column(column, justify="left" if column in ("model", "job") else "right")
    for row in rows:
        table.add_row(*_cells(row))
    Console(width=120).print(table)


def _cells(row: dict[str, Any]) -> list[str]:
    times, memory = row["times"], row["memory"]
    return [
        row["model"], row["job"], f"{row['original_s']:.2f}", f"{row['ours_s']:.2f}",
        f"{median(times):.1f} ({min(times):.1f}–{max(times):.1f})",
        f"{100 * median(memory):.0f} % ({100 * min(memory):.0f}–{100 * max(memory):.0f})",
        f"{row['apart']:.1e}",
    ]  # fmt: skip


def _line(row: dict[str, Any]) -> str:
    return " · ".join(_cells(row))


if __name__ == "__main__":
    main()
