"""The heads that are solved at once: nearest neighbours and logistic regression."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from doubles import Images, make_datamodule, make_learner, make_trainer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn
from verbs import SMALL, Outcome

from vidclf import train
from vidclf.errors import VidclfError
from vidclf.models.backbones.wrap import wrap
from vidclf.models.heads import logistic
from vidclf.models.heads.knn import KNN
from vidclf.models.heads.logistic import Logistic
from vidclf.models.loss import CrossEntropy


def drawn(seed: int, num: int) -> tuple[Tensor, Tensor]:
    """Features (N, 2, 5) of three classes that overlap, and their labels."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (num,), generator=random)
    return torch.randn(num, 2, 5, generator=random) + labels[:, None, None] * 0.7, labels


TRAIN, VAL = drawn(0, 90), drawn(1, 60)


def test_neighbours_vote_as_in_scikit_learn():
    head = KNN(5, 3, k=7, temperature=0.1)
    head.fit(TRAIN, VAL, CrossEntropy(3))
    flat, queries = (part[0].mean(1).numpy() for part in (TRAIN, VAL))
    weights = lambda distances: np.exp((1 - distances) / 0.1)  # noqa: E731
    theirs = KNeighborsClassifier(7, weights=weights, metric="cosine").fit(flat, TRAIN[1].numpy())
    expected = np.log(np.clip(theirs.predict_proba(queries), 1e-6, None))
    np.testing.assert_allclose(head(VAL[0]).numpy(), expected, atol=1e-4)


def test_a_class_without_a_neighbour_has_a_finite_logit():
    head = KNN(2, 3, k=1)
    head.fit(
        (torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]), torch.tensor([2, 0])),
        (torch.zeros(1, 1, 2), VAL[1][:1]),
        CrossEntropy(3),
    )
    logits = head(torch.tensor([[[5.0, 1.0]]]))
    assert logits.isfinite().all()
    assert logits.exp()[0].tolist() == pytest.approx([1e-6, 1e-6, 1])


def test_knn_takes_the_number_of_views_from_a_checkpoint_and_refuses_misfits():
    head, other = KNN(5, 3, k=7), KNN(5, 3, k=7)
    head.fit(TRAIN, VAL, CrossEntropy(3))
    state = {f"head.{name}": value for name, value in head.state_dict().items()}
    nn.ModuleDict({"head": other}).load_state_dict(state)
    assert torch.equal(head(VAL[0]), other(VAL[0]))
    for spoilt in ({"head.labels": TRAIN[1] + 1}, {"head.labels": TRAIN[1][1:]}, {"head.views": torch.zeros(90, 4)}):
        with pytest.raises(RuntimeError, match="size mismatch"):
            nn.ModuleDict({"head": KNN(5, 3)}).load_state_dict(state | spoilt)


def test_the_solution_is_that_of_scikit_learn_at_every_strength():
    for strength in (1.0, 0.01):
        head = Logistic(5, 3, strengths=[strength])
        head.fit(TRAIN, VAL, CrossEntropy(3))
        theirs = LogisticRegression(C=1 / (strength * 90), tol=1e-8, max_iter=5000)
        theirs.fit(TRAIN[0].mean(1).double().numpy(), TRAIN[1].numpy())
        probabilities = theirs.predict_proba(VAL[0].mean(1).double().numpy())
        np.testing.assert_allclose(head(VAL[0]).softmax(1).detach().numpy(), probabilities, atol=5e-4)


def test_a_weak_penalty_is_solved_to_the_end(capsys: pytest.CaptureFixture[str]):
    """In float32 the objective stops falling long before its gradient is small."""
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (60,), generator=random)
    features = torch.randn(60, 1, 20, generator=random) * torch.linspace(0.2, 3, 20) + labels[:, None, None] * 0.1
    head = Logistic(20, 3, strengths=[1e-4])
    head.fit((features, labels), (features, labels), CrossEntropy(3))
    theirs = LogisticRegression(C=1 / (1e-4 * 60), tol=1e-9, max_iter=50_000)
    theirs.fit(features.mean(1).double().numpy(), labels.numpy())
    np.testing.assert_allclose(head.classifier.weight.detach().numpy(), theirs.coef_, atol=0.01)
    assert not capsys.readouterr().err


def test_the_strength_is_chosen_on_val_and_of_equal_ones_the_larger_wins():
    head = Logistic(5, 3, strengths=[1e-3, 10, 0.1])
    rows = head.fit(TRAIN, VAL, CrossEntropy(3))
    assert [row["strength"] for row in rows] == [10, 0.1, 1e-3]
    losses = [row["val/loss"] for row in rows]
    best = losses.index(min(losses))
    assert [row["chosen"] for row in rows] == ["the best of 3 strengths" if row is rows[best] else "" for row in rows]
    assert nn.functional.cross_entropy(head(VAL[0]), VAL[1]).item() == pytest.approx(min(losses), rel=1e-5)
    twice = Logistic(5, 3, strengths=[0.1, 0.1]).fit(TRAIN, VAL, CrossEntropy(3))
    assert twice[0]["chosen"]


def test_the_configured_loss_is_minimised():
    plain, balanced = Logistic(5, 3, [0.1]), Logistic(5, 3, [0.1])
    few = tuple(torch.cat([part[TRAIN[1] > 0], part[TRAIN[1] == 0][:3]]) for part in TRAIN)
    weighted = CrossEntropy(3, class_weights="balanced")
    weighted.fit(few[1])
    plain.fit(few, VAL, CrossEntropy(3))
    balanced.fit(few, VAL, weighted)
    assert balanced(VAL[0])[:, 0].mean() > plain(VAL[0])[:, 0].mean() + 0.5


def test_a_solver_that_does_not_converge_prints_a_notice(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(logistic, "TOLERANCE", 1e-9)
    Logistic(5, 3, [0.001], max_iterations=2).fit(TRAIN, VAL, CrossEntropy(3))
    assert "head.strengths=0.001: L-BFGS not converged. Raise head.max_iterations=2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KNN(5, 3, k=0), r"head\.k=0 head\.temperature=0\.07: k must be 1 or more"),
        (lambda: KNN(5, 3, temperature=0), r"head\.temperature=0:"),
        (lambda: KNN(5, 3, k=91).fit(TRAIN, VAL, CrossEntropy(3)), r"head\.k=91: there are 90 training views"),
        (lambda: Logistic(5, 3, strengths=[]), r"head\.strengths=\[\]: must be one or more numbers above 0"),
        (lambda: Logistic(5, 3, strengths=[1, 0]), r"head\.strengths=\[1, 0\]"),
    ],
)
def test_an_invalid_argument_is_an_error(make: Callable, message: str):
    with pytest.raises(VidclfError, match=message):
        make()


def test_frames_and_stored_features_give_the_same_fit(ucf101_tree: Callable[..., Path], tmp_path: Path):
    root = ucf101_tree(groups=(1, 2, 8, 9, 10), clips_per_group=1)
    heads = []
    for features in ("store", "frames"):
        classifier = make_learner(wrap(Images()), head=KNN(6, 2, k=3))
        datamodule = make_datamodule(root, features)
        trainer = make_trainer()
        train.fit_head(trainer, classifier, datamodule, tmp_path / features / "best.ckpt")
        saved = torch.load(tmp_path / features / "best.ckpt", weights_only=True)
        heads.append(saved["state_dict"])
        assert trainer.callback_metrics["val/loss"].isfinite()
    assert torch.equal(heads[0]["head.labels"], heads[1]["head.labels"])
    torch.testing.assert_close(heads[0]["head.views"], heads[1]["head.views"])
    assert len(heads[0]["head.views"]) == 4 * 6


def test_features_that_change_or_do_not_fit_into_memory_are_an_error(
    ucf101_tree: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    datamodule = make_datamodule(ucf101_tree(groups=(1, 8, 9), clips_per_group=1))
    arguments = (datamodule, tmp_path / "best.ckpt")
    tuned = make_learner(wrap(Images().requires_grad_(True)), head=KNN(6, 2))
    with pytest.raises(VidclfError, match=r"head: KNN needs fixed features.* Set backbone\.trainable=none"):
        train.fit_head(make_trainer(), tuned, *arguments)
    monkeypatch.setattr(train, "free_memory", lambda: 100)
    with pytest.raises(VidclfError, match=r"head: KNN needs all features of train at once, .* GB"):
        train.fit_head(make_trainer(), make_learner(wrap(Images()), head=KNN(6, 2)), *arguments)


@pytest.mark.parametrize("head", [("head=knn", "head.k=5"), ("head=logistic", "transform.crops=3")])
def test_a_fitted_head_leaves_an_ordinary_run(head: tuple[str, ...], vidclf: Callable[..., Outcome], clips: Path):
    small = [setting for setting in SMALL if "head" not in setting]
    outcome = vidclf("train", f"dataset.root={clips}", *small, *head)
    assert outcome.status == 0, outcome.err
    is_path = "head=logistic" in head
    title = r"Validation \(strength=[\d.e-]+, the best of 7 strengths\)" if is_path else "Validation"
    assert re.fullmatch(title, outcome.out.splitlines()[0])
    assert (outcome.run / "heads.csv").is_file() == is_path
    assert vidclf("evaluate", f"run={outcome.run}").status == 0
