"""`knowundo doctor`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from conftest import Call
from knowundo.cli import doctor


def checks(knowundo: Call, *words: str) -> dict[str, dict[str, str]]:
    done = knowundo("doctor", "--json", *words)
    return {one["subject"]: one for one in json.loads(done.stdout)}


def test_it_says_what_is_there_and_what_to_do(
    knowundo: Call, tmp_path: Path, toy_base: str
) -> None:
    found = checks(knowundo, "--out", str(tmp_path / "new" / "runs"), "--base", toy_base)
    assert found["torch"]["state"] == "ok"
    assert found["extra sweep"]["found"] == "installed"
    assert "extra dev" not in found
    assert str(tmp_path) in found["disk"]["found"]
    assert found["hub"]["found"].startswith("offline by HF_HUB_OFFLINE")
    assert found[f"dtype of {toy_base}"]["found"].startswith("float32 on ")
    assert not (tmp_path / "new").exists()


def test_an_extra_that_is_not_there_is_named(
    knowundo: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = doctor._installed
    monkeypatch.setattr(doctor, "_installed", lambda name: name != "optuna" and there(name))
    one = checks(knowundo)["extra sweep"]
    assert (one["state"], one["found"]) == ("note", "without optuna")
    assert one["do"] == "pip install 'knowundo[sweep]', if you need it"


def test_what_will_not_work_is_exit_code_1(
    knowundo: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refusing = SimpleNamespace(access=lambda *_: False, W_OK=os.W_OK)
    monkeypatch.setattr(doctor, "os", refusing)
    done = knowundo("doctor", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "problem  disk" in done.stdout
    assert "first disk" in done.stderr


def test_a_hub_that_does_not_answer_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    found = doctor._hub()
    assert found.state == "note"
    assert found.found.startswith("no answer (")
