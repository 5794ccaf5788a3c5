"""Collecting the evidence on one model of a run, from what the run holds and has sealed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from knowundo.certificate.delivery import delivered_folder, parents_of
from knowundo.certificate.evidence import (
    DataFacts,
    ErasureVerdict,
    Evidence,
    EvidenceRow,
    HiddenRow,
    ModelStory,
    Person,
    Scope,
)
from knowundo.certificate.findings import find_all
from knowundo.certificate.keys import HidingKey, hidden_list, hidden_row
from knowundo.certificate.limits import limits_of
from knowundo.certificate.model_files import model_files
from knowundo.certificate.verdict import Scores, answer_questions, outcome
from knowundo.data.records import Record, data_hash, select
from knowundo.errors import BadInput, unknown
from knowundo.modeling.variant import ModelVariant
from knowundo.pipeline.reporting import sealed_results
from knowundo.pipeline.scores import unaltered_rows
from knowundo.recipes.acceptance import SEALED, sealed_criteria
from knowundo.results import Results
from knowundo.runs.run import Run
from knowundo.scoring.table import read_scores
from knowundo.storage.artifacts import MANIFEST, read_manifest
from knowundo.storage.files import file_hash, fingerprint

Criteria = Literal["before the run", "not before the run", "none"]


def collect(
    run: Run, name: str, key: HidingKey, *, reveal: bool = False, exported: Path | None = None
) -> Evidence:
    """The evidence on one model.

    Args:
        run: An evaluated run.
        name: Of the model.
        key: Hides the texts.
        reveal: Also show the texts.
        exported: Folder of an export of the model, which is delivered. If `None`, it is the
            run's own folder of it.

    Raises:
        BadInput: No such model, or it was not scored as it is now.
    """
    results = sealed_results(run)
    variant = _scored_variant(run, results, name)
    folder = delivered_folder(run, variant, exported)
    scores = Scores(results, name, run.start.name)
    criteria = _criteria(run, variant)
    # A criterion that was set when the scores were known proves nothing.
    stood = run.recipe.acceptance if criteria == "before the run" else None
    answers = answer_questions(scores, stood)
    findings = find_all(variant, run.start, scores)
    state, sentence = outcome(answers, findings)
    effective = run.effective
    return Evidence(
        certified=datetime.now(UTC).isoformat(timespec="seconds"),
        outcome=state,
        sentence=sentence,
        answers=answers,
        findings=findings,
        erasure=_erasure(results, name),
        scope=_scope(run, key, reveal=reveal),
        people=_people(run, name, key),
        acceptance=effective["acceptance"],
        criteria=criteria,
        model=_story(results, name),
        folder=_inside(run, folder),
        weights=model_files(folder),
        parents=parents_of(run, variant),
        data=_data(run, results, key, reveal=reveal),
        run=run.recipe.name,
        recipe_sha256=fingerprint(effective),
        results_sha256=file_hash(run.out / "results.json"),
        seeds=results.seeds,
        revision=results.revision,
        packages=results.packages,
        hardware=results.hardware,
        rows=[_with_before(scores, row) for row in scores.rows],
        limits=limits_of(answers, criteria),
    )


def _scored_variant(run: Run, results: Results, name: str) -> ModelVariant:
    """The variant of that name, if its scores are of the weights that are there now."""
    there = {variant.name: variant for variant in run.variants()}
    if name not in there:
        raise unknown("variant", name, there)
    variant, folder = there[name], run.scores(name)
    scored = any(one.name == name for one in results.variants)
    if not scored or not run.done(folder, run.score_inputs(variant)):
        raise BadInput(
            f"{folder}: not the scores of {name} as it is now; run `knowundo evaluate --out "
            f"{run.out}` first"
        )
    return variant


def _criteria(run: Run, variant: ModelVariant) -> Criteria:
    """Whether the criteria of the recipe stood when the model was made."""
    wanted = sealed_criteria(run.recipe.acceptance)
    if not wanted:
        return "none"
    # A given model was made elsewhere: what shows is that they stood before it was scored.
    made = run.scores(variant.name) if variant.role == "given" else variant.made
    if made is None or not (made / MANIFEST).is_file():
        return "not before the run"
    held = read_manifest(made).get(SEALED)
    return "before the run" if held == wanted[SEALED] else "not before the run"


def _inside(run: Run, folder: Path) -> str | None:
    """The name of a folder inside the run's directory; `None` if it is elsewhere."""
    place, out = folder.resolve(), run.out.resolve()
    return place.relative_to(out).as_posix() if out in place.parents else None


def _with_before(scores: Scores, row: Any) -> EvidenceRow:
    return EvidenceRow(**row.model_dump(), before=scores.before_value(row))


def _listed(run: Run) -> list[Record]:
    """The rows that had to go."""
    return select(run.records, scope="unlearn", split="train")


def _scope(run: Run, key: HidingKey, *, reveal: bool) -> Scope:
    listed = _listed(run)
    entries = [
        HiddenRow(
            subject=key.hide(record.subject or record.id),
            row=hidden_row(key, record.question, record.answer),
            question=record.question if reveal else None,
            answer=record.answer if reveal else None,
        )
        for record in listed
    ]
    return Scope(
        rows=len(listed),
        subjects=len({entry.subject for entry in entries}),
        key_id=key.key_id,
        key_source=key.source,
        listed=hidden_list(key, [(r.question, r.answer) for r in listed]),
        entries=entries,
    )


def _people(run: Run, name: str, key: HidingKey) -> list[Person]:
    """How many questions about each subject of the unlearn scope are still answered."""
    table = unaltered_rows(read_scores(run.scores(name) / "rows.parquet"))
    known = table["split"].isin(("train", "val", "probe"))
    asked = table[(table["scope"] == "unlearn") & known & table["exact_match"].notna()]
    return [
        Person(subject=key.hide(subject), asked=len(rows), answered=int(rows["exact_match"].sum()))
        for subject, rows in asked.groupby("subject", sort=False)
    ]


def _data(run: Run, results: Results, key: HidingKey, *, reveal: bool) -> DataFacts:
    digest = data_hash(run.records)
    return DataFacts(
        benchmark=run.recipe.data.benchmark,
        counts=results.data_counts,
        hmac=key.hide(digest),
        sha256=digest if reveal else None,
        commits=run.commits,
    )


def _story(results: Results, name: str) -> ModelStory:
    facts = next(one for one in results.variants if one.name == name)
    own = facts.model_dump(
        include={"name", "role", "method", "then", "region", "parameters", "lr", "optimizer_steps"}
    )
    return ModelStory(**own, adaptation=results.model.get("adaptation", {}))


def _erasure(results: Results, name: str) -> ErasureVerdict | None:
    facts = results.erasure
    if facts is None or facts.variant != name:
        return None
    relapsed = [one.number for one in facts.earlier if one.relapsed]
    return ErasureVerdict(state=facts.state, sentence=facts.sentence, relapsed=relapsed)
