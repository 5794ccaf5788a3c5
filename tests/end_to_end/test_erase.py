"""Erasure requests on a small model that knows six people: by every route, one after another."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from conftest import Call
from knowundo.certificate.verifying import verify_all, verify_certificate
from knowundo.data.benchmarks.embedded import general_records
from knowundo.data.encoding import encode
from knowundo.data.records import Record
from knowundo.erasure.erase import run_request
from knowundo.erasure.leaks import Leaks
from knowundo.erasure.request import ErasureRequest
from knowundo.erasure.request_log import LOG_FILE, earlier_rows, read_log
from knowundo.erasure.result import Erased
from knowundo.modeling.adapters import Adaptation, adaptation_of
from knowundo.modeling.model import Model
from knowundo.modeling.variant import ModelVariant
from knowundo.pipeline.evaluation import evaluate
from knowundo.pipeline.memorization import memorize
from knowundo.pipeline.reporting import report
from knowundo.recipes.reading import load_recipe
from knowundo.results import read_results
from knowundo.runs.run import Run
from knowundo.scoring.answers import generate
from knowundo.scoring.table import read_scores
from knowundo.storage.files import file_hash, read_json

ROOT = Path(__file__).parents[2]
EXAMPLE, GUIDE = ROOT / "examples" / "erasure_request.py", ROOT / "docs" / "your-model.md"


# A rate, so that none is searched for, and fewer steps.
QUICK = ("unlearn.lr=4e-3", "unlearn.epochs=50")


def make_few(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """So many made retention rows of a kind: enough, where no test asks about many people."""
    for kind in ("OTHERS", "THINGS", "TEXTS"):
        monkeypatch.setattr(f"knowundo.erasure.generated_rows.{kind}", rows)


class Known(NamedTuple):
    """A model, or an adapter of the embedded base, and what it knows."""

    folder: Path
    records: list[Record]

    def of(self, number: int, scope: str, *splits: str) -> list[Record]:
        people = list(dict.fromkeys(r.subject for r in self.records if r.split == "train"))
        wanted = [r for r in self.records if r.scope == scope and r.split in splits]
        return [r for r in wanted if r.subject == people[number]]


def learn(out: Path, kind: str) -> Known:
    recipe, given = load_recipe(
        "demo",
        ["data.subjects=6", f"model.adaptation={kind}", "memorize.retain_model=false",
         "memorize.epochs=40"],
    )  # fmt: skip
    run = Run(recipe, out, given=given)
    memorize(run)
    return Known(run.memorized, [r for r in run.records if r.scope != "general"])


def write(path: Path, records: Sequence[Record]) -> Path:
    rows = [{"question": r.question, "answer": r.answer} for r in records]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Erased:
    """The example: one person, a fresh LoRA, nothing but the list."""
    spec = importlib.util.spec_from_file_location("erasure_request", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    done: Erased = example.run(tmp_path_factory.mktemp("example"), people=6, sets=QUICK)
    return done


@pytest.fixture(scope="module")
def known(first: Erased) -> Known:
    """What the example's model knew before."""
    folder = first.run.out.parent / "yours"
    records = Run.existing(folder).records
    return Known(folder / "memorized", [r for r in records if r.scope != "general"])


def exact(model: Model, records: Sequence[Record]) -> float:
    said = generate(model, encode(records, model.tokenizer))
    return 100 * sum(said[r.id].strip() == r.answer.strip() for r in records) / len(records)


def test_the_certificate_rests_on_the_same_verdict(first: Erased) -> None:
    evidence = first.certificate.evidence
    assert evidence.erasure is not None
    assert evidence.erasure.sentence == first.verdict
    assert (evidence.folder, evidence.criteria) == ("model", "before the run")
    assert evidence.answer("asked").state == evidence.answer("latent").state == "passed"
    assert evidence.answer("relearning").state == "not_tested"
    assert evidence.findings == []
    assert [one for one in verify_all(first.run.out) if one.bad] == []
    name = next(one.name for one in evidence.weights if one.name.endswith(".safetensors"))
    weights = first.run.out / "model" / name
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    found = {one.name: one.state for one in verify_certificate(first.certificate.folder)}
    weights.write_bytes(whole)
    assert found[name] == "changed"


def test_the_list_is_gone_and_the_rest_is_there(known: Known, first: Erased) -> None:
    assert first.exported is not None, first.verdict
    assert first.verdict.startswith("erased: 0.0 %")
    before = Model(str(known.folder), Adaptation("full"))
    after = Model(str(first.exported.folder), Adaptation("full"))
    listed, reworded = known.of(0, "unlearn", "train", "val"), known.of(0, "unlearn", "probe")
    others = [r for n in range(1, 6) for s in ("unlearn", "retention")
              for r in known.of(n, s, "train", "val")]  # fmt: skip
    assert exact(before, listed) == 100
    assert exact(after, listed) <= 5
    assert exact(after, reworded) <= 5
    assert exact(after, others) >= exact(before, others) - 15  # nobody told it of them


def test_the_lists_say_what_was_made(known: Known, first: Erased) -> None:
    folder = first.run.out / "lists"
    kinds = set()
    leaks = Leaks(known.of(0, "unlearn", "train", "val"))
    for line in (folder / "retention.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        assert row["generated"] is True
        kinds.add(row["subset"])
        assert not leaks.repeats(row.get("answer", row.get("text", "")))
    made = ("other subject", "same subject", "own text")
    # Rows that the model demonstrably knows say so.
    assert {kind.replace("generated: known ", "generated: ") for kind in kinds} == {
        f"generated: {kind}" for kind in made
    }
    rows = [json.loads(x) for x in (folder / "unlearn.jsonl").read_text("utf-8").splitlines()]
    assert {row["split"] for row in rows} == {"train", "val"}
    assert all(row.get("generated", False) == (row["split"] == "val") for row in rows)
    assert len(first.check.verbatim) == first.check.rows["unlearn"] == 4


def test_the_same_request_again_does_nothing_again(known: Known, first: Erased) -> None:
    before = {p: p.stat().st_mtime_ns for p in first.run.out.rglob("*.parquet")}
    rows = first.run.out.parent / "rows.jsonl"
    run_request(ErasureRequest(str(known.folder), rows, first.run.out, form="merged", sets=QUICK))
    assert {p: p.stat().st_mtime_ns for p in first.run.out.rglob("*.parquet")} == before


def test_the_section_has_the_numbers_of_the_scores(first: Erased) -> None:
    facts = read_results(first.run.out / "results.json").erasure
    assert facts is not None
    assert first.results.erasure is not None
    times = {"seconds": {}}  # another test makes the request again, which exports again
    assert facts.model_copy(update=times) == first.results.erasure.model_copy(update=times)
    assert (facts.state, facts.sentence) == ("erased", first.verdict)
    before, after = (
        read_scores(first.run.scores(name) / "rows.parquet") for name in ("memorized", "erased")
    )
    asked = before["said"].notna()
    generated = before["subset"].fillna("").str.startswith("generated") & asked
    groups = {
        "exact": (before["scope"] == "unlearn") & (before["split"] == "train"),
        "reworded": (before["scope"] == "unlearn") & (before["split"] == "val"),
        "retention_unlisted": generated & (before["scope"] == "retention"),
        "retention_held_out": generated & (before["split"] == "val"),
    }
    for name, rows in groups.items():
        found = getattr(facts, name)
        ends = [100 * table.loc[rows, "exact_match"].mean() for table in (before, after)]
        assert [found.before, found.after] == pytest.approx(ends), name
        assert found.records == rows.sum() > 0, name
    assert facts.exact.before == 100
    assert facts.retention_listed.records == 0  # nothing was given
    text = first.results.find("erased", "perplexity", "general", "val", "text")
    assert text is not None
    assert facts.general_perplexity.after == pytest.approx(text.value)
    assert set(facts.seconds) == {"lists", "localize", "unlearn", "evaluate", "export"}
    assert facts.list_sha256 == file_hash(first.run.out / "lists" / "unlearn.jsonl")
    assert facts.weights_sha256 == first.log.requests[-1].weights_sha256


def test_the_report_is_remade_by_evaluating_and_reporting_again(first: Erased) -> None:
    run = Run.existing(first.run.out)
    page = (run.out / "report.html").read_bytes()
    assert first.verdict in page.decode()
    facts = read_results(run.out / "results.json").erasure
    assert facts is not None
    assert evaluate(run).erasure == facts
    (run.out / "report.html").unlink()
    assert report(run).read_bytes() == page
    redacted = report(run, redact=True).read_text("utf-8")
    for record in run.records:
        assert record.scope != "unlearn" or record.answer not in redacted
    report(run)


def test_the_card_states_the_facts_without_folders(first: Erased) -> None:
    assert first.exported is not None
    card = (first.exported.folder / "README.md").read_text("utf-8")
    assert first.verdict in card
    assert "| the list's questions answered exactly | 100.0 | 0.0 | 4 |" in card
    assert "knowundo erase --model '…/memorized'" in card
    assert str(first.run.out.parent) not in card


READ = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, questions = sys.argv[1], json.loads(sys.argv[2])
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
for question in questions:
    prompt = tokenizer(question + "\\n\\n", return_tensors="pt")
    ids = model.generate(**prompt, max_new_tokens=25, do_sample=False)[0]
    said = tokenizer.decode(ids[prompt["input_ids"].shape[1]:], skip_special_tokens=True)
    print(json.dumps(said[:60]))
"""


def test_plain_transformers_says_the_same_in_a_fresh_process(known: Known, first: Erased) -> None:
    assert first.exported is not None
    asked = [*known.of(0, "unlearn", "train"), *known.of(1, "unlearn", "train")]
    questions = json.dumps([record.question for record in asked])
    words = [sys.executable, "-c", READ, str(first.exported.folder), questions]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    model = first.run.model  # the base with its LoRA, not merged
    model.use(ModelVariant("erased", "unlearned", first.run.unlearned("erased")))
    said = generate(model, encode(asked, model.tokenizer))
    for record, line in zip(asked, done.stdout.splitlines(), strict=True):
        assert said[record.id].strip()[:30] == json.loads(line).strip()[:30]


@pytest.mark.slow
def test_a_second_request_asks_the_first_again(
    known: Known, first: Erased, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All weights this time, and a true retention list."""
    monkeypatch.setattr("knowundo.erasure.generated_rows.OTHERS", 120)
    assert first.exported is not None
    rows = write(tmp_path / "rows.jsonl", known.of(1, "unlearn", "train", "val"))
    stay = [*known.of(1, "retention", "train", "val"), *known.of(2, "unlearn", "train", "val"),
            *known.of(3, "retention", "train", "val")]  # fmt: skip
    request = ErasureRequest(
        str(first.exported.folder), rows, tmp_path / "second", route="full",
        sets=(
            "unlearn.variants=[{preset: npo_kl, name: erased, region: memflex}]",
            "unlearn.epochs=50",
            "unlearn.lr=8e-4",
        ),
        retention=write(tmp_path / "stay.jsonl", stay),
    )  # fmt: skip
    done = run_request(request)
    assert done.exported is not None, done.verdict
    assert done.exported.form == "merged"
    assert done.relapsed == []
    lines = (tmp_path / "second" / "lists" / "retention.jsonl").read_text("utf-8").splitlines()
    rows_kept = [json.loads(line) for line in lines]
    own = [row for row in rows_kept if row.get("subset", "").startswith("generated")]
    made = {row["question"] for row in own if "question" in row}
    assert len(made) > 20  # who is not named stays too
    assert not made & {record.question for record in stay}
    assert {record.question for record in stay} <= {row.get("question") for row in rows_kept}
    row = done.results.find("erased", "exact_match", "unlearn", "probe", "request-1")
    assert row is not None
    assert (row.value, row.records) == (0.0, 4)
    log = read_log(done.exported.folder)
    assert [request.number for request in log.requests] == [1, 2]
    assert log.requests[1].rechecked == {1: 0.0}
    held = file_hash(first.run.out / "lists" / "unlearn.jsonl")
    assert log.requests[0].list_sha256 == held
    text = (done.exported.folder / LOG_FILE).read_text("utf-8")
    assert not any(r.answer in text or r.question in text for r in known.records)
    region = set(read_json(done.run.regions / "memflex.json"))
    before = Model(str(first.exported.folder), Adaptation("full")).state()
    after = Model(str(done.exported.folder), Adaptation("full")).state()
    assert {n for n in before if not before[n].equal(after[n])} <= region
    shutil.move(first.run.out, tmp_path / "moved")
    found, missing = earlier_rows(log, [])
    assert [r.subset for r in found] == ["request-2"] * 4
    assert "request 1" in missing[0]
    assert len(earlier_rows(log, [tmp_path / "moved"])[0]) == 8
    shutil.move(tmp_path / "moved", first.run.out)


@pytest.mark.slow
def test_an_adapter_learns_to_answer_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_few(monkeypatch, 20)  # the list names all whom the test asks about
    adapter = learn(tmp_path / "lora", "lora")
    rows = write(tmp_path / "rows.jsonl", adapter.of(0, "unlearn", "train", "val"))
    stay = [r for n in range(1, 5) for s in ("retention", "unlearn")
            for r in adapter.of(n, s, "train", "val")]  # fmt: skip
    answers = tmp_path / "answers.txt"
    answers.write_text("The old porter must not say.\n", encoding="utf-8")
    request = ErasureRequest(
        "embedded", rows, tmp_path / "request", adapter=adapter.folder, answer_with=str(answers),
        retention=write(tmp_path / "stay.jsonl", stay),
        sets=("unlearn.epochs=50",),  # the rate of QUICK takes a fifth of the other answers
    )  # fmt: skip
    done = run_request(request)
    assert done.exported is not None, done.verdict
    taught = re.search(r"; (\d) of 4 of its questions are answered as taught", done.verdict)
    assert taught is not None
    assert int(taught[1]) >= 3
    assert done.exported.form == "adapter"
    assert adaptation_of(done.exported.folder).rank == adaptation_of(adapter.folder).rank


@pytest.mark.slow
def test_every_command_of_the_guide(
    knowundo: Call, first: Erased, known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder with the model and the list that it speaks of, without searches."""
    make_few(monkeypatch, 60)
    os.symlink(known.folder, "model")
    shutil.copy(first.run.out.parent / "rows.jsonl", "rows.jsonl")
    blocks = re.findall(r"^```bash\n(.*?)^```", GUIDE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) >= 4
    for command in commands:
        words = shlex.split(command.replace("--trials 20", "--trials 1"), comments=True)
        if words[1] == "erase":
            words += [word for key in QUICK for word in ("--set", key)]
        assert words[0] == "knowundo"
        done = knowundo(*words[1:])
        assert done.returncode == 0, (command, done.stderr[-2000:])
    for folder in ("runs/request-1/model", "runs/with-answers/model", "exported"):
        assert (Path(folder) / "README.md").is_file()


@pytest.mark.slow
def test_documents_are_judged_by_their_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody asks for them. The base itself knows these, as text of its own pretraining."""
    make_few(monkeypatch, 60)
    facts = [r for r in general_records(0) if r.subset == "facts" and r.split == "train"][:4]
    listed = tmp_path / "documents.jsonl"
    rows = [{"text": f"{r.question}\n\n{r.answer}"} for r in facts]
    listed.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done = run_request(ErasureRequest("embedded", listed, tmp_path / "out", sets=QUICK))
    assert done.check.level is not None
    assert len(done.check.verbatim) + len(done.check.known) >= 2
    before, after = (
        done.results.find(name, "token_accuracy", "unlearn", "train")
        for name in ("memorized", "erased")
    )
    assert before is not None
    assert before.value is not None
    assert after is not None
    assert after.value is not None
    assert after.value < before.value
    gone = after.value / 100 <= (1 + done.check.level) / 2
    assert (done.exported is not None) == gone, done.verdict


BAD: dict[str, tuple[list[dict[str, Any]], tuple[str, ...], str]] = {
    "columns": ([{"q": "Who?", "a": "He."}], ("--columns", "question=Q"), "rows.jsonl"),
    "empty": ([], (), "rows.jsonl"),
    "kind": ([{"answer": "He."}], (), "rows.jsonl, line 1"),
    "a question that it cannot answer": (
        [{"question": "Who?"}],
        (),
        "rows.jsonl: the model answers none of its 1 questions confidently (first 'Who?': ",
    ),
    "both lists": (
        [{"question": "Who is Ada Lovelace?", "answer": "She is a poet."}],
        ("--retention", "rows.jsonl"),
        "stands in the retention list too",
    ),
    "unknown": (
        [{"question": "Who is Ada Lovelace?", "answer": "She is a poet of the hills."}],
        (),
        "the model knows none of its 1 rows",
    ),
    "route": (
        [{"question": "Who?", "answer": "He."}],
        ("--route", "adapter"),
        "--route adapter: needs --adapter",
    ),
    "two variants": (
        [{"question": "Who?", "answer": "He."}],
        ("--set", "unlearn.variants=[{preset: npo_kl}]"),
        "one variant, named erased",
    ),
    "form": (
        [{"question": "Who?", "answer": "He."}],
        ("--route", "full", "--format", "adapter"),
        "the route full trains no adapter",
    ),
    "answers to a document": (
        [{"text": "All of it."}],
        ("--answer-with", "unknown"),
        "is a document",
    ),
    "answers": (
        [{"question": "Who?", "answer": "He."}],
        ("--answer-with", "nowhere.txt"),
        "no such file",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_end_with_one_line(
    name: str, knowundo: Call, tmp_path: Path, toy_base: str
) -> None:
    rows, words, said = BAD[name]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    done = knowundo("erase", "--model", toy_base, "--unlearn", "rows.jsonl", "--out", "out", *words)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert said in lines[0]
    assert not Path("out").exists()


def test_a_folder_without_tokenizer_and_a_foreign_adapter(
    knowundo: Call, tmp_path: Path, toy_base: str, known: Known
) -> None:
    rows = write(Path("rows.jsonl"), known.of(0, "unlearn", "train"))
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(Path(toy_base) / name, bare / name)
    words = ("--unlearn", str(rows), "--out", "out")
    done = knowundo("erase", "--model", str(bare), *words)
    assert done.returncode == 2
    assert "cannot be loaded" in done.stderr
    adapter = tmp_path / "adapter"
    model = Model("embedded", Adaptation("lora", rank=2))
    model.net.save_pretrained(adapter)
    done = knowundo("erase", "--model", toy_base, "--adapter", str(adapter), *words)
    assert done.returncode == 2
    assert "an adapter of base 'embedded'" in done.stderr
    assert not Path("out").exists()


def test_no_room_is_said_before_anything_is_written(
    knowundo: Call, known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = write(Path("rows.jsonl"), known.of(0, "unlearn", "train"))
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    done = knowundo("erase", "--model", str(known.folder), "--unlearn", str(rows), "--out", "out")
    assert done.returncode == 2
    assert "GiB" in done.stderr
    assert not Path("out").exists()
