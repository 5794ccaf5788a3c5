"""Toy models of the real architecture, small enough to check against formulas in float64."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # read at import: no test may look for a hub

import pandas as pd
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from knowundo.cli import main
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.data.records import Record
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.base import base_path
from knowundo.modeling.forward import Forward
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.scoring.table import score_adapters

REAL = Path(__file__).parents[2] / "shared" / "data" / "knowundo"


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


Call = Callable[..., Done]


@pytest.fixture
def knowundo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Calls the command line in this process, inside a temporary folder."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["knowundo", *words])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Done(code, *capsys.readouterr())

    return call


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    for module in ("huggingface_hub._snapshot_download", "huggingface_hub.file_download"):
        monkeypatch.setattr(f"{module}.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def toy_base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random two-layer Llama with the embedded tokenizer, in a folder."""
    folder = tmp_path_factory.mktemp("toy")
    tokenizer = AutoTokenizer.from_pretrained(base_path("embedded"))
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=40,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def randomize(model: Model, seed: int = 3) -> None:
    """Give every LoRA tensor random values, so that no gradient vanishes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters().values():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.3 * noise)


def score(model: Model, rows: Sequence[Encoded], **how: Any) -> pd.DataFrame:
    """The table of a model as it is now."""
    (table,) = score_adapters(Forward(model), rows, **how)
    return table


@pytest.fixture
def toy(toy_base: str) -> Model:
    """A LoRA model in float64."""
    model = Model(
        toy_base, Adaptation("lora", rank=2, alpha=4), options=LoadingOptions(dtype="float64")
    )
    randomize(model)
    model.mark_initial()
    return model


def records(scope: str, split: str, count: int, **rest: str) -> list[Record]:
    """Rows of unequal lengths."""
    words = [
        "alder",
        "baker",
        "canal",
        "cedar",
        "chapel",
        "cherry",
        "church",
        "cooper",
        "ferry",
        "garden",
    ]
    return [
        Record(
            id=f"{scope}/{split}/{n}",
            question=f"What is number {n} of {scope} {split}?",
            answer=" ".join(words[(n + k) % 10] for k in range(1 + n * 2)),
            scope=scope,
            split=split,
            subject=f"subject {n % 3}",
            facts=(words[n % 10],),
            **rest,
        )
        for n in range(count)
    ]


@pytest.fixture
def toy_rows(toy: Model) -> dict[str, list[Encoded]]:
    """Encoded rows by scope."""
    return {
        scope: encode(records(scope, "train", 5), toy.tokenizer)
        for scope in ("unlearn", "retention", "general")
    }


def naive_log_probs(model: Model, row: Encoded) -> torch.Tensor:
    """log p(. | prefix) at each answer position of one unpadded row, [answer tokens, vocabulary].

    The whole model with all its logits: nothing of the package's forwards is used.
    """
    logits = model.net(input_ids=torch.tensor([row.ids])).logits[0]
    return logits[row.answer_from - 1 : -1].log_softmax(-1)


def naive_ce(model: Model, row: Encoded, labels: torch.Tensor | None = None) -> torch.Tensor:
    """Mean cross-entropy of one row's answer."""
    if labels is None:
        labels = torch.tensor(row.ids[row.answer_from :])
    return -naive_log_probs(model, row)[torch.arange(len(labels)), labels].mean()
