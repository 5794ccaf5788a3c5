"""A run to certify, and the keys of its controller."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from knowundo.pipeline.whole import run_to_scores
from knowundo.runs.run import Run
from tiny_run import tiny_run


@pytest.fixture(scope="session")
def scored(toy_base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run whose recipe has criteria."""
    run = tiny_run(tmp_path_factory.mktemp("certified") / "run", toy_base, "acceptance={}")
    run_to_scores(run)
    return run.out


@pytest.fixture
def run(scored: Path, tmp_path: Path) -> Run:
    """A copy of it, to be changed."""
    shutil.copytree(scored, tmp_path / "run")
    return Run.existing(tmp_path / "run")


def write_key(path: Path) -> Path:
    private = Ed25519PrivateKey.generate()
    text = private.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption())
    path.write_bytes(text)
    public = private.public_key().public_bytes(
        pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo
    )
    path.with_suffix(".pub").write_bytes(public)
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A private key; its public key lies beside it, with the ending `.pub`."""
    return write_key(tmp_path / "controller.pem")
