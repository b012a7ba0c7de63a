"""Which training clip a video looks like, by the features that the store holds already."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vidclf.errors import VidclfError
from vidclf.features.store import read_means
from vidclf.reporting.results import Results, Rows

CONTENT = re.compile(r"[0-9a-f]{64}")  # of a whole file; those of segments have more
MAX_BYTES = 1_000_000_000  # of features


class Neighbour(NamedTuple):
    """The training clip that is closest: its name, its class ("": its name does not say), and the cosine."""

    name: str
    label: str
    closeness: float


def find_neighbours(results: Results, positions: Sequence[int], store: Path) -> Mapping[int, Neighbour]:
    """Return the closest training clip of each video, as far as the store has features of both; of segments, none."""
    train = train_videos(results.split)
    wanted = {results.scored.contents[position]: position for position in positions}
    wanted = {content: position for content, position in wanted.items() if CONTENT.fullmatch(content)}
    best: Mapping[int, Neighbour] = {}
    for folder in feature_folders(store, results.description.get("weights_hash")) if wanted else ():
        try:
            of_train, of_wanted = (read_means(folder, [*contents], MAX_BYTES) for contents in (train, wanted))
        except VidclfError:  # damaged, or too many
            continue
        if len(of_train) > 1 and len(of_wanted) > len(best):
            names = [train[content] for content in of_train]
            best = _closest(torch.stack([*of_train.values()]), names, of_wanted, wanted, results.names)
    return best


def _closest(
    train: Float[Tensor, "T D"],
    names: Sequence[str],
    of_wanted: Mapping[str, Tensor],
    wanted: Mapping[str, int],
    classes: Sequence[str],
) -> Mapping[int, Neighbour]:
    mean = train.mean(0)  # what all videos share says nothing
    cosines = F.normalize(torch.stack([*of_wanted.values()]) - mean) @ F.normalize(train - mean).T
    values, nearest = cosines.max(1)
    neighbours = {}
    for content, value, number in zip(of_wanted, values.tolist(), nearest.tolist(), strict=True):
        first = names[number].partition("/")[0]
        label = first if first in classes else ""
        neighbours[wanted[content]] = Neighbour(names[number], label, float(np.clip(value, -1, 1)))
    return neighbours


def train_videos(split: Rows) -> dict[str, str]:
    """Return the names of the whole files in train, by content."""
    return {
        row["content"]: row.get("video", "")
        for row in split
        if row.get("side") == "train" and CONTENT.fullmatch(row.get("content", "")) and not row.get("start_s")
    }


def feature_folders(store: Path, weights_hash: object) -> list[Path]:
    """Return the folders of the store with features of the run's backbone."""
    folders = []
    for path in sorted(store.glob("*/recipe.json")):
        try:
            if weights_hash and json.loads(path.read_text())["weights"] == weights_hash:
                folders.append(path.parent)
        except (OSError, ValueError, KeyError, TypeError):  # not ours
            continue
    return folders
