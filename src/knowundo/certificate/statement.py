"""The signed statement: evidence, documents and weights bound together.

An in-toto Statement (v1) whose subjects are the files of the weights and whose predicate is the
evidence, in an envelope of DSSE (v1), which tools for supply chains verify. Its signature is
ed25519. Without a key the envelope has none: then only the hashes hold it together.
"""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowundo.certificate.evidence import Evidence
from knowundo.certificate.keys import SigningKey
from knowundo.errors import BadInput
from knowundo.storage.files import file_hash, parse_json, read_text

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

# Certificates in a run's directory, one folder a model, and the files of each.
FOLDER = "certificate"
EVIDENCE, PAGE, CARD = "evidence.json", "certificate.html", "model.cdx.json"
PUBLIC, ENVELOPE = "controller.pub", "evidence.dsse.json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:knowundo:evidence:v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"


def make_statement(evidence: Evidence, documents: list[Path]) -> dict[str, Any]:
    """The statement on a model.

    Args:
        evidence: On the model.
        documents: Files beside the statement that belong to it.
    """
    subject = [{"name": one.name, "digest": {"sha256": one.sha256}} for one in evidence.weights]
    return {
        "_type": STATEMENT_TYPE,
        "subject": subject,
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "documents": {file.name: file_hash(file) for file in documents},
            "evidence": evidence.model_dump(mode="json"),
        },
    }


def sealed_envelope(statement: dict[str, Any], key: SigningKey | None) -> str:
    """A statement in an envelope, as the text of its file.

    Args:
        statement: As `make_statement` makes it.
        key: Signs it. If `None`, the envelope has no signature.
    """
    payload = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
    signatures: list[Any] = []
    if key is not None:
        from securesystemslib.dsse import Envelope

        envelope = Envelope(payload, PAYLOAD_TYPE, {})
        envelope.sign(key.signer)
        signatures = envelope.to_dict()["signatures"]
    return _written(payload, signatures)


def _written(payload: bytes, signatures: list[Any]) -> str:
    """The one way in which an envelope is written, so that each byte of its file counts."""
    encoded = base64.b64encode(payload).decode()
    whole = {"payloadType": PAYLOAD_TYPE, "payload": encoded, "signatures": signatures}
    return json.dumps(whole, indent=1) + "\n"


class ReadEnvelope:
    """An envelope as it was read from a file.

    Attributes:
        statement: What it holds.
        signed: Whether it has a signature at all.
    """

    def __init__(self, path: Path) -> None:
        """Read it; no signature is verified yet.

        Args:
            path: Its file.

        Raises:
            BadInput: It is no envelope of a statement on evidence, or not one byte for byte.
        """
        text = read_text(path)
        found = parse_json(text, path, None, _AGAIN)
        try:
            payload = base64.b64decode(found["payload"], validate=True)
            signatures = found["signatures"]
            self.statement: dict[str, Any] = json.loads(payload)
            self.statement["predicate"]["documents"].items()
            kinds = self.statement["_type"], self.statement["predicateType"]
            as_written = _written(payload, signatures)
        except (KeyError, TypeError, AttributeError, ValueError, binascii.Error):
            raise BadInput(f"{path}: no envelope of a statement on evidence; {_AGAIN}") from None
        if kinds != (STATEMENT_TYPE, PREDICATE_TYPE) or text != as_written:
            raise BadInput(f"{path}: changed since it was written; {_AGAIN}")
        self._found, self._path = found, path
        self.signed = bool(signatures)

    @property
    def subjects(self) -> dict[str, str]:
        """sha256 of each file of the weights."""
        return {one["name"]: one["digest"]["sha256"] for one in self.statement["subject"]}

    @property
    def documents(self) -> dict[str, str]:
        """sha256 of each file beside the envelope."""
        return dict(self.statement["predicate"]["documents"])

    def signed_by(self, public: SSlibKey) -> bool:
        """True if the signature is that of a key."""
        from securesystemslib.dsse import Envelope
        from securesystemslib.exceptions import Error

        try:
            # `from_dict` changes what it is given.
            envelope = Envelope.from_dict(json.loads(json.dumps(self._found)))
            envelope.verify([public], 1)
        except (Error, KeyError, ValueError, TypeError):
            return False
        return True


_AGAIN = "certify the run again, or ask for the certificate again"
