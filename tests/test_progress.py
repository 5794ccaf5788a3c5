"""Messages and bars are on stderr, and nothing that a terminal obeys reaches it."""

from __future__ import annotations

import pytest

from knowundo.progress import Reporter, RichReporter, clock


def test_the_default_reports_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter()
    reporter.say("hello")
    with reporter.task("work") as progress:
        progress(1, 2)
    assert capsys.readouterr() == ("", "")


def test_lines_are_on_stderr_and_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    RichReporter().say("[bold]a name[/bold]\x1b[2J of a file")
    out, err = capsys.readouterr()
    assert out == ""
    assert "\x1b" not in err
    assert err.startswith("[bold]a name[/bold]")  # no markup of rich
    assert "of a file" in err


def test_a_long_line_is_not_folded(capsys: pytest.CaptureFixture[str]) -> None:
    RichReporter().say("word " * 60)
    assert capsys.readouterr().err.count("\n") == 1


def test_a_job_that_stops_early_is_shown_as_complete(capsys: pytest.CaptureFixture[str]) -> None:
    with RichReporter().task("memorize [x]") as progress:
        progress(3, 10)
    shown = capsys.readouterr().err
    assert "memorize [x]" in shown
    assert "3/3" in shown


def test_lines_in_place_of_bars_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("knowundo.progress._LINE_EVERY", 0.0)
    with RichReporter().task("memorize") as progress:
        progress(5, 10)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("memorize: 5/10, 0:00:0")
    assert "left" in lines[0]
    assert lines[1].startswith("memorize: 5/5 in 0:00:0")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, "unknown time"), (59.4, "0:00:59"), (3725, "1:02:05")]
)
def test_a_clock(seconds: float | None, shown: str) -> None:
    assert clock(seconds) == shown
