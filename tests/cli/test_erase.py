"""`knowundo erase` says the verdict once, and what it rests on in a few lines."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import Call
from erasure_facts import erasure_results, results_with
from knowundo.erasure.list_check import ListCheck

WORDS = ("erase", "--model", "m", "--unlearn", "rows.jsonl", "--out", "out")
VERDICT = "erased: 0.0 % is still answered"


def finished(monkeypatch: pytest.MonkeyPatch, *, exported: bool, verdict: str) -> None:
    """Puts a finished request in the place of one that has to be run."""
    done = SimpleNamespace(
        run=SimpleNamespace(out=Path("out")),
        results=results_with(erasure_results(sentence=verdict)),
        check=ListCheck(),
        exported=SimpleNamespace(folder=Path("out/model"), form="merged") if exported else None,
        relapsed=[],
        verdict=verdict,
        certificate=SimpleNamespace(
            folder=Path("out/certificate/erased"), evidence=SimpleNamespace(outcome="not_shown")
        ),
    )

    def erase(request: Any, reporter: Any) -> SimpleNamespace:
        return done

    monkeypatch.setattr("knowundo.erasure.erase.run_request", erase)


def test_the_verdict_leads_and_is_said_once(
    knowundo: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(monkeypatch, exported=True, verdict=VERDICT)
    done = knowundo(*WORDS)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == VERDICT
    assert (done.stdout + done.stderr).count(VERDICT) == 1
    assert len(lines) <= 12
    assert lines[-3:] == [
        "model: out/model (merged)",
        "report: out/report.html",
        "certificate: out/certificate/erased (not shown)",
    ]


def test_a_failure_leads_with_the_verdict_as_the_error(
    knowundo: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(monkeypatch, exported=False, verdict="NOT ERASED: all is there")
    done = knowundo(*WORDS)
    assert done.returncode == 3
    assert done.stderr == "error: NOT ERASED: all is there\n"
    assert "NOT ERASED" not in done.stdout
    assert done.stdout.splitlines()[-2] == "report: out/report.html"


@pytest.mark.parametrize("exported", [True, False])
def test_json_holds_the_section(
    knowundo: Call, monkeypatch: pytest.MonkeyPatch, exported: bool
) -> None:
    finished(monkeypatch, exported=exported, verdict=VERDICT)
    done = knowundo(*WORDS, "--json")
    assert done.returncode == (0 if exported else 3)
    told = json.loads(done.stdout)
    assert told["certificate"] == "out/certificate/erased"
    section = told["results"]["erasure"]
    assert section["sentence"] == VERDICT
    assert section["exact"] == {"before": 100.0, "after": 33.333, "records": 3}
