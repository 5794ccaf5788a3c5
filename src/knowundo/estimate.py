"""estimate(): parameters, steps and memory of a recipe, before any weight is loaded.

The heaviest step of every stage runs on fake tensors, which have shapes and a graph and no memory,
and a ledger watches each tensor come and go. So whatever a loss holds is counted, a plugin's too.
"""

from __future__ import annotations

import inspect
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from weakref import finalize

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.nn.utils import clip_grad_norm_
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AutoConfig, AutoModelForCausalLM, Cache

from knowundo.batches import Batch, PairedBatch, by_length, shuffled
from knowundo.encoding import Encoded
from knowundo.errors import BadInput
from knowundo.forwards import (
    Half,
    Parts,
    Reference,
    answer_logits,
    answer_states,
    hidden_states,
    shares,
)
from knowundo.head import live_head
from knowundo.localization import mean_gradients
from knowundo.models import Adaptation, Model, adaptation_of, base_path
from knowundo.original import OneSided, OriginalStart, whole_steps
from knowundo.pieces import pieces
from knowundo.progress import Reporter
from knowundo.recipe import Recipe, Variant
from knowundo.records import Record
from knowundo.registry import get
from knowundo.runs import BOTH, TRAIN_VAL, Run, base_knows, model_options, tokenizer_of
from knowundo.scoring import generate
from knowundo.training import make_optimizer
from knowundo.unlearning import Scorer, Start
from knowundo.unlearning.rates import ATTEMPTS
from knowundo.vocabulary import portion

MIB, GIB = 2**20, 2**30
# The card of the paper's users, and what CUDA takes of it before the first tensor: an assumption,
# half of it is usual.
CARD, RESERVE = 24 * GIB, GIB
KINDS = ("weights", "gradients", "optimizer", "activations", "logits", "copies")
# Rows of one forward pass without gradients, and of one batch of generation.
SCORED, GENERATED = (
    int(inspect.signature(function).parameters[name].default)
    for function, name in ((answer_states, "size"), (generate, "batch_size"))
)


class Ledger(TorchDispatchMode):
    """Bytes of the tensors alive, by kind: fake or real ones, made while this is entered.

    `most` is the most there ever was of each kind, `peak` the most of all at one time. A tensor of
    the vocabulary's width counts under logits, a parameter's gradient under gradients.
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.kind = vocabulary, "activations"
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.peak = 0
        self._held: Any = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                wide = tensor.ndim > 1 and tensor.shape[-1] == self.vocabulary
                self._see(tensor, "logits" if wide else self.kind)
        return result

    def _see(self, tensor: torch.Tensor, kind: str) -> None:
        storage = tensor.untyped_storage()
        if storage in self._held:
            return
        size = storage.nbytes()
        entry = self._held[storage] = [kind, size]
        finalize(storage, self._drop, entry).atexit = False
        self._add(kind, size)

    def _add(self, kind: str, size: int) -> None:
        self.now[kind] += size
        self.most[kind] = max(self.most[kind], self.now[kind])
        self.peak = max(self.peak, self.now.total())

    def _drop(self, entry: list[Any]) -> None:
        self.now[entry[0]] -= entry[1]

    def hold(self, kind: str, tensors: Iterable[torch.Tensor]) -> None:
        """Count tensors under a kind, those that are counted under another already too."""
        for tensor in tensors:
            self._see(tensor, kind)
            entry = self._held[tensor.untyped_storage()]
            if entry[0] != kind:
                self.now[entry[0]] -= entry[1]
                entry[0] = kind
                self._add(*entry)

    @contextmanager
    def counting(self, kind: str) -> Iterator[None]:
        """Whatever is made meanwhile counts under this kind."""
        before, self.kind = self.kind, kind
        yield
        self.kind = before


class _Unpack(torch.autograd.Function):
    """A product with weights of 4 bits: unpacked for each product, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, packed: torch.Tensor, shape: Any) -> torch.Tensor:
        ctx.save_for_backward(packed)
        ctx.shape = shape
        return torch.nn.functional.linear(x, x.new_empty(shape))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return grads[0] @ grads[0].new_empty(ctx.shape), None, None


class _Nf4(torch.nn.Linear):
    """The size of bitsandbytes' NF4 layer with double quantization: 0.516 bytes a weight.

    Half a byte each, one byte for the scale of 64, and 4 bytes for the scale of 256 scales.
    """

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        count = layer.weight.numel()
        packed = torch.empty(-(-count // 2), dtype=torch.uint8, device="meta")
        scales = -(-count // 64) + 4 * -(-count // (64 * 256))
        self.bias, self.shape = layer.bias, layer.weight.shape
        self.weight = torch.nn.Parameter(packed, requires_grad=False)
        self.register_buffer("scales", torch.empty(scales, dtype=torch.uint8, device="meta"))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = _Unpack.apply(input, self.weight, self.shape)
        return output if self.bias is None else output + self.bias


class Outline(Model):
    """A base of fake tensors: config.json and the tokenizer are all that is read.

    It lies on the CPU whatever the recipe says: a CPU's operations hold what a GPU's hold.
    """

    total = 0  # parameters of the base

    def _load(self, path: str, **options: Any) -> Any:
        dtype = options.pop("dtype")
        # FlashAttention runs on no fake tensor; SDPA's fused kernels hold the same.
        flash = self.attention == "flash_attention_2"
        if self.attention is not None:
            options["attn_implementation"] = "sdpa" if flash else self.attention
        config = AutoConfig.from_pretrained(path, trust_remote_code=options["trust_remote_code"])
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, **options)
        self.total = sum(parameter.numel() for parameter in model.parameters())
        if self.quantization is not None:
            _pack(model)
        return model

    def alike(self, one: torch.Tensor, other: torch.Tensor) -> bool:
        """True: fake tensors hold no numbers to compare."""
        return True

    def _adapted(self, model: Any) -> Any:
        with torch.device("meta"):
            return _faked(super()._adapted(model))

    @property
    def vocabulary(self) -> int:
        """Width of the logits."""
        head: Any = self.causal_lm().get_output_embeddings()  # type: ignore[operator]
        return int(head.weight.shape[0])


def _pack(model: Any) -> None:
    """Put packed layers where transformers does: all linear ones but the head."""
    head = model.get_output_embeddings()
    for name, layer in list(model.named_modules()):
        if type(layer) is torch.nn.Linear and layer is not head:
            model.set_submodule(name, _Nf4(layer))


def _faked(net: Any) -> Any:
    """Fake tensors in place of meta ones: they have a storage, whose bytes can be counted."""
    made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # the old ones too, so that ids stay

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            if isinstance(tensor, torch.nn.Parameter):
                empty = torch.nn.Parameter(empty, requires_grad=tensor.requires_grad)
            made[id(tensor)] = tensor, empty
        return made[id(tensor)][1]

    # Batches stay real, so that code may look at lengths and ids.
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in net.modules():
            for place in (module._parameters, module._buffers, vars(module)):
                for name, value in place.items():
                    if isinstance(value, torch.Tensor):
                        place[name] = fake(value)
    return net


class _Mute(Scorer):
    """Fake tensors say nothing: as long as the true answers is about what a model would say."""

    def sample(self, rows: Sequence[Encoded], *, n: int, **_: Any) -> dict[str, list[str]]:
        return {row.record.id: [_turned(row.record)] * n for row in rows}


def _turned(record: Record) -> str:
    """Another answer of the same words, turned round, so that it holds no fact."""
    text = record.answer
    for fact in record.facts:
        text = text.replace(fact, fact[::-1])
    return " ".join(reversed(text.split()))


class _Unchecked(Start):
    """A start that does not compare weights before it takes the reference: fake ones have none.

    It is made of a few rows, and tells what it would hold of all.
    """

    @cached_property
    def reference(self) -> Reference:
        rows = [*self.unlearn_rows, *(row for rows in self.kept_rows.values() for row in rows)]
        return Reference.of(self.model, rows)

    def unshown(self, every: Sequence[Encoded], kept: Sequence[Encoded]) -> int:
        """Bytes of states that would be held of rows that are not here.

        Args:
            every: rows of all scopes.
            kept: those that fill the retention half.
        """
        if "reference" not in vars(self) or not (states := self.reference.states):
            return 0
        one = next(iter(states.values()))
        scopes, seen = {row.record.scope for row in states}, {row.record.id for row in states}
        unseen = {
            row.record.id: row.answer_length
            for row in every
            if row.record.scope in scopes and row.record.id not in seen
        }
        return sum(unseen.values()) * one.shape[1] * one.element_size()

    def _scorer(self) -> Scorer:
        return _Mute(self.model, self.seed, self._encode)


class _UncheckedOriginal(_Unchecked, OriginalStart):
    """The same; it may hold states of every position too."""

    def unshown(self, every: Sequence[Encoded], kept: Sequence[Encoded]) -> int:
        held = list(self._everywhere.values())
        one = held[0].nbytes if held else 0
        return super().unshown(every, kept) + one * (len(kept) - len(held))


class _Paged(torch.optim.Optimizer):
    """The size of bitsandbytes' paged AdamW: two numbers of 32 bits a parameter."""

    def __init__(self, chosen: Sequence[torch.nn.Parameter]) -> None:
        super().__init__(chosen, {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            if not self.state[parameter]:
                for name in ("state1", "state2"):
                    self.state[parameter][name] = torch.zeros_like(parameter, dtype=torch.float32)


@dataclass
class Stage:
    """What one stage takes.

    `count` is of `unit` (optimizer steps, backward passes or rows), an upper bound if `at_most`;
    `rows` and `tokens` are the heaviest batch's, padding included; `memory` holds the most bytes of
    each of `KINDS`, and `peak` the most at one time, None where a loss cannot be followed.
    """

    name: str
    count: int
    unit: str
    at_most: bool
    rows: int
    tokens: int
    memory: dict[str, int]
    peak: int | None


@dataclass
class Estimate:
    """What a recipe takes with one adaptation."""

    base: str
    adaptation: str
    dtype: str
    device: str
    parameters: int
    trainable: int
    stages: list[Stage]
    notes: list[str] = field(default_factory=list)

    @property
    def highest(self) -> Stage:
        """The stage with the highest peak."""
        return max(self.stages, key=lambda stage: stage.peak or 0)

    @property
    def fits(self) -> bool:
        """True if the highest peak leaves a card of 24 GiB what CUDA itself takes."""
        return (self.highest.peak or 0) + RESERVE <= CARD


class Estimator:
    """Runs the steps of one recipe on an outline of its base."""

    def __init__(self, run: Run, model: Outline, device: str) -> None:
        """All rows are encoded here.

        Args:
            run: of the recipe; nothing is written.
            model: the outline.
            device: where the recipe wants the model; a GPU leaves copies of weights to the host.
        """
        self.run, self.model, self.device = run, model, device
        self._encoded: dict[Any, list[Encoded]] = {}
        self._unlearned: dict[str, Stage] = {}

    def _rows(self, scope: str, split: Any, *, end: bool = True) -> list[Encoded]:
        key = scope, split, end
        if key not in self._encoded:
            self._encoded[key] = self.run.encoded(scope, split, model=self.model, end=end)
        return self._encoded[key]

    def _bulk(self, batch: Batch | PairedBatch) -> int:
        """About how much a batch holds, to find the heaviest."""
        config = self.model.causal_lm().config.get_text_config()  # type: ignore[union-attr,operator]
        held = 1 if self.run.recipe.model.gradient_checkpointing else 16
        _, tokens, answers = _extent(batch)
        layers = tokens * config.hidden_size * config.num_hidden_layers * held
        vocabulary = self.model.vocabulary
        return layers + 3 * min(answers, portion(vocabulary)) * vocabulary

    def _piece(self, batch: Any, halves: Collection[str] = ()) -> Any:
        """The heaviest of the pieces that a batch is trained in."""
        made = pieces(batch, tokens=self.model.tokens, halves=halves, shared=shares(self.model))
        return max(made, key=self._bulk)

    def _stage(
        self,
        name: str,
        count: int,
        batch: Batch | PairedBatch,
        work: Callable[[Ledger], int],
        *,
        copies: int,
        unit: str = "steps",
        at_most: bool = False,
    ) -> Stage:
        """Watch a stage's work.

        Args:
            name: of the stage.
            count: of units in the whole stage.
            batch: the heaviest.
            work: returns bytes that the real stage holds besides, all the time.
            copies: of the trainable tensors, held to go back to.
            unit: of the count.
            at_most: the stage may stop earlier.
        """
        ledger = Ledger(self.model.vocabulary)
        ledger.hold("weights", [*self.model.net.parameters(), *self.model.net.buffers()])
        state = sum(value.nbytes for value in self.model.parameters().values()) * copies
        rows, tokens, _ = _extent(batch)
        try:
            with ledger, warnings.catch_warnings():
                # A copy of a head asks where its numbers lie.
                warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
                besides = work(ledger)
        except (DataDependentOutputException, DynamicOutputShapeException):
            return Stage(name, count, unit, at_most, rows, tokens, {}, None)
        finally:
            self.model.net.eval()
            self.model.train_only([])
        memory = {kind: ledger.most[kind] for kind in KINDS}
        memory["activations"] += besides
        memory["copies"] = state
        peak = ledger.peak + besides + (state if self.device == "cpu" else 0)
        return Stage(name, count, unit, at_most, rows, tokens, memory, peak)

    def _optimizer(self, chosen: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        name = self.run.recipe.model.optimizer
        if name == "paged_adamw_32bit":
            return _Paged(chosen)
        optimizer = make_optimizer(name, chosen, lr=1e-4, weight_decay=0.0)
        if self.device != "cpu":  # there all parameters are updated at once
            optimizer.param_groups[0]["foreach"] = True
        return optimizer

    def _train(self, ledger: Ledger, loss: Callable[[], Parts], accumulation: int) -> None:
        """An optimizer step as all but the first are: its state is there already."""
        chosen = self.model.train_only(self.model.parameters())
        hooks = _filed(chosen, ledger)
        optimizer = self._optimizer(chosen)
        for parameter in chosen:
            parameter.grad = torch.zeros_like(parameter)
            ledger.hold("gradients", [parameter.grad])
        with ledger.counting("optimizer"):
            optimizer.step()
        if accumulation == 1:  # else those of the micro-steps before are there
            optimizer.zero_grad()
        self.model.net.train()
        total = torch.stack(list(loss().values())).sum() / accumulation
        total.backward()
        clip_grad_norm_(chosen, 1.0)
        with ledger.counting("optimizer"):
            optimizer.step()
        optimizer.zero_grad()
        for hook in hooks:
            hook.remove()

    def memorize(self, name: str, scopes: Sequence[str]) -> Stage:
        """Finetuning on some scopes."""
        section, model = self.run.recipe.memorize, self.model
        rows = [row for scope in scopes for row in self._rows(scope, TRAIN_VAL)]
        rows += self._rows("general", "train") if section.general else []
        seed = self.run.recipe.seed
        batches = shuffled(rows, section.batch_size, section.epochs, seed, model.pad)
        batch = max(batches, key=self._bulk)
        piece = self._piece(batch)

        def loss() -> Parts:
            half = Half(piece, hidden_states(model, piece), live_head(model))
            return {"memorize": half.mean(half.mean_nll)}

        def work(ledger: Ledger) -> int:
            self._train(ledger, loss, section.accumulation)
            return 0

        steps = -(-len(batches) // section.accumulation)
        early = section.known is not None
        return self._stage(name, steps, batch, work, copies=1, at_most=early)

    def localize(self) -> Stage:
        """Gradients of noisy copies of both scopes."""
        section, model = self.run.recipe.localize, self.model
        batches = []
        for scope in BOTH:
            copies = self._rows(scope, section.splits) * section.copies
            batches += by_length(copies, section.batch_size, model.pad)
        batch = max(batches, key=self._bulk)

        def work(ledger: Ledger) -> int:
            hooks = _filed(model.train_only(model.parameters()), ledger)
            other_scope = [torch.zeros_like(p) for p in model.parameters().values()]
            ledger.hold("gradients", other_scope)
            mean_gradients(model, [*batch.encoded, *batch.encoded], batch_size=len(batch))
            for hook in hooks:
                hook.remove()
            return 0

        return self._stage("localize", len(batches), batch, work, copies=1, unit="backward passes")

    def unlearn(self, variant: Variant) -> Stage:
        """One variant; they are alike where only names and regions differ."""
        alike = variant.model_dump_json(exclude={"name", "region", "guess"})
        if alike not in self._unlearned:
            self._unlearned[alike] = self._unlearn(variant)
        return replace(self._unlearned[alike], name=variant.name)

    def _unlearn(self, variant: Variant) -> Stage:
        """One variant, with the whole adaptation as its region."""
        recipe = self.run.recipe
        settings = recipe.unlearn.settings(variant)
        auto = settings.pop("lr") == "auto"
        settings["size"] = settings.pop("batch_size")
        entry = get("method", variant.method)
        bound = entry.bind(variant.arguments)
        asked = entry, bound, variant.retain_on
        rows = self._rows("unlearn", "train", end=False)
        kept = {s: self._rows(s, "train", end=False) for s in ("retention", "general")}
        every = [*rows, *kept["retention"], *kept["general"]]
        of_all, kept_rows = len(rows), kept[variant.retain_on]
        if recipe.quirks:  # their batches run the model on every row: the longest stand for all
            rows = _longest(rows, settings["size"])
            kept = {scope: _longest(found, settings["size"]) for scope, found in kept.items()}
        batches, accumulation = self._start(rows, kept).batches(*asked, **settings)
        micro_steps = -(-len(batches) * of_all // len(rows))
        heaviest = {getattr(b, "side", ""): b for b in sorted(batches, key=self._bulk)}
        if not recipe.quirks:
            rows = heaviest[""].unlearn.encoded
            retention = heaviest[""].retention.encoded
            kept = {variant.retain_on: retention, "longest": _longest(every, SCORED)}
        start = self._start(rows, kept)

        def work(ledger: Ledger) -> int:
            start.columns(entry, bound)
            start.batches(*asked, **settings)
            read: set[str] = set()
            for batch in heaviest.values():
                for _ in range(2):  # from the second step on, one forward gives all that is read
                    piece = self._piece(batch, read)
                    self._train(
                        ledger,
                        lambda one=piece: start.parts(entry, bound, one, read),  # type: ignore[misc]
                        accumulation,
                    )
                    if len(read) < 2 or recipe.quirks:
                        break
            return start.unshown(every, kept_rows)

        steps = -(-micro_steps // accumulation)
        if "whole_steps" in recipe.quirks:
            steps = whole_steps(micro_steps, settings["epochs"], accumulation)[0]
        steps *= ATTEMPTS if auto else 1
        copies = 2 + (ATTEMPTS - 1 if auto else 0)  # of the base, of the start, of attempts
        if (apart := recipe.unlearn.keeps(variant)) is not None:
            copies += (steps - 1) // apart
        batch = max(heaviest.values(), key=self._bulk)
        return self._stage(variant.name, steps, batch, work, copies=copies, at_most=auto)

    def _start(self, rows: list[Encoded], kept: dict[str, list[Encoded]]) -> _Unchecked:
        recipe = self.run.recipe
        encode = partial(self.run.encode, model=self.model)
        options: dict[str, Any] = {"seed": recipe.seed, "encode": encode}
        if recipe.quirks:
            # Of these few rows none may be left out; the steps of all are counted in `_unlearn`.
            quirks = [name for name in recipe.quirks if name != "whole_steps"]
            return _UncheckedOriginal(self.model, rows, kept, quirks=quirks, **options)
        return _Unchecked(self.model, rows, kept, **options)

    def evaluate(self) -> Stage:
        """Scoring the longest rows, and the answers that end with the largest cache."""
        model = self.model
        rows = self.run.encoded(model=model)
        scored = max(by_length(rows, SCORED, model.pad), key=self._bulk)
        splits = self.run.recipe.evaluate.generate
        asked = [r for r in rows if r.record.kind == "qa" and r.record.split in splits]
        asked.sort(key=lambda row: (row.answer_length, len(row.prompt)))
        groups = [asked[i : i + GENERATED] for i in range(0, len(asked), GENERATED)]
        shapes = [
            (len(g), max(len(r.prompt) for r in g), max(r.answer_length for r in g)) for g in groups
        ]

        def work(ledger: Ledger) -> int:
            for _, logits in answer_logits(model, scored.encoded):
                logits.double()
            if shapes:
                _answer(model, *max(shapes, key=lambda shape: shape[0] * (shape[1] + shape[2])))
            return 0

        return self._stage("evaluate", len(rows), scored, work, copies=1, unit="rows")

    def stages(self, reporter: Reporter) -> list[Stage]:
        """All stages of the recipe, in order."""
        recipe = self.run.recipe
        work: list[Callable[[], Stage]] = []
        if recipe.memorize.adopt is None:
            work.append(lambda: self.memorize("memorize", BOTH))
        if recipe.memorize.retain_model:
            work.append(lambda: self.memorize("retain model", ("retention",)))
        if recipe.localize.adopt is None:
            work.append(self.localize)
        for variant in recipe.unlearn.variants:
            work.append(lambda variant=variant: self.unlearn(variant))  # type: ignore[misc]
        work.append(self.evaluate)
        found = []
        with reporter.task("estimate") as progress:
            for number, stage in enumerate(work, start=1):
                found.append(stage())
                progress(number, len(work))
        return found


def _filed(chosen: Iterable[torch.nn.Parameter], ledger: Ledger) -> list[Any]:
    """Hooks that file each parameter's gradient under gradients once it is there."""

    def file(parameter: torch.Tensor) -> None:
        if parameter.grad is not None:
            ledger.hold("gradients", [parameter.grad])

    return [parameter.register_post_accumulate_grad_hook(file) for parameter in chosen]


@torch.no_grad()
def _answer(model: Model, rows: int, prompt: int, answer: int) -> None:
    """Read prompts, then grow the cache by the answers, layer after layer as each token does."""
    ids = torch.zeros((rows, prompt), dtype=torch.long)
    output = model.net(
        input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True, logits_to_keep=1
    )
    (cache,) = (value for value in output.values() if isinstance(value, Cache))
    del output
    for layer in cache.layers:
        for name in ("keys", "values"):
            held = getattr(layer, name)
            shape = [*held.shape[:2], answer, held.shape[3]]
            setattr(layer, name, torch.cat([held, held.new_empty(shape)], dim=2))


def _extent(batch: Batch | PairedBatch) -> tuple[int, int, int]:
    """Rows, tokens with padding, and answer tokens; a pair is padded to one length."""
    if isinstance(batch, OneSided):
        batch = batch.unlearn if batch.side == "unlearn" else batch.retention
    halves = [batch] if isinstance(batch, Batch) else [batch.unlearn, batch.retention]
    rows = sum(len(half) for half in halves)
    longest = max(half.ids.shape[1] for half in halves)
    return rows, rows * longest, sum(len(half.targets) for half in halves)


def _longest(rows: Sequence[Encoded], count: int) -> list[Encoded]:
    return sorted(rows, key=lambda row: len(row.ids))[-count:]


def local_base(base: str) -> str:
    """Folder of a base's config and tokenizer, in a folder or in the hub's cache.

    Raises:
        BadInput: they are in neither.
    """
    folder = Path(base_path(base))
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(base, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError):
            raise BadInput(
                f"model.base '{base}': neither a folder nor in the hub's cache; run "
                f"`hf download {base} --include '*.json' 'tokenizer*'`"
            ) from None
    if not (folder / "config.json").is_file():
        raise BadInput(f"model.base '{base}': no config.json in {folder}; name another folder")
    return str(folder)


def _adaptations(recipe: Recipe) -> list[Adaptation]:
    """The adaptation of a recipe, or both where it is chosen by what the base knows."""
    section = recipe.model
    if recipe.memorize.adopt is not None:
        return [adaptation_of(Path(recipe.memorize.adopt))]
    lora = Adaptation("lora", section.rank, section.alpha, dropout=section.dropout)
    full = Adaptation("full")
    if section.adaptation == "auto":
        return [lora] if section.quantization else [lora, full]
    return [lora if section.adaptation == "lora" else full]


def _notes(recipe: Recipe) -> list[str]:
    section, notes = recipe.model, []
    if section.adaptation == "auto" and recipe.memorize.adopt is None and not section.quantization:
        notes.append("adaptation auto: a LoRA where the records fit into it, else all weights")
    if any(v.region != "everything" for v in recipe.unlearn.variants):
        notes.append("a region is not known yet and counts as the whole adaptation")
    if section.attention == "flash_attention_2":
        notes.append("flash_attention_2 is counted as sdpa")
    if section.optimizer == "paged_adamw_32bit":
        notes.append("a paged optimizer's state can leave the GPU; it is counted as if it stayed")
    return notes


def estimate(recipe: Recipe, reporter: Reporter | None = None) -> list[Estimate]:
    """What a recipe takes; one estimate for each adaptation that it may end with.

    Args:
        recipe: its base must lie here: config.json and tokenizer; weights are not read.
        reporter: tells the user what happens.

    Raises:
        BadInput: the base is not here, or cannot be held as the recipe says.
    """
    section, found = recipe.model, []
    folder, adopted = local_base(section.base), recipe.memorize.adopt
    brought = [] if adopted is None or base_knows(recipe) else [Path(adopted)]
    brought = [adapter for adapter in brought if adaptation_of(adapter).kind == "lora"]
    code = section.trust_remote_code
    tokenizer, _ = tokenizer_of(folder, brought, trust_remote_code=code)
    with TemporaryDirectory() as scratch:
        run = Run(recipe, Path(scratch) / "run")
        for adaptation in _adaptations(recipe):
            options = model_options(run.recipe) | {"device": "cpu", "tokenizer": tokenizer}
            model = Outline(folder, adaptation, **options)
            stages = Estimator(run, model, section.device).stages(reporter or Reporter())
            lora = f"a LoRA of rank {adaptation.rank}"
            held = f"{section.quantization}, computed in " if section.quantization else ""
            found.append(
                Estimate(
                    base=section.base,
                    adaptation="all weights" if adaptation.kind == "full" else lora,
                    dtype=held + section.dtype,
                    device=section.device,
                    parameters=model.total,
                    trainable=sum(p.numel() for p in model.parameters().values()),
                    stages=stages,
                    notes=_notes(recipe),
                )
            )
    return found
