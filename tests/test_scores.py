"""The numbers of metrics.json, by hand and by scikit-learn."""

import math
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from doubles import Images, make_corpus, make_frames, make_learner, make_trainer
from sklearn.metrics import accuracy_score, classification_report, log_loss, recall_score, top_k_accuracy_score
from torch import Tensor
from torch.distributions import Categorical

from vidclf.contracts import Video
from vidclf.data.corpus import Corpus
from vidclf.errors import VidclfError
from vidclf.evaluation.calibration import calibration_error, fit_temperature, interval_of_calibration_error, reliability
from vidclf.evaluation.intervals import Clusters
from vidclf.evaluation.logits import ViewLogits, compute_metrics, print_warnings, score_part
from vidclf.evaluation.results import CLASSES, classes_of
from vidclf.evaluation.scores import (
    VideoPredictions,
    intervals_of,
    predict_videos,
    score_aggregations,
    score_numbers_of_views,
    score_videos,
)
from vidclf.models.aggregation import max as max_of_views
from vidclf.models.aggregation import mean, mode
from vidclf.models.backbones.wrap import FrozenBackbone
from vidclf.models.classifier import aggregate_videos, most_probable
from vidclf.models.scaling import Scaling

VIDEOS = [Video(Path(f"{video}.avi"), 0, f"g{video}") for video in range(2)]


@pytest.fixture
def unbalanced() -> tuple[Tensor, Tensor]:
    """60 videos of 8 classes: class 0 is half of them, class 7 is predicted and never true."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.tensor([8.0, 1, 2, 1, 1, 2, 1, 0])
    labels = torch.multinomial(weights, 60, replacement=True, generator=generator)
    scores = torch.randn(60, 8, generator=generator)
    scores[torch.arange(60), labels] += 1
    return scores.log_softmax(1), labels


def test_scores_worked_out_by_hand():
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])
    scores = score_videos(probabilities.log(), torch.tensor([0, 0, 1, 0]))
    assert scores["top1"] == pytest.approx(3 / 4)
    assert scores["top5"] == 1  # of three classes
    assert scores["mean_class"] == pytest.approx((2 / 3 + 1) / 2)  # class 2 is predicted, but does not occur
    assert scores["loss"] == pytest.approx(-math.log(0.7 * 0.5 * 0.8 * 0.3) / 4)


def test_scores_are_scikit_learns(unbalanced: tuple[Tensor, Tensor]):
    log_probabilities, labels = unbalanced
    predicted = log_probabilities.argmax(1)
    assert 7 in predicted
    assert 7 not in labels
    scores = score_videos(log_probabilities, labels)
    classes = np.arange(8)
    assert scores["top1"] == pytest.approx(accuracy_score(labels, predicted))
    assert scores["top5"] == pytest.approx(top_k_accuracy_score(labels, log_probabilities, k=5, labels=classes))
    assert scores["mean_class"] == pytest.approx(
        recall_score(labels, predicted, labels=labels.unique(), average="macro")
    )
    assert scores["loss"] == pytest.approx(log_loss(labels, log_probabilities.double().softmax(1), labels=classes))
    assert scores["top1"] != pytest.approx(scores["mean_class"], abs=0.01)


def test_of_equal_probabilities_the_lowest_class_comes_first_everywhere():
    """Saturated, and quantised, networks give equal logits; predictions.csv and metrics.json must agree on them."""
    log_probabilities = torch.full((40, 40), 1 / 40).log()
    labels = torch.arange(40)
    scores = score_videos(log_probabilities, labels)
    assert (scores["top1"], scores["top5"]) == pytest.approx((1 / 40, 5 / 40))
    names = [f"c{label:02d}" for label in labels]
    assert [name for name, _ in most_probable(log_probabilities[0], names)] == names[:5]
    clusters = Clusters.of([*range(40)], labels.tolist())
    predictions = VideoPredictions(log_probabilities, labels, range(40), clusters)
    assert predictions.predicted.tolist() == [0] * 40
    assert intervals_of(predictions)["top5_low"] < 5 / 40 < intervals_of(predictions)["top5_high"]


def test_scores_take_memory_for_videos_times_classes_only():
    """torchmetrics wanted videos times classes squared where algorithms are deterministic: here 6.4 GB."""
    labels = torch.arange(2000) % 630
    log_probabilities = torch.zeros(2000, 630).log_softmax(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch.use_deterministic_algorithms(True)
    try:
        scores = score_videos(log_probabilities, labels)
    finally:
        torch.use_deterministic_algorithms(False)
    assert scores["mean_class"] == pytest.approx(1 / 630)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


def test_the_order_of_the_videos_changes_nothing(unbalanced: tuple[Tensor, Tensor]):
    log_probabilities, labels = unbalanced
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    assert score_videos(log_probabilities[order], labels[order]) == pytest.approx(score_videos(*unbalanced))


def test_views_are_aggregated_by_video_in_any_order():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0], [5.0, 0.0], [0.0, 1.0]])
    video = torch.tensor([9, 4, 9, 4, 4])
    joined, labels = aggregate_videos(logits, torch.tensor([0, 1, 0, 1, 1]), video, lambda views: views.sum(0))
    assert joined.tolist() == [[5.0, 2.0], [2.0, 3.0]]  # videos 4 and 9
    assert labels.tolist() == [1, 0]


def test_every_aggregation_is_scored_from_the_same_logits():
    # Two weak votes for class 0 against a strong one for class 1: mode says 0, mean and max say 1.
    logits = torch.tensor([[0.55, 0.45], [0.55, 0.45], [0.01, 0.99], [0.9, 0.1]]).log()
    labels, video = torch.tensor([1, 1, 1, 0]), torch.tensor([0, 0, 0, 1])
    aggregations = {"mean": mean, "mode": mode, "max": max_of_views}
    assert score_aggregations(logits, labels, video, aggregations) == {"mean": 1.0, "mode": 0.5, "max": 1.0}
    predictions = predict_videos(logits, labels, video, mean, VIDEOS)
    scores = score_videos(predictions.log_probabilities, predictions.labels)
    assert scores["loss"] == pytest.approx(-(math.log(1.89 / 3) + math.log(0.9)) / 2)


def test_every_score_has_an_interval_around_it(unbalanced: tuple[Tensor, Tensor]):
    log_probabilities, labels = unbalanced
    predictions = VideoPredictions(
        log_probabilities, labels, range(60), Clusters.of([i // 2 for i in range(60)], [*range(60)])
    )
    bounds = intervals_of(predictions)
    for name, score in score_videos(*unbalanced).items():
        assert bounds[f"{name}_low"] < score < bounds[f"{name}_high"], name
    single_group = VideoPredictions(log_probabilities, labels, range(60), Clusters.of(["g1"] * 60, labels.tolist()))
    assert intervals_of(single_group) == {}


def test_more_views_are_spread_over_the_video_up_to_all():
    logits = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    labels, video = torch.tensor([0, 0, 0, 0, 0, 1]), torch.tensor([0, 0, 0, 0, 0, 1])
    rows = score_numbers_of_views(logits, labels, video, mode, VIDEOS)
    # Of five: the third; the second and the fourth (mode's tie: class 0); four of them; all. Of one: that one.
    assert [(num_views, top1) for num_views, top1, _ in rows] == [(1, 1.0), (2, 1.0), (4, 0.5), (5, 0.5)]


def view_logits_of(corpus: Corpus, num_failed: int = 0, num_skipped: int = 0) -> ViewLogits:
    video = torch.tensor([video for video, _ in corpus.split.views_of("test")])
    labels = torch.tensor([corpus.videos[position].label for position in video])
    logits = torch.randn(len(video), 2, generator=torch.Generator().manual_seed(0))
    return ViewLogits(logits, labels, video, torch.zeros_like(video), num_failed, num_skipped)


def test_scores_that_a_choice_may_rest_on_are_computed_on_val_alone(clips: Path, tmp_path: Path):
    corpus = make_corpus(clips, store=tmp_path / "store")
    view_logits = view_logits_of(corpus, num_failed=3, num_skipped=2)
    predictions = view_logits.aggregate(mean, corpus.videos)
    scores = compute_metrics(view_logits, predictions, corpus, "test", {"mean": mean}, temperature=2.0)
    assert (scores["num_videos"], scores["num_failed"], scores["num_skipped"], scores["num_groups"]) == (8, 3, 2, 4)
    assert scores["chance_top1"] == scores["majority_top1"] == 0.5
    assert not any(name.startswith("top1/") for name in scores)
    halved = (predictions.log_probabilities / 2).log_softmax(1)
    assert scores["calibrated_loss"] == pytest.approx(log_loss(predictions.labels, halved.double().softmax(1)))
    on_val = compute_metrics(view_logits, predictions, corpus, "val", {"mean": mean})
    assert on_val["top1/mean"] == on_val["top1"]
    by_group = fit_temperature(predictions.log_probabilities, predictions.labels, num_groups=4)
    assert on_val["temperature"] == pytest.approx(by_group)
    assert "temperature" not in compute_metrics(view_logits, predictions, corpus, "test", {"mean": mean})


def test_a_video_that_is_neither_scored_nor_failed_is_an_error(clips: Path, tmp_path: Path):
    corpus = make_corpus(clips, store=tmp_path / "store")
    classifier = make_learner(FrozenBackbone(Images()), scaling=Scaling(6, "none"))
    with pytest.raises(VidclfError, match=r"has 8 videos; 7 were scored and 0 failed, .* \(neither: A\w+/v_\w+.avi\)"):
        score_part(make_trainer(), classifier, make_frames(corpus), corpus, "test", corpus.views("test")[1:])


def test_the_calibration_error_is_torchmetrics_and_its_curve_adds_up(unbalanced: tuple[Tensor, Tensor]):
    log_probabilities, labels = unbalanced
    bins = reliability(log_probabilities, labels)
    assert sum(count for _, _, count in bins) == 60
    by_hand = sum(count / 60 * abs(probability - accuracy) for probability, accuracy, count in bins)
    assert calibration_error(log_probabilities, labels) == pytest.approx(by_hand, abs=1e-6)
    certain = torch.tensor([[0.0, -80.0], [0.0, -80.0]])
    assert calibration_error(certain, torch.tensor([0, 1])) == pytest.approx(0.5)
    assert reliability(certain, torch.tensor([0, 1])) == [(1.0, 0.5, 2)]


def test_a_temperature_undoes_a_scaling_of_the_logits():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 5, generator=generator) * 2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        labels = Categorical(logits=logits).sample()
    assert fit_temperature((3 * logits).log_softmax(1), labels) == pytest.approx(3, rel=0.05)
    clusters = Clusters.of(range(4000), labels.tolist())
    low, high = interval_of_calibration_error(logits.log_softmax(1), labels, clusters)
    assert 0 <= low < high < 0.03


def test_a_temperature_stays_near_one_where_val_tells_little(capsys: pytest.CaptureFixture[str]):
    all_correct = torch.tensor([[2.0, 0.0]]).expand(56, 2).log_softmax(1), torch.zeros(56, dtype=torch.int64)
    assert 0.4 < fit_temperature(*all_correct) < fit_temperature(*all_correct, num_groups=8) < 1
    by_chance = (50 * torch.eye(2)).repeat(4, 1).log_softmax(1), torch.arange(8) // 2 % 2
    assert 2 < fit_temperature(*by_chance, num_groups=2) < fit_temperature(*by_chance) < 19
    assert not capsys.readouterr().err
    assert fit_temperature(*by_chance, num_groups=5000) == pytest.approx(20, abs=0.01)
    assert "temperature=20 is where the search ends" in capsys.readouterr().err


def test_classes_are_scored_and_one_without_a_video_is_named(
    unbalanced: tuple[Tensor, Tensor], capsys: pytest.CaptureFixture[str]
):
    log_probabilities, labels = unbalanced
    predictions = VideoPredictions(log_probabilities, labels, range(60), Clusters.of([*range(60)], labels.tolist()))
    names = [f"class {label}" for label in range(8)]
    rows = {row[0]: dict(zip(CLASSES, row, strict=True)) for row in classes_of(predictions, names)}
    report = classification_report(labels, predictions.predicted, labels=range(8), output_dict=True, zero_division=0)
    for label in range(7):
        row, expected = rows[f"class {label}"], report[str(label)]
        assert (row["precision"], row["recall"]) == pytest.approx((expected["precision"], expected["recall"]))
        assert row["f1"] == pytest.approx(expected["f1-score"])
        assert row["videos"] == row["groups"] == expected["support"]
        assert row["rough"] == ("yes" if row["groups"] < 10 else "no")
        if row["groups"] > 1:
            assert row["recall_low"] <= row["recall"] <= row["recall_high"]
    assert [rows["class 7"][key] for key in ("videos", "recall", "recall_low", "rough")] == [0, "", "", "yes"]
    print_warnings(predictions, names)
    assert "1 class(es) have no video in this part, so no score includes them: class 7." in capsys.readouterr().err


def test_one_group_and_few_groups_are_warned_of(unbalanced: tuple[Tensor, Tensor], capsys: pytest.CaptureFixture[str]):
    log_probabilities, labels = unbalanced
    for num_groups, sentence in ((1, "There is no interval: all videos are of one group"), (4, "are of 4 groups")):
        clusters = Clusters.of([video % num_groups for video in range(60)], [*range(60)])
        print_warnings(VideoPredictions(log_probabilities, labels, range(60), clusters), [*map(str, range(8))])
        assert sentence in capsys.readouterr().err
