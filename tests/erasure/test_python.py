"""The arguments of `erase` become one request."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from knowundo import erase
from knowundo.erasure.request import ErasureRequest, recipe_of
from knowundo.errors import BadInput
from knowundo.progress import Reporter
from tiny_run import Said


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[ErasureRequest]:
    found: list[ErasureRequest] = []

    def run_request(request: ErasureRequest, reporter: Reporter) -> SimpleNamespace:
        found.append(request)
        return SimpleNamespace(exported=None)

    monkeypatch.setattr("knowundo.erasure.python.run_request", run_request)
    return found


@pytest.fixture
def loaded(toy_base: str) -> tuple[Any, Any]:
    net = AutoModelForCausalLM.from_pretrained(toy_base, dtype=torch.float32)
    return net, AutoTokenizer.from_pretrained(toy_base)


def test_a_name_and_files_are_the_request_of_the_command(
    requests: list[ErasureRequest], tmp_path: Path
) -> None:
    erase(
        "my/model", None, "rows.jsonl", out=tmp_path, retention=Path("stay.csv"), general="t.txt",
        adapter="a", route="adapter", sets=["seed=1"], form="merged", redact=True,
    )  # fmt: skip
    assert requests == [
        ErasureRequest(
            "my/model", Path("rows.jsonl"), tmp_path, adapter=Path("a"), retention=Path("stay.csv"),
            general="t.txt", route="adapter", sets=("seed=1",), form="merged", redact=True,
        )
    ]  # fmt: skip


def test_a_loaded_model_is_named_after_where_it_was_loaded_from(
    requests: list[ErasureRequest], loaded: tuple[Any, Any], toy_base: str, tmp_path: Path
) -> None:
    erase(*loaded, [("Who?", "She.")], out=tmp_path)
    (request,) = requests
    assert (request.model, request.start) == (toy_base, toy_base)
    made = recipe_of(request)
    assert (made["model"]["base"], made["model"]["dtype"]) == (toy_base, "float32")
    assert made["model"]["device"] == "cpu"


def test_without_a_directory_a_new_one_is_named_and_said(
    requests: list[ErasureRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = Said()
    for _ in range(2):
        erase("my/model", None, ["Who?"], reporter=said)
        requests[-1].out.mkdir(parents=True)
    first, second = (request.out for request in requests)
    assert first != second
    assert re.fullmatch(r"runs/erase-\d{8}-\d{6}", str(first))
    assert said.lines == [f"out: {first}", f"out: {second}"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"retain": ["Who?"]}, "unknown argument of erase 'retain'; did you mean 'retention'"),
        ({"rout": "full"}, "unknown argument of erase 'rout'; did you mean 'route'?"),
        ({"tokenizer": None}, "tokenizer: a loaded model needs its own"),
        ({"sets": ("model.dtype=bfloat16",)}, "--set model.dtype: the model is loaded already"),
        ({"rows": []}, "rows: has no rows"),
        ({"model": "my/model"}, "tokenizer: a model that is named brings its own"),
        ({"rows": [{"q": 1}]}, "rows, row 1: not a known kind of row"),
    ],
)
def test_unusable_arguments_are_named(
    changes: dict[str, Any], said: str, loaded: tuple[Any, Any], tmp_path: Path
) -> None:
    usual = {"model": loaded[0], "tokenizer": loaded[1], "rows": [("Who?", "She.")]}
    out = tmp_path / "out"
    with pytest.raises(BadInput, match=said):
        erase(**{**usual, "out": out, "reporter": Reporter(), **changes})
    assert not out.exists()
