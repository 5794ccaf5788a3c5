"""erase(): somebody's own model, somebody's own list, one call.

    erase(Request(model="path/to/model", unlearn=Path("rows.jsonl"), out=Path("runs/request-1")))

It reads the list, says what the model knows of it, makes what the user does not have (rows that
must stay, the same questions in other words), and then is a run like any other: localize, unlearn,
evaluate, report, in `out`. The model is handed over in `out/model`, with the ledger of requests.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from knowundo.data.lists.reading import write_list
from knowundo.data.wording import folded
from knowundo.erasure.checks import LEFT, Check, known_from
from knowundo.erasure.ledger import (
    Erasure,
    Ledger,
    earlier_rows,
    read_ledger,
    weights,
    write_ledger,
)
from knowundo.erasure.making import Given, Maker, read_given
from knowundo.errors import BadInput, MethodsFailed
from knowundo.evaluation.evaluation import EARLIER
from knowundo.exports.export import Exported, export
from knowundo.exports.merging import BESIDE, need_room, refuse_merge
from knowundo.exports.model_card import Form
from knowundo.modeling.base import base_files
from knowundo.modeling.model import Model
from knowundo.modeling.variant import ModelVariant
from knowundo.pipeline.whole import run_all
from knowundo.progress import Reporter
from knowundo.recipes.presets import read_preset
from knowundo.recipes.reading import amend, parse_recipe
from knowundo.recipes.schema import Recipe
from knowundo.reporting.sentences import RELAPSE
from knowundo.results import Results, VariantFacts, read_results
from knowundo.runs.base import adopting_model, say_remote_code, settle_dtype
from knowundo.runs.checks import check as check_names
from knowundo.runs.inputs import input_hash
from knowundo.runs.run import Run
from knowundo.scoring.table import read_scores
from knowundo.storage.artifacts import MANIFEST, new_folder, read_manifest
from knowundo.storage.files import file_hash, fingerprint, read_json, write_json
from knowundo.storage.integrity import seal, unseal
from knowundo.storage.locks import exclusive
from knowundo.unlearning.answers import OWN, answers

Route = Literal["auto", "adapter", "lora", "full"]

# Optimizer steps of unlearning; and, of what nobody asks for, points of token accuracy that an
# earlier request may come back by.
STEPS, PREDICTED = 100, 10.0
# Name of the variant that is handed over.
ERASED = "erased"


@dataclass(frozen=True)
class Request:
    """What is to be erased, and from what."""

    model: str  # `embedded`, a folder, or a name on the hub
    unlearn: Path
    out: Path
    adapter: Path | None = None  # of that model; it knows the list
    retention: Path | None = None  # none: made by the model itself
    val: Path | None = None  # other questions about what must go; none: re-worded ones
    general: str | None = None  # texts that any model should go on predicting
    columns: Mapping[str, str] = field(default_factory=dict)
    route: Route = "auto"  # what is trained: the adapter, a fresh LoRA, or all weights
    answer_with: str | None = None  # refusal, unknown, model, instructed, or a file
    form: Form | None = None  # what is handed over; none: an adapter, or all weights
    earlier: tuple[Path, ...] = ()  # directories of earlier requests' runs
    sets: tuple[str, ...] = ()  # keys of the recipe on top, such as unlearn.lr=1e-4
    redact: bool = False  # keep the list's answers out of the report


class Erased(NamedTuple):
    """What came of a request."""

    run: Run
    results: Results
    check: Check
    exported: Exported | None  # none: the list is still known, so nothing is handed over
    ledger: Ledger
    relapsed: list[int]  # earlier requests that are known again
    verdict: str


def erase(request: Request, reporter: Reporter | None = None) -> Erased:
    """Erase a list from a model, check that it is gone, and hand the model over.

    Args:
        request: what, and from what. The same request again continues where it was interrupted;
            `out/lists` may be edited in between.
        reporter: tells the user what happens.

    Raises:
        BadInput: a list, the model, or a key of the recipe; nothing was changed.
    """
    reporter = reporter or Reporter()
    given = recipe_of(request)
    recipe = parse_recipe(given, "--set")
    check_names(recipe)
    read = read_given(
        request.unlearn, request.val, request.retention, request.general, request.columns
    )
    _check_asked(request, recipe, read)
    ledger = read_ledger(_holder(request))
    earlier, missing = earlier_rows(ledger, request.earlier)
    say_remote_code(recipe, reporter)
    if recipe.model.dtype == "auto":
        dtype = settle_dtype(recipe, request.out, reporter).model.dtype
        given = amend(given, [f"model.dtype={dtype}"])
        recipe = parse_recipe(given, "--set")
    model = adopting_model(recipe)
    if "encoding" not in given["data"]:
        style = "chat" if model.tokenizer.chat_template else "plain"
        given = amend(given, [f"data.encoding={style}"])
        recipe = parse_recipe(given, "--set")
    refuse_merge(model, request.form)
    _check_room(request, model)
    model.use(ModelVariant("memorized", "memorized", request.adapter))
    model.tell(reporter.say)
    maker = Maker(recipe, model, reporter, earlier)
    with exclusive(request.out, reporter):
        check = _prepare(request, given, maker, read)
        for line in missing:
            reporter.say(line)
        if "epochs" not in given["unlearn"]:
            given = amend(given, [f"unlearn.epochs={check.epochs}"])
        recipe = parse_recipe(given, "--set")
        run = Run(recipe, request.out, given=given, reporter=reporter, model=model)
        del model, maker  # the run's alone, so that export can free it
        try:
            results = run_all(run, redact=request.redact)
        except MethodsFailed:  # it diverged; what was kept of it is judged like any other
            results = read_results(request.out / "results.json")
        return _finish(request, run, results, check, ledger)


def recipe_of(request: Request) -> dict[str, Any]:
    """The recipe of a request: the preset `erase`, what is asked for, and the keys on top.

    Raises:
        BadInput: a route that the request does not allow.
    """
    if (request.adapter is not None) != (request.route == "adapter") and request.route != "auto":
        wanted = "needs --adapter" if request.adapter is None else "--adapter names one to train"
        raise BadInput(f"--route {request.route}: {wanted}")
    given = read_preset("recipes", "erase")
    given["data"] |= {"source": str(request.out / "lists")}
    given["model"]["base"] = request.model
    given["memorize"]["adopt"] = str(request.adapter or request.model)
    if request.adapter is None:
        given["model"]["adaptation"] = "full" if request.route == "full" else "lora"
    if request.route == "full":
        given["localize"]["held"] = HELD
    if request.answer_with is not None:
        # What is learned in place of the truth has no end that the truth's own tokens could show.
        given["unlearn"]["stop"]["target"] = 0.0
        given["unlearn"]["variants"] = [
            {
                "preset": "altpo" if request.answer_with in OWN else "idk",
                "name": ERASED,
                "region": "everything",
                "answers": request.answer_with,
                "retention": 0.0,
                "divergence": 5.0,
            }
        ]
    return amend(given, request.sets)


def _check_room(request: Request, model: Model) -> None:
    """Refuse a disk that cannot take the models that are written: a whole one more than once."""
    weights = [p for name, p in model.net.named_parameters() if "lora_" not in name]
    whole = sum(parameter.nbytes for parameter in weights)
    copies = (request.route == "full") + (request.route == "full" or request.form == "merged")
    need_room(request.out.resolve(), copies * whole + BESIDE, str(request.out))


# Parameters whose gradients are held at once where all weights may be trained: one large matrix.
HELD = 50_000_000


def _check_asked(request: Request, recipe: Recipe, read: Given) -> None:
    """Refuse what would fail only after hours."""
    if [variant.name for variant in recipe.unlearn.variants] != [ERASED]:
        raise BadInput(f"--set unlearn.variants: one variant, named {ERASED}, makes the model")
    if recipe.unlearn.keeps(recipe.unlearn.variants[0]) is not None:
        raise BadInput("--set unlearn.keep_every: an erasure keeps its end only; leave it out")
    if request.route == "full" and request.form == "adapter":
        raise BadInput("--format adapter: the route full trains no adapter; say merged")
    documents = [record for record in read.unlearn if record.kind == "text"]
    if request.answer_with is not None and documents:
        raise BadInput(
            f"--answer-with: {documents[0].id} is a document, and nobody asks for one; leave the "
            "option out, or give questions with their answers"
        )


def _holder(request: Request) -> Path:
    """The folder that the ledger travels in."""
    return request.adapter if request.adapter is not None else Path(request.model)


def _prepare(request: Request, given: dict[str, Any], maker: Maker, read: Given) -> Check:
    """Write `out/lists`, unless it is there already, whether edited or not."""
    folder, say = request.out / "lists", maker.reporter.say
    inputs = _inputs(request, given)
    if (folder / MANIFEST).is_file():
        if read_manifest(folder)["inputs"] != fingerprint(inputs):
            raise BadInput(
                f"{folder}: made of other files or settings; name another directory with --out, or "
                "remove this one"
            )
        say(f"lists: already there, taken as they are ({folder})")
        check = _read_check(folder / "check.json")
    elif request.out.exists() and any(not p.name.startswith(".") for p in request.out.iterdir()):
        raise BadInput(f"{request.out}: holds something else; name another directory with --out")
    else:
        check, lists = maker.lists(read, str(request.unlearn), str(request.val))
        trained = sum(record.split == "train" for record in lists["unlearn"])
        steps = -(-trained // maker.recipe.unlearn.batch_size)
        check.epochs = math.ceil(STEPS / steps)
        for line in check.lines():
            say(line)
        with new_folder(folder, inputs) as aside:
            for name, records in lists.items():
                if not records:  # no general texts: an empty list could not be read
                    continue
                write_list(aside / f"{name}.jsonl", records)
            write_json(aside / "check.json", check.as_dict())
        seal(request.out, folder)
        say(f"lists: written to {folder}; look at them, edit them and run the same again")
    # Which earlier requests can be asked again may change between two calls.
    if maker.earlier:
        write_list(folder / "earlier.jsonl", maker.earlier)
        count = len({record.subset for record in maker.earlier})
        say(f"{len(maker.earlier)} rows of {count} earlier requests are asked again")
    return check


def _read_check(file: Path) -> Check:
    try:
        return Check(**read_json(file))
    except TypeError:
        raise BadInput(f"{file}: malformed; remove the directory and begin again") from None


def _inputs(request: Request, given: dict[str, Any]) -> list[Any]:
    """What the lists are made of."""
    files = [request.unlearn, request.retention, request.val]
    if request.general is not None and Path(request.general).is_file():
        files.append(Path(request.general))
    hashes = [None if file is None else file_hash(file) for file in files]
    models = [request.model] if request.adapter is None else [request.model, str(request.adapter)]
    held = [input_hash(file) for model in models for file in base_files(model)]
    return [
        hashes, held, request.model, request.general, dict(request.columns),
        given["data"], given.get("seed", 0),
    ]  # fmt: skip


def _finish(request: Request, run: Run, results: Results, check: Check, ledger: Ledger) -> Erased:
    """Say whether the list is gone; if it is, hand the model over with the ledger."""

    def find(
        metric: str, split: str, subset: str | None = None, variant: str = ERASED
    ) -> float | None:
        row = results.find(variant, metric, "unlearn", split, subset)
        return None if row is None else row.value

    now = {r.number: find("exact_match", "probe", f"{EARLIER}{r.number}") for r in ledger.requests}
    relapsed = [r.number for r in ledger.requests if _relapsed(r, now[r.number], find)]
    left = [find("exact_match", split) for split in ("train", "val")]
    predicted = find("token_accuracy", "train")
    gone = all(value is None or value <= LEFT for value in left)
    # A document, or an answer that was never given word for word, shows only in its tokens.
    if check.level is not None and predicted is not None and request.answer_with is None:
        gone = gone and predicted / 100 <= known_from(check.level)
    facts = next(v for v in results.variants if v.name == ERASED)
    verdict = _verdict(left, predicted, gone, facts, relapsed)
    if request.answer_with is not None and request.answer_with not in OWN:
        verdict += _answered(run, request.answer_with)
    place = request.out / "model"
    if not gone or facts.collapsed is not None:
        _withdraw(request.out, place)
        return Erased(run, results, check, None, ledger, relapsed, verdict)
    entry = Erasure(
        number=len(ledger.requests) + 1,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        list_sha256=file_hash(request.out / "lists" / "unlearn.jsonl"),
        rows=sum(r.split == "train" and r.scope == "unlearn" for r in run.records),
        run=str(request.out.resolve()),
        model=str(request.adapter or request.model),
        weights_sha256={},
        exact_before=find("exact_match", "train", variant="memorized"),
        exact_after=left[0],
        reworded_after=left[1],
        predicted_after=predicted,
        rechecked=now,
    )

    def beside(folder: Path) -> None:
        done = entry.model_copy(update={"weights_sha256": weights(folder)})
        write_ledger(Ledger(requests=[*ledger.requests, done]), folder)

    exported = export(run, ERASED, place, form=request.form, beside=beside)
    ledger = read_ledger(place)
    return Erased(run, results, check, exported, ledger, relapsed, verdict)


def _relapsed(
    request: Erasure, exact: float | None, find: Callable[[str, str, str], float | None]
) -> bool:
    """True if an earlier request is answered again, or, where nothing is asked, predicted again."""
    if exact is not None:
        return exact > RELAPSE
    predicted = find("token_accuracy", "probe", f"{EARLIER}{request.number}")
    after = request.predicted_after
    return predicted is not None and after is not None and predicted > after + PREDICTED


def _withdraw(out: Path, place: Path) -> None:
    """Remove what an earlier call handed over: it was made of other lists."""
    if (place / MANIFEST).is_file() and "exported" in read_manifest(place):
        unseal(out, place.name)
        shutil.rmtree(place)


def _answered(run: Run, source: str) -> str:
    """How many of the list's questions are answered with what was taught.

    What is said is cut at the true answer's length, so the beginning of an answer counts. Capitals,
    spacing and ways to write an accent do not: some tokenizers change them.
    """
    rows = read_scores(run.out / "scores" / ERASED / "rows.parquet")
    listed = rows[(rows["scope"] == "unlearn") & (rows["split"] == "train")]["said"].dropna()
    taught = [folded(answer) for answer in answers(source)]
    told = [folded(said.rstrip("\ufffd")) for said in listed]  # cut within a character
    hits = sum(bool(said) and any(a.startswith(said) for a in taught) for said in told)
    return f"; {hits} of {len(listed)} of its questions are answered as taught"


def _verdict(
    left: list[float | None],
    predicted: float | None,
    gone: bool,
    facts: VariantFacts,
    relapsed: list[int],
) -> str:
    shown = ["–" if value is None else f"{value:.1f} %" for value in left]
    state = "erased" if gone else "NOT ERASED"
    said = f"{state}: {shown[0]} of the list is still answered exactly, {shown[1]} in other words"
    if predicted is not None:
        said += f" ({predicted:.0f} % of its tokens are still predicted)"
    if facts.diverged is not None:
        said += f"; training DIVERGED ({facts.diverged}), step {facts.kept_step} was kept"
    if facts.collapsed is not None:
        said += f"; but the model has COLLAPSED ({facts.collapsed})"
    if relapsed:
        said += f"; RELAPSED: earlier request {', '.join(map(str, relapsed))} is known again"
    if not gone or facts.collapsed is not None:
        said += (
            "; no model is handed over (raise unlearn.lr or unlearn.epochs, or look at the report)"
        )
    return said
