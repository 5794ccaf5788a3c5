"""Estimated peaks against what real runs take."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from estimation.recipes import estimated, settings, write_base
from knowundo.data.batches import shuffled
from knowundo.estimation.schema import Estimate
from knowundo.memorization import MemorizeSettings, memorize
from knowundo.recipes.reading import load_recipe
from knowundo.runs.base import BOTH, TRAIN_VAL
from knowundo.runs.run import Run
from knowundo.scoring.answers import generate
from knowundo.scoring.teacher_forcing import teacher_forced
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn


def peaks(found: Estimate) -> dict[str, int]:
    return {stage.name: stage.peak or 0 for stage in found.stages}


class Real:
    """The heaviest batch of each stage of a recipe, through the real functions."""

    def __init__(self, base: str, *more: str) -> None:
        self.run = Run(load_recipe(None, settings(base, *more))[0], Path("nothing is written"))
        self.model = self.run.model
        recipe, pad = self.run.recipe, self.model.pad
        rows = [r for s in BOTH for r in self.run.encoded(s, TRAIN_VAL)]
        rows += self.run.encoded("general", "train")
        batches = shuffled(rows, recipe.memorize.batch_size, recipe.memorize.epochs, 0, pad)
        self.rows = max(batches, key=lambda batch: batch.ids.numel()).encoded
        scopes = {s: self.run.encoded(s, "train") for s in ("unlearn", "retention", "general")}
        whole = Start(self.model, scopes["unlearn"], scopes, seed=0)
        pairs, _ = whole.batches(
            None,  # type: ignore[arg-type]
            {},
            UnlearnSettings("any", epochs=recipe.unlearn.epochs, batch_size=8, accumulation=1),
        )
        del whole
        self.pair = max(
            pairs,
            key=lambda p: (
                max(p.unlearn.ids.shape[1], p.retention.ids.shape[1]) * len(p.unlearn) * 1000
                + len(p.unlearn.targets)
                + len(p.retention.targets)
            ),
        )

    def memorize(self) -> None:
        memorize(
            self.model,
            self.rows,
            settings=MemorizeSettings(
                epochs=2,
                lr=1e-4,
                batch_size=len(self.rows),
                accumulation=1,
                weight_decay=0.0,
                known=None,
                seed=0,
            ),
        )

    def unlearn(self, method: str) -> None:
        kept = {"retention": self.pair.retention.encoded}
        start = Start(self.model, self.pair.unlearn.encoded, kept, seed=0)
        unlearn(
            start, UnlearnSettings(method=method, lr=1e-4, epochs=2, batch_size=8, accumulation=1)
        )

    def evaluate(self) -> None:
        """The longest rows scored, and the largest group of questions answered to the end."""
        rows = self.run.encoded()
        teacher_forced(self.model, sorted(rows, key=lambda row: len(row.ids))[-64:])
        self.model.tokenizer.eos_token_id = 5  # nothing ends by itself
        asked = [row for row in rows if row.record.kind == "qa"]
        asked.sort(key=lambda row: (row.answer_length, len(row.prompt)))
        groups = [asked[i : i + 128] for i in range(0, len(asked), 128)]
        sizes = [len(g) * (len(g[-1].prompt) + g[-1].answer_length) for g in groups]
        generate(self.model, groups[sizes.index(max(sizes))])


def allocated(work: Callable[[], None]) -> int:
    """The most bytes that torch's allocator handed out at one time, beyond those before."""
    gc.collect()  # what is freed meanwhile, but was there before, would count as negative
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small products wait for each other, the more so on a busy machine
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        work()
    torch.set_num_threads(threads)
    events: Any = watched.profiler.kineto_results.events()  # type: ignore[union-attr]
    now = most = 0
    for event in sorted(
        (e for e in events if e.name() == "[memory]"), key=lambda event: event.start_ns()
    ):
        now += event.nbytes()
        most = max(most, now)
    return most


@pytest.mark.parametrize(
    ("adaptation", "methods"),
    [
        ("lora", ("gradient_ascent", "ascent_plus_kl_divergence")),
        pytest.param("full", ("gradient_ascent",), marks=pytest.mark.slow),
    ],
)
def test_embedded_peaks_are_within_20_percent_of_those_allocated(
    adaptation: str, methods: tuple[str, ...]
) -> None:
    more = (f"model.adaptation={adaptation}",)
    said = peaks(estimated("embedded", *more, variants=methods))
    real = Real("embedded", *more)

    def whole(work: Callable[[], None]) -> int:
        held = [*real.model.net.parameters(), *real.model.initial.tensors.values()]
        return sum(tensor.nbytes for tensor in held) + allocated(work)

    taken = {"memorize": whole(real.memorize)}
    for method in methods:
        taken[method] = whole(lambda m=method: real.unlearn(m))  # type: ignore[misc]
    taken["evaluate"] = whole(real.evaluate)
    ratios = {name: said[name] / taken[name] for name in taken}
    assert all(0.8 < ratio < 1.2 for ratio in ratios.values()), ratios


# Runs in a process of its own: resident memory at its highest, beyond that before the base.
_RESIDENT = """
import gc, json, sys
from ctypes import CDLL
import torch
sys.path.insert(0, sys.argv[1])
from estimation.test_tracer import Real

def read(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

def settle():
    gc.collect()
    CDLL(None).malloc_trim(0)
    open("/proc/self/clear_refs", "w").write("5")  # the highest starts anew

Real("embedded").unlearn("ascent_plus_kl_divergence")  # what torch makes once is made now
settle()
before = read("VmRSS")
real = Real(sys.argv[2])
found = {}
for name in sys.argv[3:]:
    settle()
    real.memorize() if name == "memorize" else real.unlearn(name)
    found[name] = read("VmHWM") - before
print(json.dumps(found))
"""


def resident(base: str, *names: str) -> dict[str, int]:
    # Else glibc keeps freed blocks: twice of what is used can be resident.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", _RESIDENT, str(Path(__file__).parents[1]), base, *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="resident memory is Linux's")
def test_resident_memory_of_100m_parameters_is_within_20_percent(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", weights=True)
    found = estimated(base)
    assert 100e6 < found.parameters < 120e6
    names = ("memorize", "ascent_plus_kl_divergence")
    said, taken = peaks(found), resident(base, *names)
    ratios = {name: said[name] / taken[name] for name in names}
    assert all(0.8 < ratio < 1.2 for ratio in ratios.values()), ratios
