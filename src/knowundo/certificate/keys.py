"""The controller's keys: one that signs, and one that hides texts.

A plain hash of a short text, such as a telephone number, is found by trying all. So texts of the
unlearn scope stand in the evidence as HMAC-SHA256 (RFC 2104) with a key that only the controller
holds: derived from the signing key, or drawn once for a run and kept in its directory.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from knowundo.errors import BadInput, first_line
from knowundo.storage.files import read_text

if TYPE_CHECKING:
    from securesystemslib.signer import (  # type: ignore[attr-defined]
        CryptoSigner,
        SSlibKey,
    )

# In a run's directory; no part of what is handed out.
RUN_KEY = "certificate.key"
# Separates the derived key from the signing key itself, and from later uses.
_PURPOSE = b"knowundo certificate: hide texts, version 1"
_EXTRA = "signing needs the extra `sign`: pip install 'knowundo[sign]'"


@dataclass(frozen=True)
class HidingKey:
    """The key of the HMACs.

    Attributes:
        secret: 32 bytes.
        source: Where it comes from.
    """

    secret: bytes
    source: Literal["signing key", "run"]

    def hide(self, value: Any) -> str:
        """HMAC-SHA256 (hex) of a JSON value."""
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        content = text.encode("utf-8", "surrogatepass")
        return hmac.new(self.secret, content, hashlib.sha256).hexdigest()

    @property
    def key_id(self) -> str:
        """What tells the key from others, and does not reveal it."""
        return self.hide("key id")


@dataclass(frozen=True)
class SigningKey:
    """An ed25519 private key of the controller.

    Attributes:
        signer: Signs bytes.
        public: Its public key, PEM.
        hiding: The key that is derived from it.
    """

    signer: CryptoSigner
    public: str
    hiding: HidingKey


def read_signing_key(path: Path) -> SigningKey:
    """Read an ed25519 private key (PEM, PKCS#8, without a password).

    `openssl genpkey -algorithm ed25519 -out controller.pem` makes one.

    Raises:
        BadInput: No such key, or the extra `sign` is not installed.
    """
    try:
        from cryptography.hazmat.primitives import serialization as pem
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]
    except ImportError:
        raise BadInput(f"--key {path}: {_EXTRA}") from None
    try:
        private = pem.load_pem_private_key(read_text(path).encode(), password=None)
    except (ValueError, TypeError) as error:
        raise BadInput(f"--key {path}: {first_line(error)[:80]}; {_HOW_TO_MAKE}") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise BadInput(f"--key {path}: no ed25519 key; {_HOW_TO_MAKE}")
    public = private.public_key().public_bytes(
        pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo
    )
    secret = hmac.new(private.private_bytes_raw(), _PURPOSE, hashlib.sha256).digest()
    return SigningKey(CryptoSigner(private), public.decode(), HidingKey(secret, "signing key"))


_HOW_TO_MAKE = "make one: openssl genpkey -algorithm ed25519 -out controller.pem"


def read_public_key(path: Path) -> SSlibKey:
    """Read an ed25519 public key (PEM).

    Raises:
        BadInput: No such key, or the extra `sign` is not installed.
    """
    try:
        from cryptography.hazmat.primitives import serialization as pem
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]
    except ImportError:
        raise BadInput(f"{path}: verifying a signature needs the extra `sign`") from None
    try:
        public = pem.load_pem_public_key(read_text(path).encode())
    except (ValueError, TypeError) as error:
        raise BadInput(f"{path}: {first_line(error)[:80]}; name a public key (PEM)") from None
    if not isinstance(public, Ed25519PublicKey):
        raise BadInput(f"{path}: no ed25519 public key; name that of the controller")
    return SSlibKey.from_crypto(public)


def run_key(out: Path) -> HidingKey:
    """The key that was drawn for a run; drawn now if there is none yet.

    Raises:
        BadInput: The file is damaged.
    """
    file = out / RUN_KEY
    if not file.exists():
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as opened:
            opened.write(secrets.token_hex(32) + "\n")
    text = read_text(file).strip()
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise BadInput(f"{file}: no key of 64 hexadecimal digits; restore it, or remove it")
    return HidingKey(bytes.fromhex(text), "run")


def hidden_row(key: HidingKey, question: str, answer: str) -> str:
    """HMAC of a row: of the JSON list [question, answer]."""
    return key.hide([question, answer])


def hidden_list(key: HidingKey, rows: Sequence[tuple[str, str]]) -> str:
    """HMAC over all rows, in order."""
    return key.hide([list(row) for row in rows])
