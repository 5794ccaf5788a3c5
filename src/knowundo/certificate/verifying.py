"""Verifying a certificate: its signature, its documents, and the weights that it is about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from knowundo.certificate.keys import read_public_key
from knowundo.certificate.model_files import model_files
from knowundo.certificate.statement import ENVELOPE, EVIDENCE, FOLDER, PUBLIC, ReadEnvelope
from knowundo.errors import BadInput
from knowundo.runs.recipe_file import RECIPE
from knowundo.storage.files import file_hash, is_inside, read_json
from knowundo.storage.integrity import Finding, verify


def is_certificate(folder: Path) -> bool:
    """True if a folder holds a certificate, whole or not."""
    return (folder / ENVELOPE).is_file() or (folder / EVIDENCE).is_file()


def certificates_of(out: Path) -> list[Path]:
    """The certificates inside a run's directory."""
    return [folder for folder in sorted((out / FOLDER).glob("*")) if is_certificate(folder)]


def verify_all(
    place: Path, *, model: Path | None = None, public: Path | None = None
) -> list[Finding]:
    """Verify a certificate; or a run, with every certificate in it.

    Args:
        place: Folder of a certificate, or directory of a run.
        model: As for `verify_certificate`.
        public: As for `verify_certificate`.

    Raises:
        BadInput: There is neither; or the options name a certificate, and there are none.
    """
    if is_certificate(place):
        return verify_certificate(place, model=model, public=public)
    found, certificates = verify(place), certificates_of(place)
    if not certificates and (model is not None or public is not None):
        raise BadInput(f"{place}: holds no certificate; leave out --model and --public-key")
    for folder in certificates:
        for one in verify_certificate(folder, model=model, public=public):
            found.append(one.model_copy(update={"name": f"{FOLDER}/{folder.name}: {one.name}"}))
    return found


def verify_certificate(
    folder: Path, *, model: Path | None = None, public: Path | None = None
) -> list[Finding]:
    """Verify everything that a certificate binds.

    Args:
        folder: Of the certificate.
        model: Folder of the weights. If `None`, where the run has them; elsewhere they are not
            checked.
        public: Public key of the controller (PEM). If `None`, the one beside the certificate, which
            shows that nothing was changed by accident, and not who signed it.

    Returns:
        A finding for the signature, each document and each file of the weights.

    Raises:
        BadInput: There is no certificate, or a key cannot be read.
    """
    if not (folder / ENVELOPE).is_file():
        raise BadInput(f"{folder}: no certificate (no {ENVELOPE}); run `knowundo certify` again")
    try:
        envelope = ReadEnvelope(folder / ENVELOPE)
    except BadInput as error:
        said = str(error).removeprefix(f"{folder / ENVELOPE}: ")
        return [Finding(name=ENVELOPE, state="changed", detail=said)]
    found = [_signature(folder, envelope, public), *_documents(folder, envelope)]
    place = model or _weights_of(folder, envelope)
    return [*found, *_weights(place, envelope)]


def _signature(folder: Path, envelope: ReadEnvelope, public: Path | None) -> Finding:
    name = "signature"
    beside = folder / PUBLIC
    if not envelope.signed:
        if public is None and not beside.exists():
            return Finding(name=name, state="unsigned", detail="only hashes hold it together")
        return Finding(name=name, state="missing", detail="there is a key, and no signature")
    if public is None and not beside.exists():
        return Finding(name=name, state="missing", detail=f"its key {PUBLIC}; name --public-key")
    try:
        key = read_public_key(public or beside)
    except BadInput as error:
        if public is not None or "extra" in str(error):
            raise
        return Finding(name=PUBLIC, state="changed", detail="no public key")
    if not envelope.signed_by(key):
        return Finding(name=name, state="wrong", detail=f"not of key {key.keyid[:16]}")
    whose = "by the key beside it; compare its id" if public is None else "by the named key"
    return Finding(name=name, state="ok", detail=f"{whose}: {key.keyid}")


def _documents(folder: Path, envelope: ReadEnvelope) -> Iterator[Finding]:
    """Each file of the certificate but the envelope."""
    yield from _compared(folder, envelope.documents)
    for file in sorted(folder.iterdir()):
        if file.name != ENVELOPE and file.name not in envelope.documents:
            yield Finding(
                name=file.name, state="extra", detail="not one of the certificate's files"
            )
    evidence, said = folder / EVIDENCE, envelope.statement["predicate"].get("evidence")
    whole = evidence.is_file() and file_hash(evidence) == envelope.documents.get(EVIDENCE)
    if whole and read_json(evidence) != said:
        yield Finding(name=EVIDENCE, state="changed", detail="not what the statement says")


def _compared(folder: Path, digests: dict[str, str]) -> Iterator[Finding]:
    for name, digest in sorted(digests.items()):
        if not is_inside(name) or not (folder / name).is_file():
            yield Finding(name=name, state="missing")
        elif file_hash(folder / name) != digest:
            yield Finding(name=name, state="changed", detail="since it was certified")
        else:
            yield Finding(name=name, state="ok", detail=digest[:12])


def _weights_of(folder: Path, envelope: ReadEnvelope) -> Path | None:
    """Where a run has the weights, if the certificate still is inside of it."""
    name = envelope.statement["predicate"].get("evidence", {}).get("folder")
    if not isinstance(name, str) or not is_inside(name):
        return None
    place = folder.resolve().parent.parent / name
    # Outside of its run nobody knows where the weights are.
    inside = (folder.resolve().parent.parent / RECIPE).is_file()
    return place if inside or place.is_dir() else None


def _weights(place: Path | None, envelope: ReadEnvelope) -> Iterator[Finding]:
    if place is None:
        yield Finding(name="weights", state="unchecked", detail="name their folder with --model")
        return
    subjects = envelope.subjects
    yield from _compared(place, subjects)
    try:
        there = {one.name for one in model_files(place)}
    except BadInput:
        there = set()
    for name in sorted(there - set(subjects)):
        yield Finding(name=name, state="extra", detail="not one of the certified weights")
