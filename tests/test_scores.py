"""The numbers of metrics.json, by hand and by scikit-learn."""

import math

import numpy as np
import pytest
import torch
from doubles import Pictures, make_classifier
from sklearn.metrics import accuracy_score, log_loss, recall_score, top_k_accuracy_score
from torch import Tensor

from vidclf.evaluation.judge import Judged, scores_of
from vidclf.evaluation.scores import score_videos, score_views
from vidclf.models.aggregation import max as max_of_views
from vidclf.models.aggregation import mean, mode
from vidclf.models.backbones.wrapped import FrozenBackbone
from vidclf.models.classifier import aggregate_videos


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


def test_the_order_of_the_videos_changes_nothing(unbalanced: tuple[Tensor, Tensor]):
    log_probabilities, labels = unbalanced
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    assert score_videos(log_probabilities[order], labels[order]) == pytest.approx(score_videos(*unbalanced))


def test_views_are_joined_by_video_wherever_they_stand():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0], [5.0, 0.0], [0.0, 1.0]])
    video = torch.tensor([9, 4, 9, 4, 4])
    joined, labels = aggregate_videos(logits, torch.tensor([0, 1, 0, 1, 1]), video, lambda views: views.sum(0))
    assert joined.tolist() == [[5.0, 2.0], [2.0, 3.0]]  # videos 4 and 9
    assert labels.tolist() == [1, 0]


def test_every_aggregation_is_scored_from_the_same_logits():
    # Two weak votes for class 0 against a strong one for class 1: mode says 0, mean and max say 1.
    logits = torch.tensor([[0.55, 0.45], [0.55, 0.45], [0.01, 0.99], [0.9, 0.1]]).log()
    labels, video = torch.tensor([1, 1, 1, 0]), torch.tensor([0, 0, 0, 1])
    others = {"mode": mode, "max": max_of_views}
    scores = score_views(logits, labels, video, mean, others)
    assert {name: value for name, value in scores.items() if "top1" in name} == {
        "top1": 1.0,
        "top1/mode": 0.5,
        "top1/max": 1.0,
    }
    assert scores["loss"] == pytest.approx(-(math.log(1.89 / 3) + math.log(0.9)) / 2)


def test_scored_and_failed_videos_are_the_part(unbalanced: tuple[Tensor, Tensor]):
    log_probabilities, labels = unbalanced
    video = torch.arange(60) // 2 * 3  # two views each, of every third video
    judged = Judged(log_probabilities, labels[video // 3 * 2], video, torch.arange(60) % 2, num_failed=4)
    scores = scores_of(judged, make_classifier(FrozenBackbone(Pictures()), num_classes=8), {"mean": mean})
    assert (scores["num_videos"], scores["num_failed"]) == (30, 4)
    assert scores["top1"] == scores["top1/mean"]
