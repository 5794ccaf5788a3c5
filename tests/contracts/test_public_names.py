"""What users import: sorted, complete, and cheap until used."""

from __future__ import annotations

import subprocess
import sys

import knowundo


def test_public_names_are_sorted_and_there() -> None:
    assert knowundo.__all__ == sorted(knowundo.__all__)
    for name in knowundo.__all__:
        assert getattr(knowundo, name) is not None


def test_every_entry_point_is_public() -> None:
    """Functions, not the packages that they are in."""
    for name in ("certify", "erase", "estimate", "export", "sweep"):
        assert name in knowundo.__all__
        assert callable(getattr(knowundo, name))


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, knowundo; assert not {'torch', 'pydantic', 'pandas'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
