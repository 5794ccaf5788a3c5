"""score(): what one variant predicts and says on every record, one row a record."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import torch
from torch.nn.functional import cross_entropy

from knowundo.checkpoints import Checkpoint
from knowundo.encoding import Encoded, decoded, decoded_all, said_verbatim
from knowundo.errors import BadInput
from knowundo.forwards import answer_states
from knowundo.head import TRIED, live_head
from knowundo.memory import in_portions, ran_out
from knowundo.models import Model
from knowundo.positions import reset, unscaled
from knowundo.progress import Progress
from knowundo.vocabulary import full_precision
from knowundo.wording import rouge_l

# Answers that are grown at a time, and adapters abreast at most: each is held in memory.
BATCH, ABREAST = 128, 16
# Counts up where a column comes to mean something else, so that scores are made again.
VERSION = 2
# What a variant's Parquet file holds, in this order.
COLUMNS = (
    "id", "scope", "split", "subset", "subject", "question", "answer", "said",
    "tokens", "token_accuracy", "fact_accuracy", "mean_nll", "exact_match", "rouge_l",
    "forced_rouge_l",
)  # fmt: skip


def teacher_forced(model: Model, encoded: Sequence[Encoded]) -> dict[str, dict[str, Any]]:
    """Per record id, with the true answer given as far as each position.

    Args:
        model: not changed.
        encoded: the rows.

    Returns:
        `tokens`: answer tokens without the tail that ends it; `token_accuracy`: share of them that
        were the most likely ones; `fact_accuracy`: the same over the fact's tokens, None where
        none is marked; `mean_nll`: negative log-likelihood per token in nats, the tail included,
        None where it is no finite number;
        `likeliest`: the most likely tokens themselves, without the tail.
    """
    course = _Course(1)
    _force(model, encoded, course)
    return course.forced[0]


class Said(NamedTuple):
    """A generated answer."""

    text: str
    exact: bool  # it is the true answer: see `encoding.said_verbatim`


class _Course:
    """How far the scoring of a list of rows got: what is known of each row, by adapter abreast."""

    def __init__(self, adapters: int, checkpoint: Checkpoint | None = None) -> None:
        """Go on from where the checkpoint stands, if there is one."""
        self.checkpoint = checkpoint
        state = checkpoint.read() if checkpoint else None
        self.forced: list[dict[str, dict[str, Any]]] = [{} for _ in range(adapters)]
        self.said: list[dict[str, Said]] = [{} for _ in range(adapters)]
        if state:
            self.forced = state.facts["forced"]
            self.said = [
                {name: Said(*said) for name, said in rows.items()} for rows in state.facts["said"]
            ]

    def keep(self, *, over: bool = False) -> None:
        """Write it down, if it is time to, or all is over."""
        if self.checkpoint and (over or self.checkpoint.due()):
            self.checkpoint.write({"forced": self.forced, "said": self.said}, {})


def _force(model: Model, encoded: Sequence[Encoded], course: _Course) -> None:
    missing = {row for row in encoded if row.record.id not in course.forced[0]}
    head = live_head(model)
    for row, states in answer_states(model, encoded, only=missing):
        if row not in missing:
            continue
        adapters = states if model.abreast > 1 else states[None]
        for rows, own in zip(course.forced, adapters, strict=True):
            with torch.no_grad():
                logits = full_precision(head(own))
            rows[row.record.id] = _judged(row, logits)
        course.keep()


def _judged(row: Encoded, logits: torch.Tensor) -> dict[str, Any]:
    """What `teacher_forced` says of a row."""
    truth = torch.tensor(row.ids[row.answer_from :], device=logits.device)
    likeliest = logits.argmax(-1)[: row.answer_length - row.tail]
    right = (likeliest == truth[: len(likeliest)]).tolist()
    fact = [hit for hit, inside in zip(right, row.fact[row.answer_from :], strict=False) if inside]
    mean_nll = float(cross_entropy(logits.double(), truth))
    return {
        "tokens": len(right),
        "token_accuracy": sum(right) / len(right) if right else None,
        "fact_accuracy": sum(fact) / len(fact) if fact else None,
        "mean_nll": mean_nll if math.isfinite(mean_nll) else None,
        "likeliest": likeliest.tolist(),
    }


def token_accuracy(model: Model, encoded: Sequence[Encoded]) -> float:
    """Token accuracy, mean over rows, in [0, 1]."""
    rows = [row["token_accuracy"] for row in teacher_forced(model, encoded).values()]
    measured = [value for value in rows if value is not None]
    return sum(measured) / len(measured)


@torch.no_grad()
def _continued(
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
            model.notes.append("padding on the left changes answers: only equal lengths share it")
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


def _stops(model: Model, encoded: Sequence[Encoded]) -> list[int]:
    """Ids that end an answer; Gemma's end of turn is not its end-of-sequence."""
    return sorted({model.tokenizer.eos_token_id, *(row.ids[-1] for row in encoded if row.tail)})


@torch.no_grad()
def generate(
    model: Model,
    encoded: Sequence[Encoded],
    *,
    batch_size: int = BATCH,
) -> dict[str, str]:
    """Texts of `answered`, by record id."""
    said = answered(model, encoded, batch_size=batch_size)
    return {name: answer.text for name, answer in said.items()}


def answered(
    model: Model, encoded: Sequence[Encoded], *, batch_size: int = BATCH
) -> dict[str, Said]:
    """Greedy answers by record id, of at most as many tokens as the true answer.

    Rows are padded on the left and sorted by their true answer's length, so that a batch ends
    early; what a model would say beyond that length cannot make it more right. An answer is over
    at end-of-sequence or at the end of turn that the rows were encoded with.
    """
    course = _Course(1)
    _answer(model, encoded, course, batch_size=batch_size)
    return course.said[0]


def _answer(
    model: Model,
    encoded: Sequence[Encoded],
    course: _Course,
    *,
    batch_size: int = BATCH,
    progress: Progress | None = None,
) -> None:
    stops = _stops(model, encoded)
    order = sorted(encoded, key=lambda row: (row.answer_length, len(row.prompt)))

    def answer(rows: Sequence[Encoded]) -> None:
        if all(row.record.id in course.said[0] for row in rows):
            return
        output = _continued(
            model,
            [row.prompt for row in rows],
            tokens=max(row.answer_length for row in rows),
            stops=stops,
        )
        for answers, own in zip(course.said, output.chunk(model.abreast), strict=True):
            # Cut to its own true answer's length, what a row says does not depend on others.
            tokens = [new[: row.answer_length] for row, new in zip(rows, own.tolist(), strict=True)]
            texts = decoded_all(model.tokenizer, tokens, stops=stops)
            for row, ids, text in zip(rows, tokens, texts, strict=True):
                exact = said_verbatim(model.tokenizer, row, ids, stops=stops)
                answers[row.record.id] = Said(text, exact)
        course.keep()
        if progress:
            progress(len(course.said[0]), len(order))

    size = max(1, batch_size // model.abreast)
    deque(in_portions(order, size, answer, model.notes, "answering"), maxlen=0)


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
    stops, answers = _stops(model, encoded), dict[str, list[str]]()

    def draw(rows: Sequence[Encoded]) -> None:
        lengths = [max(row.answer_length - row.tail, 1) for row in rows]
        output = _continued(
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
        deque(in_portions(order, size, draw, model.notes, "sampling"), maxlen=0)
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
        new = _continued(model, part, tokens=tokens, **options).tolist()
        texts = decoded_all(model.tokenizer, new, stops=over)
        ended = [not over.isdisjoint(row) for row in new]
        return list(zip(map(str.strip, texts), ended, strict=True))

    with torch.random.fork_rng(_cards(model)):
        torch.manual_seed(seed)
        said = in_portions(prompts, batch_size, draw, model.notes, "completing")
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


def score(
    model: Model,
    encoded: Sequence[Encoded],
    *,
    generated_splits: Sequence[str],
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> pd.DataFrame:
    """Score the model as it is now.

    Args:
        model: not changed.
        encoded: rows of any scope and split.
        generated_splits: splits whose questions are also answered freely; plain text never is.
        progress: called after each generated batch.
        checkpoint: gone on from, and written now and then.

    Returns:
        One row a record, in the order given, with the columns `COLUMNS`; shares are in [0, 1],
        and what was not measured is missing, never 0.
    """
    (table,) = score_abreast(
        model, encoded, generated_splits=generated_splits, progress=progress, checkpoint=checkpoint
    )
    return table


def score_abreast(
    model: Model,
    encoded: Sequence[Encoded],
    *,
    generated_splits: Sequence[str],
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> list[pd.DataFrame]:
    """The same of each adapter that the model has abreast (`Model.all_of`), in their order."""
    course = _Course(model.abreast, checkpoint)
    _force(model, encoded, course)
    _answer(model, _asked(encoded, generated_splits), course, progress=progress)
    if model.abreast > 1:  # some of the tables may be written when this process is killed
        course.keep(over=True)
    both = zip(course.forced, course.said, strict=True)
    return [_table(model, encoded, forced, said) for forced, said in both]


def _asked(encoded: Sequence[Encoded], splits: Sequence[str]) -> list[Encoded]:
    return [r for r in encoded if r.record.kind == "qa" and r.record.split in splits]


def fill_a_batch(encoded: Sequence[Encoded], generated_splits: Sequence[str]) -> int:
    """Adapters abreast with which the answers to these rows are one batch; at least 1.

    More would be no faster: a product of so many rows no longer waits for the base's weights.
    """
    rows = len(_asked(encoded, generated_splits)) or len(encoded)
    return min(max(1, BATCH // rows), ABREAST)


def _table(
    model: Model,
    encoded: Sequence[Encoded],
    forced: dict[str, dict[str, Any]],
    said: dict[str, Said],
) -> pd.DataFrame:
    rows = []
    for row in encoded:
        record = row.record
        answer = said.get(record.id)
        fact = {name: getattr(record, name) for name in COLUMNS[:7]}
        fact["subject"] = record.subject or record.id  # intervals resample subjects
        judged: dict[str, Any] = {"said": None, "exact_match": None, "rouge_l": None}
        likeliest = decoded(model.tokenizer, forced[record.id]["likeliest"])
        judged["forced_rouge_l"] = _recall(record.answer, likeliest, stem=False)
        if answer is not None:
            judged["said"], judged["exact_match"] = answer.text, float(answer.exact)
            judged["rouge_l"] = _recall(record.answer, answer.text, stem=True)
        rows.append(fact | forced[record.id] | judged)
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(COLUMNS[9:], "float64"))


def _recall(answer: str, said: str, *, stem: bool) -> float | None:
    overlap = rouge_l(answer, said, stem=stem)
    return None if overlap is None else overlap.recall


def write_scores(scores: pd.DataFrame, path: Path) -> None:
    """Write rows as Parquet."""
    scores.to_parquet(path, index=False)


def read_scores(path: Path) -> pd.DataFrame:
    """Read rows that `write_scores` wrote.

    Raises:
        BadInput: the file is not there, or damaged.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file; evaluate the run again")
    try:
        return pd.read_parquet(path)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).split("\n")[0]
        raise BadInput(f"{path}: not readable as Parquet ({reason}); evaluate again") from None
