"""Generation with transformers: greedy or sampled, in batches that change no row."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from knowundo.data.decoding import decoded_all
from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput
from knowundo.modeling.fast.oom import in_portions, ran_out
from knowundo.modeling.head import TRIED
from knowundo.modeling.model import Model
from knowundo.modeling.positions import reset, unscaled

# Answers that are grown at a time, and adapters abreast at most: each is held in memory.
BATCH, ABREAST = 128, 16


@torch.no_grad()
def continue_prompts(
    model: Model,
    prompts: Sequence[Sequence[int]],
    *,
    tokens: int,
    stops: Sequence[int],
    each: int = 1,
    temperature: float | None = None,
) -> torch.Tensor:
    """New ids after each prompt, [prompts × each, at most `tokens`]; without temperature, greedy.

    Of a batched multi-adapter forward: [adapters × prompts × each, at most `tokens`]. Prompts that
    would change what follows another, in a batch padded on the left, are continued in batches of
    their own.
    """
    how: dict[str, Any] = {"stops": stops, "each": each, "temperature": temperature}
    groups = _groups(model, [len(prompt) for prompt in prompts], tokens)
    if groups == [(list(range(len(prompts))), tokens)]:
        return _generated(model, prompts, tokens=tokens, **how)
    output = torch.full((model.abreast, len(prompts), each, tokens), model.pad, device=model.device)
    for numbers, most in groups:
        if most > 0:
            new = _generated(model, [prompts[n] for n in numbers], tokens=most, **how)
            new = new.view(model.abreast, len(numbers), each, -1)
            output[:, numbers, :, : new.shape[-1]] = new
    return output.flatten(0, 2)


def _groups(model: Model, lengths: Sequence[int], tokens: int) -> list[tuple[list[int], int]]:
    """Prompts that may share a batch, and how many tokens may follow them.

    One with which so many tokens would not fit into the model's positions is alone, continued as
    far as they reach. Of equal length are those in whose batch padding would be seen, or positions
    are scaled.
    """
    groups, equal = list[tuple[list[int], int]](), dict[int, list[int]]()
    padded = left_pads(model)
    for number, length in enumerate(lengths):
        room = model.longest(length + tokens) - length
        if room < tokens:
            groups.append(([number], room))
        else:
            mixed = padded and length + tokens <= unscaled(model)
            equal.setdefault(0 if mixed else length, []).append(number)
    return groups + [(numbers, tokens) for numbers in equal.values()]


def left_pads(model: Model) -> bool:
    """True if prompts of several lengths can share a batch, padded on the left.

    Asked once, and tried on two short prompts: what ignores the mask continues them otherwise.
    """
    if model.left_pads is None:
        prompts = [TRIED, TRIED[::-2]]
        alone = torch.cat([_next_logits(model, [prompt]) for prompt in prompts], dim=1)
        try:
            model.left_pads = model.alike(_next_logits(model, prompts), alone)
        except BadInput:  # of both, though of neither alone
            model.left_pads = False
        if not model.left_pads:
            model.notes.add("padding on the left changes answers: only equal lengths share it")
    return model.left_pads


def _next_logits(model: Model, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Logits of the token after each prompt, [adapters, prompts, vocabulary]."""
    scores = _generate(model, prompts, max_new_tokens=1, do_sample=False, output_logits=True)
    return torch.stack(scores.logits)[0].unflatten(0, (model.abreast, -1))


def _generated(
    model: Model,
    prompts: Sequence[Sequence[int]],
    *,
    tokens: int,
    stops: Sequence[int],
    each: int,
    temperature: float | None,
) -> torch.Tensor:
    """New ids after each prompt, all in one batch."""
    drawn = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    output = _generate(
        model,
        prompts,
        max_new_tokens=tokens,
        num_return_sequences=each,
        eos_token_id=sorted(stops),
        **({"do_sample": False} if temperature is None else drawn),
    )
    new: torch.Tensor = output.sequences[:, max(map(len, prompts)) :]
    return new


@torch.no_grad()
def _generate(model: Model, prompts: Sequence[Sequence[int]], **how: Any) -> Any:
    """transformers' output of `generate` on prompts in one batch, for each batched adapter.

    Prompts are padded on the left, so that what is generated begins in one column. How is said
    here, whatever the model's generation_config.json holds. A model that reads padding gets no
    cache: layers that do (RWKV's) mix it up between the rows of a batch.

    Raises:
        BadInput: transformers cannot generate with this architecture.
    """
    prompts = list(prompts) * model.abreast
    longest = max(map(len, prompts))
    ids = [[model.pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    reset(model)
    try:
        with model.plain_generation():
            return model.net.generate(
                input_ids=torch.tensor(ids, device=model.device),
                attention_mask=torch.tensor(mask, device=model.device),
                pad_token_id=model.pad,
                return_dict_in_generate=True,
                use_cache=model.left_pads is not False,
                **how,
            )
    except Exception as error:  # whatever an architecture raises that cannot generate
        if ran_out(error):
            raise
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise BadInput(
            f"model.base '{model.base}': transformers' generate fails on it ({reason}), so it "
            "cannot be asked anything; set evaluate.generate to [] to score given answers only"
        ) from error


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
    order = sorted(encoded, key=lambda row: (row.answer_length, len(row.prompt)))
    stops, answers = stop_ids(model, encoded), dict[str, list[str]]()

    def draw(rows: Sequence[Encoded]) -> None:
        lengths = [max(row.answer_length - row.tail, 1) for row in rows]
        output = continue_prompts(
            model,
            [row.prompt for row in rows],
            tokens=max(lengths),
            stops=stops,
            each=n,
            temperature=temperature,
        )
        new = output.unflatten(0, (len(rows), n))
        for row, length, drawn in zip(rows, lengths, new, strict=True):
            said = decoded_all(model.tokenizer, drawn[:, :length].tolist(), stops=stops)
            answers[row.record.id] = said

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
) -> list[tuple[str, bool]]:
    """What the model says after each prompt, and whether it came to an end by itself.

    Args:
        model: not changed, and neither is the global state of random numbers.
        prompts: token ids.
        tokens: at most so many new ones.
        each: answers to each prompt, one after another in the list returned.
        temperature: of the whole distribution; none: the likeliest token each time.
        seed: of the draws.
        stops: ids that end an answer beside the model's own, such as a template's end of turn.
        batch_size: prompts at a time.
    """
    over = {int(model.tokenizer.eos_token_id), *_own_ends(model), *stops}
    options: dict[str, Any] = {"stops": sorted(over), "each": each, "temperature": temperature}

    def draw(part: Sequence[Sequence[int]]) -> list[tuple[str, bool]]:
        new = continue_prompts(model, part, tokens=tokens, **options).tolist()
        texts = decoded_all(model.tokenizer, new, stops=over)
        ended = [not over.isdisjoint(row) for row in new]
        return list(zip(map(str.strip, texts), ended, strict=True))

    with torch.random.fork_rng(_cards(model)):
        torch.manual_seed(seed)
        said = in_portions(prompts, batch_size, draw, model.notes.add, "completing")
        return [one for part in said for one in part]


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
