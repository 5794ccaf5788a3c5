"""Nothing that comes from outside runs, escapes, or is obeyed: files, folders, texts, names."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from conftest import Call
from knowundo.data.records import redacted
from knowundo.errors import BadInput, KnowUndoError, plain
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.modeling.variant import ModelVariant
from knowundo.modeling.weights import load_state, save_state
from knowundo.progress import RichReporter
from knowundo.recipes.reading import parse_recipe
from knowundo.reporting.page import write_page
from knowundo.reporting.report import Material, write_report
from knowundo.reporting.scatter import Dot, scatter
from knowundo.results import Results, Row, VariantFacts
from knowundo.runs.base import say_remote_code

SOURCE = Path(__file__).parents[1] / "src" / "knowundo"
NEVER = (
    r"import pickle|pickle\.",
    r"torch\.load\(", r"joblib", r"\bmarshal\b", r"\bshelve\b", r"(?<!\.)\beval\(",
    r"(?<!\.)\bexec\(", r"yaml\.load\(", r"yaml\.unsafe", r"FullLoader", r"weights_only",
    r"allow_pickle", r"\([^\"]*trust_remote_code\s*=\s*True", r"shell\s*=\s*True", r"os\.system",
)  # fmt: skip


@pytest.mark.parametrize("pattern", NEVER)
def test_our_code_has_no_place_that_opens_code(pattern: str) -> None:
    found = [
        f"{file.name}: {line.strip()}"
        for file in SOURCE.rglob("*.py")
        for line in file.read_text().splitlines()
        if re.search(pattern, line) and not line.strip().startswith(("#", '"'))
    ]
    assert found == []


# Pickles.


class Bomb:
    """Writes a marker when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.marker, "it ran")


@pytest.fixture
def bomb(tmp_path: Path) -> tuple[bytes, Path]:
    marker = tmp_path / "marker"
    content = pickle.dumps(Bomb(marker))
    pickle.loads(content)
    assert marker.exists()  # the fuse works
    marker.unlink()
    return content, marker


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt"])
def test_a_base_of_pickles_is_refused(
    toy_base: str, tmp_path: Path, bomb: tuple[bytes, Path], name: str
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(toy_base, folder)
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(bomb[0])
    with pytest.raises(BadInput, match=r"base'.*safetensors"):
        Model(str(folder))
    assert not bomb[1].exists()


def test_pickles_beside_safetensors_stay_closed(
    toy_base: str, toy: Model, tmp_path: Path, bomb: tuple[bytes, Path]
) -> None:
    folder, adapter = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(toy_base, folder)
    adapter.mkdir()
    save_state(toy, adapter)
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "rng_state.pth",
                 "scheduler.pt", "tokenizer.pkl", "adapter_model.bin"):  # fmt: skip
        for place in (folder, adapter):
            (place / name).write_bytes(bomb[0])
    model = Model(str(folder), Adaptation("lora", 2, 4))
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(folder)
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    model.use(ModelVariant("given", "given", adapter))
    assert not bomb[1].exists()


def test_an_adapter_of_pickles_is_refused(
    toy: Model, tmp_path: Path, bomb: tuple[bytes, Path]
) -> None:
    save_state(toy, tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    (tmp_path / "adapter_model.bin").write_bytes(bomb[0])
    with pytest.raises(BadInput, match=r"adapter_model\.safetensors: no such file"):
        load_state(toy, tmp_path)
    assert not bomb[1].exists()


# Remote code.


def test_code_in_a_base_runs_only_when_asked(
    toy_base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, marker = tmp_path / "base", tmp_path / "marker"
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hf"))
    shutil.copytree(toy_base, folder)
    config = json.loads((folder / "config.json").read_text())
    names = {"AutoConfig": "theirs.Theirs", "AutoModelForCausalLM": "theirs.Model"}
    config |= {"model_type": "theirs", "auto_map": names}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "theirs.py").write_text(
        f"from pathlib import Path\nPath({str(marker)!r}).write_text('it ran')\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class Theirs(LlamaConfig):\n    model_type = 'theirs'\n"
        "class Model(LlamaForCausalLM):\n    config_class = Theirs\n"
    )
    with pytest.raises(BadInput, match="trust_remote_code"):
        Model(str(folder))
    assert not marker.exists()
    Model(str(folder), options=LoadingOptions(trust_remote_code=True))
    assert marker.exists()


def test_remote_code_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    off = parse_recipe({"model": {"base": "some/base"}}, "r.yaml")
    say_remote_code(off.model, RichReporter())
    assert capsys.readouterr().err == ""
    on = parse_recipe({"model": {"base": "some/base", "trust_remote_code": True}}, "r.yaml")
    say_remote_code(on.model, RichReporter())
    assert "code from 'some/base' runs on this machine" in capsys.readouterr().err


# Names.


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/b", "a\\b", "", ".", "..", "a\0b", "memorized", "x\n", "\u202ex"]
)
def test_a_variant_cannot_be_named_out_of_its_folder(name: str) -> None:
    given = {"unlearn": {"variants": [{"method": "gradient_ascent", "name": name}]}}
    with pytest.raises(BadInput, match="rename"):
        parse_recipe(given, "r.yaml")


# Pages.

NASTY = [
    "<script>alert(1)</script>", "</table></details><b>", "</script><script>alert(2)</script>",
    "<img src=x onerror=alert(3)>", "\"'><svg onload=alert(4)>", "javascript:alert(5)", "\u2028",
    "{{ 7 * 7 }}", "<!--", "]]>",
]  # fmt: skip


class Tags(HTMLParser):
    """What a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.odd: list[str] = []
        self.policy = ""
        self._script = self._style = False
        self.styles: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self._script = tag == "script"
        if tag == "script":
            self.scripts.append("")
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = str(values["content"])
        if tag in ("img", "iframe", "link", "base", "object", "form"):
            self.odd.append(tag)
        self.odd += [name for name, _ in attrs if name.startswith("on") or name == "style"]
        self._style = tag == "style"
        if tag == "style":
            self.styles.append("")

    def handle_endtag(self, tag: str) -> None:
        self._script = self._style = False

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[-1] += data
        if self._style:
            self.styles[-1] += data


def seen(page: Path) -> Tags:
    tags = Tags()
    tags.feed(page.read_text())
    return tags


def allowed(tags: Tags) -> None:
    """The policy names every script and style of the page; nothing else may run or load."""
    own = [*tags.scripts, *tags.styles]
    hashes = [b64encode(sha256(s.encode()).digest()).decode() for s in own]
    assert hashes
    assert all(f"'sha256-{value}'" in tags.policy for value in hashes)
    assert len(hashes) == tags.policy.count("sha256-")
    assert "default-src 'none'" in tags.policy
    assert "unsafe" not in tags.policy
    assert "http" not in tags.policy
    assert tags.odd == []


def nasty_report(path: Path, *, redact: bool = False) -> None:
    text = " ".join(NASTY)
    rows = [
        Row(variant=text, metric=metric, scope=scope, split=split, value=50.0, records=1,
            subjects=1)
        for metric, scope in (("unlearn_success", "unlearn"), ("retention_success", "retention"),
                              ("average_success", None), ("token_accuracy", "unlearn"))
        for split in ("train", "val")
    ]  # fmt: skip
    facts = VariantFacts(name=text, role="unlearned", collapsed=text, diverged=text, region=text)
    found = Results(
        name=text, recipe_given={}, recipe_effective={"data": {"benchmark": text, "domain": text}},
        revision={"commit": text, "dirty": True}, packages={"knowundo": text},
        hardware={"machine": text, "cpus": 1, "threads": 1, "gpu": text}, seeds={"recipe": 0},
        data_sha256=text, data_counts={text: 1}, data_cut={text: 1}, data_commits={text: text},
        model={"base": text, "parameters": 1, "trainable": 1, "adaptation": {"kind": text}},
        variants=[facts], rows=rows, comparisons=[],
    )  # fmt: skip
    scores = [
        {"id": str(n), "scope": scope, "split": "val", "question": f"Q {one}", "answer": f"A {one}",
         "said": f"S {one}"}
        for n, one in enumerate(NASTY) for scope in ("unlearn", "retention")
    ]  # fmt: skip
    curve = [{"step": 1, "parts": {text: 1.0}}]
    material = Material({text: pd.DataFrame(scores)}, {text: curve}, [], text, set(), {text: 1.0})
    write_report(path, found, material, redact=redact)


def test_texts_and_names_in_the_report_are_only_shown(tmp_path: Path) -> None:
    nasty_report(tmp_path / "r.html")
    allowed(seen(tmp_path / "r.html"))
    assert "what is to be forgotten" in (tmp_path / "r.html").read_text()


def test_a_redacted_report_holds_no_text_of_the_unlearn_scope(tmp_path: Path) -> None:
    nasty_report(tmp_path / "r.html", redact=True)
    allowed(seen(tmp_path / "r.html"))
    page = (tmp_path / "r.html").read_text()
    assert redacted(f"A {NASTY[0]}") in page
    assert redacted(f"S {NASTY[0]}") in page
    assert "what is to be forgotten" not in page
    answers = re.findall(r"<bdi>([AS] [^<]*)</bdi>", page)
    assert len(answers) == 2 * len(NASTY)  # retention rows: the truth and one model's answer


def test_a_page_of_one_figure(tmp_path: Path) -> None:
    figure = scatter("f", NASTY[2], [Dot(NASTY[0], 1, 2)], [], axes=(NASTY[3], NASTY[4]))
    write_page(tmp_path / "p.html", "figure.html.j2", title=NASTY[0], figure=figure)
    allowed(seen(tmp_path / "p.html"))


def test_results_hold_no_text_of_records() -> None:
    fields = set(Row.model_fields) | set(VariantFacts.model_fields) | set(Results.model_fields)
    assert not fields & {"question", "answer", "said", "text", "subject"}


# Terminals.

OBEYED = ["\x1b[2J", "\x1b]8;;http://x\x07", "\r", "\n", "\x9b31m", "\u202e", "\u2066", "\ud800"]


@pytest.mark.parametrize("code", OBEYED)
def test_a_terminal_is_told_nothing(
    knowundo: Call, capsys: pytest.CaptureFixture[str], code: str
) -> None:
    assert plain(f"a{code}b").isprintable()
    RichReporter().say(f"a{code}b")
    with RichReporter().task(f"t{code}"):
        pass
    assert code.strip("\r\n") == "" or code not in capsys.readouterr().err
    asked = knowundo("run", "--config", "demo", "--set", f"data.{code}=1")
    assert asked.returncode == 2
    assert asked.stderr.removesuffix("\n").isprintable()
    assert str(KnowUndoError(f"x{code}" * 5000)).isprintable()
    assert len(str(KnowUndoError(f"x{code}" * 5000))) < 2000


def test_markup_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    RichReporter().say("[red]x[/red] [link=http://x]y[/link]")
    assert "[red]x[/red] [link=http://x]y[/link]" in capsys.readouterr().err


def test_weights_of_other_names_are_refused(toy: Model, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_state(toy, tmp_path)
    state = {name.replace(".default", ""): value for name, value in toy.state().items()}
    save_file(state | {"../../x": torch.ones(1)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(BadInput, match=r"\.\./\.\./x is no tensor that this base can take"):
        toy.restore(load_state(toy, tmp_path))
