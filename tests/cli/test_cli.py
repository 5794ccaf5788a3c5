"""The command line: its help needs no torch, and every command of the guide is one."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import typer

from conftest import Call
from knowundo.cli import app
from knowundo.cli.examples import EXAMPLES
from knowundo.version import __version__


def test_version_and_help_need_no_torch(knowundo: Call) -> None:
    assert knowundo("--version").stdout == f"knowundo {__version__}\n"
    code = (
        "import sys, knowundo.cli\n"
        "sys.argv = ['knowundo', '--help']\n"
        "try: knowundo.cli.main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("demo", "run", "memorize", "localize", "unlearn", "evaluate", "report", "data"):
        assert command in done.stdout


PAGES = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))
README = Path(__file__).parents[2] / "README.md"


def commands(page: Path) -> list[str]:
    """Lines of a page that call the command line, continued lines joined."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    return re.findall(r"^(?: {4})?(knowundo .*)$", text, re.MULTILINE)


def test_commands_of_all_pages_exist_with_their_options() -> None:
    """Words are parsed as the command line parses them, and nothing is run."""
    found = [line for page in [README, *PAGES] for line in commands(page)]
    assert len(found) > 10
    for line in found:
        parsed(line)


def parsed(line: str) -> str:
    """The command that a line calls, with options that it has; its name is returned."""
    group = typer.main.get_command(app)
    words = shlex.split(line, comments=True)[1:]
    command: Any = group
    names = list[str]()
    while words and words[0] in getattr(command, "commands", {}):
        names.append(words[0])
        command, words = command.commands[words[0]], words[1:]
    assert command is not group, line
    command.make_context("knowundo", words)
    return " ".join(names)


def test_every_command_has_examples_that_can_be_typed(knowundo: Call) -> None:
    group: Any = typer.main.get_command(app)
    inner = {name: getattr(one, "commands", {}) for name, one in group.commands.items()}
    names = {name for name, below in inner.items() if not below}
    names |= {f"{name} {sub}" for name, below in inner.items() for sub in below}
    assert names == set(EXAMPLES)
    for name, lines in EXAMPLES.items():
        for line in lines:
            assert parsed(line.removeprefix("torchrun --nproc-per-node 2 -m ")) == name
    said = knowundo("study", "--help").stdout
    assert "  knowundo study demo --grid 'seed=[0, 1, 2]' --out runs/study" in said
    assert "Exit codes: 0 done;" in said


def test_every_help_text_is_sentences() -> None:
    """Commands, groups, arguments and options: from a capital letter to a full stop."""
    group: Any = typer.main.get_command(app)
    texts = {"knowundo": group.help}
    pending = [("", group)]
    for path, command in pending:
        for name, inner in getattr(command, "commands", {}).items():
            pending.append((f"{path}{name} ", inner))
            texts[f"{path}{name}"] = inner.help
        for parameter in command.params:
            # Click writes the text of --help itself, which ends without a full stop.
            if parameter.name != "help":
                texts[f"{path}{parameter.name}"] = parameter.help
    assert len(texts) > 60
    bad = [name for name, text in texts.items() if not is_sentences(text)]
    assert bad == []


def is_sentences(text: str | None) -> bool:
    """Whether a text begins with a capital letter and each of its paragraphs ends with a stop."""
    if not text or not text[0].isupper():
        return False
    # An indented or quoted command line is no sentence.
    paragraphs = [part for part in text.split("\n\n") if not part.startswith("knowundo ")]
    return all(part.rstrip().endswith(".") for part in paragraphs)


def test_fragments_are_no_sentences() -> None:
    assert is_sentences("Print it.\n\nknowundo erase --out DIR")
    for text in (None, "", "of the records.", "A folder", "A folder.\n\nnone: all"):
        assert not is_sentences(text)


def test_help_shows_defaults(knowundo: Call) -> None:
    for command, default in (("export", "5GB"), ("sweep", "20"), ("run", "runs/run")):
        shown = " ".join(knowundo(command, "--help").stdout.split())
        assert f"[default: {default}" in shown, command
