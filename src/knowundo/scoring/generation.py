"""Generation with transformers: greedy or sampled, in batches that change no row."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from knowundo.data.decoding import decoded_all, open_prompt, without_ending
from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput
from knowundo.modeling.continuation import continued
from knowundo.modeling.fast.oom import in_portions
from knowundo.modeling.forward import Forward
from knowundo.modeling.model import Model
from knowundo.modeling.positions import unscaled
from knowundo.scoring.guarded import guarded_continuation

# Answers that are generated at a time, and adapters in a batched forward at most: each is held in
# memory.
BATCH, MOST_ADAPTERS = 128, 16


@torch.no_grad()
def continue_prompts(
    model: Model,
    prompts: Sequence[Sequence[int]],
    *,
    tokens: int,
    stops: Sequence[int],
    each: int = 1,
    temperature: float | None = None,
    forward: Forward | None = None,
) -> torch.Tensor:
    """New ids after each prompt, [models · prompts · each, at most `tokens`].

    Prompts that would change what follows another, in a batch padded on the left, are continued in
    batches of their own.

    Args:
        model: Not changed.
        prompts: Token ids of each.
        tokens: At most so many new ids.
        stops: Ids that end an answer.
        each: Answers to each prompt.
        temperature: Of the whole distribution. If `None`, greedy.
        forward: Of a guard, or of several adapters, each of which continues all prompts. If `None`,
            the model by itself.

    Raises:
        BadInput: transformers cannot generate with this architecture.
    """
    forward = Forward(model) if forward is None else forward
    if forward.guard is not None:
        prompts = [forward.guard.prompt(prompt) for prompt in prompts]
    generated = _generated if forward.guard is None else guarded_continuation
    how: dict[str, Any] = {"stops": stops, "each": each, "temperature": temperature}
    groups = _groups(model, [len(prompt) for prompt in prompts], tokens)
    if groups == [(list(range(len(prompts))), tokens)]:
        return generated(forward, prompts, tokens=tokens, **how)
    shape = (forward.models, len(prompts), each, tokens)
    output = torch.full(shape, model.pad, device=model.device)
    for numbers, most in groups:
        if most > 0:
            new = generated(forward, [prompts[n] for n in numbers], tokens=most, **how)
            new = new.view(forward.models, len(numbers), each, -1)
            output[:, numbers, :, : new.shape[-1]] = new
    return output.flatten(0, 2)


def _groups(model: Model, lengths: Sequence[int], tokens: int) -> list[tuple[list[int], int]]:
    """Prompts that may share a batch, and how many tokens may follow them.

    One with which so many tokens would not fit into the model's positions is alone, continued as
    far as they reach. Of equal length are those in whose batch padding would be seen, or positions
    are scaled.
    """
    groups, equal = list[tuple[list[int], int]](), dict[int, list[int]]()
    padded = model.capabilities.left_padding
    for number, length in enumerate(lengths):
        room = model.longest(length + tokens) - length
        if room < tokens:
            groups.append(([number], room))
        else:
            mixed = padded and length + tokens <= unscaled(model)
            equal.setdefault(0 if mixed else length, []).append(number)
    return groups + [(numbers, tokens) for numbers in equal.values()]


def _generated(
    forward: Forward,
    prompts: Sequence[Sequence[int]],
    *,
    tokens: int,
    stops: Sequence[int],
    each: int,
    temperature: float | None,
) -> torch.Tensor:
    """New ids after each prompt, all in one batch."""
    model = forward.model
    drawn = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    output = continued(
        model,
        list(prompts) * forward.adapters,
        max_new_tokens=tokens,
        num_return_sequences=each,
        eos_token_id=sorted(stops),
        # Layers that read padding (RWKV's) mix up the cache between the rows of a batch.
        use_cache=model.capabilities.left_padding,
        **({"do_sample": False} if temperature is None else drawn),
    )
    new: torch.Tensor = output.sequences[:, max(map(len, prompts)) :]
    return new


def stop_ids(model: Model, encoded: Sequence[Encoded]) -> list[int]:
    """Ids that end an answer; Gemma's end of turn is not its end-of-sequence."""
    return sorted({model.tokenizer.eos_token_id, *(row.ids[-1] for row in encoded if row.tail)})


@torch.no_grad()
def sample(
    model: Model,
    encoded: Sequence[Encoded],
    *,
    n: int,
    temperature: float,
    seed: int,
    batch_size: int = BATCH,
) -> dict[str, list[str]]:
    """Sampled answers by record id, of at most as many tokens as the true answer.

    Args:
        model: not changed, and neither is the global state of random numbers.
        encoded: rows whose questions are answered.
        n: answers to each.
        temperature: of the whole distribution: nothing is cut off it.
        seed: of the draws; the same rows, in the same order, get the same answers.
        batch_size: answers at a time.
    """
    how: dict[str, Any] = {"n": n, "temperature": temperature, "seed": seed}
    drawn = drawn_answers(Forward(model), encoded, **how, batch_size=batch_size)
    return {name: [text for _, text in said] for name, said in drawn.items()}


@torch.no_grad()
def drawn_answers(
    forward: Forward,
    encoded: Sequence[Encoded],
    *,
    n: int,
    temperature: float,
    seed: int,
    batch_size: int = BATCH,
) -> dict[str, list[tuple[list[int], str]]]:
    """Sampled answers as `sample` gives them, each with its token ids, by record id.

    Args:
        forward: Of one model, with or without a guard.
        encoded: As for `sample`.
        n: As for `sample`.
        temperature: As for `sample`.
        seed: As for `sample`.
        batch_size: As for `sample`.
    """
    model = forward.model
    order = sorted(encoded, key=lambda row: (row.answer_length, len(row.prompt)))
    stops, answers = stop_ids(model, encoded), dict[str, list[tuple[list[int], str]]]()

    def draw(rows: Sequence[Encoded]) -> None:
        lengths = [max(row.answer_length - row.tail, 1) for row in rows]
        output = continue_prompts(
            model,
            [row.prompt for row in rows],
            tokens=max(lengths),
            stops=stops,
            each=n,
            temperature=temperature,
            forward=forward,
        )
        new = output.unflatten(0, (len(rows), n))
        for row, length, drawn in zip(rows, lengths, new, strict=True):
            ids = drawn[:, :length].tolist()
            said = decoded_all(model.tokenizer, ids, stops=stops)
            texts = [without_ending(text, row.ending) for text in said]
            answers[row.record.id] = list(zip(ids, texts, strict=True))

    with torch.random.fork_rng(_cards(model)):
        torch.manual_seed(seed)
        size = max(1, batch_size // n)
        deque(in_portions(order, size, draw, model.notes.add, "sampling"), maxlen=0)
    return answers


def complete(
    model: Model,
    prompts: Sequence[Sequence[int]],
    *,
    tokens: int,
    each: int = 1,
    temperature: float | None = None,
    seed: int = 0,
    stops: Iterable[int] = (),
    batch_size: int = 64,
    forward: Forward | None = None,
) -> list[tuple[str, bool]]:
    """What the model says after each prompt, and whether it came to an end by itself.

    Args:
        model: not changed, and neither is the global state of random numbers.
        prompts: token ids.
        tokens: at most so many new ones.
        each: answers to each prompt, one after another in the list returned.
        temperature: Of the whole distribution. If `None`, the most likely token each time.
        seed: of the draws.
        stops: ids that end an answer beside the model's own, such as a template's end of turn.
        batch_size: prompts at a time.
        forward: With a guard. If `None`, the model by itself.
    """
    over = {int(model.tokenizer.eos_token_id), *_own_ends(model), *stops}
    options: dict[str, Any] = {"stops": sorted(over), "each": each, "temperature": temperature}
    options["forward"] = forward

    def draw(part: Sequence[Sequence[int]]) -> list[tuple[str, bool]]:
        new = continue_prompts(model, part, tokens=tokens, **options).tolist()
        texts = decoded_all(model.tokenizer, new, stops=over)
        ended = [not over.isdisjoint(row) for row in new]
        return list(zip(map(str.strip, texts), ended, strict=True))

    with torch.random.fork_rng(_cards(model)):
        torch.manual_seed(seed)
        said = in_portions(prompts, batch_size, draw, model.notes.add, "completing")
        return [one for part in said for one in part]


def complete_rows(
    model: Model, rows: Sequence[Encoded], *, tokens: int, stops: Iterable[int] = ()
) -> list[tuple[str, bool]]:
    """The likeliest answers to rows as `complete` gives them, without the rows' endings.

    An answer whose ending the model writes is over, even if the model writes on.

    Args:
        model: not changed.
        rows: Their prompts are continued; their answers are not read.
        tokens: Of an answer, at most.
        stops: As for `complete`.
    """
    prompts = [open_prompt(model.tokenizer, row) for row in rows]
    said = complete(model, prompts, tokens=tokens, stops=stops)
    found = []
    for row, (text, ended) in zip(rows, said, strict=True):
        answer = without_ending(text, row.ending)
        found.append((answer.strip(), ended or answer != text))
    return found


def _own_ends(model: Model) -> list[int]:
    """Ids that end an answer after the model's generation_config.json."""
    ends = model.net.generation_config.eos_token_id
    own = [] if ends is None else ends if isinstance(ends, list) else [ends]
    if not all(isinstance(end, int) for end in own):
        raise BadInput(
            f"model.base '{model.base}': eos_token_id of generation_config.json is {ends!r}; write "
            "a token's id, or a list of them"
        )
    return own


def _cards(model: Model) -> Sequence[int]:
    return range(torch.cuda.device_count()) if model.device.type == "cuda" else ()
