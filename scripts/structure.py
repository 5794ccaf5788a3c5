"""Figures of the package's structure: sizes of files and functions, comments, tests by name.

    python scripts/structure.py [--root .] [--json]

Lines are physical lines. A function's length includes its decorators and docstring, because that
is what a reader scrolls through; a nested function also counts inside the function that holds it.
Comment density is the number of comment lines per 100 lines of code, where code is every line that
is neither blank, nor only a comment, nor part of a docstring. A module has a test by path if
src/knowundo/a/b.py is tested by tests/a/test_b.py, and a test by name if a test file has the
module's name anywhere. Floors are the number of modules in the longest chain of imports.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import grimp

PACKAGE = "knowundo"
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Figures:
    """What the script prints; densities are per 100 lines of code."""

    files: int
    lines: int
    longest_file: int
    files_above_300: int
    files_above_500: int
    functions: int
    function_lines_p50: int
    function_lines_p95: int
    function_lines_max: int
    functions_above_40: int
    functions_above_60: int
    functions_above_80: int
    parameters_above_7: int
    comment_lines: int
    comments_per_100: float
    modules: int
    floors: int
    modules_with_test_by_path: int
    modules_with_test_by_name: int


@dataclass(frozen=True)
class Source:
    """One parsed file."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        """Number of physical lines."""
        return len(self.text.splitlines())

    def functions(self) -> Iterator[Function]:
        """Functions and methods, nested ones too."""
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                yield node


def length(function: Function) -> int:
    """Lines from the first decorator to the end of the body."""
    first = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
    return (function.end_lineno or function.lineno) - first + 1


def parameters(function: Function) -> int:
    """Parameters that a caller passes: `self`, `cls`, `*args` and `**kwargs` do not count."""
    given = function.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def docstring_lines(tree: ast.Module) -> set[int]:
    """Numbers of the lines that docstrings take."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | Function) or not node.body:
            continue
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            found.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return found


def comments_and_code(source: Source) -> tuple[int, int]:
    """Lines with a comment, and lines of code.

    A line of code with a comment at its end counts as both.
    """
    skipped = {
        tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
        tokenize.ENCODING, tokenize.ENDMARKER,
    }  # fmt: skip
    comments: set[int] = set()
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT:
            # Directives to a checker explain nothing.
            if not token.string.startswith(("# type:", "# fmt:", "# noqa")):
                comments.add(token.start[0])
        elif token.type not in skipped:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(comments), len(code - docstring_lines(source.tree))


def floors(root: Path) -> int:
    """Modules in the longest chain of imports."""
    sys.path.insert(0, str(root / "src"))
    graph = grimp.build_graph(PACKAGE, exclude_type_checking_imports=True, cache_dir=None)
    modules = sorted(graph.modules)
    imported = {name: graph.find_modules_directly_imported_by(name) for name in modules}
    height: dict[str, int] = {}

    def floor(name: str, path: tuple[str, ...] = ()) -> int:
        # A package and its modules may import each other by re-exports; such an edge is skipped.
        if name not in height:
            below = [floor(n, (*path, name)) for n in imported[name] if n not in (*path, name)]
            height[name] = 1 + max(below, default=0)
        return height[name]

    return max(floor(name) for name in modules)


def tested(root: Path, sources: list[Source]) -> tuple[int, int, int]:
    """Modules that implement something, those with a test by path, and those with one by name."""
    modules = [s for s in sources if s.path.name != "__init__.py"]
    if not modules:
        raise SystemExit(f"{root}: no modules below src/{PACKAGE}")
    files = {path.relative_to(root / "tests") for path in (root / "tests").rglob("test_*.py")}
    names = {path.name for path in files}
    by_path = by_name = 0
    for source in modules:
        place = source.path.relative_to(root / "src" / PACKAGE)
        test = f"test_{place.name}"
        by_path += place.with_name(test) in files
        by_name += test in names
    return len(modules), by_path, by_name


def figures(root: Path) -> Figures:
    """Measure the package below a root that holds `src` and `tests`.

    Args:
        root: the repository.

    Returns:
        All figures.
    """
    paths = sorted((root / "src" / PACKAGE).rglob("*.py"))
    texts = [path.read_text(encoding="utf-8") for path in paths]
    sources = [Source(p, t, ast.parse(t)) for p, t in zip(paths, texts, strict=True)]
    modules, by_path, by_name = tested(root, sources)
    functions = [function for source in sources for function in source.functions()]
    lengths = sorted(length(function) for function in functions)
    counted = [comments_and_code(source) for source in sources]
    comments, code = sum(pair[0] for pair in counted), sum(pair[1] for pair in counted)
    return Figures(
        files=len(sources),
        lines=sum(source.lines for source in sources),
        longest_file=max(source.lines for source in sources),
        files_above_300=sum(source.lines > 300 for source in sources),
        files_above_500=sum(source.lines > 500 for source in sources),
        functions=len(functions),
        function_lines_p50=lengths[len(lengths) // 2],
        function_lines_p95=lengths[int(len(lengths) * 0.95)],
        function_lines_max=lengths[-1],
        functions_above_40=sum(n > 40 for n in lengths),
        functions_above_60=sum(n > 60 for n in lengths),
        functions_above_80=sum(n > 80 for n in lengths),
        parameters_above_7=sum(parameters(function) > 7 for function in functions),
        comment_lines=comments,
        comments_per_100=round(100 * comments / code, 1),
        modules=modules,
        floors=floors(root),
        modules_with_test_by_path=by_path,
        modules_with_test_by_name=by_name,
    )


def main() -> None:
    """Print the figures of one working tree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--root", type=Path, default=Path(), help="a working tree")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    asked = parser.parse_args()
    found = asdict(figures(asked.root.resolve()))
    if asked.json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        print(f"{name.replace('_', ' '):<28}{value:>8}")


if __name__ == "__main__":
    main()
