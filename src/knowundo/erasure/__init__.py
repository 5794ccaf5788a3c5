"""erase(): somebody's own model, somebody's own list, one call.

    erase(Request(model="path/to/model", unlearn=Path("rows.jsonl"), out=Path("runs/request-1")))

It reads the list, says what the model knows of it, makes what the user does not have (rows that
must stay, the same questions in other words), and then is a run like any other: localize, unlearn,
evaluate, report, in `out`. The model is handed over in `out/model`, with the ledger of requests.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple

from knowundo.artifacts import (
    MANIFEST,
    file_hash,
    fingerprint,
    new_folder,
    read_json,
    read_manifest,
    write_json,
)
from knowundo.benchmarks.general import general_rows
from knowundo.benchmarks.lists import read_list, with_subjects, write_list
from knowundo.encoding import Encoded, chunked, encode
from knowundo.erasure.checks import Check, alike, ask_model, describe_rows, without_repeats
from knowundo.erasure.ledger import (
    Erasure,
    Ledger,
    earlier_rows,
    read_ledger,
    weights,
    write_ledger,
)
from knowundo.erasure.retention import Leaks, make_retention, own_texts
from knowundo.errors import BadInput
from knowundo.export import Exported, Form, export
from knowundo.models import Model, Variant, base_files
from knowundo.neighbours import reworded, unknowable
from knowundo.pipeline import run_all
from knowundo.progress import Reporter
from knowundo.recipe import amend, parse_recipe, read_preset
from knowundo.records import Record
from knowundo.reporting.words import RELAPSE
from knowundo.results import Results
from knowundo.runs import Run, adopting_model
from knowundo.runs import check as check_names
from knowundo.scoring import read_scores
from knowundo.unlearning.answers import MODEL, answers

Route = Literal["auto", "adapter", "lora", "full"]

# Optimizer steps of unlearning, and rows that may still be answered exactly, in percent.
STEPS, LEFT = 100, 5.0
# Of generated retention rows, and of user's ones without val rows, so many are for val.
VAL = 0.2
_ERASED = "erased"


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
    answer_with: str | None = None  # refusal, unknown, model, or a file of answers
    form: Form | None = None  # what is handed over; none: an adapter, or all weights
    earlier: tuple[Path, ...] = ()  # directories of earlier requests' runs
    sets: tuple[str, ...] = ()  # keys of the recipe on top, such as unlearn.lr=1e-4


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
        MethodsFailed: training diverged.
    """
    reporter = reporter or Reporter()
    given = recipe_of(request)
    recipe = parse_recipe(given, "--set")
    check_names(recipe)
    read = _read(request)
    ledger = read_ledger(_holder(request))
    model = adopting_model(recipe)
    if "encoding" not in given["data"]:
        style = "chat" if model.tokenizer.chat_template else "plain"
        given = amend(given, [f"data.encoding={style}"])
        recipe = parse_recipe(given, "--set")
    _check_room(request, model)
    check = _prepare(request, given, model, read, ledger, reporter)
    steps = -(-_count(request.out / "lists") // recipe.unlearn.batch_size)
    if "epochs" not in given["unlearn"]:
        given = amend(given, [f"unlearn.epochs={math.ceil(STEPS / steps)}"])
    recipe = parse_recipe(given, "--set")
    run = Run(recipe, request.out, given=given, reporter=reporter, model=model)
    results = run_all(run)
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
    if request.retention is None:
        # What it makes up about strangers turns with the slightest push.
        given["unlearn"]["stop"] = {"floor": 10.0}
    if request.route == "full":
        given["localize"]["held"] = HELD
    if request.answer_with is not None:
        # What is learned in place of the truth has no end that the truth's own tokens could show.
        given["unlearn"]["stop"]["target"] = 0.0
        given["unlearn"]["variants"] = [
            {
                "preset": "altpo" if request.answer_with == MODEL else "idk",
                "name": _ERASED,
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
    place = next(folder for folder in request.out.resolve().parents if folder.exists())
    needed, free = copies * whole + 2**26, shutil.disk_usage(place).free
    if needed > free:
        raise BadInput(
            f"{request.out}: needs {needed / 2**30:.1f} GiB for the models that are written, and "
            f"{free / 2**30:.1f} are free; make room, or name a directory on another disk"
        )


# Parameters whose gradients are held at once where all weights may be trained: one large matrix.
HELD = 50_000_000


class _Lists(NamedTuple):
    """What the user gave, as records."""

    unlearn: list[Record]
    val: list[Record] | None
    retention: list[Record] | None
    general: list[Record] | None


def _read(request: Request) -> _Lists:
    """The user's files, each checked for itself."""

    def rows(path: Path | None, scope: str, split: str) -> list[Record] | None:
        if path is None:
            return None
        return read_list(path, scope=scope, split=split, columns=request.columns)

    unlearn = rows(request.unlearn, "unlearn", "train")
    assert unlearn is not None
    general = general_rows(request.general) if request.general is not None else None
    val = rows(request.val, "unlearn", "val")
    return _Lists(unlearn, val, rows(request.retention, "retention", "train"), general)


def _holder(request: Request) -> Path:
    """The folder that the ledger travels in."""
    return request.adapter if request.adapter is not None else Path(request.model)


def _count(folder: Path) -> int:
    rows = read_list(folder / "unlearn.jsonl", scope="unlearn", split="train")
    return sum(record.split == "train" for record in rows)


def _prepare(
    request: Request,
    given: dict[str, Any],
    model: Model,
    read: _Lists,
    ledger: Ledger,
    reporter: Reporter,
) -> Check:
    """Write `out/lists`, unless it is there already, whether edited or not."""
    folder = request.out / "lists"
    inputs = _inputs(request, given, ledger)
    if (folder / MANIFEST).is_file():
        if read_manifest(folder)["inputs"] != fingerprint(inputs):
            raise BadInput(
                f"{folder}: made of other files or settings; name another directory with --out, or "
                "remove this one"
            )
        reporter.say(f"lists: already there, taken as they are ({folder})")
        return Check(**read_json(folder / "check.json"))
    if request.out.exists() and any(request.out.iterdir()):
        raise BadInput(f"{request.out}: holds something else; name another directory with --out")
    made = _Maker(request, given, model, reporter)
    check, lists = made.lists(read)
    earlier, missing = earlier_rows(ledger, request.earlier)
    for line in [*check.lines(), *missing]:
        reporter.say(line)
    if earlier:
        lists["earlier"] = earlier
        count = len({record.subset for record in earlier})
        reporter.say(f"{len(earlier)} rows of {count} earlier requests will be asked again")
    with new_folder(folder, inputs) as aside:
        for name, records in lists.items():
            write_list(aside / f"{name}.jsonl", records)
        write_json(aside / "check.json", check.as_dict())
    reporter.say(f"lists: written to {folder}; look at them, edit them and run the same again")
    return check


def _inputs(request: Request, given: dict[str, Any], ledger: Ledger) -> list[Any]:
    """What the lists are made of."""
    files = [request.unlearn, request.retention, request.val]
    hashes = [None if file is None else file_hash(file) for file in files]
    held = [file_hash(f) for f in base_files(str(request.adapter or request.model))]
    return [
        hashes, held, request.model, request.general, dict(request.columns),
        given["data"], given.get("seed", 0), ledger.model_dump(mode="json"),
    ]  # fmt: skip


class _Maker:
    """Makes the lists of a run from the user's, with the model's help."""

    def __init__(
        self, request: Request, given: dict[str, Any], model: Model, reporter: Reporter
    ) -> None:
        self.recipe = parse_recipe(given, "--set")
        self.request, self.model, self.reporter = request, model, reporter
        self.seed = self.recipe.seed

    def encode(self, records: Sequence[Record]) -> list[Encoded]:
        """As the run will."""
        data = self.recipe.data
        options: dict[str, Any] = {"style": data.encoding, "truncate": data.truncate}
        return encode(records, self.model.tokenizer, max_length=data.max_length, **options)

    def whole(self, records: Sequence[Record]) -> list[Record]:
        """Records with subjects, long documents in parts."""
        length = self.recipe.data.max_length
        named = with_subjects(records)
        return [part for r in named for part in chunked(r, self.model.tokenizer, length)]

    def lists(self, read: _Lists) -> tuple[Check, dict[str, list[Record]]]:
        """The check, and the records of each file of `out/lists`."""
        check = Check()
        unlearn, check.repeated = without_repeats(self.whole(read.unlearn))
        describe_rows(check, "unlearn", self.encode(unlearn))
        if read.retention is not None:
            describe_rows(check, "retention", self.encode(self.whole(read.retention)))
            check.alike = alike(unlearn, self.whole(read.retention))
        self.use_knowing()
        with self.reporter.task("what the model knows") as progress:
            strangers = self.encode(unknowable(unlearn, read.general or [], self.seed))
            ask_model(check, self.model, self.encode(unlearn), strangers)
            progress(1, 1)
        if not check.by_heart and not check.known:
            raise BadInput(
                f"{self.request.unlearn}: the model knows none of its {len(unlearn)} rows, so "
                "nothing has to go; check the model, the wording of the questions, and "
                "--set data.encoding=plain or chat"
            )
        gone = set(check.not_known)
        unlearn = [replace(r, split="holdout") if r.id in gone else r for r in unlearn]
        known = [record for record in unlearn if record.id not in gone]
        retention, general = self.retention(read, known), self.general(read, known)
        return check, {
            "unlearn": [*unlearn, *self.val(read, known)],
            "retention": retention,
            "general": general,
        }

    def use_knowing(self) -> None:
        """Put the adapter that knows the list on the base, if there is one."""
        self.model.use(Variant("memorized", "memorized", self.request.adapter))

    def val(self, read: _Lists, known: Sequence[Record]) -> list[Record]:
        """The user's val rows, or the list's questions in other words."""
        if read.val is not None:
            return [replace(r, split="val") for r in self.whole(read.val)]
        return [_as_val(reworded(record, self.seed)) for record in known]

    def retention(self, read: _Lists, known: Sequence[Record]) -> list[Record]:
        """The user's retention rows, or the model's own answers near the list."""
        if read.retention is None:
            with self.reporter.task("retention rows from the model") as progress:
                rows = make_retention(self.model, known, self.encode, seed=self.seed)
                progress(1, 1)
            kinds = sorted({str(row.subset).removeprefix("generated: ") for row in rows})
            self.reporter.say(
                f"no retention list: {len(rows)} rows made of the model's own answers "
                f"({', '.join(kinds)})"
            )
        else:
            rows, _ = without_repeats(self.whole(read.retention))
        if any(row.split == "val" for row in rows):
            return rows
        if read.retention is not None:
            return [*rows, *(_as_val(reworded(row, self.seed)) for row in rows)]
        chosen = set(Random(self.seed).sample(range(len(rows)), max(1, round(VAL * len(rows)))))
        return [replace(r, split="val") if n in chosen else r for n, r in enumerate(rows)]

    def general(self, read: _Lists, known: Sequence[Record]) -> list[Record]:
        """The user's general rows, or texts that the model writes: other ones than it trains on."""
        if read.general is not None:
            return read.general
        texts = own_texts(self.model, Leaks(known), 80, seed=self.seed + 1)
        return [
            replace(
                t, id=f"general/generated/{n}", subset="text", split="train" if n % 2 else "val"
            )
            for n, t in enumerate(texts)
        ]


def _as_val(record: Record) -> Record:
    return replace(record, id=f"{record.id}/reworded", split="val", subset="reworded")


def _finish(request: Request, run: Run, results: Results, check: Check, ledger: Ledger) -> Erased:
    """Say whether the list is gone; if it is, hand the model over with the ledger."""

    def exact(variant: str, split: str, subset: str | None = None) -> float | None:
        row = results.find(variant, "exact_match", "unlearn", split, subset)
        return None if row is None else row.value

    now = {request.number: exact(_ERASED, "probe", f"request-{request.number}")
           for request in ledger.requests}  # fmt: skip
    before = {number: exact("memorized", "probe", f"request-{number}") for number in now}
    relapsed = [
        number
        for number, value in now.items()
        if value is not None and value > max(RELAPSE, before[number] or 0.0)
    ]
    left = [exact(_ERASED, split) for split in ("train", "val")]
    facts = next(v for v in results.variants if v.name == _ERASED)
    gone = all(value is None or value <= LEFT for value in left)
    verdict = _verdict(left, gone, facts.collapsed, relapsed)
    if request.answer_with is not None and request.answer_with != MODEL:
        verdict += _answered(run, request.answer_with)
    if not gone or facts.collapsed is not None:
        return Erased(run, results, check, None, ledger, relapsed, verdict)
    entry = Erasure(
        number=len(ledger.requests) + 1,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        list_sha256=file_hash(request.out / "lists" / "unlearn.jsonl"),
        rows=sum(r.split == "train" and r.scope == "unlearn" for r in run.records),
        run=str(request.out.resolve()),
        model=str(request.adapter or request.model),
        weights_sha256={},
        exact_before=exact("memorized", "train"),
        exact_after=left[0],
        reworded_after=left[1],
        rechecked=now,
    )

    def beside(folder: Path) -> None:
        done = entry.model_copy(update={"weights_sha256": weights(folder)})
        write_ledger(Ledger(requests=[*ledger.requests, done]), folder)

    place = request.out / "model"
    exported = export(run, _ERASED, place, form=request.form, beside=beside)
    ledger = read_ledger(place)
    return Erased(run, results, check, exported, ledger, relapsed, verdict)


def _answered(run: Run, source: str) -> str:
    """How many of the list's questions are answered with what was taught.

    What is said is cut at the true answer's length, so the beginning of an answer counts.
    """
    rows = read_scores(run.out / "scores" / _ERASED / "rows.parquet")
    listed = rows[(rows["scope"] == "unlearn") & (rows["split"] == "train")]["said"].dropna()
    taught = answers(source)
    hits = sum(bool(s.strip()) and any(a.startswith(s.strip()) for a in taught) for s in listed)
    return f"; {hits} of {len(listed)} of its questions are answered as taught"


def _verdict(
    left: list[float | None], gone: bool, collapsed: str | None, relapsed: list[int]
) -> str:
    shown = ["–" if value is None else f"{value:.1f} %" for value in left]
    state = "erased" if gone else "NOT ERASED"
    said = f"{state}: {shown[0]} of the list is still answered exactly, {shown[1]} in other words"
    if collapsed is not None:
        said += f"; but the model has COLLAPSED ({collapsed})"
    if relapsed:
        said += f"; RELAPSED: earlier request {', '.join(map(str, relapsed))} is known again"
    if not gone or collapsed is not None:
        said += (
            "; no model is handed over (raise unlearn.lr or unlearn.epochs, or look at the report)"
        )
    return said
