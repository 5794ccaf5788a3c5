"""Runs that several tests export models of."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from exports.runs import TEMPLATE, tiny
from knowundo.exports.export import export
from knowundo.pipeline.evaluation import evaluate
from knowundo.pipeline.localization import localize
from knowundo.pipeline.memorization import memorize
from knowundo.pipeline.unlearning import unlearn
from knowundo.runs.run import Run


@pytest.fixture(scope="session")
def base(toy_base: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The toy with a chat template."""
    folder = tmp_path_factory.mktemp("base") / "toy-llama"
    shutil.copytree(toy_base, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def done(base: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a LoRA, evaluated."""
    run = tiny(base, tmp_path_factory.mktemp("runs") / "tiny")
    memorize(run)
    localize(run)
    assert unlearn(run) == []
    evaluate(run)
    return run


@pytest.fixture(scope="session")
def adapter(done: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "adapter"
    assert export(done, "m", folder).form == "adapter"
    return folder


@pytest.fixture(scope="session")
def full(base: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that trains all weights, memorized only."""
    run = tiny(base, tmp_path_factory.mktemp("runs") / "full", "model.adaptation=full")
    memorize(run)
    return run
