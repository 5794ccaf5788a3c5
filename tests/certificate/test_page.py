"""The page is self-contained, escaped, and answers the authorities point by point."""

from __future__ import annotations

import re

from certified import evidence, row
from knowundo.certificate.limits import points
from knowundo.certificate.page import render_page
from knowundo.certificate.questions import QUESTIONS
from knowundo.recipes.acceptance import Acceptance

HOSTILE = "<script>alert(1)</script>"


def test_the_page() -> None:
    given = evidence(row("m", HOSTILE, 1.0, attack=HOSTILE), acceptance=Acceptance(), run=HOSTILE)
    shown = given.scope.model_copy(
        update={"entries": [given.scope.entries[0].model_copy(update={"question": HOSTILE})]}
    )
    page = render_page(given.model_copy(update={"scope": shown}), None)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4
    assert "default-src 'none'; script-src 'none'" in page.replace("&#39;", "'")
    assert not re.search(r"<(?:script|link|img|iframe)\b|https?://", page)
    for words in ("Not signed", "prefers-color-scheme: dark", "@media print", "not a proof"):
        assert words in page
    for question in QUESTIONS:
        assert question.text in page
    assert "Signed with ed25519 key" in render_page(given, "ab12")


def test_points_name_questions_and_what_cannot_be_shown() -> None:
    keys = {question.key for question in QUESTIONS}
    assert keys == set(Acceptance.model_fields)
    assert {point.source.split()[0] for point in points()} == {"EDPB", "CNIL,", "NIST"}
    for point in points():
        assert set(point.questions) <= keys
        assert point.cannot
