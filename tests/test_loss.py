"""The training loss: smoothed labels, weighted classes, labels that are probabilities."""

import pytest
import torch
from torch import nn

from vidclf.errors import VidclfError
from vidclf.models.loss import CrossEntropy

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]])
LABELS = torch.tensor([0, 1])


def test_the_loss_equals_that_of_torch():
    torch.testing.assert_close(CrossEntropy(3)(LOGITS, LABELS), nn.functional.cross_entropy(LOGITS, LABELS))
    smooth = nn.functional.cross_entropy(LOGITS, LABELS, label_smoothing=0.1)
    torch.testing.assert_close(CrossEntropy(3, label_smoothing=0.1)(LOGITS, LABELS), smooth)


def test_balanced_weights_are_the_inverse_of_the_classes_shares():
    loss = CrossEntropy(3, class_weights="balanced")
    loss.fit(torch.tensor([0, 0, 0, 1]))
    assert loss.weight.tolist() == pytest.approx([4 / (2 * 3), 4 / (2 * 1), 1])
    assert not loss.state_dict()  # taken from the data again at the next training


def test_probabilities_can_be_labels():
    torch.testing.assert_close(CrossEntropy(3)(LOGITS, torch.eye(3)[LABELS]), CrossEntropy(3)(LOGITS, LABELS))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"label_smoothing": 1}, "label_smoothing=1: must be"), ({"class_weights": "even"}, "allowed are balanced")],
)
def test_an_invalid_setting_is_an_error(settings: dict[str, object], message: str):
    with pytest.raises(VidclfError, match=message):
        CrossEntropy(3, **settings)
