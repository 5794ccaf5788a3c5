"""erase(): remove rows from a model, in three lines of Python.

    done = erase(model, tokenizer, ["Where does Clara Dorinford live?"])
    print(done.verdict)
    done.model.generate(...)

It makes the request that `run_request` runs, as the command line does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict, Unpack

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from knowundo.data.lists.rows import Row, RowSource, row_source
from knowundo.erasure.erase import run_request
from knowundo.erasure.loaded import kept_adapter, loaded_model
from knowundo.erasure.request import ErasureRequest, Route
from knowundo.erasure.result import Erased
from knowundo.errors import BadInput, unknown
from knowundo.exports.model_card import Form
from knowundo.modeling.adapters import adaptation_of
from knowundo.progress import Reporter, RichReporter
from knowundo.storage.locks import exclusive

# Rows as a program hands them over: a path, a sequence, or one row that is a text.
Rows = str | Path | Sequence[Row]


class ErasureOptions(TypedDict, total=False):
    """Further arguments of `erase`; see `ErasureRequest` for those that have its names."""

    adapter: str | Path | None
    val: Rows | None
    columns: Mapping[str, str]
    route: Route
    answer_with: str | None
    form: Form | None
    earlier: Sequence[Path]
    sets: Sequence[str]
    redact: bool
    accept_damage: bool
    key: str | Path | None
    copy: bool
    reporter: Reporter


def erase(
    model: PreTrainedModel | PeftModel | str | Path,
    tokenizer: PreTrainedTokenizerBase | None,
    rows: Rows,
    *,
    out: str | Path | None = None,
    retention: Rows | None = None,
    general: str | Path | None = None,
    **options: Unpack[ErasureOptions],
) -> Erased:
    """Erase rows from a model, check that they are gone, and return the unlearned model.

    Rows are a path, or a sequence of rows: a text that ends with a question mark, whose answer is
    what the model itself says if it is confident of it (written to `out/lists` for review); any
    other text, a passage; (question, answer); or an object of a list file's keys.

    The model that is handed in stays as it is. Training a LoRA, the default, takes no second copy
    of its weights; `route="full"` does, and so does the result's `.model`.

    Args:
        model: a loaded causal LM on its device, in its dtype; a `PeftModel`, whose active adapter
            is then what knows the rows and is trained; or a folder or a name on the hub.
        tokenizer: the model's. `None` if the model is named.
        rows: what must go.
        out: directory of the run. If `None`, a new one, `runs/erase-<date>-<time>`. The same call
            with the same directory resumes.
        retention: rows that must stay. If `None`, the model itself makes them.
        general: file of texts that must stay as likely as they are. If `None`, the model writes
            some.
        options: those of `ErasureRequest`, and: `copy`, False if the result may share the weights
            of `model`, which saves a copy (with `route="full"`, `model` is changed then);
            `reporter`, which tells what happens. If there is none, lines and bars on stderr do.

    Returns:
        The result: `.model`, `.tokenizer`, `.report`, `.verdict`, `.erased`. `.model` is `None` if
        the rows are not erased; the verdict says why.

    Raises:
        BadInput: the rows, the model, or an option is not usable; nothing was changed.
    """
    known = [*ErasureOptions.__annotations__, "out", "retention", "general"]
    if odd := sorted(set(options) - set(known)):
        raise unknown("argument of erase", odd[0], known)
    if isinstance(model, str | Path) and tokenizer is not None:
        raise BadInput("tokenizer: a model that is named brings its own; hand in None")
    reporter = options.get("reporter") or RichReporter()
    request = ErasureRequest(
        str(model) if isinstance(model, str | Path) else "",
        row_source(rows, "rows"),
        _new_directory(reporter) if out is None else Path(out),
        retention=_source(retention, "retention"),
        general=None if general is None else str(general),
        **_given(options),
    )
    if isinstance(model, str | Path):
        return run_request(request, reporter)
    return _erase_loaded(request, model, tokenizer, options.get("copy", True), reporter)


def _given(options: ErasureOptions) -> dict[str, Any]:
    """The options under the names and in the types of `ErasureRequest`."""
    made: dict[str, Any] = {k: v for k, v in options.items() if k not in ("copy", "reporter")}
    if (adapter := options.get("adapter")) is not None:
        made["adapter"] = Path(adapter)
    if (key := options.get("key")) is not None:
        made["key"] = Path(key)
    if "val" in options:
        made["val"] = _source(options["val"], "val")
    for key in ("earlier", "sets"):
        if key in made:
            made[key] = tuple(made[key])
    return made


def _erase_loaded(
    request: ErasureRequest,
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase | None,
    copy: bool,
    reporter: Reporter,
) -> Erased:
    """Run a request on a loaded model."""
    loaded = loaded_model(model, tokenizer, changed=request.route == "full", copy=copy)
    request = replace(request, model=loaded.base.name, loaded=loaded)
    with ExitStack() as stack:
        if isinstance(model, PeftModel):
            if request.adapter is not None:
                raise BadInput("adapter: the model has one already; hand in its base, or leave out")
            stack.enter_context(exclusive(request.out, reporter))
            adapter = stack.enter_context(kept_adapter(model, request.out))
            adaptation_of(adapter)  # refused here if it is of a kind that cannot be trained
            request = replace(request, adapter=adapter)
        done = run_request(request, reporter)
    if done.exported is not None and done.exported.form == "adapter":
        reporter.say(
            f"{done.exported.folder}: an adapter of the model as it was handed in; save that one "
            f"too, if it is no longer the same as '{request.model}'"
        )
    return done


def _source(given: Rows | None, name: str) -> RowSource | None:
    return None if given is None else row_source(given, name)


def _new_directory(reporter: Reporter) -> Path:
    """A directory for a run that has none, named after the time."""
    name = f"erase-{datetime.now():%Y%m%d-%H%M%S}"
    found = (Path("runs") / (name + more) for more in ("", *(f"-{n}" for n in range(2, 100))))
    folder = next(place for place in found if not place.exists())
    reporter.say(f"out: {folder}")
    return folder
