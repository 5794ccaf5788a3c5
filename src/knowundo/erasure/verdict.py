"""Whether a list is gone: judged by the run's results, in words and as a fact."""

from __future__ import annotations

import math
from dataclasses import dataclass

from knowundo.data.wording import folded
from knowundo.erasure.checks import LEFT, known_from
from knowundo.erasure.list_check import ListCheck
from knowundo.erasure.loss import Loss, loss_of
from knowundo.erasure.request import ERASED, ErasureRequest
from knowundo.erasure.request_log import LoggedRequest, RequestLog
from knowundo.erasure_results import State
from knowundo.evaluation.result_rows import EARLIER
from knowundo.reporting.sentences import RELAPSE
from knowundo.results import Results, VariantFacts
from knowundo.runs.run import Run
from knowundo.scoring.table import read_scores
from knowundo.unlearning.answers import OWN, answers

# Points of token accuracy by which the rows of an earlier request may come back, where nobody asks
# for them and exact answers cannot show it.
PREDICTED = 10.0

_WORDS: dict[State, str] = {
    "erased": "erased",
    "erased_with_damage": "erased WITH DAMAGE",
    "not_erased": "NOT ERASED",
}


@dataclass(frozen=True)
class Verdict:
    """What was measured on the list, in percent, and what follows from it.

    Attributes:
        exact: rows of the list answered exactly. `None` if the list has no questions.
        reworded: val rows answered exactly. `None` if there are no val questions.
        predicted: tokens of the list that are predicted.
        level: token accuracy on rows that the model cannot know, in [0, 1]. `None` if not measured.
        gone: True if the list counts as erased.
        lost: what val rows that must stay have lost. `None` if too few of them are known.
        bound: how much may be lost.
        epochs: passes over the list that each attempt took.
        accepted: True if a model that lost more may be exported.
        facts: of the unlearned model.
        rechecked: number of each earlier request → its rows answered exactly.
        relapsed: numbers of the earlier requests that are known again.
        taught: how many questions are answered as taught, in words. Empty if nothing was taught
            or the answers are the model's own.
    """

    exact: float | None
    reworded: float | None
    predicted: float | None
    level: float | None
    gone: bool
    lost: Loss | None
    bound: float
    epochs: int
    accepted: bool
    facts: VariantFacts
    rechecked: dict[int, float | None]
    relapsed: list[int]
    taught: str

    @property
    def state(self) -> State:
        """How the erasure ended."""
        if not self.gone:
            return "not_erased"
        damaged = self.facts.collapsed is not None or self._lost_too_much
        return "erased_with_damage" if damaged else "erased"

    @property
    def _lost_too_much(self) -> bool:
        return self.lost is not None and self.lost.amount > self.bound

    @property
    def passed(self) -> bool:
        """True if the model may be exported: the list is gone, and damage is accepted if any.

        A collapsed model is never exported.
        """
        fit = self.accepted or not self._lost_too_much
        return self.gone and fit and self.facts.collapsed is None

    def __str__(self) -> str:
        """The verdict in one line."""
        said = _WORDS[self.state] + ": " + self._measured()
        if self.facts.diverged is not None:
            said += (
                f"; training DIVERGED ({self.facts.diverged}), step {self.facts.kept_step} was kept"
            )
        if self.facts.collapsed is not None:
            said += f"; but the model has COLLAPSED ({self.facts.collapsed})"
        if self.relapsed:
            numbers = ", ".join(map(str, self.relapsed))
            said += f"; RELAPSED: earlier request {numbers} is known again"
        if not self.passed:
            said += f"; no model is exported ({self.advice})"
        return said + self.taught

    def _measured(self) -> str:
        shown = ["–" if v is None else f"{v:.1f} %" for v in (self.exact, self.reworded)]
        said = f"{shown[0]} of the list is still answered exactly, {shown[1]} in other words"
        if self.predicted is not None:
            said += f" ({self.predicted:.0f} % of its tokens are still predicted{self._guessing})"
        if self.lost is None:
            return said + "; too little that must stay is known, so what was lost was not measured"
        return f"{said}; {self.lost} were lost"

    @property
    def _guessing(self) -> str:
        return "" if self.level is None else f"; guessing reaches {100 * self.level:.0f} %"

    @property
    def advice(self) -> str:
        """The one thing to change, if the model may not be exported."""
        if self.gone and self._lost_too_much:
            return (
                f"unlearn.stop.floor allows {self.bound:g}; name more rows that must stay with "
                "--retention, or accept it with --accept-damage"
            )
        tried = [a for a in self.facts.attempts if a.get("unlearned") is False]
        if self.gone or not tried:
            return "raise unlearn.lr or unlearn.epochs, or read the report"
        best = max(tried, key=lambda attempt: float(attempt["forgotten"]))
        said = (
            f"the best of {len(self.facts.attempts)} rates, {best['lr']:g}, went "
            f"{best['forgotten']:.0%} of the way and lost {max(best['lost'], 0.0):.1f} points; "
        )
        if all(attempt.get("unlearned") is False for attempt in self.facts.attempts):
            return said + f"try --set unlearn.lr={3 * max(a['lr'] for a in tried):.2g}"
        return said + f"try --set unlearn.epochs={2 * self.epochs}"


def judge(
    request: ErasureRequest, run: Run, results: Results, check: ListCheck, log: RequestLog
) -> Verdict:
    """Judge whether the list is gone, what was lost, and whether earlier requests stay gone.

    The list is gone if at most `LEFT` percent of its rows and of the val rows are answered exactly,
    and its tokens are predicted no better than what counts as not known. A document, or an answer
    that was never given word for word, shows only in its tokens.

    Args:
        request: what was asked for.
        run: its run, evaluated.
        results: of the run.
        check: of the list, before anything was changed.
        log: earlier requests.
    """
    exact = _value(results, "exact_match", "train")
    reworded = _value(results, "exact_match", "val")
    predicted = _value(results, "token_accuracy", "train")
    gone = all(value is None or value <= LEFT for value in (exact, reworded))
    if check.level is not None and predicted is not None and request.answer_with is None:
        gone = gone and predicted / 100 <= known_from(check.level)
    taught, stop = request.answer_with, run.recipe.unlearn.stop
    return Verdict(
        exact=exact,
        reworded=reworded,
        predicted=predicted,
        level=check.level,
        gone=gone,
        lost=loss_of(run),
        bound=math.inf if stop is None else stop.floor,
        epochs=run.recipe.unlearn.epochs,
        accepted=request.accept_damage,
        facts=next(v for v in results.variants if v.name == ERASED),
        rechecked={r.number: _earlier(results, "exact_match", r) for r in log.requests},
        relapsed=[r.number for r in log.requests if _relapsed(r, results)],
        taught="" if taught is None or taught in OWN else _answered_as_taught(run, taught),
    )


def exact_before(results: Results) -> float | None:
    """Percent of the list that the model answered exactly before."""
    row = results.find("memorized", "exact_match", "unlearn", "train", None)
    return None if row is None else row.value


def _value(results: Results, metric: str, split: str, subset: str | None = None) -> float | None:
    row = results.find(ERASED, metric, "unlearn", split, subset)
    return None if row is None else row.value


def _earlier(results: Results, metric: str, request: LoggedRequest) -> float | None:
    return _value(results, metric, "probe", f"{EARLIER}{request.number}")


def _relapsed(request: LoggedRequest, results: Results) -> bool:
    """True if an earlier request is answered again or, if nothing is asked, predicted again."""
    exact = _earlier(results, "exact_match", request)
    if exact is not None:
        return exact > RELAPSE
    predicted, after = _earlier(results, "token_accuracy", request), request.predicted_after
    return predicted is not None and after is not None and predicted > after + PREDICTED


def _answered_as_taught(run: Run, source: str) -> str:
    """How many of the list's questions are answered with what was taught.

    Answers are generated up to the true answer's length, so the beginning of a taught answer
    counts. Capitals, spacing and ways to write an accent do not: some tokenizers change them.
    """
    rows = read_scores(run.out / "scores" / ERASED / "rows.parquet")
    listed = rows[(rows["scope"] == "unlearn") & (rows["split"] == "train")]["said"].dropna()
    taught = [folded(answer) for answer in answers(source)]
    # An answer may be cut within the bytes of a character, which decodes to U+FFFD.
    told = [folded(said.rstrip("\ufffd")) for said in listed]
    hits = sum(bool(said) and any(a.startswith(said) for a in taught) for said in told)
    return f"; {hits} of {len(listed)} of its questions are answered as taught"
