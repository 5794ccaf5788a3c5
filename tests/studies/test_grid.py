"""Points of a grid."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowundo.errors import BadInput
from knowundo.studies.grid import Point, points_of
from knowundo.studies.study import Study


def test_every_combination_is_a_point() -> None:
    grid = ["seed=[0, 1]", "data.domain=[privacy, copyright]"]
    found = points_of("demo", [], grid)
    assert [point.values for point in found] == [
        {"seed": 0, "data.domain": "privacy"},
        {"seed": 0, "data.domain": "copyright"},
        {"seed": 1, "data.domain": "privacy"},
        {"seed": 1, "data.domain": "copyright"},
    ]
    assert found[1].name.startswith("seed=0+domain=copyright-")
    assert found[1].setting() == {"data.domain": "copyright"}
    assert len({point.name for point in found}) == 4


def test_a_point_of_mappings_has_a_name_that_a_folder_can_have() -> None:
    grid = ["unlearn.variants=[[{method: npo}], [{preset: memflex, lr: 1e-3}]]"]
    first, second = points_of("demo", [], grid)
    assert first.name.startswith("variants=npo-")
    assert second.name.startswith("variants=memflex-")
    assert second.sets == ['unlearn.variants=[{"preset": "memflex", "lr": 0.001}]']


def test_a_long_value_keeps_its_point_apart() -> None:
    names = [Point("x", {}).name, *(
        point.name for point in points_of("demo", [], [f"name=[{'a' * 190}, {'a' * 189}b]"])
    )]  # fmt: skip
    assert len(set(names)) == 3
    assert max(map(len, names)) < 100


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ([], "no axis; give one"),
        (["seed"], r"--grid 'seed': not an axis; write KEY=\[VALUE"),
        (["seed=1"], "not an axis"),
        (["seed=[]"], "not an axis"),
        (["seed=[0, 1"], r"--grid 'seed=\[0, 1'"),
        (["seed=[0, 0]"], "a value stands there twice"),
        (["seed=[0]", "seed=[1]"], "a key is named twice"),
        (["sed=[0]"], r"--grid, at sed=0-\w+: .*sed"),
        (["seed=[0, many]"], r"--grid, at seed=many-\w+: .*seed"),
    ],
)
def test_a_grid_that_is_none_is_one_line(grid: list[str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        points_of("demo", [], grid)


def test_a_run_is_the_command_that_a_user_would_type(tmp_path: Path) -> None:
    points = points_of("demo", ["data.subjects=2"], ["seed=[3]"])
    task = Study("demo", ["data.subjects=2"], points, tmp_path).task(points[0], 1)
    folder = str(tmp_path.resolve() / "runs" / points[0].name)
    assert task.command == (
        "-m", "knowundo", "run", "--out", folder, "--config", "demo",
        "--set", "data.subjects=2", "--set", "seed=3",
    )  # fmt: skip
