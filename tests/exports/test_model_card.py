"""The model card says how a model was made, and nothing of the records."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from exports.runs import adopting
from knowundo.exports.export import export
from knowundo.exports.model_card import render_card
from knowundo.modeling.variant import ModelVariant
from knowundo.runs.run import Run


def test_card_says_what_it_is(done: Run, adapter: Path) -> None:
    text = (adapter / "README.md").read_text()
    card = ModelCard(text)
    assert card.data.to_dict() == {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["unlearning", "knowundo"],
    }
    lines = [line.split(" | ") for line in text.split("\n") if " | " in line]
    table = {line[0][2:]: line[1:] for line in lines}
    assert table["method"] == ["ascent\\_plus\\_descent |"]
    assert len(table["Unlearn Success"]) == len(table["measure"]) == 3
    assert table["measure"][:2] == ["before: memorized", "this model: m"]
    assert float(table["Unlearn Success"][0].split()[0]) >= 0
    assert "unlearn/train" in table
    assert table["torch"] == [f"{torch.__version__} |"]
    recipe = yaml.safe_load(text.split("```yaml\n")[1].split("\n```")[0])
    assert recipe["memorize"]["lr"] == 0.01
    assert recipe["model"]["base"] == "…/toy-llama"
    assert str(Path(done.recipe.model.base).parent) not in text
    compile(text.split("```python\n")[1].split("\n```")[0], "card", "exec")
    for words in ("not a proof", "Relearning is not excluded", "PeftModel.from_pretrained"):
        assert words in text


def test_card_holds_no_record(done: Run, adapter: Path) -> None:
    text = (adapter / "README.md").read_text()
    assert len(done.records) > 20
    for record in done.records:
        for words in (record.question, record.answer, record.subject, *record.facts):
            assert not words or words not in text


def test_card_survives_hostile_names(done: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("knowundo.exports.model_card.hub_commit", lambda base: "abc")
    bad = "x | y\n---\n# head <script> `tick` [a](b)\n```\n"
    sections = {
        "name": bad,
        "model": done.recipe.model.model_copy(update={"base": "org/na'me: |x"}),
        "data": done.recipe.data.model_copy(update={"source": bad}),
    }
    monkeypatch.setattr(done, "recipe", done.recipe.model_copy(update=sections))
    variant = ModelVariant("m", "unlearned", done.unlearned("m"))
    text = render_card(done, variant, "merged", None, 0.0, 9)
    _, front, body = re.split(r"^---$", text, maxsplit=2, flags=re.MULTILINE)
    assert yaml.safe_load(front)["base_model"] == "org/na'me: |x"
    assert yaml.safe_load(front)["library_name"] == "transformers"
    title = "# x \\| y --- \\# head &lt;script&gt; \\`tick\\` \\[a\\](b) \\`\\`\\`: m"
    assert body.strip().split("\n")[0] == title
    assert "| base | org/na'me: \\|x, commit abc |" in body
    assert "Not evaluated when this folder was written." in body
    fenced = body.split("````yaml\n")[1].split("\n````")[0]
    assert yaml.safe_load(fenced)["data"]["source"] == bad
    assert "<script>" not in body.replace(fenced, "")


@pytest.mark.parametrize(
    ("data", "prompt", "told"),
    [
        ({}, r'"Your question?\n\n"', "question, blank line, answer"),
        ({"template": "Q:/A:"}, r'"Q: Your question?\nA:"', r"Q:/A:: Q: {question}\\nA: {answer}"),
        ({"template": "{question} => {answer}!"}, '"Your question? =>"',
         "{question} =&gt; {answer}!"),
        ({"template": "{system} {question} {answer}", "system": "Hi."}, '"Hi. Your question?"',
         "{system} {question} {answer}"),
        ({"encoding": "chat", "system": "Hi."}, "tokenizer.apply_chat_template(",
         "the tokenizer's chat template"),
    ],
)  # fmt: skip
def test_card_asks_in_the_format_of_the_rows(
    done: Run, monkeypatch: pytest.MonkeyPatch, data: dict[str, str], prompt: str, told: str
) -> None:
    section = done.recipe.data.model_copy(update=data)
    monkeypatch.setattr(done, "recipe", done.recipe.model_copy(update={"data": section}))
    variant = ModelVariant("m", "unlearned", done.unlearned("m"))
    text = render_card(done, variant, "merged", None, 0.0, 9)
    code = text.split("```python\n")[1].split("\n```")[0]
    compile(code, "card", "exec")
    assert f"\nprompt = {prompt}\n" in code
    assert f"\nFormat of the rows: {told}.\n" in text
    system = '{"role": "system", "content": "Hi."}, {"role": "user", "content": "Your question?"}'
    assert (f"turns = [{system}]" in code) == ("encoding" in data)


def test_results_of_other_models_stay_out(done: Run, tmp_path: Path) -> None:
    run = adopting(done, tmp_path / "run")
    shutil.copy(done.out / "results.json", run.out)
    export(run, "memorized", tmp_path / "x")
    assert "Not evaluated" in (tmp_path / "x" / "README.md").read_text()
