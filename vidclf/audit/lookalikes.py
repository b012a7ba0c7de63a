"""Find videos of one scene: pairs that are more alike than either is to the videos it usually resembles."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.functional import normalize

ALIKE = 0.25  # the least closeness of a pair; experiments/leaks says why
ALIKE_IN_PIXELS = 0.8  # the same where pixels are compared, not features
NUM_FRAMES = 8  # compared of each video
MAX_DIM = 2048  # wider features are projected at random to half of it: distances stay (Johnson and Lindenstrauss)
SAME_COSINE = 0.95  # least cosine of frames that are almost identical,
SAME = 0.92  # and their least closeness, where 0 is the mean cosine of videos of different classes
PRIOR_VIDEOS = 10  # the weight, in videos, of the overall mean in a class's mean
NEAREST, FARTHEST = 5, 30  # neighbours in other groups that a video usually resembles
MIN_DISTANCE = 1e-6  # from the usual cosine to 1: where all videos are alike, none is closer
BLOCK_BYTES = 2**27  # of cosines in memory at once

Unit = tuple[int, str]  # a split keeps it whole, see `Video.unit`


class Pair(NamedTuple):
    """Two positions in the list of videos, and their closeness: 1 identical, 0 as alike as a video is to many."""

    first: int
    second: int
    closeness: float


def choose_frames(features: Float[Tensor, "views S D"], num_views: int) -> Float[Tensor, "crops frames d"]:
    """Return NUM_FRAMES features spread evenly over a video, for each crop of its images."""
    steps = features.float().unflatten(0, (num_views, -1)).transpose(0, 1).flatten(1, 2)  # (crops, V * S, D)
    chosen = steps[:, torch.linspace(0, steps.shape[1] - 1, NUM_FRAMES).round().long()]
    dim = chosen.shape[-1]
    if dim <= MAX_DIM:
        return chosen
    return chosen @ torch.randn(dim, MAX_DIM // 2, generator=torch.Generator().manual_seed(0))


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
    best: dict[tuple[int, int], float] = {}
    for first, second, closeness in (*_closer_than_usual(features, unit, label), *_identical(features, unit, label)):
        if closeness >= at_least:
            key = min(first, second), max(first, second)
            best[key] = max(closeness, best.get(key, closeness))
    return sorted((Pair(*key, closeness) for key, closeness in best.items()), key=lambda pair: (-pair.closeness, pair))


def _closer_than_usual(features: Tensor, unit: Int[Tensor, " M"], label: Int[Tensor, " M"]) -> Iterator[Pair]:
    centred = normalize(_subtract_class_means(features, label), dim=-1)
    classes = [torch.where(label == value)[0] for value in label.unique()]
    neighbours, similarities, usual = list[Tensor](), list[Tensor](), list[Tensor]()
    for videos, cosines in _rows(centred):
        cosines[unit[videos][:, None] == unit] = -torch.inf
        values, nearest = cosines.topk(min(FARTHEST, len(unit)))
        neighbours.append(nearest)
        similarities.append(values)
        usual.append(torch.stack([_usual(values), *(_usual(cosines[:, members]) for members in classes)], dim=1))
    column = torch.unique(label, return_inverse=True)[1] + 1
    reference = torch.cat(usual)
    for video, (nearest, values) in enumerate(zip(torch.cat(neighbours), torch.cat(similarities), strict=True)):
        expected = torch.maximum(reference[video, column[nearest]], reference[nearest, column[video]])
        expected = expected.maximum(reference[nearest, 0]).maximum(reference[video, 0])
        closeness = (values - expected) / (1 - expected).clamp(min=MIN_DISTANCE)
        for neighbour, value in zip(nearest.tolist(), closeness.tolist(), strict=True):
            yield Pair(video, neighbour, value)


def _identical(features: Tensor, unit: Int[Tensor, " M"], label: Int[Tensor, " M"]) -> Iterator[Pair]:
    """Yield almost identical videos, compared with those of other classes, because a class may be one recording."""
    neighbours, similarities, total, count = list[Tensor](), list[Tensor](), 0.0, 0
    for videos, cosines in _rows(normalize(features, dim=-1)):
        is_foreign = label[videos][:, None] != label
        total, count = total + float(cosines[is_foreign].sum()), count + int(is_foreign.sum())
        cosines[unit[videos][:, None] == unit] = -torch.inf
        values, nearest = cosines.topk(min(FARTHEST, len(unit)))
        neighbours.append(nearest)
        similarities.append(values)
    usual = total / count if count else 1.0  # a single class has nothing to be compared with
    if usual > 1 - MIN_DISTANCE:
        return
    values, nearest = torch.cat(similarities), torch.cat(neighbours)
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


def _subtract_class_means(
    features: Float[Tensor, "crops M F D"], labels: Int[Tensor, " M"]
) -> Float[Tensor, "crops M F D"]:
    """Return features less the mean of their class; the mean of a small class is drawn towards that of all."""
    of_video = features.mean(dim=(0, 2))  # (M, D)
    sums = PRIOR_VIDEOS * of_video.mean(dim=0).expand(int(labels.max()) + 1, -1)
    sums = sums.index_add(0, labels, of_video)
    return features - (sums / (PRIOR_VIDEOS + labels.bincount())[:, None])[labels][:, None]


def _rows(features: Float[Tensor, "crops M F D"]) -> Iterator[tuple[Int[Tensor, " b"], Float[Tensor, "b M"]]]:
    """Yield blocks of videos' positions, and their similarities to all videos."""
    crops, num_videos, num_frames, _ = features.shape
    block = max(1, BLOCK_BYTES // (4 * num_videos * num_frames**2))
    for videos in torch.arange(num_videos).split(block):
        cosines = torch.full((len(videos), num_videos), -1.0)
        for crop in range(crops):
            # Each frame of these videos (b * F) with each of all videos (M * F).
            products = features[0, videos].flatten(0, 1) @ features[crop].flatten(0, 1).T
            products = products.view(len(videos), num_frames, num_videos, num_frames)
            for similarity in (products.amax(3).mean(1), products.amax(1).mean(2)):
                cosines = torch.maximum(cosines, similarity)
        yield videos, cosines


def _usual(cosines: Float[Tensor, "b M"]) -> Float[Tensor, " b"]:
    """Return the usual similarity of each video; with few neighbours, that of the farther half."""
    values = cosines.topk(min(FARTHEST, cosines.shape[1])).values
    count = values.isfinite().sum(dim=1)[:, None]
    place = torch.arange(values.shape[1])
    is_usual = (place >= (count // 2).clamp(max=NEAREST)) & (place < count)
    total = values.where(is_usual, torch.zeros(())).sum(dim=1)
    return total.div(is_usual.sum(dim=1)).where(count[:, 0] > 0, -torch.ones(()))
