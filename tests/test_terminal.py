"""Output is plain without a terminal, and results and notices go to different streams."""

import io
import re
import sys
from collections.abc import Iterable, Iterator

import lightning as L
import pytest
import torch
from doubles import make_trainer
from torch.utils.data import DataLoader

from vidclf.cli import report
from vidclf.errors import VidclfError
from vidclf.system import epochs
from vidclf.system.epochs import EpochLines, progress_bars
from vidclf.system.terminal import duration, say, table, track

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
    assert "3/3" in terminal.getvalue()


def test_results_printed_beside_a_bar_stay_on_stdout(monkeypatch: pytest.MonkeyPatch):
    open_terminal(monkeypatch)
    monkeypatch.setattr(sys, "stdout", results := io.StringIO())
    for number in track(range(2), 2, "Labelling", "videos"):
        print(number)
    assert results.getvalue() == "0\n1\n"


class Clock:
    """A clock that the work moves on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        monkeypatch.setattr("vidclf.system.terminal.time.monotonic", lambda: self.now_s)

    def work(self, durations_s: Iterable[float]) -> Iterator[int]:
        for number, duration_s in enumerate(durations_s):
            self.now_s += duration_s
            yield number


def test_long_work_has_a_forecast_soon_and_a_line_a_minute_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    work = Clock(monkeypatch).work([25] * 6)
    assert list(track(work, 6, "Examining", "videos")) == [*range(6)]
    lines = [f"Examining 6 videos{rest}" for rest in ("", ": 1 done, about 2 min left", ": 4 done, about 50 s left")]
    assert capsys.readouterr().err.splitlines() == lines


def test_a_forecast_forgets_what_took_no_time_at_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    work = Clock(monkeypatch).work([0] * 700 + [1] * 300)
    assert len(list(track(work, 2000, "Labelling", "videos"))) == 1000
    assert "Labelling 2,000 videos: 770 done, about 20 min left" in capsys.readouterr().err.splitlines()


def test_a_bar_says_how_long_the_rest_will_take(monkeypatch: pytest.MonkeyPatch):
    terminal = open_terminal(monkeypatch)
    list(track(Clock(monkeypatch).work([25]), 6, "[b]{x}", "\033[31m"))
    assert "[b]{x} 6 \ufffd[31m" in terminal.getvalue()
    assert "1/6 about 2 min left" in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", terminal.getvalue())


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (89.4, "89 s"), (90.0, "2 min"), (720.0, "12 min"), (5400.0, "1.5 h")]
)
def test_a_duration_is_said_in_its_unit(seconds: float, text: str):
    assert duration(seconds) == text


def test_lightning_has_bars_on_a_terminal_and_in_a_notebook_and_lines_elsewhere(monkeypatch: pytest.MonkeyPatch):
    open_terminal(monkeypatch)
    assert not isinstance(progress_bars()[0], EpochLines)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(progress_bars()[0], EpochLines)
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert not isinstance(progress_bars()[0], EpochLines)


def test_a_long_scoring_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    class Scorer(L.LightningModule):
        def predict_step(self, batch: torch.Tensor, batch_idx: int = 0) -> torch.Tensor:
            return batch

    monkeypatch.setattr(epochs, "INTERVAL_S", 0)
    trainer = make_trainer(callbacks=[EpochLines()], enable_progress_bar=True)
    trainer.predict(Scorer(), DataLoader(torch.zeros(3, 1), num_workers=0), return_predictions=False)
    assert [line for line in capsys.readouterr().err.splitlines() if "scored" in line] == [
        f"scored {number} of 3 batches" for number in (1, 2, 3)
    ]
