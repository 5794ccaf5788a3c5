"""The verdict: each question against its criterion, and all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from knowundo.certificate.evidence import Answer, Check, Finding, Outcome, State
from knowundo.certificate.questions import QUESTIONS, Question
from knowundo.recipes.acceptance import Acceptance, Criterion
from knowundo.results import Results, Row

# From the best to the worst: a question has the state of its worst check.
_ORDER: tuple[State, ...] = ("passed", "no_criterion", "not_tested", "undecided", "failed")
_SHOWN: dict[State, str] = {
    "passed": "yes",
    "failed": "NO",
    "undecided": "undecided",
    "not_tested": "not tested",
    "no_criterion": "no criterion",
}
_UNITS = {
    "value": "",
    "over_target": " over the retain model",
    "change": " against the model before",
    "left": " % of the way back to the model before",
}


@dataclass(frozen=True)
class Scores:
    """The rows of one model beside those of the model before unlearning."""

    results: Results
    variant: str
    before: str = "memorized"

    @property
    def rows(self) -> list[Row]:
        """The model's own rows."""
        return [row for row in self.results.rows if row.variant == self.variant]

    def before_value(self, row: Row) -> float | None:
        """The same metric of the model before unlearning, without attack."""
        same = self.results.find(self.before, row.metric, row.scope, row.split, row.subset)
        return None if same is None else same.value

    def way_back(self, row: Row, value: float | None) -> float | None:
        """Percent of the way from the retain model up to the model before unlearning.

        Without a retain model the way begins at 0, which is the harder bound.

        Args:
            row: Of the model.
            value: In the unit of the row's metric: its value, or an end of its interval.
        """
        before, target = self.before_value(row), row.reference or 0.0
        if value is None or before is None or before <= target:
            return None
        return 100 * (value - target) / (before - target)


def answer_questions(scores: Scores, acceptance: Acceptance | None) -> list[Answer]:
    """The answer to every question.

    Args:
        scores: Of the model.
        acceptance: The criteria that stood before the run. If `None`, there are none, and no
            question is passed.
    """
    return [_answer(question, scores, acceptance) for question in QUESTIONS]


def _answer(question: Question, scores: Scores, acceptance: Acceptance | None) -> Answer:
    criteria = () if acceptance is None else getattr(acceptance, question.key)
    rows = [row for row in scores.rows if question.belongs(row)]
    if not criteria:
        # Whether membership was measured shows in no row's group, only in a metric's name.
        measured = question.key != "membership" and any(row.value is not None for row in rows)
        state: State = "no_criterion" if measured else "not_tested"
        why = "the recipe names no criterion" if measured else "nothing was measured"
        return _made(question, state, f"{_SHOWN[state]}: {why}", [])
    checks, missing = list[Check](), list[str]()
    for criterion in criteria:
        named = [row for row in rows if row.metric == criterion.metric]
        checks += [_check(criterion, row, scores) for row in named]
        if not any(row.value is not None for row in named):
            missing.append(f"no {criterion.metric} was measured")
        elif lacking := question.lacking(named):
            missing.append(lacking)
    states: list[State] = [check.state for check in checks]
    # A row without a value tells nothing beside others of its metric that have one.
    states = [s for s, check in zip(states, checks, strict=True) if check.measured is not None]
    if missing or not states:
        states.append("not_tested")
    state = max(states, key=_ORDER.index)
    sentence = _sentence(state, checks, missing)
    if state == "passed" and question.sample:
        sentence += _rule_of_three([check for check in checks if check.state == state])
    return _made(question, state, sentence, checks)


def _made(question: Question, state: State, sentence: str, checks: list[Check]) -> Answer:
    return Answer(
        key=question.key, question=question.text, state=state, sentence=sentence, checks=checks
    )


def _check(criterion: Criterion, row: Row, scores: Scores) -> Check:
    """One row against one criterion."""
    values = [_measure(criterion, row, scores, end) for end in (row.value, row.low, row.high)]
    measured, *ends = values
    known = sorted(end for end in ends if end is not None)
    low, high = (known[0], known[-1]) if len(known) == len(ends) else (None, None)
    at_least = criterion.at_most is None
    bound = criterion.at_least if criterion.at_most is None else criterion.at_most
    assert bound is not None  # a criterion has one bound
    return Check(
        metric=row.metric,
        where=" ".join(part for part in (row.scope, row.split, row.attack) if part),
        of=criterion.of,
        bound=bound,
        side="at_least" if at_least else "at_most",
        measured=measured,
        low=low,
        high=high,
        records=row.records - row.unscored,
        subjects=row.subjects,
        state=_state(measured, low if at_least else high, bound, at_least=at_least),
    )


def _measure(criterion: Criterion, row: Row, scores: Scores, value: float | None) -> float | None:
    """A value of the row's metric in the terms of the criterion; `None` if it cannot be said."""
    if value is None or criterion.of == "value":
        return value
    if criterion.of == "over_target":
        return None if row.reference is None else value - row.reference
    if criterion.of == "left":
        return scores.way_back(row, value)
    before = scores.before_value(row)
    return None if before is None else value - before


def _state(measured: float | None, worst: float | None, bound: float, *, at_least: bool) -> State:
    """Whether a value, and the worse end of its interval, keep a bound."""
    if measured is None:
        return "not_tested"

    def within(value: float) -> bool:
        return value >= bound if at_least else value <= bound

    if not within(measured):
        return "failed"
    return "passed" if worst is None or within(worst) else "undecided"


def _sentence(state: State, checks: Sequence[Check], missing: Sequence[str]) -> str:
    """The verdict with the check that decided it."""
    said = _SHOWN[state]
    deciding = [check for check in checks if check.state == state]
    if deciding and not (state == "not_tested" and missing):
        said += ": " + _words(max(deciding, key=_distance))
        if len(deciding) > 1:
            said += f", the worst of {len(deciding)} checks"
    if missing:
        said += f"{'; ' if said != _SHOWN[state] else ': '}{'; '.join(missing)}"
    elif state == "not_tested":
        said += ": nothing was measured that the criterion could be held against"
    return said


def _distance(check: Check) -> float:
    """How far a check is on the wrong side of its bound."""
    if check.measured is None:
        return 0.0
    off = check.measured - check.bound
    return -off if check.side == "at_least" else off


def _words(check: Check) -> str:
    """A check in words: `exact_match 3.0 (0.0 to 5.0) of unlearn val, bound at most 5`."""
    if check.measured is None:
        return f"{check.metric} of {check.where} has no value to compare with"
    ends = "" if check.low is None else f" ({check.low:.1f} to {check.high:.1f})"
    side = check.side.replace("_", " ")
    return (
        f"{check.metric} {check.measured:.1f}{ends}{_UNITS[check.of]} on {check.where}, "
        f"{side} {check.bound:g}"
    )


def _rule_of_three(checks: Sequence[Check]) -> str:
    """What zero hits among n still allow (Hanley and Lippman-Hand 1983): up to 3/n at 95 %."""
    zero = [one.subjects for one in checks if one.of == "value" and one.measured == one.high == 0]
    if not zero or not min(zero):
        return ""
    most = min(100.0, 300 / min(zero))
    return f"; none of {min(zero)} subjects, so of others up to {most:.0f} % may be (rule of three)"


def outcome(answers: Sequence[Answer], findings: Sequence[Finding]) -> tuple[Outcome, str]:
    """The verdict on the whole, and in one sentence."""
    failed = [one for one in answers if one.state == "failed"]
    passed = [one for one in answers if one.state == "passed"]
    count = f"{len(passed)} of {len(answers)} questions passed"
    if failed or findings:
        why = [finding.sentence for finding in findings]
        why += [f"{one.question} {one.sentence}" for one in failed[: 1 if findings else 2]]
        return "not_accepted", f"NOT ACCEPTED ({count}). {' '.join(f'{w}.' for w in why)}"
    if len(passed) == len(answers):
        return "accepted", f"ACCEPTED: {count}"
    rest = [
        f"{len(named)} {_SHOWN[state]}"
        for state in ("undecided", "not_tested", "no_criterion")
        if (named := [one for one in answers if one.state == state])
    ]
    return "not_shown", f"NOT SHOWN: {count}, {', '.join(rest)}"
