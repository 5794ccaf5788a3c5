"""How likely the other answers to each question are: a forward pass for every one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from knowundo.data.encoded import Encoded
from knowundo.data.records import Record
from knowundo.modeling.forward import Forward
from knowundo.scoring.columns import scorers, seen_by
from knowundo.scoring.progress import ScoringState
from knowundo.scoring.seen import Alternatives
from knowundo.scoring.teacher_forcing import force_answers
from knowundo.storage.checkpoints import Checkpoint

# Mean negative log-likelihood by the id of an answer's row; `None` where it is no finite number.
Likelihoods = Mapping[str, float | None]


def _ids(record: Record) -> list[str]:
    return [f"{record.id}/alternative-{number}" for number in range(len(record.alternatives))]


def _paraphrase_id(record: Record) -> str:
    return f"{record.id}/paraphrase"


def other_answers(records: Iterable[Record]) -> list[Record]:
    """The question of each record with its paraphrased and its other answers, a record for each.

    Args:
        records: Those without `alternatives` are left out.
    """
    found = []
    for record in records:
        if not record.alternatives:
            continue
        texts = dict(zip(_ids(record), record.alternatives, strict=True))
        if record.paraphrase is not None:
            texts[_paraphrase_id(record)] = record.paraphrase
        plain = replace(record, alternatives=(), paraphrase=None, facts=())
        found += [replace(plain, id=name, answer=text) for name, text in texts.items()]
    return found


def needed_answers(
    encoded: Iterable[Encoded],
    encode: Callable[[Sequence[Record]], list[Encoded]],
    metrics: Sequence[str],
) -> list[Encoded]:
    """Rows with the other answers to the same questions, if a scorer needs them.

    Args:
        encoded: Rows that are scored.
        encode: Encodes records as these were.
        metrics: Metrics whose scorers run only where they are named.
    """
    if not seen_by(scorers(metrics), "alternatives"):
        return []
    return encode(other_answers(row.record for row in encoded))


def force_alternatives(
    forward: Forward, alternatives: Sequence[Encoded], checkpoint: Checkpoint | None
) -> list[Likelihoods]:
    """Likelihoods of other answers, for each model of a forward.

    Args:
        forward: Of one or several models.
        alternatives: Rows of `other_answers`.
        checkpoint: Of the scoring that these are a part of.
    """
    own = None if checkpoint is None else checkpoint.within("alternatives")
    state = ScoringState(forward.models, own if alternatives else None)
    force_answers(forward, alternatives, state)
    return [{name: row["mean_nll"] for name, row in rows.items()} for rows in state.forced]


def weighed(record: Record, true: float | None, others: Likelihoods) -> Alternatives | None:
    """What a scorer sees of a record's answers; `None` if it has one only, or one is not finite."""
    if not record.alternatives or any(name not in others for name in _ids(record)):
        return None
    found = [others[name] for name in _ids(record)]
    paraphrase = others.get(_paraphrase_id(record), true)
    if true is None or paraphrase is None or any(one is None for one in found):
        return None
    return Alternatives(record, true, paraphrase, [one for one in found if one is not None])
