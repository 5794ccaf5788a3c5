"""A model that was taught and unlearned, once for all tests of attacks."""

from __future__ import annotations

import pytest

from attacks.attacking import Taught, teach


@pytest.fixture(scope="session")
def taught() -> Taught:
    return teach()
