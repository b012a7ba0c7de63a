"""Heads over time distinguish orders of frames where they should, and only there."""

import pytest
import torch
from doubles import Images
from torch import Tensor, nn

from vidclf.errors import VidclfError
from vidclf.models.backbones.wrap import wrap
from vidclf.models.classifier import Classifier
from vidclf.models.heads.attention_pool import AttentionPool
from vidclf.models.heads.mean_pool import MeanPool
from vidclf.models.heads.recurrent import GRU, LSTM
from vidclf.models.heads.sequence import FeatureDropout
from vidclf.models.heads.temporal_conv import TemporalConv
from vidclf.models.heads.transformer import Transformer, sinusoidal_positions
from vidclf.models.scaling import Scaling

ORDERED = {
    "gru": GRU,
    "gru both ways": lambda *dims, **kw: GRU(*dims, bidirectional=True, num_layers=2, **kw),
    "lstm": LSTM,
    "transformer": Transformer,
    "temporal_conv": TemporalConv,
    "attention_pool with positions": lambda *dims, **kw: AttentionPool(*dims, positions=True, **kw),
}
ORDER_BLIND = {"attention_pool": AttentionPool, "mean_pool": MeanPool}
HEADS = ORDERED | ORDER_BLIND


def head_for(name: str, seed: int = 0, **settings: object) -> nn.Module:
    torch.manual_seed(seed)
    return HEADS[name](8, 3, **settings).eval()


def sequences(num: int = 5, steps: int = 6) -> Tensor:
    return torch.randn(num, steps, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("steps", [1, 6, 17])
def test_any_number_of_steps_gives_logits_of_every_class(name: str, steps: int):
    assert head_for(name)(sequences(steps=steps)).shape == (5, 3)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_over_time_is_not_trained_on_one_step(name: str):
    classifier = Classifier(wrap(Images()), Scaling(8, "none"), head_for(name), torch.mean)
    if name == "mean_pool":
        assert classifier.train()(sequences(steps=1)).shape == (5, 3)
        return
    with pytest.raises(VidclfError, match="each view has 1 of them; it needs 2"):
        classifier.train()(sequences(steps=1))
    assert classifier.eval()(sequences(steps=1)).shape == (5, 3)  # of a run that exists


@pytest.mark.parametrize("name", HEADS)
def test_a_batch_equals_its_singles(name: str):
    head, views = head_for(name), sequences()
    singles = torch.cat([head(view[None]) for view in views])
    torch.testing.assert_close(head(views), singles)


@pytest.mark.parametrize("name", ORDERED)
def test_the_order_of_the_steps_changes_the_logits(name: str):
    head, views = head_for(name), sequences()
    assert (head(views) - head(views.flip(1))).abs().max() > 1e-3


@pytest.mark.parametrize("name", ORDER_BLIND)
def test_an_order_blind_head_ignores_the_order(name: str):
    head, views = head_for(name), sequences()
    shuffled = views[:, torch.tensor([3, 0, 5, 1, 4, 2])]
    torch.testing.assert_close(head(views), head(shuffled))


@pytest.mark.parametrize("name", ORDERED)
def test_a_head_learns_which_half_the_signal_stands_in(name: str):
    torch.manual_seed(0)
    views, labels = 0.3 * torch.randn(64, 8, 8), torch.arange(64) % 2
    views[labels == 0, :4, 0] += 2.0
    views[labels == 1, 4:, 0] += 2.0
    head = HEADS[name](8, 2, feature_dropout=0)
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    for _ in range(25):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head.train()(views), labels).backward()
        optimizer.step()
    assert (head.eval()(views).argmax(1) == labels).float().mean() > 0.95


def test_feature_dropout_drops_a_dimension_in_all_steps_and_only_in_training():
    inputs = FeatureDropout(0.5)
    torch.manual_seed(0)
    views = inputs(torch.ones(100, 6, 8))
    assert set(views.unique().tolist()) == {0.0, 2.0}  # what is left is larger, so that the mean stays
    assert torch.equal(views, views[:, :1].expand_as(views))
    assert 0.4 < (views == 0).float().mean() < 0.6
    assert torch.equal(inputs.eval()(torch.ones(2, 6, 8)), torch.ones(2, 6, 8))


def test_a_gru_returns_the_last_state_of_each_direction():
    head = HEADS["gru both ways"](8, 3, hidden_dim=5).eval()
    views = sequences()
    _, last = head.recurrent(views)  # (layers * directions, N, hidden): the last layer's two come last
    torch.testing.assert_close(head(views), head.classifier(torch.cat([last[-2], last[-1]], dim=1)))


def test_positions_are_the_sines_and_cosines_of_the_paper():
    positions = sinusoidal_positions(3, 4)
    step = 2.0
    expected = torch.tensor([step, step, step / 100, step / 100])
    expected = torch.stack([expected[0].sin(), expected[1].cos(), expected[2].sin(), expected[3].cos()])
    torch.testing.assert_close(positions[2], expected)
