"""`vidclf predict` of a live stream: its end in every state, its secrets, its bad input."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import pytest
from servers import jpegs, send_mjpeg, serving, silent
from verbs import Outcome

from vidclf.data import capture
from vidclf.predict import _read_seconds
from vidclf.system.text import redact

SECRETS = ("hunter2", "s3cret", "admin")
STATES = ("silent before its answer", "silent after pictures", "gone", "running")


def serve_state(state: str) -> Callable[[socket.socket, int], None]:
    """Return an answer that brings a client into a state."""

    def answer(connection: socket.socket, number: int) -> None:
        if state == "running":
            send_mjpeg(connection, jpegs(range(5000)), fps=50)
        if state == "silent after pictures" or (state == "gone" and number == 0):
            send_mjpeg(connection, jpegs(range(60)), fps=50)
        if state.startswith("silent"):
            silent(connection, number)

    return answer


@pytest.mark.parametrize(
    ("state", "number"), [*((state, signal.SIGINT) for state in STATES), ("running", signal.SIGTERM)]
)
def test_a_signal_ends_it_within_a_second_and_leaves_whole_files(
    state: str, number: signal.Signals, run: Path, tmp_path: Path
):
    saved, table = tmp_path / "out.mp4", tmp_path / "labels.csv"
    with serving(serve_state(state)) as server:
        address = server.url.replace("//", "//admin:hunter2@") + "?token=s3cret"
        arguments = (f"run={run}", f"source={address}", "window_s=0.5", f"save={saved}", f"to={table}", "timeout_s=60")
        process = subprocess.Popen(
            [sys.executable, "-m", "vidclf", "predict", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=tmp_path,
            text=True,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        )
        assert process.stdout is not None
        if state == "silent before its answer":
            deadline_s = time.monotonic() + 60
            while not server.num_connections:
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
            first = ""
        else:
            first = process.stdout.readline()
        time.sleep(2 if state == "gone" else 0.1)  # two seconds: while it waits to try again
        began_s = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        ended_s = time.monotonic() - began_s
    assert process.returncode == (130 if number == signal.SIGINT else 143), err
    assert ended_s < 1
    assert "Traceback" not in err
    assert ("Interrupted" if number == signal.SIGINT else "Terminated") in err
    lines = [json.loads(line) for line in (first + out).splitlines()]
    assert not any(secret in first + out + err for secret in SECRETS)
    if state == "silent before its answer":
        assert (lines, saved.exists()) == ([], False)
        return
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", lines[0]["time"])
    assert lines[0]["path"] == f"http://***@127.0.0.1:{server.port}/live?***"
    with av.open(saved) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 20
    text = table.read_text()
    assert text.count("\n") == 1 + len(lines)
    assert not any(secret in text for secret in SECRETS)


MISTAKES = [
    "source=rtps://admin:hunter2@host/live",
    "source=rtsp:/admin:hunter2@host/live",
    "source=admin:hunter2@host",
    "source=http://admin:hunter2@127.0.0.1:1/live?token=s3cret",
    "source=ftp://admin:hunter2@host/a",
    "source=http://admin:hun/ter@hunter2@127.0.0.1:1/x",
    "source=http://admin:hunter2 hunter2@127.0.0.1:1/x",
    "sauce=rtsp://admin:hunter2@host/live",
    "rtsp://admin:hunter2@host/live",
    "--source=rtsp://admin:hunter2@host/live",
    "source=[http://admin:hunter2@host/live",
    "source=http://admin:hunter2@host/${x}",
    "-m source=rtsp://admin:hunter2@host/a,rtsp://admin:hunter2@host/b",
    "source.x=http://admin:hunter2@host/",
    "+new=http://127.0.0.1:1/x?password=hunter2",
]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_no_mistake_shows_a_secret(mistake: str, vidclf: Callable[..., Outcome], trained: Outcome):
    words = [] if "source=" in mistake and "--" not in mistake else ["source=-"]
    outcome = vidclf("predict", f"run={trained.run}", *words, *mistake.split(" ", mistake.startswith("-m")))
    assert outcome.status == 1
    assert not (trained.run / "multirun.yaml").exists()
    assert "Error" in outcome.err
    assert "Traceback" not in outcome.err
    assert not any(secret in outcome.out + outcome.err for secret in SECRETS)


def test_the_configuration_is_printed_without_secrets(vidclf: Callable[..., Outcome], trained: Outcome):
    source = "source=rtsp://admin:hunter2@host/live?token=s3cret"
    outcome = vidclf("predict", f"run={trained.run}", source, "--cfg", "job")
    assert outcome.status == 0
    assert "source: rtsp://***@host/live?***\n" in outcome.out
    assert not any(secret in outcome.out + outcome.err for secret in SECRETS)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://user:pw@host:554/a: silent.", "rtsp://***@host:554/a: silent."),
        ("see http://host/a?token=x&n=1: no", "see http://host/a?***: no"),
        ("source=http://host/a?token=x.", "source=http://host/a?***."),
        ("user:pw@host", "***@host"),
        ("rtsp://u:p@ss@host", "rtsp://***@host"),
        ("backbone=hf-hub:org/x@main, 12:30 a@b.c", "backbone=hf-hub:org/x@main, 12:30 a@b.c"),
        ("runs/a: why? Because. http://host/live", "runs/a: why? Because. http://host/live"),
    ],
)
def test_secrets_are_hidden_and_nothing_else(text: str, shown: str):
    assert redact(text) == shown


@pytest.mark.parametrize(("value", "seconds"), [("60s", 60), (90, 90), ("5min", 300), ("1.5 h", 5400), (None, None)])
def test_a_time_is_read_in_its_unit(value: str | int | None, seconds: float | None):
    assert _read_seconds("until", value) == seconds


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["source=-", "until=soon"], "until=soon: must be a time, such as 60s, 5min or 2h."),
        (["source=camera:99"], "VideoError: camera:99: there is no such camera."),
        (["source=udp://239.0.0.1:5000"], "source=udp://239.0.0.1:5000: the protocol udp is not allowed."),
        (["source=http://127.0.0.1:1/x"], "http://127.0.0.1:1/x: the stream cannot be opened (Connection refused)."),
        (["source=-", "protocols=file"], "protocols=file: must be among rtmp"),
        (["source=-", "save=out.avi"], "save=out.avi: must end in .mp4 or .mkv."),
        (["source=-", "to=out.boris"], "to=out.boris"),
        (["source=-", "realtime=true"], "realtime=true: is for files"),
    ],
)
def test_bad_input_is_a_sentence(words: list[str], sentence: str, vidclf: Callable[..., Outcome], trained: Outcome):
    outcome = vidclf("predict", f"run={trained.run}", *words)
    assert (outcome.status, outcome.out) == (1, "")
    assert sentence in outcome.err
    assert "Traceback" not in outcome.err


def test_a_server_that_comes_back_is_labelled_again(
    vidclf: Callable[..., Outcome], trained: Outcome, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(capture, "SHORTEST_DELAY_S", 0.05)
    with serving(lambda connection, _: send_mjpeg(connection, jpegs(range(40)), fps=50)) as server:
        outcome = vidclf("predict", f"run={trained.run}", f"source={server.url}", "window_s=0.4", "until=3s")
    assert outcome.status == 0, outcome.err
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    starts = [line["start_s"] for line in lines]
    assert len(lines) >= 3
    assert starts == sorted(set(starts))
    assert "Trying again in 0.05 s." in outcome.err
    assert "connected again after 0 s." in outcome.err
