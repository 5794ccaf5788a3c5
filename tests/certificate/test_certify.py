"""A certificate of a run: what is in it, what is not, and what verification sees."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from certificate.conftest import write_key
from conftest import Call
from knowundo.certificate.certify import certify
from knowundo.certificate.keys import hidden_row, read_signing_key
from knowundo.certificate.verifying import verify_all, verify_certificate
from knowundo.errors import BadInput
from knowundo.recipes.acceptance import SEALED
from knowundo.runs.purge import holdings, purge
from knowundo.runs.run import Run
from knowundo.storage.artifacts import MANIFEST
from knowundo.storage.integrity import seal

NAME = "gradient_ascent"


def bad(folder: Path, **options: Path) -> list[tuple[str, str]]:
    return [(one.name, one.state) for one in verify_certificate(folder, **options) if one.bad]


def test_a_signed_certificate(run: Run, key: Path) -> None:
    done = certify(run, NAME, key=key)
    assert {file.name for file in done.folder.iterdir()} == {
        "evidence.json", "certificate.html", "model.cdx.json", "controller.pub",
        "evidence.dsse.json",
    }  # fmt: skip
    found = verify_all(run.out, public=key.with_suffix(".pub"))
    assert [one for one in found if one.bad] == []
    assert "certificate/gradient_ascent: adapter_model.safetensors" in {f.name for f in found}
    evidence = done.evidence
    assert evidence.criteria == "before the run"
    assert evidence.answer("sampling").state == "not_tested"
    assert evidence.answer("asked").state == "not_tested"  # train rows were not answered freely
    assert [parent.role for parent in evidence.parents] == ["base", "memorized"]
    listed = [r for r in run.records if (r.scope, r.split) == ("unlearn", "train")]
    hiding = read_signing_key(key).hiding
    assert [e.row for e in evidence.scope.entries] == [
        hidden_row(hiding, r.question, r.answer) for r in listed
    ]
    assert {person.asked for person in evidence.people} == {1}
    # The same again is not written again; with other texts shown it is.
    before = (done.folder / "evidence.dsse.json").stat().st_mtime_ns
    assert certify(run, NAME, key=key) == done
    assert (done.folder / "evidence.dsse.json").stat().st_mtime_ns == before
    assert certify(run, NAME, key=key, reveal=True).evidence.scope.entries[0].answer


def test_no_text_is_in_it_unless_asked(run: Run) -> None:
    private = [
        text
        for r in run.records
        if r.scope == "unlearn"
        for text in (r.question, r.answer, str(r.subject))
    ]

    def whole(folder: Path) -> str:
        return "".join(file.read_text() for file in folder.iterdir())

    hidden = whole(certify(run, NAME).folder)
    assert not [text for text in private if text in hidden]
    assert str(run.out) not in hidden
    shown = certify(run, NAME, reveal=True)
    assert private[0] in (shown.folder / "evidence.json").read_text()
    assert private[0] in (shown.folder / "certificate.html").read_text()


def test_a_purge_removes_what_shows_texts_only(run: Run) -> None:
    certify(run, NAME)
    assert "certificate/gradient_ascent" not in holdings(run.out)
    certify(run, NAME, reveal=True)
    assert "certificate/gradient_ascent" in holdings(run.out)
    purge(run.out)
    assert not (run.out / "certificate" / NAME).exists()
    assert not any(one.bad for one in verify_all(run.out))


@pytest.mark.parametrize("signed", [True, False])
def test_one_changed_byte_fails_verification(run: Run, key: Path, signed: bool) -> None:
    folder = certify(run, NAME, key=key if signed else None).folder
    assert bad(folder) == []
    files = [*folder.iterdir(), *(run.unlearned(NAME) / f for f in
             ("adapter_model.safetensors", "adapter_config.json"))]  # fmt: skip
    assert len(files) == 7 if signed else 6
    for file in files:
        whole = file.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 1):
            changed = bytearray(whole)
            changed[place] ^= 1
            file.write_bytes(bytes(changed))
            assert bad(folder), (file.name, place)
        file.write_bytes(whole)
    assert bad(folder) == []


def test_what_is_left_out_or_added_is_seen(run: Run, key: Path, tmp_path: Path) -> None:
    folder = certify(run, NAME, key=key).folder
    weights = run.unlearned(NAME)
    moved = shutil.copytree(folder, tmp_path / "handed")
    states = {one.name: one.state for one in verify_certificate(moved)}
    assert states["weights"] == "unchecked"
    assert bad(moved, model=weights) == []
    assert ("adapter_model.safetensors", "changed") in bad(moved, model=run.memorized)
    other = write_key(tmp_path / "other.pem").with_suffix(".pub")
    assert bad(moved, public=other) == [("signature", "wrong")]
    (moved / "more.txt").write_text("x")
    assert bad(moved) == [("more.txt", "extra")]
    (moved / "more.txt").unlink()
    # Without its signature it is no longer what its key signed.
    envelope = json.loads((moved / "evidence.dsse.json").read_text()) | {"signatures": []}
    (moved / "evidence.dsse.json").write_text(json.dumps(envelope, indent=1) + "\n")
    assert bad(moved) == [("signature", "missing")]
    (moved / "evidence.dsse.json").unlink()
    with pytest.raises(BadInput, match="no certificate"):
        verify_certificate(moved)
    shutil.copy(weights / "adapter_model.safetensors", weights / "more.safetensors")
    assert bad(folder) == [("more.safetensors", "extra")]


def test_criteria_that_came_after_the_run_do_not_count(run: Run) -> None:
    with pytest.raises(BadInput, match="holds a run of another recipe"):
        Run.existing(run.out, sets=["acceptance.reworded={metric: exact_match, at_most: 100}"])
    # Whoever rewrites the recipe with its seal leaves what the model's manifest says.
    recipe = run.out / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("at_most: 5.0", "at_most: 100.0"))
    seal(run.out, recipe)
    later = certify(Run.existing(run.out), NAME).evidence
    assert later.criteria == "not before the run"
    assert {one.state for one in later.answers} <= {"no_criterion", "not_tested"}
    assert "they count as none" in " ".join(later.limits)
    manifest = json.loads((run.unlearned(NAME) / MANIFEST).read_text())
    assert len(manifest[SEALED]) == 64


def test_what_cannot_be_certified_is_refused_before_anything_is_written(
    run: Run, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="did you mean 'gradient_ascent'"):
        certify(run, "gradient_ascend")
    with pytest.raises(BadInput, match="is the base itself"):
        certify(run, "base")
    with pytest.raises(BadInput, match="no such file"):
        certify(run, NAME, key=tmp_path / "none.pem")
    with pytest.raises(BadInput, match="no export"):
        certify(run, NAME, exported=run.memorized / "x")
    with pytest.raises(BadInput, match="not exported of"):
        certify(run, NAME, exported=run.memorized)
    results = run.out / "results.json"
    results.write_text(results.read_text().replace("0", "1", 1))
    with pytest.raises(BadInput, match="changed since it was written"):
        certify(run, NAME)
    assert not (run.out / "certificate").exists()


def test_the_commands(run: Run, key: Path, knowundo: Call) -> None:
    out = str(run.out)
    assert knowundo("verify", out, "--public-key", str(key)).returncode == 2
    done = knowundo("certify", out, "--variant", NAME, "--key", str(key))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("NOT ")
    assert "Is it forgotten under sampling? not tested" in done.stdout
    assert "(signed with key " in done.stdout
    public = str(key.with_suffix(".pub"))
    folder = str(run.out / "certificate" / NAME)
    assert knowundo("verify", out, "--public-key", public).returncode == 0
    assert knowundo("verify", folder, "--public-key", public, "--json").returncode == 0
    page = Path(folder) / "certificate.html"
    page.write_text(page.read_text() + " ")
    failed = knowundo("verify", folder)
    assert failed.returncode == 2
    assert "certificate.html (changed)" in failed.stderr
