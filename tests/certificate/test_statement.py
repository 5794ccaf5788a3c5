"""The envelope is DSSE, and no byte of it can be changed."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from certificate.conftest import write_key
from certified import evidence, row
from knowundo.certificate.keys import read_public_key, read_signing_key
from knowundo.certificate.statement import (
    PAYLOAD_TYPE,
    ReadEnvelope,
    make_statement,
    sealed_envelope,
)
from knowundo.errors import BadInput


@pytest.fixture
def file(tmp_path: Path, key: Path) -> Path:
    (tmp_path / "page").write_text("text")
    statement = make_statement(evidence(row("m", "exact_match", 0.0)), [tmp_path / "page"])
    path = tmp_path / "evidence.dsse.json"
    path.write_text(sealed_envelope(statement, read_signing_key(key)))
    return path


def test_the_signature_is_that_of_the_specification(file: Path, key: Path) -> None:
    whole = json.loads(file.read_text())
    payload = base64.b64decode(whole["payload"])
    statement = json.loads(payload)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"] == [
        {"name": "adapter_model.safetensors", "digest": {"sha256": "3" * 64}}
    ]
    # Pre-authentication encoding, DSSE v1.
    signed = b"DSSEv1 %d %s %d %s" % (
        len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload,
    )  # fmt: skip
    public = load_pem_public_key(key.with_suffix(".pub").read_bytes())
    signature = base64.b64decode(whole["signatures"][0]["sig"])
    public.verify(signature, signed)  # type: ignore[union-attr, call-arg, arg-type]


def test_only_its_own_key_verifies_it(file: Path, key: Path, tmp_path: Path) -> None:
    envelope = ReadEnvelope(file)
    assert envelope.signed
    assert envelope.signed_by(read_public_key(key.with_suffix(".pub")))
    other = write_key(tmp_path / "other.pem")
    assert not envelope.signed_by(read_public_key(other.with_suffix(".pub")))


def test_no_byte_can_be_changed(file: Path, key: Path) -> None:
    public = read_public_key(key.with_suffix(".pub"))
    whole = file.read_bytes()
    places = [*range(0, len(whole), 499), *range(len(whole) - 180, len(whole))]
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1
        file.write_bytes(bytes(changed))
        try:
            passed = ReadEnvelope(file).signed_by(public)
        except BadInput:
            passed = False
        assert not passed, place


def test_what_is_no_envelope_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evidence.dsse.json"
    for text in ("{}", "[]", '{"payload": "e30=", "signatures": []}', '{"payload": 1}', "null"):
        path.write_text(text)
        with pytest.raises(BadInput, match="no envelope of a statement"):
            ReadEnvelope(path)
