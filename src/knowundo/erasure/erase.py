"""run_request(): remove a user's own list from a user's own model.

    request = ErasureRequest("path/to/model", Path("rows.jsonl"), out=Path("runs/request-1"))
    print(run_request(request).verdict)

The command line calls it, and so does `knowundo.erase` for loaded objects (python.py).
It reads the list, says what the model knows of it, makes what the user does not have (rows that
must stay, the same questions in other words), and then is a run like any other: localize, unlearn,
evaluate, report, in `out`. The model is exported to `out/model`, with the log of requests.
"""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from knowundo.certificate.certify import certify
from knowundo.distributed.group import from_main
from knowundo.erasure.facts import collect, record, with_export
from knowundo.erasure.formats import settle_format
from knowundo.erasure.given import GivenLists, read_given
from knowundo.erasure.list_check import ListCheck
from knowundo.erasure.list_files import prepare_lists
from knowundo.erasure.lists import ListMaker
from knowundo.erasure.request import (
    ERASED,
    ErasureRequest,
    check_request,
    check_room,
    recipe_of,
)
from knowundo.erasure.request_log import (
    LoggedRequest,
    RequestLog,
    earlier_rows,
    read_log,
    weight_hashes,
    write_log,
)
from knowundo.erasure.result import Erased
from knowundo.erasure.verdict import Verdict, exact_before, judge
from knowundo.exports.export import Exported, export
from knowundo.exports.merging import refuse_merge
from knowundo.modeling.model import Model
from knowundo.modeling.variant import ModelVariant
from knowundo.pipeline.whole import run_to_scores
from knowundo.progress import Reporter
from knowundo.recipes.reading import amend, parse_recipe
from knowundo.recipes.schema import Recipe
from knowundo.results import Results
from knowundo.runs.base import MACHINE, adopting_model, say_remote_code, settle_machine
from knowundo.runs.checks import check as check_names
from knowundo.runs.run import Run
from knowundo.storage.artifacts import MANIFEST, read_manifest
from knowundo.storage.files import file_hash
from knowundo.storage.integrity import unseal
from knowundo.storage.locks import exclusive


def run_request(request: ErasureRequest, reporter: Reporter | None = None) -> Erased:
    """Erase a list from a model, check that it is gone, and export the model.

    Args:
        request: what is erased, and from which model. The same request resumes where it was
            interrupted; `out/lists` may be edited in between.
        reporter: tells the user what happens. If `None`, nobody is told.

    Raises:
        BadInput: a list, the model, or a key of the recipe is not usable; nothing was changed.
    """
    reporter = reporter or Reporter()
    given = recipe_of(request)
    recipe = parse_recipe(given, "--set")
    check_names(recipe)
    read = read_given(request)
    check_request(request, recipe, read.unlearn)
    log = read_log(Path(request.start))
    earlier, missing = earlier_rows(log, request.earlier)
    say_remote_code(recipe.model, reporter)
    given, model = _load(request, given, recipe, reporter)
    given, choice = settle_format(given, request.out, model, read.unlearn, reporter)
    maker = ListMaker(parse_recipe(given, "--set"), model, reporter, earlier, choice)
    del model
    with exclusive(request.out, reporter):
        run, check = _prepare(request, given, maker, read)
        for line in missing:
            reporter.say(line)
        del maker  # the model is the run's alone, so that export can free it
        # If training diverged, the last good weights are judged like any other.
        results, _ = run_to_scores(run)
        verdict = judge(request, run, results, check, log)
        facts = collect(request, run, results, check, verdict)
        # Before the export, whose model card reads them, and again with what was exported.
        results = record(run, results, facts, redact=request.redact)
        began = time.monotonic()
        exported, log = _export(request, run, results, verdict, log)
        if exported is not None:
            facts = with_export(facts, exported, time.monotonic() - began)
            results = record(run, results, facts, redact=request.redact)
        certificate = certify(
            run, ERASED, key=request.key, exported=None if exported is None else exported.folder
        )
    return Erased(
        run,
        results,
        check,
        exported,
        log,
        verdict.relapsed,
        str(verdict),
        certificate,
        request.loaded,
    )


def _load(
    request: ErasureRequest, given: dict[str, Any], recipe: Recipe, reporter: Reporter
) -> tuple[dict[str, Any], Model]:
    """The model that knows the list, and the recipe's keys settled for the machine."""
    settled = settle_machine(recipe, request.out, reporter).model
    given = amend(given, [f"model.{key}={getattr(settled, key)}" for key in MACHINE])
    base = None if request.loaded is None else request.loaded.base
    model = adopting_model(parse_recipe(given, "--set"), base)
    refuse_merge(model, "merged" if request.merged else request.form)
    check_room(request, model)
    if request.merged:
        trained = "all of its weights are" if request.route == "full" else "a fresh LoRA is"
        reporter.say(f"the adapter is merged into the base, and {trained} trained; export: merged")
    folder = None if request.merged else request.adapter
    model.use(ModelVariant("memorized", "memorized", folder))
    model.notes.tell(reporter.say)
    return given, model


def _prepare(
    request: ErasureRequest, given: dict[str, Any], maker: ListMaker, read: GivenLists
) -> tuple[Run, ListCheck]:
    """Make the lists, and the run that reads them."""
    check = prepare_lists(request, given, maker, read)
    if "epochs" not in given["unlearn"]:
        given = amend(given, [f"unlearn.epochs={check.epochs}"])
    recipe = parse_recipe(given, "--set")
    # The base in memory hands over the model that was opened of it.
    model = maker.model if request.loaded is None else request.loaded.base
    run = Run(recipe, request.out, given=given, reporter=maker.reporter, model=model)
    return run, check


def _export(
    request: ErasureRequest, run: Run, results: Results, verdict: Verdict, log: RequestLog
) -> tuple[Exported | None, RequestLog]:
    """Export the model with its log of requests, if the verdict allows it."""
    folder = request.out / "model"
    if not verdict.passed:
        _withdraw(request.out, folder)
        return None, log
    entry = LoggedRequest(
        number=len(log.requests) + 1,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        list_sha256=file_hash(request.out / "lists" / "unlearn.jsonl"),
        rows=sum(r.split == "train" and r.scope == "unlearn" for r in run.records),
        run=str(request.out.resolve()),
        model=request.start,
        weights_sha256={},
        exact_before=exact_before(results),
        exact_after=verdict.exact,
        reworded_after=verdict.reworded,
        predicted_after=verdict.predicted,
        rechecked=verdict.rechecked,
    )

    def write_beside(aside: Path) -> None:
        done = entry.model_copy(update={"weights_sha256": weight_hashes(aside)})
        write_log(RequestLog(requests=[*log.requests, done]), aside)

    exported = export(run, ERASED, folder, form=request.form, beside=write_beside)
    return exported, read_log(folder)


def _withdraw(out: Path, folder: Path) -> None:
    """Remove the model that an earlier call exported: it was made of other lists."""
    from_main(lambda: _remove(out, folder))


def _remove(out: Path, folder: Path) -> None:
    if (folder / MANIFEST).is_file() and "exported" in read_manifest(folder):
        unseal(out, folder.name)
        shutil.rmtree(folder)
