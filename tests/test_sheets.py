"""The images that TensorBoard shows: views as they were decoded, and the confusion matrix."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

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
    MAX_FRAMES,
    MAX_NUMBERED,
    RIGHT,
    WIDTH,
    WRONG,
    ShownView,
    ViewSheets,
    choose_views,
    draw_confusion,
    draw_sheet,
    draw_views,
)
from vidclf.evaluation.logits import ViewLogits
from vidclf.evaluation.scores import VideoPredictions
from vidclf.models.aggregation import mean
from vidclf.models.heads.linear import Linear


@pytest.fixture
def root(ucf101_tree: Callable[..., Path]) -> Path:
    return ucf101_tree()


def frame_numbers(view: ShownView) -> list[int]:
    return [read_frame_number(frame) for frame in view.frames]


def scored_with(corpus: Corpus, part: str, logits: Tensor, num_crops: int = 1) -> tuple[ViewLogits, VideoPredictions]:
    """Return scores of a part with the same logits for every view, of `num_crops` crops; the last is scored first."""
    crops = [
        (video.video, video.label, crop) for video in corpus.views(part) for crop in range(len(video.views) * num_crops)
    ]
    video, labels, view = (torch.tensor(column) for column in zip(*reversed(crops), strict=True))
    view_logits = ViewLogits(logits.expand(len(crops), -1), labels, video, view, 0)
    return view_logits, view_logits.aggregate(mean, corpus.videos)


def test_a_sheet_shows_views_under_their_label_and_their_videos_name(root: Path):
    corpus = make_corpus(root, sampling=Uniform(4))
    names = {corpus.videos[video.video].name for video in corpus.views("val")}
    views = list(choose_views(corpus, "val", num_views=3))
    assert len(views) == 3
    for view in views:
        label, name = view.title
        assert name in names
        assert label == f"true {name.split('/')[0]}"
        assert (frame_numbers(view), view.caption) == ([0, 4, 7, 11], ["view 0, frames 0-11"])


def test_up_to_four_views_of_a_video_are_beside_each_other(root: Path):
    corpus = make_corpus(root, sampling=Rate(10))  # frames 0, 2, ..., 10
    views = list(choose_views(corpus, "val", num_views=6))
    assert [frame_numbers(view) for view in views] == [[0], [4], [6], [10], [0], [10]]
    assert views[1].caption == ["view 2, frame 4"]
    assert len({view.title[-1] for view in views[:4]}) == 1 != len({view.title[-1] for view in views})


def test_a_sheet_shows_the_training_views_of_the_first_epoch(root: Path):
    corpus = make_corpus(root, sampling=Segments(3))
    (expected,) = {len(video.views) for video in corpus.views("train", epoch=0)}
    assert expected == 1
    drawn = {corpus.videos[video.video].name: video.frames[0].tolist() for video in corpus.views("train", epoch=0)}
    assert {view.title[-1]: frame_numbers(view) for view in choose_views(corpus, "train", num_views=99)} == drawn


def test_the_same_seed_draws_the_same_videos(root: Path):
    drawn = []
    for seed in (0, 0, 1):
        corpus = make_corpus(root, seed=seed, sampling=Uniform(1))
        drawn.append([view.title for view in choose_views(corpus, "train", num_views=8)])
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_long_clip_shows_eight_frames_from_its_first_to_its_last(root: Path):
    (view,) = choose_views(make_corpus(root, sampling=Uniform(12)), "train", num_views=1)
    numbers = frame_numbers(view)
    assert len(numbers) == MAX_FRAMES
    assert (numbers[0], numbers[-1]) == (0, 11)
    assert numbers == sorted(numbers)


def test_predictions_of_a_video_and_of_its_views_are_shown(root: Path):
    corpus = make_corpus(root, sampling=Rate(5))
    logits = torch.tensor([0.2, 0.8]).log()
    views = list(choose_views(corpus, "val", 99, *scored_with(corpus, "val", logits, num_crops=3)))
    assert {view.colour for view in views} == {RIGHT, WRONG}
    for view in views:
        assert view.title[1] == "predicted 0.80 Archery"
        assert view.colour == (RIGHT if view.title[0] == "true Archery" else WRONG)
        assert view.caption[1] == "0.80 Archery"


def test_the_prediction_of_a_view_is_the_mean_over_its_crops(root: Path):
    corpus = make_corpus(root, sampling=Rate(5))  # three views
    view_logits, predictions = scored_with(corpus, "val", torch.zeros(2), num_crops=2)
    of_view = torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.5, 0.5]]).log()
    view_logits = replace(view_logits, logits=of_view[view_logits.view // 2])
    expected = {"view 0, frame 0": "0.90 ApplyEyeMakeup", "view 1, frame 5": "0.70 Archery"}
    captions = [view.caption for view in choose_views(corpus, "val", 99, view_logits, predictions)]
    assert {text: prediction for text, prediction in captions if text in expected} == expected


def test_clips_are_an_animation_and_images_are_not(root: Path):
    still = draw_sheet(make_corpus(root, sampling=Rate(5)), "val", num_views=8)
    film = draw_sheet(make_corpus(root, sampling=Uniform(4)), "val", num_views=8)
    assert (len(still), len(film)) == (1, 4)
    assert len({image.tobytes() for image in film}) == 4
    assert {image.size for image in film} == {film[0].size}
    assert (film[0].width, still[0].width) == (WIDTH, WIDTH)  # as TensorBoard shows them


def test_no_name_breaks_a_sheet(root: Path):
    corpus = make_corpus(root)
    corpus.class_names = ["$_{", "a\n\udcff\u202e\0\u4e2d" + 1000 * "x"]
    corpus.videos = [replace(video, name=f"\udc80{1000 * '/y z$^$'}{video.name}") for video in corpus.videos]
    corpus.dataset.credit = 1000 * "someone, CC-BY $x^{ "
    (sheet,) = draw_sheet(corpus, "val", 8, *scored_with(corpus, "val", torch.zeros(2)))
    assert sheet.height < 2000


def test_a_sheet_of_no_views_is_refused():
    with pytest.raises(VidclfError, match=r"num_views=0: must be 1 or more\. .*~callbacks.view_sheets"):
        ViewSheets(num_views=0)


def test_a_video_of_two_rows_of_pixels_is_shown():
    view = ShownView(torch.zeros(1, 3, 2, 2000, dtype=torch.uint8), ["title"], ["caption"], "black")
    (sheet,) = draw_views([view])
    assert sheet.width == WIDTH // 2


def test_the_data_sets_credit_is_below(root: Path):
    corpus = make_corpus(root)
    (plain,) = draw_sheet(corpus, "train")
    corpus.dataset.credit = "Photograph: someone, CC-BY"
    (credited,) = draw_sheet(corpus, "train")
    assert credited.height > plain.height
    below = np.asarray(credited.crop((0, credited.height - 20, *credited.size)))
    assert (below < 100).any()
    assert (np.asarray(plain.crop((0, plain.height - 5, *plain.size))) == 255).all()


@pytest.mark.parametrize(("sampling", "form"), [(Rate(5), "PNG"), (Uniform(4), "GIF")])
def test_training_shows_its_views_and_clips_as_a_gif(sampling: Any, form: str, root: Path, tmp_path: Path):
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


def test_a_matrix_of_many_classes_names_them_all_without_numbers(labels: tuple[Tensor, Tensor]):
    names = [f"class {number}" for number in range(MAX_NUMBERED + 1)]
    (axis,) = draw_confusion(*labels, names).axes
    assert [text.get_text() for text in axis.get_yticklabels()] == names
    assert not axis.texts


def test_a_class_name_with_dollars_is_not_a_formula(labels: tuple[Tensor, Tensor]):
    figure = draw_confusion(*labels, ["a $1", "b $\\x$", *map(str, range(9))])
    figure.draw_without_rendering()  # raises at an invalid formula
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()][:2] == ["a \\$1", "b \\$\\x\\$"]  # escaped
