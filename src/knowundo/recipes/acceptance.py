"""The section `acceptance` of a recipe: what counts as forgotten, said before the run.

acceptance: {}                                     # every question by its default criterion
acceptance:
  reworded: {metric: exact_match, at_most: 0}      # another bound
  relearning: {metric: exact_match, at_most: 30}   # where there is no retain model to compare with
  membership: null                                 # no criterion: never counts as passed

The section is part of the recipe that a run's directory holds, and its fingerprint stands in the
manifest of every artifact of the run: a criterion that was set later does not count.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from knowundo.recipes.data_section import Section
from knowundo.storage.files import fingerprint

# Of a manifest: the fingerprint of the criteria that stood when the artifact was made.
SEALED = "acceptance"

# What a bound is about.
Measure = Literal["value", "over_target", "change", "left"]


class Criterion(Section):
    """A bound of a metric, over every row of results.json that belongs to the question."""

    metric: str = Field(min_length=1)
    """Name of a metric: see `knowundo list metrics`."""
    at_most: float | None = None
    """The greatest value that passes."""
    at_least: float | None = None
    """The smallest value that passes."""
    of: Measure = "value"
    """value: the metric itself. over_target: minus that of the retain model on the same rows, under
    the same attack. change: minus that of the memorized model without attack. left: percent of the
    way from the retain model (or from 0, if there is none) up to the memorized model: 100 means
    that nothing was unlearned."""

    @model_validator(mode="after")
    def _one_bound(self) -> Criterion:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("give one bound, at_most or at_least")
        return self


def _listed(given: Any) -> Any:
    """One criterion as a list of one; null as an empty list."""
    if given is None:
        return ()
    return given if isinstance(given, list | tuple) else (given,)


Criteria = Annotated[tuple[Criterion, ...], BeforeValidator(_listed)]


def _bound(metric: str, *, of: Measure = "value", **bound: float) -> Any:
    return Field((Criterion(metric=metric, of=of, **bound),))


class Acceptance(Section):
    """One criterion, or several, for each question of the certificate; null: none."""

    asked: Criteria = _bound("exact_match", at_most=5.0)
    """Forgotten in the asked wording: train rows of the unlearn scope."""
    reworded: Criteria = _bound("exact_match", at_most=5.0)
    """Forgotten in rewordings: val and probe rows, and attacks that change the wording."""
    latent: Criteria = _bound("probability", at_most=25.0, of="left")
    """Gone, and not only left unsaid: the true answer is no longer likely, whatever is said."""
    sampling: Criteria = _bound("exact_match", at_most=5.0)
    """Forgotten under sampling: the attack `sampling`."""
    relearning: Criteria = _bound("exact_match", at_most=10.0, of="over_target")
    """Stays forgotten over 50 steps of relearning: the attack `relearning`."""
    quantization: Criteria = _bound("exact_match", at_most=5.0)
    """Stays forgotten after quantization to 4 bits: the attack `quantization`."""
    scaling: Criteria = _bound("exact_match", at_most=10.0, of="over_target")
    """Stays forgotten when the change of the weights is scaled: the attack `scaling`, which moves
    the retain model too."""
    other_attacks: Criteria = Field(
        (
            Criterion(metric="exact_match", at_most=5.0),
            Criterion(metric="token_accuracy", at_most=10.0, of="over_target"),
        )
    )
    """Stays forgotten under every other attack that was run; some of them generate no answer."""
    membership: Criteria = Field(
        (
            Criterion(metric="min_k_auc", at_most=60.0),
            Criterion(metric="min_k_auc", at_least=40.0),
        )
    )
    """Members of the unlearn scope look no different from holdout rows: neither likelier nor, which
    tells them as well, less likely."""
    retention: Criteria = _bound("token_accuracy", at_least=-5.0, of="change")
    """The retention scope is intact."""
    general: Criteria = _bound("token_accuracy", at_least=-5.0, of="change")
    """The base's general knowledge is intact."""


def sealed_criteria(acceptance: Acceptance | None) -> dict[str, str]:
    """The entry of a manifest that seals the criteria; empty if there are none."""
    if acceptance is None:
        return {}
    return {SEALED: fingerprint(acceptance.model_dump(mode="json"))}
