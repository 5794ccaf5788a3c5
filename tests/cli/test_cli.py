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
    group = typer.main.get_command(app)
    for line in found:
        words = shlex.split(line, comments=True)[1:]
        command: Any = group
        while words and words[0] in getattr(command, "commands", {}):
            command, words = command.commands[words[0]], words[1:]
        assert command is not group, line
        command.make_context("knowundo", words)


def test_every_option_has_a_help_text() -> None:
    group: Any = typer.main.get_command(app)
    seen = 0
    pending = list(group.commands.values())
    for command in pending:
        pending += getattr(command, "commands", {}).values()
        assert command.help or command.short_help, command.name
        for option in command.params:
            if option.param_type_name == "option":
                seen += 1
                assert option.help, (command.name, option.name)
    assert seen > 40
