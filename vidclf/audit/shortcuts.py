"""How much of the label can be read without a video's images, or from one of them."""

import hashlib
import json
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from vidclf.data.corpus import Corpus
from vidclf.evaluation.intervals import Clusters, interval_of_accuracy
from vidclf.system.disk import write_json

FEWEST_GROUPS = 10  # of test: an interval over fewer says too little
LEAVES = 32  # of the tree at most: no more than a person could have noticed
SMALLEST_LEAF = 3  # videos
KEPT = ("container", "one_frame")


@dataclass(frozen=True)
class Shortcut:
    """What a simple classifier makes of the test videos, and whoever always names the commonest train class.

    Attributes:
        top1: the share that it names rightly.
        low: where its 95 % interval over groups begins.
        high: where it ends.
        majority: the share that the commonest class of train has.
        used: what it asks for, the most important first, and the share that each has in it; empty: not known.
    """

    top1: float
    low: float
    high: float
    majority: float
    used: Sequence[tuple[str, float]] = ()

    @property
    def is_one(self) -> bool:
        """Whether it is better than the commonest class, beyond its interval."""
        return self.low > self.majority


@dataclass(frozen=True)
class Videos:
    """Labels (class indices), sides (train, val, test) and groups (what is not independent), one a video."""

    labels: Sequence[int]
    sides: Sequence[str]
    groups: Sequence[Hashable]

    @property
    def can_be_measured(self) -> bool:
        """Whether there is something to fit on, and enough test groups."""
        tested = {group for group, side in zip(self.groups, self.sides, strict=True) if side == "test"}
        fitted = {label for label, side in zip(self.labels, self.sides, strict=True) if side in ("train", "val")}
        return len(tested) >= FEWEST_GROUPS and len(fitted) > 1


def measure_containers(facts: Sequence[dict[str, float | str]], videos: Videos) -> Shortcut:
    """Return how well a small decision tree tells test labels by `facts` of each: numbers, and words that are kinds."""
    vectorizer = DictVectorizer(sparse=False)
    tree = DecisionTreeClassifier(max_leaf_nodes=LEAVES, min_samples_leaf=SMALLEST_LEAF, random_state=0)
    measured = _measure(tree, vectorizer.fit_transform(facts), videos)
    importance: dict[str, float] = {}
    for name, share in zip(vectorizer.get_feature_names_out(), tree.feature_importances_, strict=True):
        fact = name.partition("=")[0]
        importance[fact] = importance.get(fact, 0.0) + float(share)
    used = sorted(((name, share) for name, share in importance.items() if share > 0), key=lambda pair: -pair[1])
    return Shortcut(*measured, used)


def measure_one_frame(features: Float[np.ndarray, "M D"], videos: Videos) -> Shortcut:
    """Return how well a logistic regression tells test labels by the features of one frame of each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last digits change no label
        return Shortcut(*_measure(make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)), features, videos))


def _measure(model: Any, table: Float[np.ndarray, "M D"], videos: Videos) -> tuple[float, float, float, float]:
    """Fit on train and val, score on test; return the share that is right, its interval, and the commonest class's."""
    label = np.asarray(videos.labels)
    tested = np.asarray([side == "test" for side in videos.sides])
    fitted = np.asarray([side in ("train", "val") for side in videos.sides])
    model.fit(table[fitted], label[fitted])
    is_correct = (model.predict(table[tested]) == label[tested]).astype(float)
    groups = [group for group, is_tested in zip(videos.groups, tested, strict=True) if is_tested]
    interval = interval_of_accuracy(is_correct, Clusters.of(groups, label[tested].tolist()))
    assert interval is not None  # there are FEWEST_GROUPS
    commonest = np.bincount(label[fitted]).argmax()
    return float(is_correct.mean()), *interval, float((label[tested] == commonest).mean())


def keep_shortcuts(root: Path, corpus: Corpus, shortcuts: Mapping[str, Shortcut | None]) -> None:
    """Write what was measured below the store's `root`, where evaluate finds it for the same videos and sides."""
    found = {f"{name}_top1": shortcut.top1 for name, shortcut in shortcuts.items() if shortcut}
    if found:
        path = _kept_at(root, corpus)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found)


def kept_shortcuts(root: Path, corpus: Corpus) -> dict[str, float]:
    """Return `container_top1` and `one_frame_top1`, what check found last of these videos and sides; else nothing."""
    try:
        kept = json.loads(_kept_at(root, corpus).read_text())
        return {f"{name}_top1": float(kept[f"{name}_top1"]) for name in KEPT if f"{name}_top1" in kept}
    except (OSError, ValueError, TypeError):  # none, or cut short
        return {}


def _kept_at(root: Path, corpus: Corpus) -> Path:
    contents = sorted((corpus.videos[video].name, facts.content) for video, facts in corpus.facts.items())
    told = json.dumps([corpus.split.fingerprint, contents], ensure_ascii=True)
    return root / "shortcuts" / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.json"
