"""Videos that show one scene: more alike than either is to what it usually resembles."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

ALIKE = 0.25  # from which closeness on videos are a pair; experiments/leaks says why
ALIKE_IN_PIXELS = 0.8  # where no network has seen the images
NUM_FRAMES = 8  # of a video that are compared
WIDEST = 2048  # features beyond are projected at random to half as many: distances stay (Johnson and Lindenstrauss)
SAME_COSINE = 0.95  # of frames from which on they are all but the same images,
SAME = 0.92  # if that is as much of the way from what videos of other classes are alike to identical
DRAWN = 10  # videos' worth by which a class's mean is drawn towards that of all
# from which to which neighbour in other groups a video resembles as usual
NEAREST, FARTHEST = 5, 30
SMALLEST_WAY = 1e-6  # from there to identical: where all is alike nothing is nearer
BLOCK_BYTES = 2**27  # of cosines held at once


Unit = tuple[int, str]  # what stands on one side as a whole, see `Video.unit`


class Pair(NamedTuple):
    """Two positions in the list of videos, and how near the videos are: 1 identical, 0 as alike as many are."""

    video: int
    other: int
    closeness: float


def choose_frames(features: Float[Tensor, "views S D"], num_views: int) -> Float[Tensor, "crops frames d"]:
    """Return NUM_FRAMES features spread evenly over a video, for each crop of its images."""
    steps = features.float().unflatten(0, (num_views, -1)).transpose(0, 1).flatten(1, 2)  # (crops, V * S, D)
    chosen = torch.linspace(0, steps.shape[1] - 1, NUM_FRAMES).round().long()
    return _narrowed(steps[:, chosen])


def find_pairs(
    features: Float[Tensor, "crops M F D"], units: Sequence[Unit], labels: Sequence[int], at_least: float = ALIKE
) -> list[Pair]:
    """Return the pairs of M videos of different units that are nearer than `at_least`, the nearest first.

    Two videos are as alike as the best cosines of the frames of one with those of the other are on average, crop 0 of
    one against all crops (so a mirrored one) of the other, what their classes have in common taken off. What a video
    usually resembles are its neighbours in other units beyond the nearest few, of all videos or of the other's class,
    whichever is more alike. Closeness is the share of the way from there to identical, of the two videos' the smaller:
    so neither a network that finds all alike, nor a class in which all is alike, names everything. Where that hides a
    class cut from one recording, what is all but identical is named all the same.
    """
    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    if len(numbers) < 2:
        return []
    unit, label = torch.tensor([numbers[one] for one in units]), torch.tensor(labels)
    found: dict[tuple[int, int], float] = {}
    for video, other, closeness in (*_nearer_than_usual(features, unit, label), *_the_same(features, unit, label)):
        if closeness >= at_least:
            key = min(video, other), max(video, other)
            found[key] = max(closeness, found.get(key, closeness))
    return sorted((Pair(*key, closeness) for key, closeness in found.items()), key=lambda pair: (-pair.closeness, pair))


def _nearer_than_usual(features: Tensor, unit: Int[Tensor, " M"], label: Int[Tensor, " M"]) -> Iterator[Pair]:
    centred = torch.nn.functional.normalize(_less_the_class(features, label), dim=-1)
    classes = [torch.where(label == one)[0] for one in label.unique()]
    nearest, alike, usual = list[Tensor](), list[Tensor](), list[Tensor]()
    for videos, cosines in _rows(centred):
        cosines[unit[videos][:, None] == unit] = -torch.inf
        values, others = cosines.topk(min(FARTHEST, len(unit)))
        nearest.append(others)
        alike.append(values)
        usual.append(torch.stack([_usual(values), *(_usual(cosines[:, own]) for own in classes)], dim=1))
    column = torch.unique(label, return_inverse=True)[1] + 1
    reference = torch.cat(usual)
    for video, (others, values) in enumerate(zip(torch.cat(nearest), torch.cat(alike), strict=True)):
        resembled = torch.maximum(reference[video, column[others]], reference[others, column[video]])
        resembled = resembled.maximum(reference[others, 0]).maximum(reference[video, 0])
        closeness = (values - resembled) / (1 - resembled).clamp(min=SMALLEST_WAY)
        for other, one in zip(others.tolist(), closeness.tolist(), strict=True):
            yield Pair(video, other, one)


def _the_same(features: Tensor, unit: Int[Tensor, " M"], label: Int[Tensor, " M"]) -> Iterator[Pair]:
    """Yield videos that are all but identical, held against those of other classes: a class may be one recording."""
    nearest, alike, total, count = list[Tensor](), list[Tensor](), 0.0, 0
    for videos, cosines in _rows(torch.nn.functional.normalize(features, dim=-1)):
        is_foreign = label[videos][:, None] != label
        total, count = total + float(cosines[is_foreign].sum()), count + int(is_foreign.sum())
        cosines[unit[videos][:, None] == unit] = -torch.inf
        values, others = cosines.topk(min(FARTHEST, len(unit)))
        nearest.append(others)
        alike.append(values)
    usual = total / count if count else 1.0  # one class: there is nothing to hold them against
    if usual > 1 - SMALLEST_WAY:
        return
    values, others = torch.cat(alike), torch.cat(nearest)
    closeness = (values - usual) / (1 - usual)
    for video, place in ((values >= SAME_COSINE) & (closeness >= SAME)).nonzero().tolist():
        yield Pair(video, int(others[video, place]), float(closeness[video, place]))


def join_units(units: Sequence[Unit], pairs: Sequence[tuple[int, int]]) -> list[list[Unit]]:
    """Return the units that pairs of videos tie together, two or more each, in order."""
    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    rows, columns = ([numbers[units[pair[end]]] for pair in pairs] for end in (0, 1))
    _, component = connected_components(coo_array(([1] * len(pairs), (rows, columns)), shape=(len(numbers),) * 2))
    joined: dict[int, list[Unit]] = {}
    for unit, number in zip(numbers, component.tolist(), strict=True):
        joined.setdefault(number, []).append(unit)
    return [own for own in joined.values() if len(own) > 1]


def _less_the_class(features: Float[Tensor, "crops M F D"], labels: Int[Tensor, " M"]) -> Float[Tensor, "crops M F D"]:
    """Return features less the mean of their class; that of a small class is nearer to the mean of all."""
    of_video = features.mean(dim=(0, 2))  # (M, D)
    sums = DRAWN * of_video.mean(dim=0).expand(int(labels.max()) + 1, -1)
    sums = sums.index_add(0, labels, of_video)
    return features - (sums / (DRAWN + labels.bincount())[:, None])[labels][:, None]


def _rows(features: Float[Tensor, "crops M F D"]) -> Iterator[tuple[Int[Tensor, " b"], Float[Tensor, "b M"]]]:
    """Yield some videos' positions, and how alike they are to all."""
    crops, num_videos, num_frames, _ = features.shape
    block = max(1, BLOCK_BYTES // (4 * num_videos * num_frames**2))
    for videos in torch.arange(num_videos).split(block):
        cosines = torch.full((len(videos), num_videos), -1.0)
        for crop in range(crops):
            # Of each frame of these videos (b * F) with each of all (M * F).
            products = features[0, videos].flatten(0, 1) @ features[crop].flatten(0, 1).T
            products = products.view(len(videos), num_frames, num_videos, num_frames)
            for alike in (products.amax(3).mean(1), products.amax(1).mean(2)):
                cosines = torch.maximum(cosines, alike)
        yield videos, cosines


def _usual(cosines: Float[Tensor, "b M"]) -> Float[Tensor, " b"]:
    """Return how alike each video is to what it usually resembles; of few neighbours, the farther half."""
    values = cosines.topk(min(FARTHEST, cosines.shape[1])).values
    count = values.isfinite().sum(dim=1)[:, None]
    place = torch.arange(values.shape[1])
    is_usual = (place >= (count // 2).clamp(max=NEAREST)) & (place < count)
    total = values.where(is_usual, torch.zeros(())).sum(dim=1)
    return total.div(is_usual.sum(dim=1)).where(count[:, 0] > 0, -torch.ones(()))


def _narrowed(features: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch d"]:
    width = features.shape[-1]
    if width <= WIDEST:
        return features
    generator = torch.Generator().manual_seed(0)
    return features @ torch.randn(width, WIDEST // 2, generator=generator)
