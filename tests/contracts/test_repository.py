"""The files of the repository agree with each other and with the package."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from knowundo.cli import app
from knowundo.version import __version__

ROOT = Path(__file__).parents[2]
# Changelog and dated decisions describe the package as it was on their day.
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *ROOT.glob("docs/*.md")]
)


def test_the_version_heads_the_changelog() -> None:
    heads = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert heads
    assert heads[0] == __version__


def test_the_citation_names_version_and_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert [reference["url"] for reference in citation["references"]] == [
        "https://arxiv.org/abs/2407.01920"
    ]


def test_workflows_pin_their_actions_and_call_what_developers_call() -> None:
    files = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    assert files
    text = "\n".join(file.read_text() for file in files)
    actions = re.findall(r"uses: (\S+)", text)
    assert actions
    for action in actions:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action), action
    assert "run: .ci/run" in text


def test_no_file_names_a_package_registry() -> None:
    """Where packages come from is the choice of the machine, not of the repository."""
    names = ["Makefile", "pyproject.toml", "constraints.txt", ".pre-commit-config.yaml", ".ci/run"]
    files = [*(ROOT / name for name in names), *(ROOT / ".github").rglob("*.yml")]
    for file in files:
        found = re.search(r"index-url|pypi\.org|pythonhosted|download\.pytorch", file.read_text())
        assert found is None, f"{file.name}: {found}"


def test_the_table_of_methods_is_up_to_date() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "build_methods_page.py"))
    text = script["PAGE"].read_text(encoding="utf-8")
    assert text == script["page"](text), "run scripts/build_methods_page.py"
    assert "| `npo` |" in text


def test_the_table_of_benchmarks_is_up_to_date() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "build_benchmarks_page.py"))
    text = script["PAGE"].read_text(encoding="utf-8")
    assert text == script["page"](text), "run scripts/build_benchmarks_page.py"
    assert "| `tofu` |" in text


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


PRIVATE_WORDS = re.compile(
    r"\b(mends?|mended|abreast|slopes?|by heart|(gone|goes) on from|hand(ed)? over)\b"
)
# What a list's model knows is told in a line that scripts read, so its words stay.
READ_BY_SCRIPTS = "unlearn rows by heart, knows"


def test_pages_and_sources_use_the_words_of_the_field() -> None:
    """The first names of sequence packing, the batched forward and others were our own."""
    pages = [*PAGES, ROOT / "CHANGELOG.md", *ROOT.glob("docs/design/*.md")]
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "src").rglob("*.j2")]
    assert len(pages) > len(PAGES) + 1
    assert len(sources) > 100
    for file in [*pages, *sources]:
        text = file.read_text(encoding="utf-8").replace(READ_BY_SCRIPTS, "")
        found = PRIVATE_WORDS.search(text)
        assert found is None, f"{file.name}: {found}"


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of a page in one language."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL
    )


def test_python_of_the_pages_imports_what_is_there() -> None:
    found = 0
    for page in PAGES:
        for block in blocks(page, "python"):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("knowundo"):
                    module = import_module(node.module or "")
                    for alias in node.names:
                        assert getattr(module, alias.name) is not None
                        found += 1
    assert found


def commands(page: Path) -> list[list[str]]:
    """Words of the command lines of a page: indented or fenced, beginning with `knowundo`."""
    text = page.read_text().replace("\\\n", " ")
    lines = re.findall(r"^(?:    )?\s*knowundo ([a-z].*)$", text, flags=re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def test_commands_of_the_pages_exist_with_their_options() -> None:
    found = 0
    for page in PAGES:
        for words in commands(page):
            command: Any = get_command(app)
            rest = iter(words)
            while hasattr(command, "commands"):  # a group
                word = next(rest)
                assert word in command.commands, f"{page.name}: knowundo {' '.join(words)}"
                command = command.commands[word]
            options = {name for parameter in command.params for name in parameter.opts}
            used = {word for word in words if word.startswith("--")}
            assert used <= options, f"{page.name}: knowundo {' '.join(words)}"
            found += 1
    assert found > 10


def exists(path: str) -> bool:
    """Whether a path of a page is there: below the root, the package or its tests."""
    places = (ROOT, ROOT / "src" / "knowundo", ROOT / "docs")
    return any((place / path).exists() for place in places)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_and_files_that_pages_name_are_there(page: Path) -> None:
    text = page.read_text()
    paths = re.findall(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.py)`", text)
    ours = ("src/", "tests/", "perf/", "scripts/", "examples/", "docs/", *packages())
    for path in paths:
        if path.startswith(ours) or path.endswith(".py"):
            assert exists(path), path
    for name in re.findall(r"\bknowundo((?:\.[a-z_]+)+)(?![\w(/-])", text):
        parts = name.strip(".").split(".")
        folders = [
            ROOT / "src/knowundo" / "/".join(parts[:n]) for n in (len(parts), len(parts) - 1)
        ]
        assert any(f.is_dir() or f.with_suffix(".py").exists() for f in folders), name


def packages() -> tuple[str, ...]:
    """Beginnings of paths that are written below the package."""
    found = [path.name + "/" for path in (ROOT / "src" / "knowundo").iterdir() if path.is_dir()]
    assert "unlearning/" in found
    # `runs/` is also where users put run directories.
    return tuple(name for name in found if not name.startswith("__") and name != "runs/")
