"""Windows of frames that keep coming: which frames are held, which windows get labels, and with which bits."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from doubles import Clips, Images
from torch import Tensor, nn
from videos import encode_video, numbered_frame, read_frame_number

from vidclf.contracts import PictureFormat
from vidclf.data.decoding import inspect, iterate_frames
from vidclf.data.sampling import Dense, Rate, Segments, Uniform
from vidclf.data.transforms import BackboneTransform
from vidclf.errors import VidclfError
from vidclf.models.aggregation import mean
from vidclf.models.backbones.wrap import wrap
from vidclf.models.classifier import Classifier
from vidclf.models.heads.linear import Linear
from vidclf.models.scaling import Scaling
from vidclf.prediction import live
from vidclf.prediction.files import Predictor
from vidclf.prediction.live import LiveLabeller, WindowLabel
from vidclf.prediction.windows import Windows, score_windows


class Numbers(nn.Module):
    """A backbone that notes the numbers of the frames that it sees; its feature is the number."""

    picture_format = PictureFormat(size=48, resize=48, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    feature_dim = 1

    def __init__(self, pause_s: float = 0.0) -> None:
        super().__init__()
        self.seen: list[int] = []
        self.pause_s = pause_s

    def forward(self, images: Tensor) -> Tensor:
        time.sleep(self.pause_s)
        numbers = [round(float(image.flatten()[0]) * 255) for image in images]
        self.seen += numbers
        return torch.tensor(numbers, dtype=torch.float32)[:, None, None]


class Self(nn.Module):
    """A head that gives its only feature as the logit of the first class, and 0 as that of the second."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([features.mean(1), torch.zeros(len(features), 1)], dim=1)


def predictor_of(backbone: nn.Module, sampling: Any, head: nn.Module | None = None) -> Predictor:
    wrapped = wrap(backbone)
    torch.manual_seed(0)
    head = head or Linear(wrapped.feature_dim, 2)
    classifier = Classifier(wrapped, Scaling(wrapped.feature_dim, "none"), head, mean)
    transform = BackboneTransform(wrapped.picture_format)
    return Predictor(classifier, sampling, transform, ["left", "right"], torch.device("cpu"))


def grey(number: int) -> Tensor:
    """Return a frame whose every value is a number."""
    return torch.full((3, 48, 48), number, dtype=torch.uint8)


def labels_of(labeller: LiveLabeller) -> list[WindowLabel]:
    """Return the labels until there is no work."""
    labels = []
    while not labeller.is_done:
        labels += [label for label in [labeller.work(5)] if label]
    return labels


def push_all(labeller: LiveLabeller, path: Path, fps: float) -> threading.Thread:
    def push() -> None:
        for index, frame in iterate_frames(path):
            labeller.push(index / fps, frame)
        labeller.finish()

    thread = threading.Thread(target=push)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("backbone", "sampling"),
    [
        (Images, Rate(3)),
        (Images, Uniform(5)),
        (Images, Segments(3)),
        (Clips, Dense(num_views=3, num_frames=4, stride=2)),
        (Clips, Uniform(4)),
    ],
)
@pytest.mark.parametrize("stride_s", [0.4, 1.0, 1.5])
@pytest.mark.parametrize("holds_all", [True, False])
def test_windows_of_a_file_that_is_pushed_have_the_bits_of_the_files_windows(
    backbone: Any, sampling: Any, stride_s: float, holds_all: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = encode_video(tmp_path / "a.avi", 90, fps=25)
    predictor, info = predictor_of(backbone(), sampling), inspect(path)
    windows = Windows(1.0, stride_s, getattr(sampling, "rate_hz", None))
    starts_s, ends_s = windows.times_of(path, info)
    expected = list(score_windows(predictor, path, info, starts_s, ends_s))
    labeller = LiveLabeller(predictor, windows, info.fps, loses_nothing=True)
    if not holds_all:
        labeller._holds_all = False
    thread = push_all(labeller, path, info.fps)
    labels = labels_of(labeller)[: len(expected)]
    thread.join()
    assert [(label.start_s, label.end_s) for label in labels] == list(zip(starts_s, ends_s, strict=True))
    assert all(torch.equal(label.log_probabilities, row) for label, row in zip(labels, expected, strict=True))
    assert labeller.num_dropped == 0


def test_only_sampled_frames_are_converted_and_only_those_of_open_windows_are_held():
    predictor = predictor_of(Numbers(), Rate(5), Self())
    labeller = LiveLabeller(predictor, Windows(2.0, 1.0, 5), 25)
    converted, most = [], 0

    def convert(number: int) -> Tensor:
        converted.append(number)
        return grey(number % 256)

    for number in range(500):
        labeller.push(number / 25, lambda number=number: convert(number))
        labeller.work(0)
        most = max(most, len(labeller._frames) + len(labeller._features))
    assert converted == list(range(0, 500, 5))
    assert most <= 2 * 16  # frames and features of two windows, which share half of theirs


def test_a_window_is_whole_with_its_last_frame_and_its_features_are_computed_before():
    backbone = Numbers()
    labeller = LiveLabeller(predictor_of(backbone, Rate(5), Self()), Windows(1.0, 1.0, 5), 25)
    labels = []
    for number in range(25):
        assert not labels
        labeller.push(number / 25, grey(number))
        labels += [label for label in (labeller.work(0), labeller.work(0)) if label]
        assert backbone.seen == list(range(0, number + 1, 5))
    (label,) = labels
    assert (label.start_s, label.end_s, label.dropped) == (0, 1, 0)
    assert label.top5[0]["label"] == "left"


def test_a_model_that_is_too_slow_labels_the_newest_windows_and_counts_what_it_never_saw():
    backbone = Numbers()
    labeller = LiveLabeller(predictor_of(backbone, Uniform(2), Self()), Windows(1.0, 1.0), 10)
    labels = []
    for number in range(100):
        labeller.push(number / 10, grey(number))
        if number % 35 == 34:  # the model is free every three and a half windows
            labels += [label for label in (labeller.work(0),) if label]
    assert [label.start_s for label in labels] == [2.0, 6.0]
    assert backbone.seen == [20, 29, 60, 69]
    assert [label.dropped for label in labels] == [4, 10]  # two windows of two frames, then three


def test_the_delay_of_a_slow_model_is_bounded_by_its_own_time():
    labeller = LiveLabeller(predictor_of(Numbers(pause_s=0.1), Rate(10), Self()), Windows(0.1, 0.1, 10), 100)
    stop = threading.Event()

    def push() -> None:
        began_s, number = time.monotonic(), 0
        while not stop.wait(max(0.0, began_s + number / 100 - time.monotonic())):
            labeller.push(number / 100, grey(number % 256))
            number += 1

    thread = threading.Thread(target=push)
    thread.start()
    delays = []
    try:
        while len(delays) < 6:
            if label := labeller.work(1):
                delays.append(time.monotonic() - label.arrived_s)
    finally:
        stop.set()
        thread.join()
    assert max(delays) < 0.5  # and not more with each


def test_a_file_waits_for_the_model_and_a_reader_that_is_told_to_stop_does_not():
    labeller = LiveLabeller(predictor_of(Numbers(), Rate(5), Self()), Windows(1.0, 1.0, 5), 5, loses_nothing=True)
    pushed = []

    def push() -> None:
        for number in range(100):
            labeller.push(number / 5, grey(number))
            pushed.append(number)

    thread = threading.Thread(target=push)
    thread.start()
    time.sleep(0.1)
    assert len(pushed) == 14  # two windows wait, and the last frame of the third is in hand
    labeller.close()
    thread.join(2)
    assert not thread.is_alive()


@pytest.mark.parametrize(("sampling", "numbers"), [(Rate(5), [10, 12, 14]), (Uniform(3), [10, 12, 14])])
def test_the_frames_at_the_end_of_a_file_are_a_window_of_their_own(sampling: Any, numbers: list[int]):
    backbone = Numbers()
    labeller = LiveLabeller(predictor_of(backbone, sampling, Self()), Windows(1.0, 1.0), 10, loses_nothing=True)
    for number in range(15):
        labeller.push(number / 10, grey(number))
    labeller.finish()
    labels = labels_of(labeller)
    assert [(label.start_s, label.end_s) for label in labels] == [(0, 1), (1, 1.5)]
    assert [number for number in backbone.seen if number][-len(numbers) :] == numbers


@pytest.mark.parametrize("sampling", [Rate(1), Uniform(3)])
def test_frames_that_a_whole_window_has_seen_are_no_window_of_their_own(sampling: Any):
    labeller = LiveLabeller(predictor_of(Numbers(), sampling, Self()), Windows(1.0, 0.5, 1), 10, loses_nothing=True)
    labels: list[WindowLabel] = []
    thread = threading.Thread(target=lambda: labels.extend(labels_of(labeller)))
    thread.start()
    for number in range(38):
        labeller.push(number / 10, grey(number))
    labeller.finish()
    thread.join()
    ends = [label.end_s for label in labels]
    assert ends[-2:] == [3.5, 3.8]
    assert labels[-1].start_s == 3.5


def test_the_end_of_a_live_stream_has_no_label():
    labeller = LiveLabeller(predictor_of(Numbers(), Rate(5), Self()), Windows(1.0, 1.0), 10)
    for number in range(15):
        labeller.push(number / 10, grey(number))
    labeller.finish()
    assert [label.start_s for label in labels_of(labeller)] == [0]


def test_an_end_that_cannot_be_labelled_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(live, "HELD_BYTES", 3 * 48 * 48 * 6)  # of six frames: not all of a window of ten
    predictor = predictor_of(Numbers(), Uniform(2), Self())
    labeller = LiveLabeller(predictor, Windows(1.0, 1.0), 10, loses_nothing=True, name="-")
    for number in range(15):
        labeller.push(number / 10, grey(number))
    labeller.finish()
    assert [label.start_s for label in labels_of(labeller)] == [0]
    assert capsys.readouterr().err == "-: the last 0.50 s, less than a window, have no label.\n"


def test_a_window_that_does_not_fit_into_memory_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live, "HELD_BYTES", 3 * 48 * 48 * 6)
    labeller = LiveLabeller(predictor_of(Numbers(), Rate(10), Self()), Windows(60.0, 60.0), 10)
    with pytest.raises(VidclfError, match=r"window_s=60: a window needs 1,200 frames in memory.*Choose a shorter"):
        labeller.push(0, grey(0))


def test_at_each_instant_the_newest_frame_counts_and_a_window_without_frames_has_no_label():
    backbone = Numbers()
    labeller = LiveLabeller(predictor_of(backbone, Rate(10), Self()), Windows(0.5, 0.5, 10), 10)
    starts = []
    for time_s, number in [(0.0, 1), (0.32, 2), (0.41, 3), (2.1, 4), (2.4, 5)]:  # a camera that lags
        labeller.push(time_s, grey(number))
        while label := labeller.work(0):
            starts.append(label.start_s)
        labeller.work(0)
    assert starts == [0.0, 2.0]
    assert backbone.seen == [1, 1, 1, 1, 2, 3, 4, 4, 4, 5]  # each tenth of a second in the two windows


def test_a_restart_begins_a_window_with_the_next_frame():
    labeller = LiveLabeller(predictor_of(Numbers(), Rate(5), Self()), Windows(1.0, 1.0), 10)
    for number in range(7):
        labeller.push(number / 10, grey(number))
    labeller.restart(fps=20)
    for number in range(20):
        labeller.push(0.7 + number / 20, grey(number))
    labels = []
    while label := labeller.work(0) or labeller.work(0):
        labels.append(label)
    assert [(label.start_s, label.end_s) for label in labels] == [(0.7, 1.7)]


def test_frames_that_show_numbers_are_those_that_the_sampling_names(tmp_path: Path):
    path = encode_video(tmp_path / "a.mkv", 30, codec="ffv1", pix_fmt="bgr0")
    seen = []
    labeller = LiveLabeller(predictor_of(Images(), Rate(5)), Windows(1.0, 1.0, 5), 25)
    for index, frame in iterate_frames(path):
        labeller.push(index / 25, lambda frame=frame: (seen.append(read_frame_number(frame)), frame)[1])
    assert seen == [0, 5, 10, 15, 20, 25]
    assert np.array_equal(frame.permute(1, 2, 0).numpy(), numbered_frame(29))
