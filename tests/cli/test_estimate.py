"""`knowundo estimate` prints a table or JSON."""

from __future__ import annotations

import json
from pathlib import Path

from estimation.recipes import settings


def test_command_prints_a_table_or_json(toy_base: str, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from knowundo.cli import app

    given = settings(toy_base, variants=("gradient_ascent",))
    sets = [part for text in given for part in ("--set", text)]
    table = CliRunner().invoke(app, ["estimate", *sets])
    assert table.exit_code == 0, table.output
    for word in ("memorize", "localize", "gradient_ascent", "evaluate", "fits into 24 GiB: yes"):
        assert word in table.stdout
    told = CliRunner().invoke(app, ["estimate", *sets, "--json"])
    (found,) = json.loads(told.stdout)
    assert found["fits_24_gib"] is True
    assert found["peak"] == max(stage["peak"] for stage in found["stages"])
