"""Measure how well labels are predicted without a video's frames, or from a single one."""

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
from vidclf.evaluation.intervals import MIN_CLUSTERS, Clusters, interval_of_accuracy
from vidclf.system.disk import write_json

MAX_LEAVES = 32  # of the tree: no more than a person could notice
MIN_LEAF_SIZE = 3  # videos
KEPT = ("container_top1", "one_frame_top1", "num_leaks")  # of metrics.json


@dataclass(frozen=True)
class Shortcut:
    """The test accuracy of a simple classifier, beside that of always predicting the most frequent train class.

    Attributes:
        top1: share of test videos that it classifies correctly.
        low: start of its 95 % interval over groups.
        high: end of it.
        majority: share of the test videos that are of the most frequent class of train.
        used: the facts that it uses with their importance, the largest first; empty: not known.
    """

    top1: float
    low: float
    high: float
    majority: float
    used: Sequence[tuple[str, float]] = ()

    @property
    def is_significant(self) -> bool:
        """Return whether it is better than the most frequent class, beyond its interval."""
        return self.low > self.majority


@dataclass(frozen=True)
class LabelledVideos:
    """Labels (class indices), parts (train, val, test) and groups (dependent videos), one per video."""

    labels: Sequence[int]
    parts: Sequence[str]
    groups: Sequence[Hashable]

    @property
    def can_be_measured(self) -> bool:
        """Return whether there are two classes to fit, and enough test groups for an interval."""
        test_groups = {group for group, part in zip(self.groups, self.parts, strict=True) if part == "test"}
        classes = {label for label, part in zip(self.labels, self.parts, strict=True) if part in ("train", "val")}
        return len(test_groups) >= MIN_CLUSTERS and len(classes) > 1


def measure_containers(facts: Sequence[dict[str, float | str]], videos: LabelledVideos) -> Shortcut:
    """Return how well a small decision tree predicts test labels from facts: numbers, and words that are categories."""
    vectorizer = DictVectorizer(sparse=False)
    tree = DecisionTreeClassifier(max_leaf_nodes=MAX_LEAVES, min_samples_leaf=MIN_LEAF_SIZE, random_state=0)
    measured = _measure(tree, vectorizer.fit_transform(facts), videos)
    importance: dict[str, float] = {}
    for name, share in zip(vectorizer.get_feature_names_out(), tree.feature_importances_, strict=True):
        fact = name.partition("=")[0]
        importance[fact] = importance.get(fact, 0.0) + float(share)
    used = sorted(((fact, share) for fact, share in importance.items() if share > 0), key=lambda pair: -pair[1])
    return Shortcut(*measured, used)


def measure_one_frame(features: Float[np.ndarray, "M D"], videos: LabelledVideos) -> Shortcut:
    """Return how well a logistic regression predicts test labels from the features of one frame of each video."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last digits change no label
        return Shortcut(*_measure(make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)), features, videos))


def _measure(model: Any, table: Float[np.ndarray, "M D"], videos: LabelledVideos) -> tuple[float, float, float, float]:
    """Fit on train and val, score on test; return the accuracy, its interval, and that of the most frequent class."""
    labels, parts = np.asarray(videos.labels), np.asarray(videos.parts)
    is_test, is_fitted = parts == "test", np.isin(parts, ("train", "val"))
    model.fit(table[is_fitted], labels[is_fitted])
    is_correct = (model.predict(table[is_test]) == labels[is_test]).astype(float)
    groups = [group for group, part in zip(videos.groups, videos.parts, strict=True) if part == "test"]
    interval = interval_of_accuracy(is_correct, Clusters.of(groups))
    assert interval is not None  # there are MIN_CLUSTERS
    most_frequent = np.bincount(labels[is_fitted]).argmax()
    return float(is_correct.mean()), *interval, float((labels[is_test] == most_frequent).mean())


def keep_shortcuts(root: Path, corpus: Corpus, shortcuts: Mapping[str, Shortcut], num_leaks: int = 0) -> None:
    """Write the shortcuts and the leaks below the store's `root`, for evaluate on the same videos and parts."""
    kept = {f"{name}_top1": shortcut.top1 for name, shortcut in shortcuts.items()}
    kept |= {"num_leaks": num_leaks} if num_leaks else {}
    if kept:
        path = _path_of(root, corpus)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, kept)


def kept_shortcuts(root: Path, corpus: Corpus) -> dict[str, float]:
    """Return `container_top1`, `one_frame_top1` and `num_leaks` as check last found them for these videos and parts."""
    try:
        kept = json.loads(_path_of(root, corpus).read_text())
        return {key: float(kept[key]) for key in KEPT if key in kept}
    except (OSError, ValueError, TypeError):  # missing or damaged
        return {}


def _path_of(root: Path, corpus: Corpus) -> Path:
    contents = sorted((corpus.videos[video].name, facts.content) for video, facts in corpus.facts.items())
    key = json.dumps([corpus.split.fingerprint, contents], ensure_ascii=True)
    return root / "shortcuts" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
