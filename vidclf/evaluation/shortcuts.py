"""How much of the label can be read from a file without its pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.feature_extraction import DictVectorizer
from sklearn.tree import DecisionTreeClassifier

from vidclf.evaluation.intervals import bootstrap_mean

LEAVES = 32  # of the tree at most: no more than a person could have noticed
SMALLEST_LEAF = 3  # videos


@dataclass(frozen=True)
class Shortcut:
    """What a small decision tree makes of the test videos, and whoever always names the commonest train class.

    Attributes:
        top1: the share that the tree names rightly.
        low: where its 95 % interval over groups begins.
        high: where it ends.
        majority: the share that the commonest class of train has.
        used: what the tree asks for, the most important first, and the share that each has in it.
    """

    top1: float
    low: float
    high: float
    majority: float
    used: Sequence[tuple[str, float]]

    @property
    def is_one(self) -> bool:
        """Whether it is better than the commonest class, beyond its interval."""
        return self.low > self.majority


def measure_shortcut(
    facts: Sequence[dict[str, float | str]], labels: Sequence[int], sides: Sequence[str], groups: Sequence[object]
) -> Shortcut:
    """Return how well test labels are told by `facts` of each video: fitted on train and val, scored on test.

    Args:
        facts: numbers, and words of which each is a kind of its own.
        labels: class indices.
        sides: train, val or test.
        groups: what is not independent.
    """
    vectorizer = DictVectorizer(sparse=False)
    table, label = vectorizer.fit_transform(facts), np.asarray(labels)
    tested = np.asarray([side == "test" for side in sides])
    fitted = np.asarray([side in ("train", "val") for side in sides])
    tree = DecisionTreeClassifier(max_leaf_nodes=LEAVES, min_samples_leaf=SMALLEST_LEAF, random_state=0)
    tree.fit(table[fitted], label[fitted])
    is_right = (tree.predict(table[tested]) == label[tested]).astype(float)
    own = [group for group, is_tested in zip(groups, tested, strict=True) if is_tested]
    low, high = bootstrap_mean(is_right, own)
    importance: dict[str, float] = {}
    for name, share in zip(vectorizer.get_feature_names_out(), tree.feature_importances_, strict=True):
        fact = name.partition("=")[0]
        importance[fact] = importance.get(fact, 0.0) + float(share)
    used = sorted(((name, share) for name, share in importance.items() if share > 0), key=lambda pair: -pair[1])
    commonest = np.bincount(label[fitted]).argmax()
    return Shortcut(float(is_right.mean()), low, high, float((label[tested] == commonest).mean()), used)
