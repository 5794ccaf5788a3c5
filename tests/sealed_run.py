"""A small directory laid out as a run, sealed as one."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from knowundo.storage.artifacts import new_folder
from knowundo.storage.integrity import seal

PRIVATE = "+44 020 7946 0991"


def artifact(folder: Path, **files: bytes) -> Path:
    with new_folder(folder, ["inputs"], seed=0) as aside:
        for name, content in files.items():
            (aside / name).write_bytes(content)
    return folder


def sealed_run(tmp_path: Path) -> Path:
    """A directory laid out as a run's, with small files."""
    out = tmp_path / "run"
    for name in ("memorized", "regions", "unlearned/a", "unlearned/b"):
        seal(out, artifact(out / name, weights=name.encode() * 50, curve=b"[]"))
    for name in ("a", "b"):
        with new_folder(out / "scores" / name, ["inputs"]) as aside:
            rows = {
                "scope": ["unlearn", "retention"],
                "question": ["What is her number?", "What is her job?"],
                "answer": [PRIVATE, "Pilot."],
                "said": [PRIVATE, "Pilot."],
                "token_ends": [[3, 16], [6]],
                "token_probabilities": [[99, 98], [97]],
                "token_accuracy": [1.0, 1.0],
            }
            pd.DataFrame(rows).to_parquet(aside / "rows.parquet")
        seal(out, out / "scores" / name)
    seal(out, artifact(out / "lists", unlearn=PRIVATE.encode()))
    for name in ("recipe.yaml", "results.json", "report.html"):
        (out / name).write_text(f"{name} {PRIVATE if name == 'report.html' else ''}")
        seal(out, out / name)
    return out
