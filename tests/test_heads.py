"""The heads on the mean of the features."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from vidclf.models.heads.linear import Linear
from vidclf.models.heads.mlp import MLP

HEADS = [Linear, MLP]


@pytest.fixture
def features() -> Tensor:
    return 3 + 2 * torch.randn(40, 3, 8, generator=torch.Generator().manual_seed(0))


def test_the_linear_head_is_a_linear_function_of_the_mean_over_steps():
    head = Linear(2, 3)
    head.classifier.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    head.classifier.bias.data = torch.tensor([0.0, 0.5, 0.0])
    features = torch.tensor([[[1.0, 10.0], [3.0, 30.0]]])  # mean over S: 2, 20
    assert head(features).tolist() == [[2.0, 20.5, 22.0]]


def test_the_mlp_is_the_tutorials_network():
    with torch.device("meta"):
        head = MLP(25_088, 101)
    shapes = [tuple(module.weight.shape) for module in head.modules() if isinstance(module, nn.Linear)]
    assert shapes == [(1024, 25_088), (512, 1024), (256, 512), (128, 256), (101, 128)]
    assert sum(parameter.numel() for parameter in head.parameters()) == 26_393_189  # Keras's summary says so too
    assert [type(module).__name__ for module in head.hidden] == ["Linear", "ReLU", "Dropout"] * 4
    assert {module.p for module in head.hidden if isinstance(module, nn.Dropout)} == {0.5}


def test_the_mlp_starts_as_keras_does():
    torch.manual_seed(0)
    head = MLP(600, 100, widths=(300, 200))
    for layer in (module for module in head.modules() if isinstance(module, nn.Linear)):
        limit = (6 / (layer.in_features + layer.out_features)) ** 0.5
        assert 0.99 * limit < layer.weight.abs().max() <= limit
        assert not layer.bias.any()


def test_the_mlp_computes_its_layers_in_order(features: Tensor):
    head = MLP(8, 5, widths=(7, 6)).eval()
    first, second = (module for module in head.hidden if isinstance(module, nn.Linear))
    expected = features.mean(1)
    for layer in (first, second):
        expected = (expected @ layer.weight.T + layer.bias).clamp(min=0)
    expected = expected @ head.classifier.weight.T + head.classifier.bias
    torch.testing.assert_close(head(features), expected)


def test_dropout_is_drawn_in_training_only(features: Tensor):
    head = MLP(8, 5)
    assert not torch.equal(head(features), head(features))
    assert torch.equal(head.eval()(features), head(features))


def test_an_mlp_without_hidden_layers_is_linear(features: Tensor):
    head = MLP(8, 5, widths=())
    torch.testing.assert_close(head(features), features.mean(1) @ head.classifier.weight.T)


@pytest.mark.parametrize("head_class", HEADS)
def test_a_view_alone_has_the_logits_it_has_in_a_batch(head_class: Callable[..., nn.Module], features: Tensor):
    head = head_class(8, 5).eval()
    alone = torch.cat([head(view[None]) for view in features])
    torch.testing.assert_close(head(features), alone)
