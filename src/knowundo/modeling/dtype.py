"""Which numbers a base is held and computed in: measured on this machine, never guessed.

bfloat16 halves the weights, and processors with units for it multiply several times as many numbers
a second; others take longer than for float32. Results differ from those of float32 by rounding, so
that nothing chooses it unless it is asked to (`model.dtype: auto`).
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.nn.functional import linear
from transformers import AutoConfig

from knowundo.errors import BadInput, first_line
from knowundo.modeling.base import base_path
from knowundo.modeling.checks import UNREADABLE
from knowundo.modeling.model import CPU_TOKENS, THREADS

# So many times as fast, bfloat16 is worth its rounding.
LEAST_GAIN = 1.5
# With fewer parameters, products are not what takes the time.
SMALL_BASE = 10_000_000
ROUNDS = 7


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
    torch.set_num_threads(THREADS)
    place = torch.device(device)
    first, second = (_seconds(t, hidden, inner, place) for t in (torch.float32, torch.bfloat16))
    return first / second


def choose(base: str, device: str, *, trust_remote_code: bool = False) -> tuple[str, str]:
    """The dtype for a base on a device, and why, in words.

    Raises:
        BadInput: the base's config cannot be read.
    """
    try:
        config: Any = AutoConfig.from_pretrained(
            base_path(base), trust_remote_code=trust_remote_code
        )
    except UNREADABLE as error:
        raise BadInput(f"model.base '{base}': cannot be loaded ({first_line(error)})") from None
    text = config.get_text_config()
    hidden, layers = int(text.hidden_size), int(text.num_hidden_layers)
    inner = int(getattr(text, "intermediate_size", None) or 4 * hidden)
    about = layers * hidden * (4 * hidden + 3 * inner) + hidden * int(text.vocab_size)
    if about < SMALL_BASE:
        return "float32", f"about {about / 1e6:.1f} M parameters are too few to gain by bfloat16"
    if device.startswith("cuda") and not torch.cuda.is_available():
        return "float32", "there is no GPU"  # loading the base says what to do
    times = gain(hidden, inner, device)
    said = f"products of this base's size are {times:.1f} times as fast in bfloat16 here"
    return ("bfloat16" if times >= LEAST_GAIN else "float32"), said
