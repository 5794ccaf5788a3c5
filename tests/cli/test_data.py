"""`knowundo data export` writes the benchmark's own files, and overwrites none."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import Call


def test_data_export(knowundo: Call, tmp_path: Path) -> None:
    done = knowundo("data", "export", "--out", "out", "--subjects", "3")
    assert done.returncode == 0, done.stderr
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.json"))
    assert files == [
        f"out/{domain}/{scope}.json"
        for domain in ("copyright", "privacy")
        for scope in ("retention", "unlearn")
    ]
    again = knowundo("data", "export", "--out", "out", "--subjects", "3")
    assert again.returncode == 2
    assert "add --force" in again.stderr


def test_data_describe(knowundo: Call, tmp_path: Path) -> None:
    done = knowundo("data", "describe", "--subjects", "2", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["benchmark"], found["domain"]) == ("embedded", "copyright")
    train = found["groups"][0]
    assert (train["scope"], train["split"], train["rows"], train["subjects"]) == (
        "unlearn", "train", 6, 2,
    )  # fmt: skip
    assert train["tokens"]["longest"] > train["answer_words"]["longest"]
    plain = knowundo("data", "describe", "--domain", "privacy", "--subjects", "2").stdout
    assert "unlearn/train" in plain
    assert "general/val: 60 qa, 30 text." in plain
    assert "Entanglement of unlearn and retention: tfidf 0." in plain
    assert max(map(len, plain.splitlines()[:11])) <= 80


def test_data_describe_refuses_in_one_line(knowundo: Call) -> None:
    for words, said in (
        (("--domain", "privat"), "did you mean 'privacy'"),
        (("--base", "/no/such/base"), "base '/no/such/base': its tokenizer cannot be loaded"),
        (("--benchmark", "tofu", "--source", "none"), "no such folder"),
    ):
        done = knowundo("data", "describe", *words)
        assert done.returncode == 2
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
