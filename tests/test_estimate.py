"""What `knowundo estimate` says, against what a real run takes."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import copy
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM

from knowundo.data.batches import collate, shuffled
from knowundo.errors import BadInput
from knowundo.estimation.estimate import estimate
from knowundo.estimation.ledger import Ledger
from knowundo.estimation.outline import Outline, local_base
from knowundo.estimation.stages import CARD, RESERVE, Estimate, Estimator, Stage
from knowundo.memorization import memorize
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.base import base_path
from knowundo.modeling.fast.chunked_logits import PORTION
from knowundo.modeling.model import Model
from knowundo.recipes.reading import load_recipe
from knowundo.registry import get
from knowundo.runs.base import model_options
from knowundo.runs.run import BOTH, TRAIN_VAL, Run
from knowundo.scoring.answers import generate
from knowundo.scoring.teacher_forcing import teacher_forced
from knowundo.unlearning.original.start import OriginalStart
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn

MIB = 2**20
VARIANTS = ("gradient_ascent", "ascent_plus_descent", "ascent_plus_kl_divergence")


def settings(base: str, *more: str, variants: tuple[str, ...] = VARIANTS) -> list[str]:
    named = ", ".join(f"{{method: {name}}}" for name in variants)
    return [
        f"model.base={base}",
        "model.adaptation=lora",
        "memorize.accumulation=1",
        "memorize.retain_model=false",
        "unlearn.batch_size=8",
        f"unlearn.variants=[{named}]",
        *more,
    ]


def estimated(base: str, *more: str, variants: tuple[str, ...] = VARIANTS) -> Estimate:
    found = estimate(load_recipe(None, settings(base, *more, variants=variants))[0])
    assert len(found) == 1
    return found[0]


def estimator(base: str, *more: str) -> Estimator:
    run = Run(load_recipe(None, settings(base, *more))[0], Path("nothing is written"))
    section, options = run.recipe.model, model_options(run.recipe)
    lora = Adaptation("lora", section.rank, section.alpha)
    return Estimator(run, Outline(base, lora, **options | {"device": "cpu"}), section.device)


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
            "retention",
            size=8,
            accumulation=1,
            epochs=recipe.unlearn.epochs,
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
            epochs=2,
            lr=1e-4,
            batch_size=len(self.rows),
            accumulation=1,
            weight_decay=0.0,
            known=None,
            seed=0,
        )

    def unlearn(self, method: str) -> None:
        kept = {"retention": self.pair.retention.encoded}
        start = Start(self.model, self.pair.unlearn.encoded, kept, seed=0)
        unlearn(start, method=method, lr=1e-4, epochs=2, batch_size=8, accumulation=1)

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
    [("lora", ("gradient_ascent", "ascent_plus_kl_divergence")), ("full", ("gradient_ascent",))],
)
def test_embedded_peaks_are_within_20_percent_of_those_allocated(
    adaptation: str, methods: tuple[str, ...]
) -> None:
    more = (f"model.adaptation={adaptation}",)
    said = peaks(estimated("embedded", *more))
    real = Real("embedded", *more)

    def whole(work: Callable[[], None]) -> int:
        held = [*real.model.net.parameters(), *real.model.fresh.values()]
        return sum(tensor.nbytes for tensor in held) + allocated(work)

    taken = {"memorize": whole(real.memorize)}
    for method in methods:
        taken[method] = whole(lambda m=method: real.unlearn(m))  # type: ignore[misc]
    taken["evaluate"] = whole(real.evaluate)
    ratios = {name: said[name] / taken[name] for name in taken}
    assert all(0.8 < ratio < 1.2 for ratio in ratios.values()), ratios


HUNDRED_MILLION = {
    "vocab_size": 32000,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 2048,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 1,
}


def write_base(folder: Path, *, weights: bool, **config: Any) -> str:
    """A Llama's config (and random weights) beside the embedded tokenizer."""
    folder.mkdir(exist_ok=True)
    shape = LlamaConfig(**HUNDRED_MILLION | config)
    if weights:
        torch.manual_seed(0)
        LlamaForCausalLM(shape).save_pretrained(folder)
    else:
        shape.architectures = ["LlamaForCausalLM"]
        shape.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        copy(Path(base_path("embedded")) / name, folder / name)
    return str(folder)


# Runs in a process of its own: resident memory at its highest, beyond that before the base.
_RESIDENT = """
import gc, json, sys
from ctypes import CDLL
import torch
sys.path.insert(0, sys.argv[1])
from test_estimate import Real

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
    command = [sys.executable, "-c", _RESIDENT, str(Path(__file__).parent), base, *names]
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


def test_a_reference_costs_no_second_model(tmp_path: Path) -> None:
    """KL beside descent on the same rows: hidden states of the reference, and its logits."""
    asked = estimator(
        write_base(tmp_path / "base", weights=False, num_hidden_layers=4, vocab_size=8000)
    )
    _, descent, divergence = (asked.unlearn(v) for v in asked.run.recipe.unlearn.variants)
    assert divergence.peak is not None
    assert descent.peak is not None
    portion = 4 * PORTION  # bytes of the logits that are there at a time, or of their gradients
    assert 0 < divergence.peak - descent.peak < 12 * portion
    assert divergence.memory["weights"] == descent.memory["weights"]


@pytest.fixture(scope="module")
def seven_billion(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Llama-2-7B's shape: there are no weights to read."""
    shape = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
    folder = tmp_path_factory.mktemp("seven") / "base"
    more = {"intermediate_size": 11008, "tie_word_embeddings": False}
    return write_base(folder, weights=False, **shape, **more)


def test_7_billion_parameters_are_counted_without_them(seven_billion: str) -> None:
    model = Outline(seven_billion, Adaptation("lora", 8, 16), dtype="bfloat16")
    assert model.total == 6_738_415_616
    assert sum(p.numel() for p in model.parameters().values()) == 19_988_480
    assert {p.dtype for p in model.parameters().values()} == {torch.float32}
    weights = sum(p.nbytes for p in model.net.parameters())
    assert weights == 2 * 6_738_415_616 + 4 * 19_988_480


@pytest.mark.slow
def test_7_billion_parameters_fit_into_24_gib(seven_billion: str) -> None:
    more = ("model.dtype=bfloat16", "model.device=cuda", "memorize.batch_size=4")
    ways = ("model.gradient_checkpointing=true", "model.quantization=nf4")
    asked = estimator(seven_billion, *more, *ways)
    stage = asked.memorize("memorize", BOTH)
    assert stage.peak is not None
    assert stage.peak + RESERVE < CARD / 3
    memory = stage.memory
    linear = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    floats = 2 * (2 * 32000 * 4096 + 65 * 4096)  # embeddings, head and norms stay bfloat16
    lora = sum(4 * p.numel() for p in asked.model.parameters().values())
    assert memory["weights"] == pytest.approx(0.516 * linear + floats + lora, rel=0.001)
    assert memory["gradients"] == lora
    assert 2 * lora <= memory["optimizer"] <= 3.01 * lora  # the state, and room for a step


def test_a_card_must_leave_room_for_cuda() -> None:
    def fits(peak: int) -> bool:
        stage = Stage("memorize", 1, "steps", False, 1, 1, {}, peak)
        return Estimate("base", "all weights", "float32", "cuda", 1, 1, [stage]).fits

    assert fits(CARD - RESERVE)
    assert not fits(CARD - RESERVE + 1)


def test_4_bits_are_as_small_as_bitsandbytes_makes_them() -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    weight = torch.randn(768, 2048)
    packed, state = bitsandbytes.functional.quantize_4bit(
        weight, quant_type="nf4", compress_statistics=True
    )
    held = packed.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
    assert held / weight.numel() == pytest.approx(0.516, rel=0.002)


@pytest.mark.slow
def test_checkpointing_holds_fewer_activations(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", weights=False, num_hidden_layers=6)
    held = [estimator(base, f"model.gradient_checkpointing={way}") for way in ("false", "true")]
    before, after = held[0].localize(), held[1].localize()
    assert after.memory["activations"] < before.memory["activations"] / 3


def test_steps_are_those_of_the_run(toy_base: str) -> None:
    found = estimated(toy_base, "memorize.epochs=3", "unlearn.lr=auto", "memorize.known=null")
    run = Run(load_recipe(None, settings(toy_base))[0], Path("nothing is written"))
    rows = [r for s in BOTH for r in run.encoded(s, TRAIN_VAL)] + run.encoded("general", "train")
    memorized, localized, ascent = found.stages[:3]
    assert (memorized.count, memorized.at_most) == (3 * -(-len(rows) // 16), False)
    splits = [run.encoded(scope, "train") for scope in BOTH]
    assert localized.count == sum(-(-3 * len(rows) // 32) for rows in splits)
    assert (ascent.count, ascent.at_most) == (5 * 2 * -(-len(splits[0]) // 8), True)


def test_auto_shows_what_it_may_end_with(toy_base: str) -> None:
    sets = settings(toy_base, "model.adaptation=auto", variants=("gradient_ascent",))
    lora, full = estimate(load_recipe(None, sets)[0])
    assert (lora.adaptation, full.adaptation) == ("a LoRA of rank 8", "all weights")
    assert full.trainable == full.parameters > lora.trainable
    assert any("adaptation auto" in note for note in lora.notes)


def test_a_loss_that_looks_at_its_numbers_is_unknown(
    toy_base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from knowundo.registry import ENTRIES, method

    def looking(step: Any) -> Any:
        """A loss that branches on its value."""
        loss = step.unlearn.mean_nll.mean()
        return {"unlearn": -loss if float(loss.detach()) < 5 else loss}

    monkeypatch.setitem(ENTRIES, "method", dict(ENTRIES["method"]))
    method(looking)
    found = estimated(toy_base, variants=("looking", "gradient_ascent"))
    by_name = {stage.name: stage for stage in found.stages}
    assert by_name["looking"].peak is None
    assert by_name["gradient_ascent"].peak
    assert found.highest.peak


def test_every_method_can_be_followed(toy_base: str) -> None:
    from knowundo.registry import entries

    names = tuple(n for n, e in entries("method").items() if _needs_nothing(e.arguments))
    assert len(names) >= 5
    found = estimated(toy_base, variants=names)
    assert [stage.name for stage in found.stages if stage.peak is None] == []


def _needs_nothing(arguments: dict[str, Any]) -> bool:
    import inspect

    return inspect.Parameter.empty not in arguments.values()


def test_the_original_batches_can_be_followed(toy_base: str) -> None:
    asked = estimator(toy_base, "compat=original")
    run, model = asked.run, Model(toy_base)
    rows = run.encoded("unlearn", "train", model=model, end=False)
    kept = {"retention": run.encoded("retention", "train", model=model, end=False)}
    start = OriginalStart(model, rows, kept, seed=0, quirks=run.recipe.quirks)
    ascent, _, divergence = run.recipe.unlearn.variants
    batches, accumulation = start.batches(
        get("method", ascent.method), {}, "retention", size=8, accumulation=1, epochs=2
    )
    assert asked.unlearn(ascent).count == -(-len(batches) // accumulation)
    assert asked.unlearn(divergence).peak


def test_a_base_that_is_not_here(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="hf download nobody/nothing"):
        local_base("nobody/nothing")
    with pytest.raises(BadInput, match=r"no config\.json"):
        local_base(str(tmp_path))


def test_ledger_counts_what_lives_and_files_it() -> None:
    weight = torch.nn.Parameter(torch.ones(100, 50))
    rows = torch.ones(10, 50)
    ledger = Ledger(vocabulary=100)
    ledger.hold("weights", [weight])
    with ledger:
        loss = (rows @ weight.t()).logsumexp(-1).sum()
        loss.backward()
        ledger.hold("gradients", [weight.grad])  # type: ignore[list-item]
        del loss
    assert ledger.now["weights"] == ledger.now["gradients"] == 100 * 50 * 4
    assert ledger.most["logits"] >= 10 * 100 * 4
    assert ledger.now["logits"] == 0
    assert ledger.peak >= 2 * 100 * 50 * 4


def test_ledger_sees_fake_tensors_as_real_ones(toy_base: str) -> None:
    """The same forward and backward, on weights and on their outline."""
    counted = []
    for kind in (Model, Outline):
        model = kind(toy_base, Adaptation("lora", 2, 4))
        model.train_only(model.parameters())
        run = Run(load_recipe(None, settings(toy_base))[0], Path("nothing is written"))
        batch = collate(run.encoded("unlearn", "train", model=model)[:4], model.pad)
        ledger = Ledger(vocabulary=model.causal_lm().config.vocab_size)  # type: ignore[union-attr,arg-type]
        ledger.hold("weights", model.net.parameters())
        with ledger:
            model.net(input_ids=batch.ids, attention_mask=batch.mask).logits.sum().backward()
        counted.append((ledger.most["weights"], ledger.most["logits"], ledger.peak))
    assert counted[0] == counted[1]


def test_command_prints_a_table_or_json(toy_base: str, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from knowundo.cli import app

    given = settings(toy_base, variants=("gradient_ascent",))
    sets = [part for text in given for part in ("--set", text)]
    table = CliRunner().invoke(app, ["estimate", *sets])
    assert table.exit_code == 0, table.output
    for word in ("memorize", "localize", "gradient_ascent", "evaluate", "fits into 24 GiB: yes"):
        assert word in table.stdout
    told = CliRunner().invoke(app, ["estimate", *sets, "--json"])
    (found,) = json.loads(told.stdout)
    assert found["fits_24_gib"] is True
    assert found["peak"] == max(stage["peak"] for stage in found["stages"])
