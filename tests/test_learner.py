"""A head learns, is scored by video, and resumes after an interruption as if there had been none."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from doubles import (
    Images,
    TwoCrops,
    make_corpus,
    make_datamodule,
    make_frames,
    make_learner,
    make_stored,
    make_trainer,
)
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from torch import Tensor, nn
from videos import encode_video

from vidclf.contracts import Views
from vidclf.data.sampling import Rate, Segments
from vidclf.errors import VidclfError
from vidclf.evaluation.logits import ViewLogits, score_part
from vidclf.models.aggregation import mean, mode
from vidclf.models.backbones.wrap import FrozenBackbone, wrap
from vidclf.models.classifier import Classifier, gather_logits
from vidclf.models.heads.mlp import MLP
from vidclf.models.learner import Learner
from vidclf.models.mixing import Mixing
from vidclf.models.scaling import Scaling


@pytest.fixture
def root(ucf101_tree: Callable[..., Path]) -> Path:
    """Clips of two classes, which differ in brightness, so that there is something to learn."""
    root = ucf101_tree(groups=(1, 2, 8, 9, 10), clips_per_group=1)
    for number, path in enumerate(sorted(root.rglob("*.avi"))):
        level = 60 if path.parent.name == "Archery" else 190
        noise = torch.randint(-40, 40, (12, 48, 64, 3), generator=torch.Generator().manual_seed(number))
        encode_video(path, frames=(level + noise).to(torch.uint8).numpy())
    return root


class Losses(Callback):
    """Keeps what was logged at each epoch's end."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: object, pl_module: object) -> None:
        self.epochs.append({name: value.item() for name, value in trainer.callback_metrics.items()})


def make_scaled(backbone: FrozenBackbone, **settings: object) -> Learner:
    return make_learner(backbone, scaling=Scaling(backbone.feature_dim, "standard"), **settings)


def fit(root: Path, head: nn.Module | None = None, ckpt_path: str | None = None, **settings: object):
    """Train; return the classifier and the metrics of each epoch."""
    data = {name: settings.pop(name) for name in ("sampling", "features", "seed", "transform") if name in settings}
    datamodule = make_datamodule(root, **data)
    classifier = make_scaled(wrap(Images()), head=head, seed=data.get("seed", 0))
    losses = Losses()
    trainer = make_trainer(**(settings | {"callbacks": [losses, *settings.get("callbacks", [])]}))
    if ckpt_path is None:
        classifier.scaling.fit(datamodule.labelled("train")[0])
    trainer.fit(classifier, datamodule=datamodule, ckpt_path=ckpt_path)
    return classifier, losses.epochs


def batch_of(inputs: Tensor, labels: list[int], video: list[int]) -> Views:
    return Views(inputs, torch.tensor(labels), torch.tensor(video), torch.zeros(len(labels), dtype=torch.int64))


def logits_of_features(classifier: Learner) -> dict[str, float]:
    """Let the features be the logits, and catch what is logged."""
    logged: dict[str, float] = {}
    classifier.log_dict = lambda scores, **_: logged.update({name: value.item() for name, value in scores.items()})
    classifier.log = lambda name, value, **_: logged.update({name: value.item()})
    return logged


def test_metrics_worked_out_by_hand():
    classifier = make_learner(FrozenBackbone(Images()), scaling=Scaling(2, "none"), head=nn.Flatten())
    logged = logits_of_features(classifier)
    probabilities = torch.tensor([[0.6, 0.4], [0.3, 0.7], [0.2, 0.8], [0.9, 0.1]])
    batch = batch_of(probabilities.log()[:, None], [0, 0, 1, 1], [0, 1, 2, 3])
    loss = classifier.training_step(batch, 0)
    expected = -torch.tensor([0.6, 0.3, 0.8, 0.1]).log().mean().item()
    assert loss.item() == pytest.approx(expected)
    assert logged == pytest.approx({"train/loss": expected, "train/view_top1": 0.5})
    classifier.validation_step(batch, 0)
    classifier.on_validation_epoch_end()
    assert (logged["val/loss"], logged["val/view_top1"]) == pytest.approx((expected, 0.5))


def test_validation_aggregates_the_views_of_a_video_over_batches():
    unscaled = Scaling(2, "none")
    classifier = make_learner(FrozenBackbone(Images()), scaling=unscaled, head=nn.Flatten(), aggregation=mean)
    logged = logits_of_features(classifier)
    classifier.on_validation_epoch_start()
    # Video 7 (class 0): one strong view outweighs two weak ones. Video 3 (class 1): its only view is wrong.
    batches = [([[0.95, 0.05], [0.4, 0.6]], [0, 0], [7, 7]), ([[0.4, 0.6], [0.8, 0.2]], [0, 1], [7, 3])]
    for probabilities, labels, video in batches:
        classifier.validation_step(batch_of(torch.tensor(probabilities).log()[:, None], labels, video), 0)
    classifier.on_validation_epoch_end()
    assert logged["val/top1"] == 0.5
    classifier.aggregation = mode
    classifier.on_validation_epoch_end()
    assert logged["val/top1"] == 0
    classifier.on_validation_epoch_start()
    classifier.validation_step(batch_of(torch.tensor([[[0.0, 1.0]]]), [1], [0]), 0)
    classifier.on_validation_epoch_end()
    assert logged["val/top1"] == 1  # of this epoch alone


def test_padding_views_do_not_count():
    classifier = make_learner(FrozenBackbone(Images()), scaling=Scaling(2, "none"), head=nn.Flatten())
    logged = logits_of_features(classifier)
    right, wrong = torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[1.0, 0.0]]])
    for inputs, video in ((right, 4), (wrong, -1), (right, 2), (wrong, -1)):
        classifier.validation_step(batch_of(inputs, [1], [video]), 0)
    classifier.on_validation_epoch_end()
    assert (logged["val/top1"], logged["val/view_top1"]) == (1, 1)
    assert gather_logits(classifier.val_outputs)[2].tolist() == [4, 2]


def test_no_step_waits_for_the_device():
    """Tensors on the meta device have no numbers, so reading one raises."""
    classifier = make_learner(FrozenBackbone(Images()), mixing=Mixing(mixup=1.0)).to("meta")
    classifier.scaling.fitted = True
    classifier.log_dict = lambda scores, **_: None
    batch = batch_of(torch.randn(4, 1, 6), [0, 1, 0, 1], [0, 1, 2, -1])
    batch = classifier.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert [part.device.type for part in batch] == ["meta", "meta", "cpu", "cpu"]
    classifier.on_train_batch_start(batch, 1)
    assert classifier.training_step(batch, 1).is_meta
    classifier.validation_step(batch, 1)
    with pytest.raises(NotImplementedError):
        gather_logits(classifier.val_outputs)


def test_prediction_computes_in_float32_whatever_the_precision_of_training(root: Path):
    classifier, _ = fit(root, precision="bf16-mixed", max_epochs=1)
    mixed, full = (judged(root, classifier, "test", precision=name).logits for name in ("bf16-mixed", "32-true"))
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, full)
    batch = batch_of(torch.randn(3, 1, 6), [0, 0, 0], [0, 0, 0])
    assert torch.equal(classifier.eval().predict_logits(batch.inputs), classifier(batch.inputs))


class Broken(nn.Linear):
    """A head that returns NaN after a number of calls."""

    def __init__(self, calls: int) -> None:
        super().__init__(6, 2)
        self.calls = calls

    def forward(self, features: Tensor) -> Tensor:
        self.calls -= 1
        return super().forward(features.mean(1)) / (self.calls >= 0)


class Exploding(nn.Linear):
    """A head whose gradient is not finite."""

    def forward(self, features: Tensor) -> Tensor:
        logits = super().forward(features)
        return logits + (0 * logits).sqrt() if self.training else logits


class Blind(Images):
    """A backbone whose features say nothing about the class."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) / 0


NUM_STEPS = 6  # of an epoch: 4 videos of 6 views, 4 views a batch


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (
            Broken(0),
            r"^The first loss of epoch 1: .* not finite \(all weights are finite: .* head Broken\)\. Try backbon",
        ),
        (
            Broken(NUM_STEPS),
            r"^Validation in epoch 1: .*\(all weights are finite: look into the forward of the head Broken",
        ),
        (
            nn.Sequential(nn.Flatten(), Exploding(6, 2)),
            r"^Validation in epoch 1: .*\(weights of the head are not finite: training has diverged.*lower optim",
        ),
    ],
)
def test_numbers_that_are_not_finite_end_the_training_before_anything_is_saved(
    head: nn.Module, message: str, root: Path
):
    kept = ModelCheckpoint(root.parent / "kept", monitor="val/loss")
    with pytest.raises(VidclfError, match=message):
        fit(root, head, callbacks=[kept], enable_checkpointing=True)
    assert not list((root.parent / "kept").glob("*.ckpt"))


def test_a_mean_loss_that_is_not_finite_is_an_error_without_validation_too(root: Path):
    with pytest.raises(VidclfError, match=r"^The mean loss of epoch 1: .*weights of the head are not finite"):
        fit(root, Broken(NUM_STEPS - 1), limit_val_batches=0)


@pytest.mark.parametrize("features", ["store", "frames"])
def test_logits_that_are_not_finite_are_not_scored_and_the_error_names_their_origin(features: str, root: Path):
    scaling = Scaling(6, "none")
    for backbone, head, where in (
        (Images(), Broken(0), "all weights are finite: look into the forward of the head Broken"),
        (Blind(), None, "the features of the backbone Blind are not finite"),
    ):
        classifier = make_learner(wrap(backbone), head=head, scaling=scaling)
        with pytest.raises(
            VidclfError, match=rf"^The test part: the network gives numbers that .*\({where}\)\. Try back"
        ):
            judged(root, classifier, "test", features, backbone=backbone)


def test_only_the_head_is_trained(root: Path):
    frozen = deepcopy(dict(Images().state_dict()))
    classifier, _ = fit(root, features="frames")
    assert [len(group["params"]) for group in classifier.configure_optimizers()["optimizer"].param_groups] == [4]
    after = classifier.backbone.backbone.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in frozen.items())


@pytest.mark.parametrize("features", ["store", "frames"])
def test_a_head_learns_separable_classes(features: str, root: Path):
    _, epochs = fit(root, features=features, max_epochs=8)
    losses = [epoch["train/loss"] for epoch in epochs]
    assert losses[-1] < 0.6 * losses[0]
    assert epochs[-1]["val/top1"] == 1
    assert set(epochs[0]) == {"train/loss", "train/view_top1", "val/loss", "val/view_top1", "val/top1"}


def weights_of(classifier: Learner) -> list[Tensor]:
    return list(classifier.state_dict().values())


def equal(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(some, others, strict=True))


@pytest.mark.parametrize("features", ["store", "frames"])
@pytest.mark.parametrize("sampling", [Rate(10), Segments(3)])
def test_the_same_seed_gives_the_same_bits(sampling: object, features: str, root: Path):
    (one, metrics), (same, same_metrics), (other, _) = (
        fit(root, sampling=sampling, features=features, seed=seed) for seed in (0, 0, 1)
    )
    assert equal(weights_of(one), weights_of(same))
    assert metrics == same_metrics
    assert not equal(weights_of(one), weights_of(other))


class CutAfterTwo(Callback):
    """Ends the training after its second epoch, as a machine that goes down does."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch == 1


@pytest.mark.parametrize("features", ["store", "frames"])
@pytest.mark.parametrize("sampling", [Rate(10), Segments(3)])
def test_a_resumed_run_equals_an_uninterrupted_one(sampling: object, features: str, root: Path, tmp_path: Path):
    """With dropout, a learning rate that changes, and views drawn anew; epochs are 1, 2 | 3, 4."""

    def keep(folder: str, resume: bool = False) -> dict[str, object]:
        checkpoint = ModelCheckpoint(tmp_path / folder, monitor="val/loss", save_last=True, save_top_k=1)
        callbacks = [checkpoint, *([CutAfterTwo()] if folder == "cut" and not resume else [])]
        return {"callbacks": callbacks, "enable_checkpointing": True, "sampling": sampling, "features": features}

    whole, metrics = fit(root, max_epochs=4, **keep("whole"))
    _, before = fit(root, max_epochs=4, **keep("cut"))
    torch.rand(17)  # chance goes on between the two
    resumed, after = fit(root, max_epochs=4, ckpt_path=str(tmp_path / "cut" / "last.ckpt"), **keep("cut", resume=True))
    assert before + after == metrics
    assert equal(weights_of(resumed), weights_of(whole))
    assert any(isinstance(module, nn.Dropout) and module.p for module in resumed.head.modules())


def test_features_and_frames_give_the_same_bits(root: Path):
    classifier, _ = fit(root, transform=TwoCrops(Images.picture_format))
    results = []
    for features in ("store", "frames"):
        results.append(judged(root, make_from(classifier), "test", features, TwoCrops(Images.picture_format)))
    stored, decoded = results
    for name in ("logits", "labels", "video", "view"):
        assert torch.equal(getattr(stored, name), getattr(decoded, name))
    assert len(stored.logits) == 4 * 6 * 2
    assert stored.num_failed == 0
    assert stored.counts == {"num_videos": 4, "num_failed": 0, "num_skipped": 0}
    videos = stored.aggregate(classifier.aggregation, make_corpus(root).videos)
    assert videos.is_correct.mean() == pytest.approx((mean_of(stored) == 1).mean())


def judged(
    root: Path,
    classifier: Classifier,
    part: str,
    features: str = "store",
    transform: object = None,
    backbone: nn.Module | None = None,
    **settings: object,
) -> ViewLogits:
    """Score a part with the classifier."""
    corpus = make_corpus(root)
    make_source = partial(make_stored, root=root) if features == "store" else make_frames
    source = make_source(corpus, backbone=backbone, transform=transform)
    source.prepare(corpus.views(part))
    return score_part(make_trainer(**settings), classifier, source, corpus, part)


def make_from(classifier: Learner) -> Learner:
    """The same head behind another wrapper of the backbone."""
    other = make_scaled(wrap(Images()))
    other.load_state_dict(classifier.state_dict())
    return other


def mean_of(judged: object):
    """Return by hand how often a video's mean probability is highest for its class."""
    probabilities = judged.logits.double().softmax(1)
    hits = []
    for video in judged.video.unique():
        of_video = judged.video == video
        hits.append(int(probabilities[of_video].mean(0).argmax() == judged.labels[of_video][0]))
    return torch.tensor(hits).numpy()


def test_a_learner_can_be_scored_before_it_is_trained(root: Path):
    """Lightning reads in inference mode; features kept from then must still be usable in training."""
    datamodule = make_datamodule(root)
    classifier = make_learner(wrap(Images()), head=nn.Sequential(nn.Flatten(), nn.Linear(6, 2)))
    before = deepcopy(weights_of(classifier))
    trainer = make_trainer()
    score_part(trainer, classifier, datamodule.source, datamodule.corpus, "train")
    trainer.fit(classifier, datamodule=datamodule)
    assert not equal(before, weights_of(classifier))


def test_dropout_differs_between_epochs_and_ranks():
    classifier = make_learner(FrozenBackbone(Images()))
    seeds = set()
    for epoch, rank in ((0, 0), (1, 0), (0, 1)):
        classifier._trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank)
        classifier.on_train_epoch_start()
        seeds.add(torch.initial_seed())
    assert len(seeds) == 3


@pytest.mark.parametrize("use_buffers", [True, False])
def test_averaged_weights_are_saved_whole(use_buffers: bool, root: Path, tmp_path: Path):
    averaging = EMAWeightAveraging(decay=0.5, use_buffers=use_buffers)
    saved: list[dict[str, Tensor]] = []
    for callbacks in ([averaging], []):
        folder = tmp_path / str(len(callbacks))
        callbacks.append(ModelCheckpoint(folder, save_last=True))
        fit(root, max_epochs=2, callbacks=callbacks, enable_checkpointing=True)
        saved.append(torch.load(folder / "last.ckpt", weights_only=True)["state_dict"])
    averaged, plain = saved
    assert averaged.keys() == plain.keys()
    assert all(value.isfinite().all() for value in averaged.values())
    torch.testing.assert_close(averaged["scaling.mean"], plain["scaling.mean"])
    assert not torch.equal(averaged["head.classifier.weight"], plain["head.classifier.weight"])
    make_scaled(FrozenBackbone(Images())).load_state_dict(averaged)


def test_a_learner_and_a_classifier_have_the_same_state_dict_keys(root: Path):
    learner, _ = fit(root, max_epochs=1)
    used = Classifier(wrap(Images()), Scaling(6, "standard"), MLP(6, 2, widths=(8,)), mean)
    used.load_state_dict(learner.state_dict())
    features = torch.randn(3, 1, 6)
    assert torch.equal(used.eval()(features), learner.eval()(features))
