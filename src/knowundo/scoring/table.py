"""One row a record: what a variant predicts and answers, as Parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from knowundo.data.decoding import decoded_all
from knowundo.data.encoded import Encoded
from knowundo.data.records import ASKED
from knowundo.data.wording import Overlap, rouge_l
from knowundo.entry import Entry
from knowundo.errors import BadInput, first_line
from knowundo.modeling.forward import Forward
from knowundo.modeling.model import Model
from knowundo.progress import Progress
from knowundo.scoring.alternatives import Likelihoods, force_alternatives, weighed
from knowundo.scoring.answers import answer_rows
from knowundo.scoring.columns import FIXED, NUMBERS, columns, numbers, scorers, seen_by
from knowundo.scoring.generation import BATCH, MOST_ADAPTERS
from knowundo.scoring.progress import Said, ScoringState
from knowundo.scoring.seen import Generated
from knowundo.scoring.teacher_forcing import force_answers
from knowundo.scoring.token_probabilities import token_ends
from knowundo.storage.checkpoints import Checkpoint


def score_adapters(
    forward: Forward,
    encoded: Sequence[Encoded],
    *,
    generated_splits: Sequence[str],
    metrics: Sequence[str] = (),
    alternatives: Sequence[Encoded] = (),
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> list[pd.DataFrame]:
    """Score a model as it is now: each adapter of a forward, in their order.

    Args:
        forward: Of one adapter, of several, or of a guard; its model is not changed.
        encoded: Rows of any scope and split.
        generated_splits: Splits whose questions are also answered freely; plain text and
            choices never are.
        metrics: Metrics whose scorers run only where they are named.
        alternatives: Rows of `alternatives.other_answers`, for scorers that need them.
        progress: Called after each generated batch.
        checkpoint: Resumed from, and written now and then.

    Returns:
        One row a record, in the order given, with the columns `columns.columns(metrics)`; shares
        are in [0, 1], and what was not measured is missing, never 0.
    """
    model, running = forward.model, scorers(metrics)
    state = ScoringState(forward.models, checkpoint)
    force_answers(forward, encoded, state, seen_by(running, "tokens"))
    answer_rows(forward, _asked(encoded, generated_splits), state, progress=progress)
    others = force_alternatives(forward, alternatives, checkpoint)
    if forward.models > 1:  # some of the tables may be written when this process is killed
        state.keep(over=True)
    ends = {row: token_ends(model.tokenizer, row) for row in _asked(encoded, generated_splits)}
    tables = []
    for forced, said, other in zip(state.forced, state.said, others, strict=True):
        rows = _rows(model, encoded, forced, said, ends)
        _add_columns(rows, encoded, running, other)
        frame = pd.DataFrame(rows, columns=list(columns(metrics)))
        floats = [*NUMBERS, *(entry.name for entry in running)]
        tables.append(frame.astype(dict.fromkeys(floats, "float64")))
    return tables


def _asked(encoded: Sequence[Encoded], splits: Sequence[str]) -> list[Encoded]:
    return [r for r in encoded if r.record.kind in ASKED and r.record.split in splits]


def fill_a_batch(encoded: Sequence[Encoded], generated_splits: Sequence[str]) -> int:
    """Adapters with which the answers to these rows fill one batch; at least 1.

    More would be no faster: a matmul of so many rows no longer waits for the base's weights.
    """
    rows = len(_asked(encoded, generated_splits)) or len(encoded)
    return min(max(1, BATCH // rows), MOST_ADAPTERS)


def _rows(
    model: Model,
    encoded: Sequence[Encoded],
    forced: dict[str, dict[str, Any]],
    said: dict[str, Said],
    ends: Mapping[Encoded, list[int] | None],
) -> list[dict[str, Any]]:
    """The fixed columns of each row, and what scorers made of its tokens.

    Rows that nobody was asked have no `ends`, and keep no probabilities: nobody looks at them.
    """
    rows = []
    predicted = [forced[row.record.id]["likeliest"] for row in encoded]
    texts = decoded_all(model.tokenizer, predicted)
    for row, likeliest in zip(encoded, texts, strict=True):
        record = row.record
        answer = said.get(record.id)
        fact = {name: getattr(record, name) for name in FIXED[:7]}
        fact["subject"] = record.subject or record.id  # intervals resample subjects
        judged: dict[str, Any] = {"said": None, "exact_match": None, "rouge_l": None}
        judged["forced_rouge_l"] = _recall(rouge_l(record.answer, likeliest, stem=False))
        if answer is not None:
            judged["said"], judged["exact_match"] = answer.text, float(answer.exact)
            judged["rouge_l"] = _recall(Generated(record, answer.text).overlap(stem=True))
        judged["token_ends"] = ends.get(row)
        if judged["token_ends"] is None:
            judged["token_probabilities"] = None
        rows.append(fact | forced[record.id] | judged)
    return rows


def _recall(overlap: Overlap | None) -> float | None:
    return None if overlap is None else overlap.recall


def _add_columns(
    rows: Sequence[dict[str, Any]],
    encoded: Sequence[Encoded],
    running: Sequence[Entry],
    others: Likelihoods,
) -> None:
    """Put into rows what scorers make of generated answers and of other answers."""
    of_answers, of_others = (seen_by(running, needs) for needs in ("answer", "alternatives"))
    for row, one in zip(rows, encoded, strict=True):
        if row["said"] is not None:
            row |= numbers(of_answers, Generated(one.record, row["said"]))
        if (seen := weighed(one.record, row["mean_nll"], others)) is not None:
            row |= numbers(of_others, seen)


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
        reason = first_line(error)
        raise BadInput(f"{path}: not readable as Parquet ({reason}); evaluate again") from None
