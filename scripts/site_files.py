"""Files of the repository beside docs/ that the pages of the site link to; a hook of mkdocs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
BESIDE = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "LICENSE", "recipes/**/*.yaml")
LINK = re.compile(r"\]\(([^)\s:]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Put the files beside docs/ into the site."""
    for pattern in BESIDE:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links as the site has them; in the repository docs/ is a folder below the root."""
    uri = page.file.src_uri
    if uri in BESIDE:
        return LINK.sub(lambda found: f"]({found[1].removeprefix('docs/')})", markdown)
    out = "../" * (uri.count("/") + 1)
    return LINK.sub(lambda found: _inside(found, out), markdown)


def _inside(found: re.Match[str], out: str) -> str:
    """A link that leaves docs/ stays below the root of the site."""
    target = found[1]
    return f"]({target.removeprefix('../') if target.startswith(out) else target})"
