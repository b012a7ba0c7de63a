"""Output is plain without a terminal, and results and notices go to different streams."""

import io
import re
import sys

import pytest

from vidclf.cli import report
from vidclf.errors import VidclfError
from vidclf.system.epochs import EpochLines, progress_bars
from vidclf.system.terminal import say, table, track

ROWS = {"top1": 0.61234, "num_videos": 224}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make both streams one terminal; called in the test itself, before which pytest sets its own streams."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "80")
    return stream


def test_a_table_is_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]):
    table("Test part", ROWS)
    assert capsys.readouterr() == ("Test part\ntop1 0.6123\nnum_videos 224\n", "")


def test_a_table_has_borders_and_a_whole_title_on_a_terminal(monkeypatch: pytest.MonkeyPatch):
    terminal = open_terminal(monkeypatch)
    title = "Validation, epoch 3 (the best of 3)"
    table(title, ROWS, "run here")
    shown = terminal.getvalue()
    assert shown.endswith("run here\n")
    assert title in shown
    assert "│ num_videos │ 224    │" in shown


def test_notices_go_to_stderr(capsys: pytest.CaptureFixture[str]):
    say("a notice")
    assert capsys.readouterr() == ("", "a notice\n")


def test_no_character_of_a_message_moves_the_cursor_or_colours_a_line(capsys: pytest.CaptureFixture[str]):
    for show in (say, lambda text: table(text, {}), lambda text: report(VidclfError(text))):
        show("a\x1b[31m\r\udce9\n\tb")
    out, err = capsys.readouterr()
    assert err == "a\ufffd[31m\ufffd\ufffd\n\tb\nVidclfError: a\ufffd[31m\ufffd\ufffd\n\tb\n"
    assert out == "a\ufffd[31m\ufffd\ufffd\n\tb\n"


def test_rates_of_items_and_parts_are_shown_at_the_end(capsys: pytest.CaptureFixture[str]):
    assert list(track(range(3), 3, "Extracting features of", "videos", "frames", lambda item: 10)) == [0, 1, 2]
    start, end = capsys.readouterr().err.splitlines()
    assert start == "Extracting features of 3 videos"
    assert re.fullmatch(r"3 videos in \S+ s: \S+ videos/s, \S+ frames/s", end)


def test_work_is_announced_once_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]):
    assert list(track(range(3), 3, "Examining", "videos")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "Examining 3 videos\n")


def test_no_work_is_not_announced(capsys: pytest.CaptureFixture[str]):
    assert list(track([], 0, "Examining", "videos")) == []
    assert capsys.readouterr() == ("", "")


def test_work_has_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch):
    terminal = open_terminal(monkeypatch)
    assert list(track(range(3), 3, "Examining", "videos")) == [0, 1, 2]
    assert "Examining" in terminal.getvalue()
    assert "100%" in terminal.getvalue()


def test_results_printed_beside_a_bar_stay_on_stdout(monkeypatch: pytest.MonkeyPatch):
    open_terminal(monkeypatch)
    monkeypatch.setattr(sys, "stdout", results := io.StringIO())
    for number in track(range(2), 2, "Labelling", "videos"):
        print(number)
    assert results.getvalue() == "0\n1\n"


def test_long_work_has_a_line_a_minute_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    clock = iter(range(0, 1000, 25))  # seconds at which it is read
    monkeypatch.setattr("vidclf.system.terminal.time.monotonic", lambda: next(clock))
    assert list(track(range(6), 6, "Examining", "videos")) == [*range(6)]
    lines = [f"Examining 6 videos{rest}" for rest in ("", ": 3 done, about 1 min left")]
    assert capsys.readouterr().err.splitlines() == lines


def test_lightning_has_bars_on_a_terminal_and_in_a_notebook_and_lines_elsewhere(monkeypatch: pytest.MonkeyPatch):
    open_terminal(monkeypatch)
    assert not isinstance(progress_bars()[0], EpochLines)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(progress_bars()[0], EpochLines)
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert not isinstance(progress_bars()[0], EpochLines)
