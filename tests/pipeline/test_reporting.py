"""The paper's table of a run, as a stage and as a command."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from knowundo.cli import main
from knowundo.errors import BadInput
from knowundo.pipeline.reporting import paper_report
from knowundo.progress import Reporter
from knowundo.results import write_results
from knowundo.storage.artifacts import new_folder
from knowundo.storage.integrity import seal
from paper_results import HOSTILE, results


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A run's directory with results and one trained variant, as the command line opens it."""
    found = results(base="embedded")
    found.variants = [v for v in found.variants if v.name != HOSTILE]
    run = SimpleNamespace(
        out=tmp_path,
        unlearned=lambda name: tmp_path / "unlearned" / name,
        reporter=Reporter(),
        seal=partial(seal, tmp_path),
    )
    with new_folder(run.unlearned("memflex"), {}, seconds=5.0, optimizer_steps=4):
        pass
    write_results(found, tmp_path / "results.json")
    monkeypatch.setattr("knowundo.cli.report.open_run", lambda *given: run)
    return run


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr("sys.argv", ["knowundo", "report", "--style", "paper", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code


def test_command_writes_three_files_and_prints_one(
    opened: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "--json")
    files = {form: Path(path) for form, path in json.loads(capsys.readouterr().out).items()}
    names = {form: path.name for form, path in files.items()}
    assert names == {
        "markdown": "paper-table.md",
        "latex": "paper-table.tex",
        "csv": "paper-table.csv",
    }
    for words, form in (((), "markdown"), (("--format", "latex"), "latex")):
        call(monkeypatch, *words)
        assert capsys.readouterr().out == files[form].read_text("utf-8")
    line = list(csv.DictReader(files["csv"].open(encoding="utf-8")))[-1]
    assert (line["variant"], line["seconds_per_step"]) == ("memflex", "1.25")


def test_table_before_evaluation_is_bad_input(opened: SimpleNamespace) -> None:
    (opened.out / "results.json").unlink()
    with pytest.raises(BadInput, match="run `knowundo evaluate"):
        paper_report(opened)  # type: ignore[arg-type]
    assert not list(opened.out.glob("paper-table*"))


def test_format_without_the_paper_style_is_bad_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["knowundo", "report", "--format", "csv"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert (
        capsys.readouterr().err == "error: --format: report.html has one only; add --style paper\n"
    )
