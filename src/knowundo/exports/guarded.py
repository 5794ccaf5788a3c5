"""load_guarded(): an exported guard with the model behind it, ready to answer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from knowundo.data.encoded import Encoded
from knowundo.data.records import Record
from knowundo.errors import BadInput
from knowundo.modeling.adapters import CONFIG, Adaptation, adaptation_of
from knowundo.modeling.forward import answer_logits
from knowundo.modeling.guard_files import GUARD, is_guard, read_guard
from knowundo.modeling.guarded import guarded_forward
from knowundo.modeling.hardware import automatic_device
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.modeling.variant import ModelVariant
from knowundo.scoring.generation import complete
from knowundo.storage.files import read_json


class GuardedModel:
    """A model that answers behind its guard only.

    The model's own `net` has no guard: whoever calls it gets what the guard holds back.
    """

    def __init__(self, model: Model, variant: ModelVariant) -> None:
        """Put the guard before the model.

        Args:
            model: Its weights become the variant's, and stay so.
            variant: With a guard.

        Raises:
            BadInput: See `guarded_forward`.
        """
        # For good: an assistant's LoRA is beside the other as long as this object is there.
        self._stack = ExitStack()
        self.forward = self._stack.enter_context(guarded_forward(model, variant))
        self.tokenizer = model.tokenizer

    def ids(self, prompt: str | Sequence[int], *, templated: bool = False) -> tuple[int, ...]:
        """Ids of a prompt, written as the training rows were: see the folder's README.md.

        Args:
            prompt: Text, or ids, which stay as they are.
            templated: Whether the text has its special tokens in it, as a chat template writes it.
        """
        if not isinstance(prompt, str):
            return tuple(prompt)
        ids: list[int] = self.tokenizer(prompt, add_special_tokens=not templated)["input_ids"]
        ended = bool(ids) and ids[-1] == self.tokenizer.eos_token_id and not templated
        return tuple(ids[:-1] if ended else ids)

    def logits(
        self, prompt: str | Sequence[int], answer: Sequence[int], *, templated: bool = False
    ) -> torch.Tensor:
        """Logits at each token of an answer, [answer tokens, vocabulary].

        Args:
            prompt: Text or ids before the answer; at least one token.
            answer: Ids; those before a token are given to the model when it is predicted.
            templated: As for `ids`.
        """
        before = self.ids(prompt, templated=templated)
        record = Record("asked", "", "", "unlearn", "train")
        ids = (*before, *answer)
        row = Encoded(record, ids, len(before), (False,) * len(ids), tail=0)
        ((_, found),) = answer_logits(self.forward, [row])
        return found

    def generate(
        self,
        prompts: Sequence[str | Sequence[int]],
        *,
        max_new_tokens: int = 64,
        temperature: float | None = None,
        seed: int = 0,
        templated: bool = False,
    ) -> list[str]:
        """What the guarded model answers to each prompt.

        Args:
            prompts: Texts or ids.
            max_new_tokens: At most so many new tokens.
            temperature: Of the whole distribution. If `None`, greedy.
            seed: Of drawn tokens.
            templated: As for `ids`.
        """
        said = complete(
            self.forward.model,
            [self.ids(prompt, templated=templated) for prompt in prompts],
            tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            forward=self.forward,
        )
        return [text for text, _ in said]


def load_guarded(
    folder: str | Path,
    *,
    base: str | None = None,
    device: str = "auto",
    dtype: str = "float32",
    trust_remote_code: bool = False,
) -> GuardedModel:
    """Load what `knowundo export` wrote of a guard.

    Args:
        folder: The exported folder.
        base: Folder or hub name of the base that an adapter is for. If `None`, the one that the
            adapter names.
        device: cpu, cuda or mps. auto: cuda if there is such a GPU, else mps, else cpu.
        dtype: Of the weights.
        trust_remote_code: Run Python code that comes with the base.

    Raises:
        BadInput: The folder holds no guard, or its base cannot be loaded.
    """
    place = Path(folder)
    if not is_guard(place):
        raise BadInput(f"{place / GUARD}: no such file; name a folder that a guard was exported to")
    read_guard(place)  # before minutes of loading
    options = LoadingOptions(
        device=automatic_device() if device == "auto" else device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        scored_only=True,
    )
    if not (place / CONFIG).is_file():
        model = Model(str(place), Adaptation("full"), options=options)
        return GuardedModel(model, ModelVariant("guarded", "given", guard=place))
    named = base or read_json(place / CONFIG).get("base_model_name_or_path")
    if not isinstance(named, str):
        raise BadInput(f"{place / CONFIG}: names no base; say which with base=")
    model = Model(named, adaptation_of(place), options=options)
    return GuardedModel(model, ModelVariant("guarded", "given", place, guard=place))
