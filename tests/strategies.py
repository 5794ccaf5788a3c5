"""What hypothesis draws from, and what reading it may end in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from knowundo.errors import BadInput

QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


values: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def outcome(read: Callable[[], Any]) -> tuple[Any, str | None]:
    """What was read, or what was said; any other exception is the test's failure."""
    try:
        return read(), None
    except BadInput as error:
        return None, str(error)
