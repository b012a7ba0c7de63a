"""From the logits of the views to the log-probabilities of the video."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from vidclf.errors import VidclfError
from vidclf.models import aggregation

ALL = [
    aggregation.mode,
    aggregation.mean,
    aggregation.max,
    aggregation.logit_mean,
    aggregation.median,
    aggregation.topk_mean,
]
SMOOTH = [function for function in ALL if function is not aggregation.mode]
Aggregation = Callable[[Tensor], Tensor]
# Two views are for class 0, narrowly, two for class 1, one for class 2, certainly.
PROBABILITIES = np.array(
    [[0.4, 0.3, 0.3], [0.5, 0.2, 0.3], [0.3, 0.6, 0.1], [0.2, 0.5, 0.3], [0.05, 0.05, 0.9]], dtype=np.float64
)


def logits_of(probabilities: np.ndarray) -> Tensor:
    """Logits are log-probabilities up to a number that differs from view to view."""
    return torch.from_numpy(np.log(probabilities)) + torch.arange(len(probabilities))[:, None]


def normalised(scores: np.ndarray) -> np.ndarray:
    return scores / scores.sum()


@pytest.mark.parametrize("num_views", [4, 5])
@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (aggregation.mean, lambda p: p.mean(0)),
        (aggregation.max, lambda p: normalised(p.max(0))),
        (aggregation.logit_mean, lambda p: normalised(np.exp(np.log(p).mean(0)))),
        (aggregation.median, lambda p: normalised(np.median(p, axis=0))),
        (aggregation.topk_mean, lambda p: normalised(np.sort(p, axis=0)[-3:].mean(0))),
        (
            aggregation.mode,
            lambda p: (np.bincount(p.argmax(1), minlength=3) + p.mean(0)) / (len(p) + 1),
        ),
    ],
)
def test_each_is_what_numpy_makes_of_the_probabilities(
    function: Aggregation, expected: Callable[[np.ndarray], np.ndarray], num_views: int
):
    probabilities = PROBABILITIES[:num_views]
    np.testing.assert_allclose(function(logits_of(probabilities)).exp(), expected(probabilities))


def test_the_majority_wins_over_certainty_and_the_mean_breaks_its_ties():
    assert aggregation.mean(logits_of(PROBABILITIES)).argmax() == 2
    assert aggregation.mode(logits_of(PROBABILITIES)).argmax() == 1  # 2 votes as class 0, and a larger mean
    assert aggregation.mode(logits_of(PROBABILITIES[:3])).argmax() == 0


def test_of_a_tie_the_mean_or_the_first_class_wins():
    tie = logits_of(np.array([[0.3, 0.6, 0.1], [0.45, 0.3, 0.25], [0.1, 0.2, 0.7]]))  # a vote each
    assert aggregation.mode(tie).argmax() == 1
    first = aggregation.mode(tie, ties="first")
    assert first.argmax() == 0
    np.testing.assert_allclose(first.exp(), 1 / 3)
    with pytest.raises(VidclfError, match=r"aggregation\.ties=last: must be mean or first"):
        aggregation.mode(tie, ties="last")


def test_topk_mean_averages_k_probabilities():
    logits = logits_of(PROBABILITIES)
    torch.testing.assert_close(aggregation.topk_mean(logits, k=1), aggregation.max(logits))
    torch.testing.assert_close(aggregation.topk_mean(logits, k=99), aggregation.mean(logits))


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_views", [1, 2, 30])
def test_extreme_logits_give_finite_numbers_that_sum_to_one(function: Aggregation, dtype: torch.dtype, num_views: int):
    signs = torch.randn(num_views, 101, generator=torch.Generator().manual_seed(0)).sign()
    result = function(1e4 * signs.to(dtype))
    assert result.isfinite().all()
    assert result.dtype == dtype
    assert result.exp().sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("function", ALL)
def test_the_order_of_views_does_not_matter(function: Aggregation):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(10, 7, generator=generator)
    shuffled = logits[torch.randperm(10, generator=generator)]
    assert not torch.equal(shuffled, logits)
    torch.testing.assert_close(function(shuffled), function(logits))


@pytest.mark.parametrize("function", SMOOTH)
def test_a_single_view_keeps_its_probabilities(function: Aggregation):
    logits = torch.tensor([[1.0, -2.0, 0.5]])
    torch.testing.assert_close(function(logits), logits[0].log_softmax(0))


def test_a_single_views_vote_counts_one_half():
    logits = torch.tensor([[0.0, math.log(3)]])  # probabilities 1/4 and 3/4
    torch.testing.assert_close(aggregation.mode(logits).exp(), torch.tensor([0.25 / 2, 1.75 / 2]))


@pytest.mark.parametrize("function", ALL)
def test_bfloat16_logits_are_aggregated_in_float32(function: Aggregation):
    logits = logits_of(PROBABILITIES).bfloat16()
    assert torch.equal(function(logits), function(logits.float()))


@pytest.mark.parametrize("function", ALL)
def test_a_video_without_views_is_an_error(function: Aggregation):
    with pytest.raises(VidclfError, match=r"\(0, K\), .* V must be 1 or more"):
        function(torch.empty(0, 5))


def test_a_mean_of_zero_probabilities_is_an_error():
    with pytest.raises(VidclfError, match=r"aggregation\.k=0: must be 1 or more"):
        aggregation.topk_mean(torch.zeros(2, 3), k=0)
