"""Texts are hidden with a key, and keys that cannot be used are refused in one line."""

from __future__ import annotations

import hashlib
import hmac
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from knowundo.certificate.keys import (
    RUN_KEY,
    HidingKey,
    hidden_list,
    hidden_row,
    read_public_key,
    read_signing_key,
    run_key,
)
from knowundo.errors import BadInput


def test_a_hidden_row_is_the_hmac_of_question_and_answer() -> None:
    key = HidingKey(b"k" * 32, "run")
    message = '["Wo wohnt Jörg?","Köln"]'.encode()
    assert (
        hidden_row(key, "Wo wohnt Jörg?", "Köln")
        == hmac.new(b"k" * 32, message, hashlib.sha256).hexdigest()
    )
    assert hidden_list(key, [("a", "b")]) != hidden_list(key, [("a", "c")])
    assert HidingKey(b"l" * 32, "run").hide("a") != key.hide("a")


def test_the_key_of_a_run_is_drawn_once_and_for_its_owner(tmp_path: Path) -> None:
    first = run_key(tmp_path)
    assert run_key(tmp_path) == first
    assert stat.S_IMODE((tmp_path / RUN_KEY).stat().st_mode) == 0o600
    (tmp_path / "other").mkdir()
    assert run_key(tmp_path / "other").secret != first.secret
    (tmp_path / RUN_KEY).write_text("short")
    with pytest.raises(BadInput, match="no key of 64 hexadecimal digits"):
        run_key(tmp_path)


def test_one_key_always_hides_alike_and_is_not_shown(key: Path) -> None:
    first, again = read_signing_key(key), read_signing_key(key)
    assert first.hiding == again.hiding
    assert first.hiding.secret.hex() not in key.read_text() + first.public
    assert read_public_key(key.with_suffix(".pub")).keyid == first.signer.public_key.keyid


def test_other_keys_are_refused(tmp_path: Path, key: Path) -> None:
    curve = generate_private_key(SECP256R1()).private_bytes(
        pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption()
    )
    (tmp_path / "curve.pem").write_bytes(curve)
    (tmp_path / "text.pem").write_text("no key")
    locked = pem.load_pem_private_key(key.read_bytes(), None).private_bytes(
        pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.BestAvailableEncryption(b"secret")
    )
    (tmp_path / "locked.pem").write_bytes(locked)
    for name in ("curve.pem", "text.pem", "locked.pem", "missing.pem", "controller.pub"):
        with pytest.raises(BadInput) as caught:
            read_signing_key(tmp_path / name)
        assert name in str(caught.value)
    for name in ("curve.pem", "text.pem", "controller.pem"):
        with pytest.raises(BadInput, match=name):
            read_public_key(tmp_path / name)
