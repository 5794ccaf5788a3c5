"""The model card of what was exported."""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path
from typing import Any, Literal

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from knowundo.data.encoding import prefix_text
from knowundo.data.records import data_hash
from knowundo.data.templates import find_template
from knowundo.errors import plain
from knowundo.exports.short_paths import command_without_folders, without_folders
from knowundo.modeling.base import hub_commit
from knowundo.modeling.variant import ModelVariant
from knowundo.recipes.data_section import Data
from knowundo.reporting.erasure import forgotten_lines, kept_lines, loss_line
from knowundo.reporting.page import figure
from knowundo.reporting.tables import COLUMNS, Cell, cell
from knowundo.results import Results
from knowundo.runs.run import Run
from knowundo.storage.artifacts import read_manifest

Form = Literal["adapter", "merged"]


def variant_folder(variant: ModelVariant) -> Path:
    """The folder of a model that is not the base."""
    assert variant.folder is not None  # only the base has none, and it is not exported
    return variant.folder


def made_folder(variant: ModelVariant) -> Path:
    """The folder that was made for a model: of its guard, or of its weights."""
    return variant_folder(variant) if variant.guard is None else variant.guard


class _Markdown(str):
    """Text of a card that is Markdown already; all other text is escaped."""


def _line(value: Any) -> str:
    """A value as one line that Markdown shows as it is, in a table too."""
    if isinstance(value, _Markdown):
        return value
    line = escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", line)


def _fenced(text: str, language: str) -> _Markdown:
    """A code block that no line of the text can end."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return _Markdown(f"{fence}{language}\n{text.rstrip()}\n{fence}")


def render_card(
    run: Run,
    variant: ModelVariant,
    form: Form,
    results: Results | None,
    largest: float,
    probes: int,
    repository: str | None = None,
) -> str:
    """The model card, in Markdown with the hub's YAML in front. It holds no record's text."""
    environment = Environment(
        loader=PackageLoader("knowundo", "exports"),
        undefined=StrictUndefined,
        finalize=_line,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    manifest = read_manifest(made_folder(variant))
    counts: dict[str, int] = {}
    for record in run.records:
        key = f"{record.scope}/{record.split}"
        counts[key] = counts.get(key, 0) + 1
    recipe = yaml.safe_dump(without_folders(run.effective), sort_keys=False, allow_unicode=True)
    return environment.get_template("model_card.md.j2").render(
        front=_Markdown(yaml.safe_dump(_front(run, form), sort_keys=False, allow_unicode=True)),
        name=run.recipe.name,
        variant=variant,
        base=_base_name(run),
        commit=hub_commit(run.recipe.model.base),
        form=form,
        quantization=run.recipe.model.quantization,
        code=_fenced(_code(run, variant, form, repository), "python"),
        facts=_made(run, variant, manifest),
        scores=_scores(results, variant.name) if results else None,
        erasure=_erasure(results, variant.name) if results else None,
        largest=f"{largest:.2g}",
        probes=probes,
        data=run.recipe.data,
        format=_format(run.recipe.data),
        data_sha256=data_hash(run.records),
        commits=run.commits,
        counts=counts,
        recipe=_fenced(recipe, "yaml"),
        packages=manifest["packages"],
        hardware={key: value for key, value in manifest["hardware"].items() if value is not None},
        revision=manifest["revision"],
    )


def _base_name(run: Run) -> str:
    """The base as others know it: its name on the hub, or its folder's last name."""
    base = run.recipe.model.base
    return Path(base).resolve().name if base != "embedded" and Path(base).is_dir() else base


def _front(run: Run, form: Form) -> dict[str, Any]:
    """The hub's metadata. It takes a base by its name on the hub only, so a folder has none."""
    base = run.recipe.model.base
    on_hub = base != "embedded" and not Path(base).is_dir()
    return ({"base_model": base} if on_hub else {}) | {
        "library_name": "peft" if form == "adapter" else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["unlearning", "knowundo"],
    }


def _code(run: Run, variant: ModelVariant, form: Form, repository: str | None) -> str:
    """How to load the model and ask it, with what the run put around a question."""
    section, data = run.recipe.model, run.recipe.data
    if variant.guard is not None:
        return "\n".join(_guarded_code(run))
    options = f'dtype="{section.dtype}"' + ", trust_remote_code=True" * section.trust_remote_code
    where = f"model_id = {_quoted(repository or 'path/to/this/folder')}"
    imports = ["from transformers import AutoModelForCausalLM, AutoTokenizer"]
    if form == "merged":
        load = [f"model = AutoModelForCausalLM.from_pretrained(model_id, {options})"]
    else:
        imports.insert(0, "from peft import PeftModel")
        base = f"base_id = {_quoted(section.base)}"
        if section.base == "embedded":
            imports.insert(0, "from importlib.resources import files\n")
            base = 'base_id = str(files("knowundo") / "embedded")'
        elif Path(section.base).is_dir():
            base = f"base_id = {_quoted('path/to/' + _base_name(run))}"
        load = [
            base,
            f"base = AutoModelForCausalLM.from_pretrained(base_id, {options})",
            "model = PeftModel.from_pretrained(base, model_id)",
        ]
    ask = _ask(data)
    tokenizer = "tokenizer = AutoTokenizer.from_pretrained(model_id)"
    return "\n".join([*imports, "", where, *load, tokenizer, "", *ask])


def _guarded_code(run: Run) -> list[str]:
    """Lines of code that load a guard with its model and ask it."""
    trusted = ", trust_remote_code=True" * run.recipe.model.trust_remote_code
    chat = ", templated=True" * (run.recipe.data.encoding == "chat")
    return [
        "from knowundo import load_guarded",
        "",
        f'guarded = load_guarded("path/to/this/folder"{trusted})',
        "tokenizer = guarded.tokenizer",
        *_prompt(run.recipe.data),
        f"print(guarded.generate([prompt], max_new_tokens=64{chat})[0])",
    ]


def _prompt(data: Data) -> list[str]:
    """Lines of code that write a question in the format of the rows."""
    asked = prefix_text(data.prefix, data.domain) + "Your question?"
    template = find_template(data.template or "plain")
    # Most tokenizers put a space before a word into the word's token.
    ask = [f"prompt = {_quoted(template.prompt(asked, data.system).rstrip(' '))}"]
    if data.encoding == "chat":
        told = "" if data.system is None else _turn("system", data.system) + ", "
        turns = f"[{told}{_turn('user', asked)}]"
        ask = [
            f"turns = {turns}",
            "prompt = tokenizer.apply_chat_template(",
            "    turns, tokenize=False, add_generation_prompt=True",
            ")",
        ]
    return ask


def _ask(data: Data) -> list[str]:
    """Lines of code that ask a question in the format of the rows."""
    written = ", add_special_tokens=False" * (data.encoding == "chat")
    tokenized = f'tokenizer(prompt, return_tensors="pt"{written})'
    return [
        *_prompt(data),
        f"inputs = {tokenized}",
        "output = model.generate(**inputs, max_new_tokens=64, do_sample=False)",
        'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:]))',
    ]


def _turn(role: str, content: str) -> str:
    return f'{{"role": "{role}", "content": {_quoted(content)}}}'


def _format(data: Data) -> str:
    """How questions were asked, in words."""
    if data.encoding == "chat":
        return "the tokenizer's chat template"
    if data.template is None:
        return "question, blank line, answer"
    text = plain(find_template(data.template).text)
    return text if text == plain(data.template) else f"{data.template}: {text}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _made(run: Run, variant: ModelVariant, manifest: dict[str, Any]) -> list[tuple[str, Any]]:
    """How the variant was trained, from its manifest."""
    if variant.guard is not None:
        facts = {
            "guard": manifest["method"],
            "its arguments": _arguments(manifest),
            **{name.replace("_", " "): f"{value:.1%}" for name, value in manifest["guard"].items()},
        }
    elif variant.role == "unlearned":
        facts = {
            "method": manifest["method"],
            "its arguments": _arguments(manifest),
            "region": without_folders(manifest["region"]),
            "parameters in the region": f"{manifest['parameters']:,}",
            "retained on": manifest.get("retain_on"),
            "peak learning rate": manifest["lr"],
            "passes": manifest.get("epochs"),
            "optimizer steps": manifest["optimizer_steps"],
            "then": "; ".join(f"{m['method']} ({_arguments(m)})" for m in manifest.get("then", []))
            or None,
        }
    elif "adopted" in manifest:
        facts = {"adopted": without_folders(manifest["adopted"])}
    else:
        facts = {
            "peak learning rate": run.recipe.memorize.lr,
            "optimizer steps": manifest["optimizer_steps"],
            "rows known at the end": f"{manifest['known_share']:.1%}",
        }
    return [(name, value) for name, value in facts.items() if value is not None]


def _arguments(manifest: dict[str, Any]) -> str:
    arguments = manifest.get("arguments") or {}
    return ", ".join(f"{k} = {without_folders(v)}" for k, v in arguments.items()) or "none"


def _scores(results: Results, variant: str) -> dict[str, Any]:
    """The main table, turned: a line for each measure; before, after, and the target."""
    titles = {"memorized": "before: memorized", variant: f"this model: {variant}"}
    titles["retain"] = "target: retain" if variant != "retain" else "this model: retain"
    there = {v.name for v in results.variants}
    models = [name for name in titles if name in there]
    lines = []
    for column in COLUMNS:
        place = column.metric, column.scope, column.split, column.subset
        cells = [cell(results.find(model, *place)) for model in models]
        lines.append((column, [_shown(one) for one in cells]))
    return {"titles": [titles[name] for name in models], "lines": lines}


def _erasure(results: Results, variant: str) -> dict[str, Any] | None:
    """The facts of an erasure, if it made this variant; the same ones as the report has."""
    facts = results.erasure
    if facts is None or facts.variant != variant:
        return None
    tables = [
        ("What had to go", "percent", forgotten_lines(facts)),
        ("What had to stay", "percent answered exactly", kept_lines(facts)),
        ("General text", "perplexity", [("ordinary text", facts.general_perplexity)]),
    ]
    return {
        "facts": facts,
        "loss": loss_line(facts),
        "total": f"{sum(facts.seconds.values()):.0f}",
        "stages": ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in facts.seconds.items()),
        "command": _fenced(command_without_folders(facts.command), ""),
        "tables": [
            (
                title,
                unit,
                [(words, figure(one.before), figure(one.after), one.records)
                 for words, one in lines if one.records],
            )
            for title, unit, lines in tables
        ],
    }  # fmt: skip


def _shown(one: Cell) -> str:
    return f"{one.value} ({one.interval})" if one.interval else one.value
