"""The facts of an erasure: collected once, for results.json, the report and the model card."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from knowundo.data.lists.reading import GENERATED, REWORDED
from knowundo.data.lists.rows import RowSource
from knowundo.erasure.list_check import ListCheck
from knowundo.erasure.request import ERASED, ErasureRequest
from knowundo.erasure.request_log import weight_hashes
from knowundo.erasure.score_pair import EXACT, ScorePair
from knowundo.erasure.verdict import Verdict
from knowundo.erasure_results import (
    EarlierRequest,
    ErasureResults,
    ErasureSettings,
)
from knowundo.evaluation.result_rows import EARLIER
from knowundo.exports.export import Exported
from knowundo.pipeline.reporting import report
from knowundo.results import Results, write_results
from knowundo.runs.run import Run
from knowundo.storage.artifacts import read_manifest
from knowundo.storage.files import file_hash


def collect(
    request: ErasureRequest, run: Run, results: Results, check: ListCheck, verdict: Verdict
) -> ErasureResults:
    """The facts of an erasure before anything is exported.

    Args:
        request: What was asked for.
        run: Its run, evaluated.
        results: Of the run.
        check: Of the list, before anything was changed.
        verdict: On the run.
    """
    pair = ScorePair.of(run)
    listed = pair.rows("unlearn", "train")
    made = read_manifest(run.unlearned(ERASED))
    attempts = verdict.facts.attempts
    return ErasureResults(
        variant=ERASED,
        state=verdict.state,
        sentence=str(verdict),
        rows=len(listed.before),
        subjects=int(listed.before["subject"].nunique()),
        not_known=len(check.not_known),
        exact=listed.percent(EXACT),
        reworded=pair.rows("unlearn", "val").percent(EXACT),
        predicted=listed.percent("token_accuracy"),
        **_loss(verdict),
        bound=verdict.bound if math.isfinite(verdict.bound) else None,
        **_retention(pair.rows("retention")),
        general_perplexity=_ordinary_text(pair).perplexity(),
        earlier=_earlier(pair.rows("unlearn", "probe"), verdict),
        seconds=_seconds(run),
        optimizer_steps=made["optimizer_steps"],
        attempts=len(attempts) or 1,
        settings=_settings(run, made),
        command=command_of(request),
        list_sha256=file_hash(request.out / "lists" / "unlearn.jsonl"),
        packages=results.packages,
    )


def with_export(facts: ErasureResults, exported: Exported, seconds: float) -> ErasureResults:
    """The facts with what was exported.

    Args:
        facts: Collected before.
        exported: The exported model.
        seconds: How long the export took.
    """
    changes = {
        "exported": exported.form,
        "weights_sha256": weight_hashes(exported.folder),
        "seconds": facts.seconds | {"export": round(seconds, 2)},
    }
    return facts.model_copy(update=changes)


def record(run: Run, results: Results, facts: ErasureResults, *, redact: bool) -> Results:
    """Write the facts into results.json, and the report of them.

    Args:
        run: The run of the request.
        results: Of the run.
        facts: Of the erasure.
        redact: As for `pipeline.reporting.report`.

    Returns:
        The results with the facts.
    """
    results = results.model_copy(update={"erasure": facts})
    file = run.out / "results.json"
    write_results(results, file)
    run.seal(file)
    report(run, redact=redact)
    return results


def command_of(request: ErasureRequest) -> str:
    """The command that makes a request, quoted for a POSIX shell; of objects, the Python call."""
    sources = (request.unlearn, request.retention, request.val)
    if request.loaded is not None or any(isinstance(source, tuple) for source in sources):
        return _call_of(request)
    words = ["knowundo", "erase", "--model", request.model, "--unlearn", str(request.unlearn)]
    options: Mapping[str, Any] = {
        "--adapter": request.adapter,
        "--retention": request.retention,
        "--val": request.val,
        "--general": request.general,
        "--columns": ",".join(f"{ours}={theirs}" for ours, theirs in request.columns.items()),
        "--route": None if request.route == "auto" else request.route,
        "--answer-with": request.answer_with,
        "--format": request.form,
        "--key": request.key,
    }
    words += [word for name, value in options.items() if value for word in (name, str(value))]
    words += [word for folder in request.earlier for word in ("--earlier", str(folder))]
    words += [word for assignment in request.sets for word in ("--set", assignment)]
    words += ["--redact"] * request.redact + ["--accept-damage"] * request.accept_damage
    return shlex.join([*words, "--out", str(request.out)])


def _call_of(request: ErasureRequest) -> str:
    """The Python call that makes a request; objects have the names of the parameters."""

    def shown(source: RowSource | None, name: str) -> str:
        return repr(str(source)) if isinstance(source, Path) else name

    first = [repr(request.model), "None"] if request.loaded is None else ["model", "tokenizer"]
    given: dict[str, Any] = {"out": str(request.out), "general": request.general}
    given |= {"columns": dict(request.columns), "route": request.route, "form": request.form}
    given |= {"answer_with": request.answer_with, "earlier": [str(f) for f in request.earlier]}
    given |= {"sets": list(request.sets), "redact": request.redact}
    given |= {"accept_damage": request.accept_damage}
    if request.key is not None:
        given["key"] = str(request.key)
    if request.loaded is None and request.adapter is not None:
        given["adapter"] = str(request.adapter)
    lists = {"retention": request.retention, "val": request.val}
    options = [f"{n}={shown(source, n)}" for n, source in lists.items() if source is not None]
    options += [f"{n}={value!r}" for n, value in given.items() if value and value != "auto"]
    return f"erase({', '.join([*first, shown(request.unlearn, 'rows'), *options])})"


def _loss(verdict: Verdict) -> dict[str, Any]:
    """What was lost of what had to stay, and in which unit, if it was measured."""
    lost = verdict.lost
    return {} if lost is None else {"lost": lost.amount, "lost_in": lost.counted}


def _retention(pair: ScorePair) -> dict[str, Any]:
    """What had to stay: rows that the user gave, and rows that were generated."""
    subsets = pair.subsets()
    generated = subsets.str.startswith(GENERATED)
    reworded = subsets.str.startswith(REWORDED)
    unlisted = pair.where(generated)
    kinds = unlisted.subsets()
    by_kind = {
        str(kind).removeprefix(f"{GENERATED}: "): unlisted.where(kinds == kind).percent(EXACT)
        for kind in sorted(kinds.unique())
    }
    return {
        "retention_listed": pair.where(~generated & ~reworded).percent(EXACT),
        "retention_reworded": pair.where(reworded).percent(EXACT),
        "retention_unlisted": unlisted.percent(EXACT),
        "retention_held_out": unlisted.where(unlisted.before["split"] == "val").percent(EXACT),
        # Text that the model writes of its own accord answers no question.
        "retention_by_kind": {kind: one for kind, one in by_kind.items() if one.records},
    }


def _ordinary_text(pair: ScorePair) -> ScorePair:
    """General val rows, plain text where there is some."""
    general = pair.rows("general", "val")
    text = general.subsets() == "text"
    return general.where(text) if text.any() else general


def _earlier(probes: ScorePair, verdict: Verdict) -> list[EarlierRequest]:
    """The rows of earlier requests, asked again."""
    subsets = probes.subsets()
    return [
        EarlierRequest(
            number=number,
            exact=probes.where(subsets == f"{EARLIER}{number}").percent(EXACT),
            relapsed=number in verdict.relapsed,
        )
        for number in sorted(verdict.rechecked)
    ]


def _seconds(run: Run) -> dict[str, float]:
    """Seconds of each stage that has taken any, from the manifests of its artifacts."""
    stages = {
        "lists": [run.out / "lists"],
        "localize": [run.regions],
        "unlearn": [run.unlearned(ERASED)],
        "evaluate": [run.scores("memorized"), run.scores(ERASED)],
    }
    found: dict[str, float] = {}
    for stage, folders in stages.items():
        for folder in folders:
            held = read_manifest(folder)
            # Lists of an earlier version have no time, and its trainings none of all attempts.
            seconds = held.get("total_seconds", held.get("seconds"))
            if seconds is not None:
                found[stage] = round(found.get(stage, 0.0) + seconds, 2)
    return found


def _settings(run: Run, made: Mapping[str, Any]) -> ErasureSettings:
    """The settings of the training that was kept, from its manifest and the recipe."""
    plan = run.recipe.unlearn.variants[0]
    return ErasureSettings(
        method=made["method"],
        arguments=made.get("arguments") or {},
        region=made["region"],
        parameters=made["parameters"],
        adaptation=run.recipe.model.adaptation,
        lr=made["lr"],
        lr_chosen=run.recipe.unlearn.settings(plan)["lr"] == "auto",
        encoding=run.recipe.data.encoding,
        dtype=run.recipe.model.dtype,
        seed=run.recipe.seed,
        template=run.recipe.data.template,
    )
