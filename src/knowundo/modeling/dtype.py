"""What `model.dtype: auto` means for a base on a device.

bfloat16 halves the weights, and processors with units for it multiply several times as many numbers
a second; others take longer than for float32. A base that is stored in float32 keeps it, because
results differ by rounding. One that is stored in 16 bits has lost those digits already: it is held
in bfloat16 on a GPU that has it, and on a CPU that was measured to be faster with it.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.nn.functional import linear
from transformers import AutoConfig, PretrainedConfig

from knowundo.errors import BadInput, first_line
from knowundo.modeling.base import base_path
from knowundo.modeling.checks import UNREADABLE
from knowundo.modeling.hardware import use_threads
from knowundo.modeling.model import CPU_TOKENS

# So many times as fast, bfloat16 is worth its rounding.
LEAST_GAIN = 1.5
# With fewer parameters, products are not what takes the time.
SMALL_BASE = 10_000_000
ROUNDS = 7
HALF = ("bfloat16", "float16")


def _seconds(dtype: torch.dtype, hidden: int, inner: int, device: torch.device) -> float:
    """Of one product as in a layer's MLP, the best of a few."""
    tokens = torch.ones(CPU_TOKENS, hidden, dtype=dtype, device=device)
    weight = torch.ones(inner, hidden, dtype=dtype, device=device)
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        result = linear(tokens, weight)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
        del result
    return min(times)


def gain(hidden: int, inner: int, device: str) -> float:
    """How many times as fast as in float32 products are in bfloat16, [256, hidden] × inner."""
    place = torch.device(device)
    first, second = (_seconds(t, hidden, inner, place) for t in (torch.float32, torch.bfloat16))
    return first / second


def choose(
    base: str, device: str, *, threads: int | None = None, trust_remote_code: bool = False
) -> tuple[str, str]:
    """The dtype for a base on a device, and why, in words.

    Args:
        base: `embedded`, a folder, or a name on the hub.
        device: Of torch.
        threads: Of torch, where a CPU's speed is measured. If `None`, see `use_threads`.
        trust_remote_code: Run code from the base's folder, to read its config.

    Raises:
        BadInput: The base's config cannot be read.
    """
    stored = stored_dtype(base)
    if stored not in HALF:
        return "float32", f"the base is stored in {stored or 'a dtype that its config lacks'}"
    hidden, inner, about = _sizes(base, trust_remote_code)
    if about < SMALL_BASE:
        return "float32", f"about {about / 1e6:.1f} M parameters are too few to gain by bfloat16"
    if device.startswith("cpu"):
        use_threads(threads)
        times = gain(hidden, inner, device)
        said = f"products of this base's size are {times:.1f} times as fast in bfloat16 here"
        return ("bfloat16" if times >= LEAST_GAIN else "float32"), said
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            return "float32", "there is no GPU"  # loading the base says what to do
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            return "float32", f"the base is stored in {stored}, and this GPU has no bfloat16"
    return "bfloat16", f"the base is stored in {stored}"


def stored_dtype(base: str) -> str | None:
    """The dtype that a base's config names, such as `bfloat16`; `None` if it names none.

    Only the JSON is read: no code from the base's folder runs.

    Raises:
        BadInput: The config cannot be read.
    """
    try:
        fields, _ = PretrainedConfig.get_config_dict(base_path(base))
    except UNREADABLE as error:
        raise _unreadable(base, error) from None
    # The first is the name since transformers 5; a multimodal model names it in its text model.
    text = fields.get("text_config")
    for section in (fields, text if isinstance(text, dict) else {}):
        for key in ("dtype", "torch_dtype"):
            if isinstance(section.get(key), str):
                return str(section[key]).removeprefix("torch.")
    return None


def _unreadable(base: str, error: Exception) -> BadInput:
    return BadInput(f"model.base '{base}': cannot be loaded ({first_line(error)})")


def _sizes(base: str, trust_remote_code: bool) -> tuple[int, int, int]:
    """Width of a base's layers and of their MLPs, and about how many parameters it has."""
    try:
        config: Any = AutoConfig.from_pretrained(
            base_path(base), trust_remote_code=trust_remote_code
        )
    except UNREADABLE as error:
        raise _unreadable(base, error) from None
    text = config.get_text_config()
    hidden, layers = int(text.hidden_size), int(text.num_hidden_layers)
    inner = int(getattr(text, "intermediate_size", None) or 4 * hidden)
    about = layers * hidden * (4 * hidden + 3 * inner) + hidden * int(text.vocab_size)
    return hidden, inner, about
