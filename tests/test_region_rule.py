"""Arguments that every localizer that scores takes."""

from __future__ import annotations

import pytest

from knowundo.errors import BadInput
from knowundo.registry import get


def test_a_localizer_that_scores_takes_the_rule() -> None:
    saliency = get("localizer", "saliency")
    assert saliency.bind({}) == {"share": 0.25, "granularity": "tensor"}
    assert saliency.bind({"share": 1})["share"] == 1
    assert "share" not in get("localizer", "memflex").arguments


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"share": 0}, "share: .*greater than 0"),
        ({"share": 1.5}, "share: .*less than or equal to 1"),
        ({"granularity": "layer"}, "granularity: .*'tensor'"),
        ({"shre": 0.5}, "did you mean 'share'?"),
    ],
)
def test_a_wrong_rule_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        get("localizer", "saliency").bind(given)
