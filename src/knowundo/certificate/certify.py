"""certify(): the certificate of one model of a run, in `RUN/certificate/VARIANT`.

evidence.json       everything that it rests on
certificate.html    the same on one page
model.cdx.json      the same for machines: a model card in CycloneDX 1.6
controller.pub      the public key, if it is signed
evidence.dsse.json  the statement that binds these files and the weights, signed or not
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from knowundo.certificate.bill_of_materials import bill_of_materials
from knowundo.certificate.collecting import collect
from knowundo.certificate.evidence import Evidence, read_evidence
from knowundo.certificate.keys import SigningKey, read_signing_key, run_key
from knowundo.certificate.page import render_page
from knowundo.certificate.statement import (
    CARD,
    ENVELOPE,
    EVIDENCE,
    FOLDER,
    PAGE,
    PUBLIC,
    make_statement,
    sealed_envelope,
)
from knowundo.certificate.verifying import verify_certificate
from knowundo.distributed.group import from_main
from knowundo.errors import BadInput
from knowundo.runs.run import Run
from knowundo.storage.files import write_text
from knowundo.storage.integrity import unseal
from knowundo.storage.locks import alone


class Certificate(NamedTuple):
    """A certificate that was written."""

    folder: Path
    evidence: Evidence
    key_id: str | None  # of the signature; `None` if it is not signed


@alone
def certify(
    run: Run,
    variant: str,
    *,
    key: Path | None = None,
    reveal: bool = False,
    exported: Path | None = None,
) -> Certificate:
    """Write the certificate of one model; an older one is replaced.

    Args:
        run: An evaluated run. Nothing is computed but hashes.
        variant: Name of the model.
        key: The controller's ed25519 private key (PEM). If `None`, the certificate is not signed,
            and texts are hidden with a key that is drawn for the run.
        reveal: Also show the texts that had to go.
        exported: Folder of an export of the model, if that is what is delivered.

    Raises:
        BadInput: No such model, or not scored as it is now; the key cannot be used. Nothing was
            written then.
    """
    return from_main(lambda: _certified(run, variant, key, reveal, exported))


def _certified(
    run: Run, variant: str, key: Path | None, reveal: bool, exported: Path | None
) -> Certificate:
    signing = None if key is None else read_signing_key(key)
    hiding = run_key(run.out) if signing is None else signing.hiding
    evidence = collect(run, variant, hiding, reveal=reveal, exported=exported)
    folder = run.out / FOLDER / variant
    if (held := _held(folder, evidence, signing)) is not None:
        return held
    return _write(run, folder, evidence, signing)


def _key_id(signing: SigningKey | None) -> str | None:
    return None if signing is None else str(signing.signer.public_key.keyid)


def _held(folder: Path, evidence: Evidence, signing: SigningKey | None) -> Certificate | None:
    """The certificate that is there, if only its date would change."""
    if not (folder / ENVELOPE).is_file() or (folder / PUBLIC).is_file() != (signing is not None):
        return None
    try:
        held = read_evidence(folder / EVIDENCE)
        damaged = any(one.bad for one in verify_certificate(folder))
    except BadInput:  # it is damaged; writing it again is the remedy
        return None
    same = held.model_copy(update={"certified": evidence.certified}) == evidence
    return None if damaged or not same else Certificate(folder, held, _key_id(signing))


def _write(run: Run, folder: Path, evidence: Evidence, signing: SigningKey | None) -> Certificate:
    # Without its envelope what is there is no certificate, wherever this process is killed.
    unseal(run.out, f"{FOLDER}/{folder.name}")
    for name in (ENVELOPE, PUBLIC):
        (folder / name).unlink(missing_ok=True)
    key_id = _key_id(signing)
    texts = {
        EVIDENCE: json.dumps(evidence.model_dump(mode="json"), indent=1, allow_nan=False) + "\n",
        PAGE: render_page(evidence, key_id),
        CARD: json.dumps(bill_of_materials(evidence), indent=1, allow_nan=False) + "\n",
    }
    if signing is not None:
        texts[PUBLIC] = signing.public
    for name, text in texts.items():
        write_text(folder / name, text)
    documents = [folder / name for name in texts]
    statement = make_statement(evidence, documents)
    write_text(folder / ENVELOPE, sealed_envelope(statement, signing))
    run.seal(*documents, folder / ENVELOPE)
    return Certificate(folder, evidence, key_id)
