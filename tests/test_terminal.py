"""Output is plain without a terminal, and results and notices go to different streams."""

import io
import re
import sys

import pytest
from doubles import make_trainer

from vidclf.cli import report
from vidclf.errors import VidclfError
from vidclf.system.terminal import progress_bar, say, table, track

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


def test_lightning_has_a_bar_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch):
    open_terminal(monkeypatch)
    (bar,) = progress_bar()
    bar._trainer = make_trainer(max_epochs=50)
    assert bar._get_train_description(49).strip() == "Epoch 50/50"  # as "the best of 50" counts
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert progress_bar() == []
