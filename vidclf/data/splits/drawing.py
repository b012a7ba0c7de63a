"""Draw whole groups for val, for test and for folds. A draw depends on the seed and on what is drawn from, no more."""

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from vidclf.contracts import Video
from vidclf.data.splits.parts import class_names
from vidclf.errors import VidclfError
from vidclf.system.seeds import generator_for
from vidclf.system.text import first_five

NUM_DRAWS = 10  # of groups; the draw nearest to the fractions is taken
TOLERANCE = 0.02  # a draw of shared groups whose fractions miss by no more in any class is taken at once
NO_VIDEOS = "There are no videos to split. Check the data set's paths and dataset.classes."


def hold_groups_back(
    videos: Sequence[Video], parts: Sequence[str], fraction: float, seed: int, part: str = "val"
) -> list[str]:
    """Return the parts after about `fraction` of each class's train videos, in whole groups, have moved to `part`.

    Each class is drawn from `seed` and its label alone, so that no class changes the draw of another. If a group has
    videos of several classes, all classes are drawn at once.
    """
    needed, why = (2, "val needs one") if part == "val" else (3, "val and test need one each")
    train = [index for index, current_part in enumerate(parts) if current_part == "train"]
    require_groups(videos, train, needed, why)
    if any(len({videos[index].label for index in indices}) > 1 for indices in _units(videos, train).values()):
        held = _nearest_fold(videos, train, fraction, needed - 1, (seed, needed))
    else:
        held, members = set(), defaultdict(list)
        for index in train:
            members[videos[index].label].append(index)
        for label, indices in members.items():
            state = random_state(seed, label) if part == "val" else random_state(seed, label, 1)
            drawn = _draw_groups([videos[index].group for index in indices], fraction, needed - 1, state)
            held |= {index for index in indices if videos[index].group in drawn}
    return [part if index in held else current_part for index, current_part in enumerate(parts)]


def keep_groups(videos: Sequence[Video], parts: Sequence[str], num_groups: int, seed: int) -> list[str]:
    """Return the parts with all train groups of each class but `num_groups` unused; more groups include fewer."""
    units = list(_units(videos, [index for index, part in enumerate(parts) if part == "train"]).values())
    taken, kept = Counter[int](), set[int]()
    for position in np.random.RandomState(random_state(seed)).permutation(len(units)):
        of_class = defaultdict(list)
        for index in units[position]:
            of_class[videos[index].label].append(index)
        for label, indices in of_class.items():
            if taken[label] < num_groups:
                taken[label] += 1
                kept |= {*indices}
    return ["unused" if part == "train" and index not in kept else part for index, part in enumerate(parts)]


def _draw_groups(groups: Sequence[str], fraction: float, num_left: int, state: int) -> set[str]:
    """Return groups with about `fraction` of a class's videos: one or more, so that `num_left` or more remain.

    The first draw of `fraction` of the groups stands if its share of the videos is near. If none is near, because sizes
    differ, it is the nearest of several draws, of any number of groups.
    """
    sizes, random = Counter(groups), np.random.RandomState(state)
    names, most = sorted(sizes), len(sizes) - num_left
    orders = [[names[position] for position in random.permutation(len(names))] for _ in range(NUM_DRAWS)]
    draws = [order[: min(max(1, round(fraction * len(names))), most)] for order in orders]
    for order in orders:
        totals = np.cumsum([sizes[name] for name in order[:most]])
        draws.append(order[: 1 + int(np.abs(totals - fraction * len(groups)).argmin())])

    def error_of(draw: Sequence[str]) -> float:
        return round(abs(sum(sizes[name] for name in draw) / len(groups) - fraction), 9)

    near = [draw for draw in draws if error_of(draw) <= min(0.1, fraction / 2)]
    return {*(near[0] if near else min(draws, key=error_of))}


def _nearest_fold(
    videos: Sequence[Video], train: Sequence[int], fraction: float, num_left: int, seeds: tuple[int, int]
) -> set[int]:
    """Return the fold nearest to `fraction` of every class, of several draws, that leaves `num_left` groups of each."""
    totals = Counter(videos[index].label for index in train)
    num_folds = min(max(2, round(1 / fraction)), len(_units(videos, train)), max(totals.values()))

    def error_of(fold: set[int]) -> tuple[int, float]:
        """Return how many classes lack groups, and the largest deviation from `fraction`."""
        counts = Counter(videos[index].label for index in fold)
        deviation = max(abs(counts[label] / total - fraction) for label, total in totals.items())
        return len(_lacking(videos, train, fold, num_left)), deviation

    best: tuple[tuple[int, float], set[int]] = (len(totals) + 1, 1.0), set()
    # Larger folds if no small one has all classes.
    for folds, divide in product(range(num_folds, 1, -1), (_balanced_folds, _covering_folds)):
        for draw in range(NUM_DRAWS):
            for fold in divide(videos, train, folds, random_state(*seeds, draw)):
                best = min(best, (error_of(fold), fold), key=lambda pair: pair[0])
            if best[0] <= (0, TOLERANCE):
                break
        if not best[0][0]:
            break
    return best[1]


def complete_folds(videos: Sequence[Video], num_folds: int, seed: int) -> list[set[int]]:
    """Return the folds of the first draw that puts every class into each fold, and two of its groups outside."""
    indices = range(len(videos))
    folds = _balanced_folds(videos, indices, num_folds, random_state(seed))
    for draw in range(NUM_DRAWS):
        lacking = {label for fold in folds for label in _lacking(videos, indices, fold, num_left=2)}
        if not lacking:
            return folds
        folds = _covering_folds(videos, indices, num_folds, random_state(seed, draw))
    names = first_five([name for label, name in class_names(videos).items() if label in lacking])
    raise VidclfError(
        f"split.folds={num_folds}: {names} cannot be in every fold and leave two groups to train and validate on. "
        "Add videos of more groups, or change split.folds."
    )


def _balanced_folds(videos: Sequence[Video], chosen: Sequence[int], num_folds: int, state: int) -> list[set[int]]:
    """Divide the `chosen` videos into folds of whole groups, with every class spread over all folds."""
    labels = [videos[index].label for index in chosen]
    numbers = {unit: number for number, unit in enumerate(_units(videos, chosen))}
    units = [numbers[videos[index].unit] for index in chosen]
    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=state)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # it may have fewer groups than folds
        return [{chosen[row] for row in held} for _, held in splitter.split(chosen, labels, units)]


def _covering_folds(videos: Sequence[Video], chosen: Sequence[int], num_folds: int, state: int) -> list[set[int]]:
    """Divide the `chosen` videos into folds: each group goes to the fold that most needs its classes, in any order."""
    units = list(_units(videos, chosen).values())
    labels = [{videos[index].label for index in indices} for indices in units]
    num_units = Counter(label for of_unit in labels for label in of_unit)
    folds: list[set[int]] = [set() for _ in range(num_folds)]
    present: list[set[int]] = [set() for _ in range(num_folds)]  # classes in each fold
    for unit in np.random.RandomState(state).permutation(len(units)):
        needs = [sum(1 / num_units[label] for label in labels[unit] - classes) for classes in present]
        neediest = max(range(num_folds), key=lambda fold: (needs[fold], -len(folds[fold])))
        folds[neediest] |= {*units[unit]}
        present[neediest] |= labels[unit]
    return folds


def require_groups(videos: Sequence[Video], chosen: Sequence[int], needed: int, why: str) -> None:
    """Raise VidclfError if a class has fewer than `needed` groups among the `chosen` videos."""
    if not videos:
        raise VidclfError(NO_VIDEOS)
    groups = _groups_of_classes(videos, chosen)
    scarce = [name for label, name in class_names(videos).items() if len(groups[label]) < needed]
    if scarce:
        count = {2: "two", 3: "three"}.get(needed, needed)
        raise VidclfError(
            f"{len(scarce)} class(es) have fewer than {count} groups of train videos, and {why}: "
            f"{first_five(scarce)}. Add videos of more groups, or choose other dataset.classes."
        )


def _lacking(videos: Sequence[Video], chosen: Sequence[int], fold: set[int], num_left: int) -> set[int]:
    """Return the classes without a video in the fold, or with fewer than `num_left` groups outside it."""
    inside, outside = (_groups_of_classes(videos, part) for part in (fold, {*chosen} - fold))
    return {label for label in inside if not inside[label] or len(outside[label]) < num_left}


def _groups_of_classes(videos: Sequence[Video], chosen: Iterable[int]) -> dict[int, set[str]]:
    groups: dict[int, set[str]] = {video.label: set() for video in videos}
    for index in chosen:
        groups[videos[index].label].add(videos[index].group)
    return groups


def _units(videos: Sequence[Video], chosen: Sequence[int]) -> dict[tuple[int, str], list[int]]:
    """Return the chosen videos of each unit that no split divides."""
    units: dict[tuple[int, str], list[int]] = {}
    for index in chosen:
        units.setdefault(videos[index].unit, []).append(index)
    return units


def random_state(seed: int, *numbers: int) -> int:
    """Return a random state for scikit-learn."""
    return generator_for(seed, "split", *numbers).initial_seed() % 2**32
