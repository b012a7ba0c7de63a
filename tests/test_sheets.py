"""The pictures that TensorBoard shows: views as they were decoded, and the confusion matrix."""

from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from doubles import make_corpus, make_learner, make_stored, make_trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from videos import read_frame_number

from vidclf.data.sampling import Segments, Uniform
from vidclf.datamodule import VideoDataModule
from vidclf.evaluation.sheets import MAX_FRAMES, MAX_NUMBERED, ViewSheets, draw_confusion, draw_sheet


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture
def root(ucf101_tree: Callable[..., Path]) -> Path:
    return ucf101_tree()


def rows_of(figure: Figure) -> list[tuple[str, list[int]]]:
    """The title of each row and the numbers of the frames in it."""
    rows = []
    for axis in figure.axes:
        if axis.images:
            strip = torch.from_numpy(np.array(axis.images[0].get_array())).permute(2, 0, 1)
            rows.append((axis.get_title(), [read_frame_number(frame) for frame in strip.split(64, dim=2)]))
    return rows


def test_a_row_is_a_view_its_label_and_its_frames_in_order(root: Path):
    corpus = make_corpus(root, sampling=Uniform(4))
    rows = rows_of(draw_sheet(corpus, "val", num_views=3))
    assert len(rows) == 3
    paths = {corpus.videos[one.video].path.name for one in corpus.views("val")}
    for title, numbers in rows:
        label, name = title.split("   ")
        assert name.removesuffix(", view 0") in {f"{label}/{path}" for path in paths}
        assert numbers == [0, 4, 7, 11]


def test_a_sheet_shows_what_the_first_epoch_trains_on(root: Path):
    corpus = make_corpus(root, sampling=Segments(3))
    drawn = {corpus.videos[one.video].name: one.frames[0].tolist() for one in corpus.views("train", epoch=0)}
    rows = rows_of(draw_sheet(corpus, "train", num_views=99))
    assert {title.split("   ")[1].removesuffix(", view 0"): numbers for title, numbers in rows} == drawn


def test_the_same_seed_draws_the_same_sheet(root: Path):
    sheets = []
    for seed in (0, 0, 1):
        corpus = make_corpus(root, seed=seed)
        sheets.append(rows_of(draw_sheet(corpus, "val", num_views=3)))
    assert sheets[0] == sheets[1] != sheets[2]


def test_a_long_view_shows_eight_frames_from_its_first_to_its_last(root: Path):
    corpus = make_corpus(root, sampling=Uniform(12))
    ((_, numbers),) = rows_of(draw_sheet(corpus, "train", num_views=1))
    assert len(numbers) == MAX_FRAMES
    assert (numbers[0], numbers[-1]) == (0, 11)
    assert numbers == sorted(numbers)


def test_a_name_with_dollar_signs_is_no_formula(root: Path):
    for name in ("$_{", "$^"):
        (root / f"Archery{name}$").mkdir()
    for path in sorted(root.glob("Archery/*")):
        path.rename(root / "Archery$_{$" / path.name)
    (root / "Archery").rmdir()
    (root / "Archery$^$").rmdir()
    corpus = make_corpus(root)
    figure = draw_sheet(corpus, "val", num_views=4)
    figure.canvas.draw()
    assert any("Archery$_{$" in title for title, _ in rows_of(figure))


def test_the_data_sets_credit_stands_below(root: Path):
    corpus = make_corpus(root)
    corpus.dataset.credit = "Photograph: someone, CC-BY"
    assert draw_sheet(corpus, "train", num_views=1).get_supxlabel() == "Photograph: someone, CC-BY"


def test_training_leaves_two_sheets_in_tensorboard(root: Path, tmp_path: Path):
    corpus = make_corpus(root)
    datamodule = VideoDataModule(corpus, make_stored(corpus, root))
    datamodule.source.prepare([*corpus.views("train"), *corpus.views("val")])
    logger = TensorBoardLogger(tmp_path / "log")
    trainer = make_trainer(max_epochs=1, logger=logger, callbacks=[ViewSheets(num_views=2)])
    backbone = datamodule.source.extractor.backbone
    trainer.fit(make_learner(backbone, head=nn.Sequential(nn.Flatten(), nn.Linear(6, 2))), datamodule=datamodule)
    events = EventAccumulator(logger.log_dir).Reload()
    assert events.Tags()["images"] == ["views/train", "views/val"]


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
