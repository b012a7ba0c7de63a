"""Views without their order, and the accuracy that a network loses by it."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from doubles import Images, make_corpus, make_frames, make_learner, make_trainer
from torch.nn.functional import one_hot
from verbs import SMALL, Outcome

from vidclf.data.sampling import Uniform
from vidclf.errors import VidclfError
from vidclf.evaluation.intervals import Clusters
from vidclf.evaluation.logits import ViewLogits
from vidclf.evaluation.paired import interval_of_difference
from vidclf.evaluation.probes import PROBES, Prober, parse_probes, reverse, shuffle, single_frame, static
from vidclf.evaluation.scores import VideoPredictions
from vidclf.models.backbones.wrap import FrozenBackbone
from vidclf.models.scaling import Scaling
from vidclf.system.seeds import generator_for

FRAMES = torch.tensor([[0, 3, 6, 9], [1, 4, 7, 10]])
GRU = ("sampling=uniform", "sampling.num_frames=4", "head=gru", "head.hidden_dim=8")


def test_every_view_is_shuffled_by_a_different_permutation():
    frames = torch.arange(16).expand(8, 16)
    shuffled = shuffle(frames, generator_for(0, "probe", 5))
    assert torch.equal(shuffled.sort(1).values, frames)
    assert len({tuple(view) for view in shuffled.tolist()}) == 8
    assert torch.equal(shuffled, shuffle(frames, generator_for(0, "probe", 5)))
    assert not torch.equal(shuffled, shuffle(frames, generator_for(1, "probe", 5)))


def test_the_other_probes_by_hand():
    generator = generator_for(0, "probe")
    assert reverse(FRAMES, generator).tolist() == [[9, 6, 3, 0], [10, 7, 4, 1]]
    assert single_frame(FRAMES, generator).tolist() == [[6], [7]]
    assert static(FRAMES, generator).tolist() == [[6] * 4, [7] * 4]


def test_an_unknown_probe_is_an_error():
    assert parse_probes("all") == list(PROBES)
    with pytest.raises(VidclfError, match="probe=backwards: there is no such probe; use one of shuffle, reverse, "):
        parse_probes("backwards")


def test_shuffles_are_five_draws_and_the_gain_is_over_their_mean(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    corpus = make_corpus(clips, sampling=Uniform(4), store=tmp_path / "store")
    scored: list[list[list[int]]] = []

    def score(trainer: object, classifier: object, source: object, of: object, part: str, views: list) -> ViewLogits:
        """Score class 0 for every video in the first draw, the labels in the others."""
        scored.append([video.frames.tolist() for video in views])
        labels, video = (torch.tensor([getattr(view, name) for view in views]) for name in ("label", "video"))
        predicted = torch.zeros_like(labels) if len(scored) == 1 else labels
        return ViewLogits(one_hot(predicted, 2).float(), labels, video, torch.zeros_like(video), 0)

    monkeypatch.setattr("vidclf.evaluation.probes.score_part", score)
    learner = make_learner(FrozenBackbone(Images()), scaling=Scaling(6, "none"))
    videos = corpus.views("test")
    labels = torch.tensor([video.label for video in videos])
    clusters = Clusters.of([corpus.videos[video.video].unit for video in videos])
    in_order = one_hot(labels, 2).float()
    in_order[0] = in_order[0].flip(0)  # an error
    ordered = VideoPredictions(in_order, labels, [video.video for video in videos], clusters)
    prober = Prober(make_trainer(), learner, make_frames(corpus), corpus, "test", ordered)
    ((name, scores),) = prober.score(["shuffle"])
    assert name == "shuffle"
    assert len({str(draw) for draw in scored}) == 5
    assert scores["top1"] == pytest.approx((0.5 + 4) / 5)
    assert scores["temporal_gain"] == pytest.approx(7 / 8 - 0.9)
    expected = interval_of_difference(np.array([-1, 0, 0.4, 0.4]), np.full(4, 2.0), 0.2)  # four groups of two
    assert (scores["temporal_gain_low"], scores["temporal_gain_high"]) == pytest.approx(expected)


@pytest.fixture(scope="module")
def ordered(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A small run whose views have four frames."""
    from verbs import call

    small = [setting for setting in SMALL if not setting.startswith(("sampling", "head"))]
    outcome = call("train", f"dataset.root={clips}", *small, *GRU, folder=tmp_path_factory.mktemp("ordered"))
    assert outcome.status == 0, outcome.err
    return outcome


def test_probes_are_scored_beside_the_runs_score(ordered: Outcome, vidclf: Callable[..., Outcome]):
    store = f"store.root={ordered.run.parents[2] / 'data' / 'features'}"
    assert vidclf("evaluate", f"run={ordered.run}", store).status == 0
    in_order = (ordered.run / "test" / "metrics.json").read_bytes()
    outcome = vidclf("evaluate", f"run={ordered.run}", "probe=all", store)
    assert outcome.status == 0, outcome.err
    assert (ordered.run / "test" / "metrics.json").read_bytes() == in_order
    for name in PROBES:
        metrics = json.loads((ordered.run / f"test-probe-{name}" / "metrics.json").read_text())
        assert metrics["top1_in_order"] == json.loads(in_order)["top1"]
        assert metrics["temporal_gain"] == pytest.approx(metrics["top1_in_order"] - metrics["top1"])
        assert metrics["temporal_gain_low"] <= metrics["temporal_gain"] <= metrics["temporal_gain_high"]
        assert metrics["num_videos"] == 8
    rows = [line for line in outcome.out.splitlines() if line.startswith("probe=")]  # one for each, at the end
    assert [row.split()[0] for row in rows] == [f"probe={name}" for name in PROBES]
    assert all(re.fullmatch(r"\S+ [\d.]+, temporal gain -?[\d.]+ \[.*\]", row) for row in rows)


def test_an_order_blind_head_gains_nothing(clips: Path, vidclf: Callable[..., Outcome]):
    small = [setting for setting in SMALL if not setting.startswith(("sampling", "head"))]
    trained = vidclf("train", f"dataset.root={clips}", *small, *GRU[:2], "head=mean_pool")
    outcome = vidclf("evaluate", f"run={trained.run}", "probe=shuffle")
    assert (outcome.status, "probe=shuffle: the predictions are identical" in outcome.err) == (0, True)
    metrics = json.loads((trained.run / "test-probe-shuffle" / "metrics.json").read_text())
    assert [metrics[f"temporal_gain{end}"] for end in ("", "_low", "_high")] == [0, 0, 0]


def test_views_of_one_frame_have_no_order_to_remove(run: Path, trained: Outcome, vidclf: Callable[..., Outcome]):
    store = f"store.root={trained.run.parents[2] / 'data' / 'features'}"
    for probe in ("shuffle", "all"):
        outcome = vidclf("evaluate", f"run={run}", f"probe={probe}", store)
        assert outcome.status == 1
        assert "the run's views have one frame" in outcome.err
        assert "Traceback" not in outcome.err
    assert not list(run.glob("test*"))


def test_a_probe_that_the_network_cannot_take_is_left_out_with_a_notice(
    clips: Path, vidclf: Callable[..., Outcome], tmp_path: Path
):
    (tmp_path / "fixed.py").write_text(FIXED)
    trained = vidclf(
        "train", f"dataset.root={clips}", "backbone=custom", "backbone._target_=fixed.Fixed", "head=linear",
        "sampling=uniform", "sampling.num_frames=4", "trainer.max_epochs=1", "callbacks.view_sheets.num_views=1",
    )  # fmt: skip
    assert trained.status == 0, trained.err
    outcome = vidclf("evaluate", f"run={trained.run}", "probe=all", "trust=true")
    assert outcome.status == 0, outcome.err
    assert "left out: probe=single_frame: four frames, these have 1" in outcome.err
    assert {path.name for path in trained.run.glob("test-probe-*")} == {
        "test-probe-shuffle",
        "test-probe-reverse",
        "test-probe-static",
    }
    alone = vidclf("evaluate", f"run={trained.run}", "probe=single_frame", "trust=true")
    assert alone.status == 1
    assert "four frames" in alone.err


FIXED = """
import torch
from vidclf.errors import VidclfError
from vidclf.contracts import PictureFormat

class Fixed(torch.nn.Module):
    picture_format = PictureFormat(size=16, resize=16, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), clip_length=4)
    feature_dim = 4

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 4)

    def forward(self, images):
        if images.shape[1] != 4:
            raise VidclfError(f"four frames, these have {images.shape[1]}")
        return self.layer(images.mean((1, 3, 4))).unsqueeze(1)
"""


@pytest.mark.parametrize("broken", ["features.diff(dim=1).mean(dim=1)", "features[:, 1]"])
def test_a_probe_that_the_head_cannot_take_is_left_out(
    broken: str, clips: Path, vidclf: Callable[..., Outcome], tmp_path: Path
):
    text = "import torch\n\nclass Head(torch.nn.Linear):\n    def forward(self, features):\n"
    module = f"one_step_{len(broken)}"  # Python keeps a module by its name
    (tmp_path / f"{module}.py").write_text(f"{text}        return super().forward({broken})\n")
    small = [setting for setting in SMALL if not setting.startswith(("sampling", "head"))]
    trained = vidclf("train", f"dataset.root={clips}", *small, *GRU[:2], "head=custom", f"head._target_={module}.Head")
    assert trained.status == 0, trained.err
    outcome = vidclf("evaluate", f"run={trained.run}", "probe=all", "trust=true")
    assert outcome.status == 0, outcome.err
    assert "left out: probe=single_frame" in outcome.err
    assert not (trained.run / "test-probe-single_frame").exists()
    assert (trained.run / "test-probe-static").exists()


def test_disordered_clips_are_not_stored(clips: Path, vidclf: Callable[..., Outcome], tmp_path: Path):
    (tmp_path / "frozen.py").write_text(FIXED.replace("self.layer = torch.nn.Linear(3, 4)", "self.layer = FROZEN"))
    text = (tmp_path / "frozen.py").read_text()
    (tmp_path / "frozen.py").write_text(text.replace("FROZEN", "torch.nn.Linear(3, 4).requires_grad_(False)"))
    settings = ["backbone=custom", "backbone._target_=frozen.Fixed", "head=linear", "sampling=uniform"]
    settings += ["sampling.num_frames=4", "trainer.max_epochs=1", "callbacks.view_sheets.num_views=1"]
    trained = vidclf("train", f"dataset.root={clips}", *settings)
    assert trained.status == 0, trained.err
    assert vidclf("evaluate", f"run={trained.run}", "trust=true").status == 0
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.safetensors")}
    assert len(stored) == 20
    assert vidclf("evaluate", f"run={trained.run}", "probe=shuffle", "trust=true").status == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.safetensors")} == stored
