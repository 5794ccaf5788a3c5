"""Methods that go wrong, as plugins of a user's."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowundo.registry import ENTRIES, entries

BLOWS_UP = '''
from knowundo.registry import method

@method
def blows_up(step):
    """A loss that is not finite from its second step on."""
    nll = step.unlearn.mean_nll.mean()
    blows_up.calls = getattr(blows_up, "calls", 0) + 1
    return {"unlearn": nll / 0.0 if blows_up.calls > 1 else nll}
'''

STEEP = '''
from knowundo.registry import method

@method
def steep(step, *, below: float = 0.0):
    """A loss that is finite everywhere, with a gradient that is not where it is below a number."""
    nll = step.unlearn.mean_nll.mean()
    return {"unlearn": nll + (0.0 if nll > below else (nll - nll).abs().sqrt())}
'''

FICKLE = '''
from knowundo.registry import method

@method
def fickle(step):
    """A loss with a state of its own, which is not finite from its fourth call on."""
    fickle.calls = getattr(fickle, "calls", 0) + 1
    nll = step.unlearn.mean_nll.mean()
    return {"unlearn": nll / 0.0 if fickle.calls > 3 else nll}
'''


def install(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str = "method") -> None:
    """Make the method, or what it is, of a plugin's text known, until the test ends."""
    monkeypatch.setitem(ENTRIES, kind, entries(kind))
    folder.mkdir(exist_ok=True)
    (folder / "plugin.py").write_text(text)
    monkeypatch.setenv("KNOWUNDO_PLUGINS", str(folder))
