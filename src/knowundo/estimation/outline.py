"""A model without numbers: shapes only, quantized or not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from torch._subclasses.fake_tensor import (
    FakeTensorMode,
)
from transformers import AutoConfig, AutoModelForCausalLM

from knowundo.data.encoded import Encoded
from knowundo.data.records import Record
from knowundo.errors import BadInput
from knowundo.estimation.ledger import Ledger
from knowundo.modeling.base import base_path
from knowundo.modeling.model import Model
from knowundo.modeling.reference import Reference
from knowundo.unlearning.original.start import OriginalStart
from knowundo.unlearning.start import Scorer, Start


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


class Unchecked(Start):
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


class UncheckedOriginal(Unchecked, OriginalStart):
    """The same; it may hold states of every position too."""

    def unshown(self, every: Sequence[Encoded], kept: Sequence[Encoded]) -> int:
        held = list(self._everywhere.values())
        one = held[0].nbytes if held else 0
        return super().unshown(every, kept) + one * (len(kept) - len(held))


class PagedOptimizer(torch.optim.Optimizer):
    """The size of bitsandbytes' paged AdamW: two numbers of 32 bits a parameter."""

    def __init__(self, chosen: Sequence[torch.nn.Parameter]) -> None:
        super().__init__(chosen, {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            if not self.state[parameter]:
                for name in ("state1", "state2"):
                    self.state[parameter][name] = torch.zeros_like(parameter, dtype=torch.float32)


def group_files(chosen: Iterable[torch.nn.Parameter], ledger: Ledger) -> list[Any]:
    """Hooks that file each parameter's gradient under gradients once it is there."""

    def file(parameter: torch.Tensor) -> None:
        if parameter.grad is not None:
            ledger.hold("gradients", [parameter.grad])

    return [parameter.register_post_accumulate_grad_hook(file) for parameter in chosen]


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
