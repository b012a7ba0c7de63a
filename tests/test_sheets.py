"""The images that TensorBoard shows: views as they were decoded, and the confusion matrix."""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from doubles import Clips, Images, make_corpus, make_learner, make_stored, make_trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from sklearn.metrics import confusion_matrix
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from videos import read_frame_number

from vidclf.data.corpus import Corpus
from vidclf.data.sampling import Rate, Segments, Uniform
from vidclf.datamodule import VideoDataModule
from vidclf.errors import VidclfError
from vidclf.evaluation.figures import (
    LINE,
    MAX_FRAMES,
    MAX_NUMBERED,
    TILE,
    ShownVideo,
    ViewSheets,
    _draw_block,
    draw_confusion,
    draw_sheet,
    drawn_videos,
)
from vidclf.evaluation.logits import ViewLogits
from vidclf.evaluation.scores import VideoPredictions
from vidclf.models.aggregation import mean
from vidclf.models.heads.linear import Linear


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture
def root(ucf101_tree: Callable[..., Path]) -> Path:
    return ucf101_tree()


def seen(shown: ShownVideo) -> list[list[int]]:
    """The numbers of the frames of each view."""
    return [[read_frame_number(frame) for frame in view] for view in shown.frames]


def judged_as(corpus: Corpus, part: str, logits: Tensor, num_crops: int = 1) -> tuple[ViewLogits, VideoPredictions]:
    """What a classifier found that gave every view, of `num_crops` crops, these logits; the last scored first."""
    drawn = [(one.video, one.label, view) for one in corpus.views(part) for view in range(len(one.views) * num_crops)]
    video, labels, view = (torch.tensor(column) for column in zip(*reversed(drawn), strict=True))
    judged = ViewLogits(logits.expand(len(drawn), -1), labels, video, view, 0)
    return judged, judged.aggregate(mean, corpus.videos)


def test_a_sheet_shows_views_under_their_label_and_their_videos_name(root: Path):
    corpus = make_corpus(root, sampling=Uniform(4))
    names = {corpus.videos[one.video].name for one in corpus.views("val")}
    shown = list(drawn_videos(corpus, "val", num_views=3))
    assert len(shown) == 3
    for one in shown:
        label, name = one.heading
        assert name in names
        assert label == f"true {name.split('/')[0]}"
        assert (seen(one), one.captions) == ([[0, 4, 7, 11]], [["view 0, frames 0-11"]])


def test_the_views_of_a_video_stand_together_up_to_four_of_them(root: Path):
    corpus = make_corpus(root, sampling=Rate(10))  # frames 0, 2, ..., 10
    first, second = drawn_videos(corpus, "val", num_views=6)
    assert seen(first) == [[0], [4], [6], [10]]
    assert first.captions[1] == ["view 2, frame 4"]
    assert seen(second) == [[0], [10]]  # which are left of the six


def test_a_sheet_shows_what_the_first_epoch_trains_on(root: Path):
    corpus = make_corpus(root, sampling=Segments(3))
    drawn = {corpus.videos[one.video].name: one.frames.tolist() for one in corpus.views("train", epoch=0)}
    assert {one.heading[-1]: seen(one) for one in drawn_videos(corpus, "train", num_views=99)} == drawn


def test_the_same_seed_draws_the_same_videos(root: Path):
    drawn = []
    for seed in (0, 0, 1):
        corpus = make_corpus(root, seed=seed, sampling=Uniform(1))
        drawn.append([one.heading for one in drawn_videos(corpus, "train", num_views=8)])
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_long_clip_shows_eight_frames_from_its_first_to_its_last(root: Path):
    (shown,) = drawn_videos(make_corpus(root, sampling=Uniform(12)), "train", num_views=1)
    ((*numbers,),) = seen(shown)
    assert len(numbers) == MAX_FRAMES
    assert (numbers[0], numbers[-1]) == (0, 11)
    assert numbers == sorted(numbers)


def test_what_was_made_of_a_video_and_of_each_view_stands_beside_it(root: Path):
    corpus = make_corpus(root, sampling=Rate(5))
    logits = torch.tensor([0.2, 0.8]).log()
    for one in drawn_videos(corpus, "val", 99, *judged_as(corpus, "val", logits, num_crops=3)):
        is_correct = one.heading[0] == "true Archery"
        assert one.heading[1] == "predicted 0.80 Archery"
        assert one.colour == ("darkgreen" if is_correct else "firebrick")
        assert [caption[1] for caption in one.captions] == ["0.80 Archery"] * 3


def test_a_view_is_told_what_its_own_crops_gave(root: Path):
    corpus = make_corpus(root, sampling=Rate(5))  # three views
    judged, videos = judged_as(corpus, "val", torch.zeros(2), num_crops=2)
    of_view = torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.5, 0.5]]).log()
    judged = replace(judged, logits=of_view[judged.view // 2])
    for one in drawn_videos(corpus, "val", 99, judged, videos):
        assert [caption[1] for caption in one.captions][:2] == ["0.90 ApplyEyeMakeup", "0.70 Archery"]


def test_clips_are_an_animation_and_images_are_not(root: Path):
    still = draw_sheet(make_corpus(root, sampling=Rate(5)), "val", num_views=8)
    film = draw_sheet(make_corpus(root, sampling=Uniform(4)), "val", num_views=8)
    assert (len(still), len(film)) == (1, 4)
    assert len({image.tobytes() for image in film}) == 4
    assert {image.size for image in film} == {film[0].size}
    assert film[0].width >= 4 * TILE  # videos of one view each stand side by side
    assert still[0].height > film[0].height  # those of three do not


def test_no_name_breaks_a_sheet(root: Path):
    corpus = make_corpus(root)
    corpus.class_names = ["$_{", "a\n\udcff\u202e\0" + 1000 * "x"]
    corpus.videos = [replace(video, name=f"\udc80{1000 * '/y z'}{video.name}") for video in corpus.videos]
    corpus.dataset.credit = 1000 * "someone, CC-BY "
    (sheet,) = draw_sheet(corpus, "val", 8, *judged_as(corpus, "val", torch.zeros(2)))
    assert sheet.height < 2000


def test_a_sheet_of_no_views_is_refused():
    with pytest.raises(VidclfError, match=r"num_views=0: it must be 1 or more. Leave the sheets out by ~callbacks"):
        ViewSheets(num_views=0)


def test_a_video_of_one_row_of_pixels_is_shown():
    shown = ShownVideo(torch.zeros(1, 1, 3, 2, 2000, dtype=torch.uint8), [""], [[""]], "black")
    assert _draw_block(shown).shape == (1, 3, 1 + 2 * LINE, TILE)


def test_the_data_sets_credit_stands_below(root: Path):
    corpus = make_corpus(root)
    (plain,) = draw_sheet(corpus, "train")
    corpus.dataset.credit = "Photograph: someone, CC-BY"
    (credited,) = draw_sheet(corpus, "train")
    assert credited.height == plain.height + LINE
    assert credited.crop((0, 0, *plain.size)).tobytes() == plain.tobytes()


@pytest.mark.parametrize(("sampling", "form"), [(Rate(5), "PNG"), (Uniform(4), "GIF")])
def test_training_leaves_its_views_in_tensorboard_clips_as_a_film(sampling: Any, form: str, root: Path, tmp_path: Path):
    corpus = make_corpus(root, sampling=sampling)
    backbone = Clips() if form == "GIF" else Images()
    datamodule = VideoDataModule(corpus, make_stored(corpus, root, backbone))
    datamodule.source.prepare([*corpus.views("train"), *corpus.views("val")])
    logger = TensorBoardLogger(tmp_path / "log")
    trainer = make_trainer(max_epochs=1, logger=logger, callbacks=[ViewSheets(num_views=2)])
    wrapped = datamodule.source.extractor.backbone
    head = Linear(wrapped.feature_dim, 2)
    trainer.fit(make_learner(wrapped, head=head), datamodule=datamodule)
    events = EventAccumulator(logger.log_dir).Reload()
    assert events.Tags()["images"] == ["views/train"]
    (event,) = events.Images("views/train")
    with Image.open(io.BytesIO(event.encoded_image_string)) as image:
        assert (image.format, getattr(image, "n_frames", 1)) == (form, 4 if form == "GIF" else 1)
        assert image.size == (event.width, event.height)


@pytest.fixture
def labels() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 3, (50,), generator=generator), torch.randint(0, 4, (50,), generator=generator)


def test_the_confusion_matrix_is_scikit_learns_with_true_classes_in_rows(labels: tuple[Tensor, Tensor]):
    figure = draw_confusion(*labels, ["a", "b", "c", "d"])  # d never occurs
    shown = np.asarray(figure.axes[0].images[0].get_array())
    counts = confusion_matrix(*labels, labels=range(4))
    assert shown[:3] == pytest.approx(counts[:3] / counts[:3].sum(1, keepdims=True))
    assert (shown[3] == 0).all()
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["a", "b", "c", "d"]


def test_a_matrix_of_many_classes_names_them_all_and_has_no_numbers(labels: tuple[Tensor, Tensor]):
    names = [f"class {number}" for number in range(MAX_NUMBERED + 1)]
    (axis,) = draw_confusion(*labels, names).axes
    assert [text.get_text() for text in axis.get_yticklabels()] == names
    assert not axis.texts


def test_a_class_name_with_dollars_is_no_formula(labels: tuple[Tensor, Tensor]):
    figure = draw_confusion(*labels, ["a $1", "b $\\x$", *map(str, range(9))])
    figure.draw_without_rendering()  # it fails at what it takes for a formula
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()][:2] == ["a \\$1", "b \\$\\x\\$"]  # escaped
