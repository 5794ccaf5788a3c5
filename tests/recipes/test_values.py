"""Dates and names in recipes."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from knowundo.recipes.values import NAME, QUIRKS, Day, Rate


@pytest.mark.parametrize(
    "given", ["2025-01-31", "20250131", 20250131, date(2025, 1, 31), datetime(2025, 1, 31, 12)]
)
def test_a_day_is_read_in_any_form_that_yaml_gives(given: Any) -> None:
    assert TypeAdapter(Day).validate_python(given) == "2025-01-31"


@pytest.mark.parametrize("given", ["31.1.2025", "2025-02-30", True, None, 1.5])
def test_what_is_no_day_is_refused_with_an_example(given: Any) -> None:
    with pytest.raises(ValidationError, match="write a date such as 2025-01-31"):
        TypeAdapter(Day).validate_python(given)


@pytest.mark.parametrize("given", [0, -1e-4, float("inf"), float("nan"), "fast"])
def test_a_rate_is_positive_and_finite_or_auto(given: Any) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(Rate)
    assert adapter.validate_python("auto") == "auto"
    assert adapter.validate_python(1e-4) == 1e-4
    with pytest.raises(ValidationError):
        adapter.validate_python(given)


@pytest.mark.parametrize(
    ("name", "good"),
    [("memflex.step-2", True), ("a_b", True), (".hidden", False), ("a/b", False), ("", False)],
)
def test_a_name_can_be_a_folder(name: str, good: bool) -> None:
    assert (NAME.fullmatch(name) is not None) is good


def test_quirks_are_listed_once() -> None:
    assert len(set(QUIRKS)) == len(QUIRKS) > 5
