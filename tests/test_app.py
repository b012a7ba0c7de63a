"""`vidclf app`: a page on this machine that labels uploads and the webcam, in a real browser."""

import gc
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import CHROMIUMS, SHOWN, find_chromium, open_page
from torch import Tensor, nn
from verbs import Outcome
from videos import encode_video

from vidclf import app
from vidclf.api import LoadedRun
from vidclf.contracts import PictureFormat
from vidclf.data.decoding import inspect
from vidclf.data.sampling import Rate
from vidclf.data.transforms import BackboneTransform
from vidclf.models.aggregation import mean
from vidclf.models.backbones.wrap import FrozenBackbone
from vidclf.models.classifier import Classifier
from vidclf.models.scaling import Scaling
from vidclf.prediction.files import Predictor
from vidclf.prediction.timeline import LabelledBout, Timeliner
from vidclf.prediction.windows import Windows

pytestmark = pytest.mark.filterwarnings("ignore")  # those of Gradio, and of what it is made of

NAMES = ["red", "<i>green</i>", "blue"]
GREEN = (30, 200, 60)


class Color(nn.Module):
    """The mean color of a frame."""

    picture_format = PictureFormat(size=16, resize=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    feature_dim = 3

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((3, 4))


@pytest.fixture
def loaded() -> LoadedRun:
    """A run that names the strongest of three colors."""
    color = Color()
    classifier = Classifier(FrozenBackbone(color), Scaling(3, "none"), nn.Flatten(), mean)
    run = object.__new__(LoadedRun)
    run.config, run.class_names = {"num_threads": 1}, NAMES
    transform = BackboneTransform(color.picture_format)
    run.predictor = Predictor(classifier, Rate(5), transform, NAMES, torch.device("cpu"))
    return run


def write_clip(path: Path, *colors: tuple[int, int, int], **settings: str) -> Path:
    """Write a second of each color."""
    frames = [np.full((120, 160, 3), color, np.uint8) for color in colors for _ in range(25)]
    return encode_video(path, frames=frames, size=(160, 120), **settings)


@pytest.fixture
def free_port() -> int:
    with socket.socket() as taken:
        taken.bind((app.HOST, 0))
        return taken.getsockname()[1]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore the environment, which the verb changes for its process, and collect what Gradio leaves open."""
    for name in (*app.SILENT, "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")
    yield
    for _ in range(3):
        gc.collect()


@pytest.mark.slow
def test_the_page_labels_an_upload_and_the_webcam_as_predict_does_and_asks_no_other_machine(
    loaded: LoadedRun, free_port: int, tmp_path: Path
):
    chromium = find_chromium()
    if chromium is None:
        pytest.skip(f"no browser: none of {', '.join(CHROMIUMS)} is installed")
    clip = write_clip(tmp_path / "clip.avi", GREEN)
    broken = tmp_path / "broken.avi"
    broken.write_bytes(clip.read_bytes()[:3000])
    large = tmp_path / "large.avi"
    large.write_bytes(bytes(2**21))
    seen = write_clip(tmp_path / "seen.mjpeg", GREEN, codec="mjpeg", pix_fmt="yuvj420p")
    label = loaded.predict(clip)["label"]
    assert label == "<i>green</i>"
    fake_camera = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
    flags = (*fake_camera, f"--use-file-for-fake-video-capture={seen}")
    labels = app.Labels(loaded, Windows(0.5, 0.2, 5))
    with (
        app.serving(labels, "a <b>run</b>", free_port, upload_mb=1),
        open_page(chromium, tmp_path / "browser", *flags) as page,
    ):
        kept = Path(os.environ["GRADIO_TEMP_DIR"])
        page.ask("Page.navigate", url=f"http://{app.HOST}:{free_port}")
        page.wait_for(SHOWN, of="a <b>run</b>")
        page.choose_file("input[type=file]", large)
        page.wait_for(SHOWN, of="exceed the maximum allowed size")
        page.choose_file("input[type=file]", broken)
        page.wait_for(SHOWN, of="broken.avi: FFmpeg finds no video")
        page.choose_file("input[type=file]", clip)
        page.wait_for(SHOWN, of="0.8 s")  # the time of the last frame that was looked at
        assert label in page.run(SHOWN)
        assert str(kept) not in page.run(SHOWN)
        assert [path for path in kept.rglob("*") if path.suffix == ".avi"] == []
        page.click("Webcam")
        page.click("Click to Access Webcam")
        page.wait_for("document.querySelector('video')?.readyState == 4")
        page.click("Record")
        page.wait_for("[...document.querySelectorAll('textarea')].map(one => one.value).join()", of=" ms, ")
        assert page.run("document.querySelectorAll('[data-testid=label-output-value]').length") == 2
        assert label in page.run(
            "[...document.querySelectorAll('[data-testid=label-output-value]')].at(-1).textContent"
        )
        own = (f"http://{app.HOST}:{free_port}/", "data:", "blob:")
        assert [address for address in page.requests if not address.startswith(own)] == []
        assert page.errors == []
    assert not kept.exists()


def test_a_long_video_has_a_timeline(loaded: LoadedRun, tmp_path: Path):
    film = write_clip(tmp_path / "film.avi", GREEN, GREEN, (220, 20, 20), (220, 20, 20))
    windows = Windows(0.5, 0.25, 5)
    labels = app.Labels(loaded, windows, Timeliner(loaded.predictor, windows))
    bouts = labels.bouts(film, inspect(film))
    assert [bout.label for bout in bouts] == ["<i>green</i>", "red"]
    assert bouts[0].end_s == pytest.approx(2, abs=0.2)
    assert len(labels.frames(film, inspect(film))) == app.MAX_FRAMES
    assert len(app.draw_bouts(bouts).axes[0].collections) == 2


def test_names_are_drawn_as_they_are():
    figure = app.draw_bouts([LabelledBout(0.0, 1.0, "$\\frac{", 1.0), LabelledBout(1.0, 2.0, None, None)])
    figure.draw_without_rendering()  # read as mathematics, the name would be an error
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == [r"\$\frac{", "no label"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["port=0"], "port=0: must be from 1 to 65535."),
        (["upload_mb=0"], "upload_mb=0: must be 1 or more."),
        (["window_s=0"], "window_s=0: must be a number of seconds, at least 0.1."),
    ],
)
def test_wrong_settings_are_errors(
    arguments: list[str], message: str, trained: Outcome, vidclf: Callable[..., Outcome]
):
    outcome = vidclf("app", f"run={trained.run}", *arguments)
    assert (outcome.status, outcome.out) == (1, "")
    assert message in outcome.err


def test_a_port_that_is_taken_is_an_error(trained: Outcome, vidclf: Callable[..., Outcome]):
    with socket.create_server((app.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        outcome = vidclf("app", f"run={trained.run}", f"port={port}")
    assert outcome.status == 1
    assert f"port={port}: cannot be used" in outcome.err
    assert f"port={port + 1}" in outcome.err


def test_without_its_extra_the_app_names_it(
    trained: Outcome, vidclf: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("vidclf.system.extras.version", lambda name: "5.0")
    outcome = vidclf("app", f"run={trained.run}")
    assert outcome.status == 1
    assert "vidclf app needs gradio 6.31 or newer (5.0): pip install 'vidclf[app]'" in outcome.err
