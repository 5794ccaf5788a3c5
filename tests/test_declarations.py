"""`knowundo list`: it reads what importing gives, and imports only where reading cannot tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from knowundo import registry
from knowundo.declarations import Declared, Paper, cited, declared, read_own, shown_defaults
from knowundo.registry import HOMES, entries


def rows(kind: str, **environment: str) -> list[dict[str, Any]]:
    """What `list --json` prints in a process of its own."""
    command = "from knowundo.cli import main; main()"
    words = [sys.executable, "-c", command, "list", f"{kind}s", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", HOMES)
def test_reading_gives_what_importing_gives(kind: str) -> None:
    """Also the order of keys, in which they are printed."""
    own = [e for e in entries(kind).values() if e.function.__module__.startswith(HOMES[kind])]
    read = read_own(kind)
    assert [one.name for one in read] == [entry.name for entry in own]
    for one, entry in zip(read, own, strict=True):
        arguments = shown_defaults(entry.arguments)
        assert list(one.arguments.items()) == list(arguments.items()), one.name
        assert list(one.facts.items()) == list(entry.facts.items()), one.name
        assert one.summary == entry.summary
        assert one.papers == cited(entry.function.__doc__)


def test_citations_are_read_from_docstrings() -> None:
    text = """A loss (Jang et al. 2023, arXiv:2210.01504).

    With answers, Eldan and Russinovich
    2023, arXiv:2310.02238, equation 2; Yang 2025, arXiv:2503.01224; Li et al. 2024 (WMDP),
    arXiv:2403.03218; again Jang et al. 2023,
    arXiv:2210.01504. Not arXiv:2401.00001.
    """
    assert cited(text) == (
        Paper("Jang et al. 2023", "2210.01504"),
        Paper("Eldan and Russinovich 2023", "2310.02238"),
        Paper("Yang 2025", "2503.01224"),
        Paper("Li et al. 2024", "2403.03218"),
    )
    assert cited(None) == ()


def test_every_method_names_its_paper_and_what_it_reads() -> None:
    methods = read_own("method")
    assert [one.name for one in methods if not one.papers or not one.facts["reads"]] == []


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys\n"
        "from knowundo.cli.listing import What, listing\n"
        "for what in What:\n"
        "    listing(what)\n"
        "    listing(what, as_json=True)\n"
        "assert not {'torch', 'transformers', 'pandas'} & set(sys.modules)\n"
    )
    environment = os.environ | {"KNOWUNDO_PLUGINS": ""}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


THIRD_PARTY = '''
from knowundo.registry import benchmark

@benchmark(domains=("moon",), licence="yours", citation="nobody")
def craters(*, domain: str, seed: int = 1 + 1):
    """Craters of the moon."""
'''
# What `@metric(higher_is="forgotten")` declares.
FACTS = {
    "higher_is": "forgotten", "unit": "percent", "groups": (), "asks": (), "interval": True,
}  # fmt: skip
CRATERS = {
    "name": "craters",
    "arguments": {"domain": "required", "seed": 2},
    "summary": "Craters of the moon.",
    "domains": ["moon"],
    "licence": "yours",
    "citation": "nobody",
}


def test_a_plugin_folder_is_listed(tmp_path: Path) -> None:
    (tmp_path / "craters.py").write_text(THIRD_PARTY)
    listed = rows("benchmark", KNOWUNDO_PLUGINS=str(tmp_path))
    assert CRATERS in listed
    assert "embedded" in [row["name"] for row in listed]


def test_an_entry_point_is_listed(tmp_path: Path) -> None:
    (tmp_path / "craters.py").write_text(THIRD_PARTY)
    installed = tmp_path / "craters-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: craters\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[knowundo.benchmark]\ncraters = craters\n")
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    listed = rows("benchmark", PYTHONPATH=path)
    assert CRATERS in listed
    assert "embedded" in [row["name"] for row in listed]


Write = Callable[[str], None]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Puts a file of metrics where the package's own would lie."""
    folder = tmp_path / "moon" / "metrics"
    folder.mkdir(parents=True)
    for package in (folder.parent, folder):
        (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("KNOWUNDO_PLUGINS", raising=False)
    monkeypatch.setitem(registry.HOMES, "metric", "moon.metrics")
    monkeypatch.setitem(registry.ENTRIES, "metric", {})
    registry._scan.cache_clear()  # it remembers the package's own home

    def write(text: str) -> None:
        (folder / "odd.py").write_text(f"from knowundo.registry import metric\n{text}")

    yield write
    registry._scan.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "moon"]:
        del sys.modules[name]


def test_a_file_is_read_and_not_run(home: Write) -> None:
    home(
        "LAST = -1.5\n"
        "raise RuntimeError\n"
        "def helper(*, size=4): ...\n"
        "@metric(higher_is='forgotten')\n"
        "def odd(scores, plain=3, *, first: int, last: float = LAST, names=('a', None)):\n"
        "    '''Odd.\n\n    More.\n    '''\n"
    )
    arguments = {"first": "required", "last": -1.5, "names": ("a", None)}
    facts = FACTS
    assert declared("metric") == [Declared("odd", arguments, "Odd.", facts)]


@pytest.mark.parametrize(
    ("default", "facts"),
    [
        ("1 + 1", "higher_is='forgotten'"),
        ("len('ab')", "higher_is='forgotten'"),
        ("two", "higher_is='forgotten'"),
        ("2", "higher_is='forgotten'.lower()"),
        ("2", "**{'higher_is': 'forgotten'}"),
    ],
)
def test_what_is_no_literal_is_imported(home: Write, default: str, facts: str) -> None:
    function = f"def odd(scores, *, size={default}):\n    'Odd.'\n"
    home(f"for two in (1, 2): ...\n@metric({facts})\n{function}")
    assert declared("metric") == [Declared("odd", {"size": 2}, "Odd.", FACTS)]
    assert "moon.metrics.odd" in sys.modules


def test_what_a_caller_registered_is_listed(home: Write) -> None:
    home("@metric(higher_is='forgotten')\ndef odd(scores): ...\n")

    @registry.metric(higher_is="remembered", unit="ratio")
    def mine(scores: Any) -> float:
        """Mine."""
        return 0.0

    assert [one.name for one in declared("metric")] == ["mine", "odd"]
