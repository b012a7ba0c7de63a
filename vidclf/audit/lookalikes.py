"""Find videos of one scene: pairs that are more alike than either is to the videos it usually resembles."""

import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.functional import normalize

from vidclf.system.terminal import say

ALIKE = 0.25  # the least closeness of a pair; experiments/leaks says why
ALIKE_IN_PIXELS = 0.8  # the same where pixels are compared, not features
NUM_FRAMES = 8  # compared of each video
MAX_DIM = 2048  # wider features are projected at random to half of it: distances stay (Johnson and Lindenstrauss)
MAX_BYTES = 2**30  # of the features of all videos; they are projected to fewer numbers where they would need more
EXACT = 2000  # videos of which each is compared with every other frame by frame; of more, with a shortlist
SHORTLIST, SKETCH_DIM = 200, 512  # videos; numbers that describe a video when the shortlist is made
SAME_COSINE = 0.95  # least cosine of frames that are almost identical,
SAME = 0.92  # and their least closeness, where 0 is the mean cosine of videos of different classes
PRIOR_VIDEOS = 10  # the weight, in videos, of the overall mean in a class's mean
NEAREST, FARTHEST = 5, 30  # neighbours in other groups that a video usually resembles
MIN_DISTANCE = 1e-6  # from the usual cosine to 1: where all videos are alike, none is closer
BLOCK_BYTES = 2**26  # of cosines or features that are compared at once

Unit = tuple[int, str]  # a split keeps it whole, see `Video.unit`


class Pair(NamedTuple):
    """Two positions in the list of videos, and their closeness: 1 identical, 0 as alike as a video is to many."""

    first: int
    second: int
    closeness: float


def choose_frames(
    features: Float[Tensor, "views S D"], num_views: int, num_videos: int = 1
) -> Float[Tensor, "crops frames d"]:
    """Return NUM_FRAMES features spread evenly over one of `num_videos` videos, for each crop of its images."""
    steps = features.float().unflatten(0, (num_views, -1)).transpose(0, 1).flatten(1, 2)  # (crops, V * S, D)
    chosen = steps[:, torch.linspace(0, steps.shape[1] - 1, NUM_FRAMES).round().long()]
    room = MAX_BYTES // (4 * num_videos * len(chosen) * NUM_FRAMES)
    return chosen if chosen.shape[-1] <= min(MAX_DIM, room) else project(chosen, max(1, min(MAX_DIM // 2, room)))


def find_pairs(
    features: Float[Tensor, "crops M F D"], units: Sequence[Unit], labels: Sequence[int], at_least: float = ALIKE
) -> list[Pair]:
    """Return the pairs of M videos of different units with a closeness of `at_least`, the closest first.

    The similarity of two videos is the mean, over the frames of one, of the best cosine with a frame of the other:
    crop 0 of one against all crops (also mirrored ones) of the other, less the mean feature of their classes. The
    usual similarity of a video is that to its neighbours in other units beyond the nearest few, among all videos or
    those of the other's class, whichever is larger. Closeness is how far the pair is on the way from there to
    identical, the smaller of the two videos'. So a network that finds everything alike, or a class in which everything
    is alike, does not make every pair a look-alike. A class cut from one recording would be hidden by that, so pairs
    that are almost identical are returned as well.
    """
    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    if len(numbers) < 2:
        return []
    unit, label = torch.tensor([numbers[name] for name in units]), torch.tensor(labels)
    if len(units) > EXACT:
        say(f"Comparing {len(units)} videos with one another takes about {_forecast_s(features, unit):.0f} s.")
    best: dict[tuple[int, int], float] = {}
    for first, second, closeness in (
        *_closer_than_usual(features, unit, label, at_least),
        *_identical(features, unit, label),
    ):
        if closeness >= at_least:
            key = min(first, second), max(first, second)
            best[key] = max(closeness, best.get(key, closeness))
    return sorted((Pair(*key, closeness) for key, closeness in best.items()), key=lambda pair: (-pair.closeness, pair))


def _forecast_s(features: Tensor, unit: Int[Tensor, " M"]) -> float:
    """Return how long `find_pairs` will take in seconds, from a tenth of one of its two searches."""
    started, everyone = time.perf_counter(), torch.arange(len(unit))
    _nearest(features, unit, everyone[::10], everyone)
    return 2 * 10 * (time.perf_counter() - started)


def _closer_than_usual(
    features: Tensor, unit: Int[Tensor, " M"], label: Int[Tensor, " M"], at_least: float
) -> Iterator[Pair]:
    centred, everyone = _unit_length(features, _class_means(features, label)[label]), torch.arange(len(unit))
    values, nearest = _nearest(centred, unit, everyone, everyone)
    usual = _usual(values)
    first, place = (_closeness(values, usual[:, None].maximum(usual[nearest])) >= at_least).nonzero(as_tuple=True)
    second = nearest[first, place]
    expected = usual[first].maximum(usual[second])
    for value in label.unique():  # what is usual among the other's class is asked only for these pairs
        members = torch.where(label == value)[0]
        for video, other in ((first, second), (second, first)):
            rows = torch.where(label[other] == value)[0]
            if not len(rows):
                continue
            queries, position = video[rows].unique(return_inverse=True)
            in_class = _usual(_nearest(centred, unit, queries, members)[0])[position]
            expected[rows] = expected[rows].maximum(in_class)
    closeness = _closeness(values[first, place], expected)
    yield from map(Pair, first.tolist(), second.tolist(), closeness.tolist())


def _closeness(values: Tensor, expected: Tensor) -> Tensor:
    return (values - expected) / (1 - expected).clamp(min=MIN_DISTANCE)


def _identical(features: Tensor, unit: Int[Tensor, " M"], label: Int[Tensor, " M"]) -> Iterator[Pair]:
    """Yield almost identical videos, compared with those of other classes, because a class may be one recording."""
    scaled, everyone = _unit_length(features), torch.arange(len(unit))
    values, nearest = _nearest(scaled, unit, everyone, everyone)
    if values.max() < SAME_COSINE:
        return
    some = torch.linspace(0, len(unit) - 1, min(len(unit), EXACT)).round().long()
    total, count = 0.0, 0
    for videos in some.split(100):
        is_foreign = label[videos][:, None] != label[some]
        total += float(_similarities(scaled, videos, some)[is_foreign].sum())
        count += int(is_foreign.sum())
    usual = total / count if count else 1.0  # a single class has nothing to be compared with
    if usual > 1 - MIN_DISTANCE:
        return
    closeness = (values - usual) / (1 - usual)
    for video, place in ((values >= SAME_COSINE) & (closeness >= SAME)).nonzero().tolist():
        yield Pair(video, int(nearest[video, place]), float(closeness[video, place]))


def join_units(units: Sequence[Unit], pairs: Sequence[tuple[int, int]]) -> list[list[Unit]]:
    """Return the units that pairs of videos connect, two or more each, in order."""
    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    rows, columns = ([numbers[units[pair[end]]] for pair in pairs] for end in (0, 1))
    _, component = connected_components(coo_array(([1] * len(pairs), (rows, columns)), shape=(len(numbers),) * 2))
    joined: dict[int, list[Unit]] = {}
    for unit, number in zip(numbers, component.tolist(), strict=True):
        joined.setdefault(number, []).append(unit)
    return [members for members in joined.values() if len(members) > 1]


def _class_means(features: Float[Tensor, "crops M F D"], labels: Int[Tensor, " M"]) -> Float[Tensor, "K D"]:
    """Return the mean feature of each class; that of a small class is drawn towards the mean of all."""
    of_video = features.mean(dim=(0, 2))  # (M, D)
    sums = PRIOR_VIDEOS * of_video.mean(dim=0).expand(int(labels.max()) + 1, -1)
    return sums.index_add(0, labels, of_video) / (PRIOR_VIDEOS + labels.bincount())[:, None]


def _unit_length(
    features: Float[Tensor, "crops M F D"], means: Float[Tensor, "M D"] | None = None
) -> Float[Tensor, "crops M F D"]:
    """Return the features less each video's mean, scaled to length 1; made block by block, to save memory."""
    scaled = torch.empty_like(features)
    for videos in torch.arange(features.shape[1]).split(1000):
        rows = features[:, videos]
        scaled[:, videos] = normalize(rows if means is None else rows - means[videos, None], dim=-1)
    return scaled


def _nearest(
    features: Float[Tensor, "crops M F D"],
    unit: Int[Tensor, " M"],
    queries: Int[Tensor, " Q"],
    members: Int[Tensor, " m"],
) -> tuple[Float[Tensor, "Q k"], Int[Tensor, "Q k"]]:
    """Return the similarities and positions of the FARTHEST members of other units that are most like each query.

    Of more than EXACT members, only the SHORTLIST whose mean features are most alike are compared frame by frame.
    """
    crops, _, num_frames, dim = features.shape
    sketches, size = None, 4 * len(members) * num_frames**2
    if len(members) > EXACT:
        sketches, size = _sketch(features[:, members]), 4 * (SHORTLIST * num_frames * dim + len(members)) * crops
    values = torch.empty(len(queries), min(FARTHEST, len(members)))
    nearest = torch.empty(values.shape, dtype=torch.int64)
    for rows in torch.arange(len(queries)).split(max(1, BLOCK_BYTES // size)):
        videos = queries[rows]
        candidates = members
        if sketches is not None:
            coarse = (_sketch(features[:1, videos])[0] @ sketches.mT).amax(0)  # (b, m)
            coarse[unit[videos][:, None] == unit[members]] = -torch.inf
            candidates = members[coarse.topk(min(SHORTLIST, len(members))).indices]
        cosines = _similarities(features, videos, candidates)
        cosines[unit[videos][:, None] == unit[candidates]] = -torch.inf
        values[rows], places = cosines.topk(values.shape[1])
        nearest[rows] = candidates.expand(len(videos), -1).gather(1, places)
    return values, nearest


def _sketch(features: Float[Tensor, "crops n F D"]) -> Float[Tensor, "crops n d"]:
    """Return the mean feature of each video, projected at random to SKETCH_DIM and scaled to length 1."""
    return normalize(project(features.mean(dim=2), SKETCH_DIM), dim=-1)


def project(features: Float[Tensor, "*n D"], dim: int) -> Float[Tensor, "*n d"]:
    """Return features projected at random to `dim`, where they are wider; distances stay nearly as they are."""
    if features.shape[-1] <= dim:
        return features
    return features @ _directions(features.shape[-1], dim)


@lru_cache(maxsize=2)  # as many as `check` needs; it projects each video
def _directions(width: int, dim: int) -> Float[Tensor, "width dim"]:
    return torch.randn(width, dim, generator=torch.Generator().manual_seed(0))


def _similarities(
    features: Float[Tensor, "crops M F D"], videos: Int[Tensor, " b"], others: Int[Tensor, " m"] | Int[Tensor, "b m"]
) -> Float[Tensor, "b m"]:
    """Return the similarities of videos to the same m others, or to m others of each."""
    cosines = torch.full((len(videos), others.shape[-1]), -1.0)
    for crop in features:
        frames = crop.index_select(0, others.flatten()).unflatten(0, others.shape).flatten(-3, -2)  # (..., m * F, D)
        products = (features[0, videos] @ frames.mT).unflatten(-1, (-1, features.shape[2]))  # (b, F, m, F)
        for similarity in (products.amax(3).mean(1), products.amax(1).mean(2)):
            cosines = torch.maximum(cosines, similarity)
    return cosines


def _usual(cosines: Float[Tensor, "b M"]) -> Float[Tensor, " b"]:
    """Return the usual similarity of each video; with few neighbours, that of the farther half."""
    values = cosines.topk(min(FARTHEST, cosines.shape[1])).values
    count = values.isfinite().sum(dim=1)[:, None]
    place = torch.arange(values.shape[1])
    is_usual = (place >= (count // 2).clamp(max=NEAREST)) & (place < count)
    total = values.where(is_usual, torch.zeros(())).sum(dim=1)
    return total.div(is_usual.sum(dim=1)).where(count[:, 0] > 0, -torch.ones(()))
