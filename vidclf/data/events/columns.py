"""A CSV for each video with a column for each class and a row for each frame, 1 where it shows the class.

DeepEthogram (film_labels.csv, with a column of frame numbers and one called background), SimBA and lightning-action
write such tables. The video is named by the file.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vidclf.data.events import Event
from vidclf.data.tables import DELIMITERS, csv_lines
from vidclf.data.timelines import runs
from vidclf.errors import VidclfError

NAME, ENDINGS, WRITES, PER_FRAME = "columns", (".csv", ".tsv", ".txt"), (), True
VALUES = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
INDEX = ("", "frame", "frames", "index", "unnamed: 0")


def fits(text: str) -> bool:
    """Return whether the first line is names, and the second one, besides a frame's number, zeros and ones."""
    first, second = ([line.strip() for line in text.lstrip("\ufeff").splitlines()[:2]] + ["", ""])[:2]
    for delimiter in DELIMITERS:
        names, cells = first.split(delimiter), second.casefold().split(delimiter)
        skip = names[0].strip('" ').casefold() in INDEX
        if len(names) == len(cells) > skip and all(cell.strip() in VALUES for cell in cells[skip:]):
            return not any(name.strip() in VALUES for name in names[skip:])
    return False


def read(file: Path, text: str) -> Iterator[Event]:
    """Yield the runs of ones in each column."""
    first = text.lstrip("\ufeff").partition("\n")[0]
    delimiter = max(DELIMITERS, key=first.count)
    lines = csv_lines(file, text, delimiter)
    names = next(lines, (0, []))[1]
    skip = bool(names) and names[0].strip().casefold() in INDEX
    rows = []
    for line, cells in lines:
        values = [VALUES.get(cell.strip().casefold()) for cell in cells[skip:]]
        if None in values:
            raise VidclfError(
                f"{file}, line {line}: {cells[skip:][values.index(None)]!r} must be 0 or 1. If -1 marks frames without "
                "a label, label them; if columns are no classes, remove them."
            )
        rows.append(bytes(map(bool, values)))  # a byte a cell, however long the video
    matrix = np.frombuffer(b"".join(rows), bool).reshape(len(rows), len(names) - skip)
    path = file.stem.removesuffix("_labels")
    for column, name in enumerate(names[skip:]):
        for start, stop in runs(matrix[:, column]):
            yield Event(path, start, stop, name.strip(), where=f"column {name.strip()}, frame {start}")
