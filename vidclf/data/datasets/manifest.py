"""Your own videos, listed in a table: CSV or Parquet with path, label, and optional group, split, start_s, end_s.

Tables of spreadsheets are read, too, where nothing is ambiguous: with semicolons or tabs, decimal commas, in UTF-16,
with capitalised columns and parts. The deviations are reported.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from vidclf.contracts import PARTS, Video
from vidclf.data.listing import (
    check_choice,
    check_custom_classes,
    choose_classes,
    leads_out,
    part_named,
    sort_names,
)
from vidclf.data.tables import Row, Schema, read_csv, read_parquet, seconds
from vidclf.data.timelines import Stretch, describe, settle
from vidclf.errors import VidclfError
from vidclf.system.terminal import say
from vidclf.system.text import first_five

TIMES = ("start_s", "end_s")  # empty: the beginning, the end of the video
SCHEMA = Schema(("path", "label"), ("group", "split", *TIMES), may_be_empty=TIMES, numbers=TIMES)


class Manifest:
    """The videos, or labelled segments of videos, that a table lists.

    Args:
        file: CSV or, by its extension, Parquet; paths are relative to its folder.
        groups: as in `Folder`.
        classes: use these labels only; classes are in alphabetical order.
        anywhere: whether paths may be absolute or lead out of the table's folder.
        on_error: as in `UCF101`.

    Raises:
        VidclfError: the table cannot be read, or a cell is not allowed; the message names the line.
    """

    split_numbers = ()

    def __init__(
        self,
        file: str | Path,
        groups: str = "shared",
        classes: Sequence[str | int | None] | None = None,
        anywhere: bool = False,
        on_error: str = "raise",
    ) -> None:
        check_choice("on_error", on_error, ("raise", "skip"))
        check_choice("groups", groups, ("shared", "of_class"))
        self.file, self.groups, self.anywhere, self.on_error = Path(file).expanduser(), groups, anywhere, on_error
        if not self.file.is_file():
            raise VidclfError(f"dataset.file={self.file}: there is no such file. Set it to a .csv or .parquet file.")
        self.root = self.file.parent
        is_parquet = self.file.suffix.lower() in (".parquet", ".pq")
        self._rows = list((read_parquet if is_parquet else read_csv)(self.file, SCHEMA))
        if not self._rows:
            raise VidclfError(f"{self.file}: it has no rows. Add one for each video.")
        self.class_names = choose_classes(classes, sort_names({row["label"] for _, row in self._rows}))
        check_custom_classes(self.class_names, self.file)

    def videos(self) -> list[Video]:
        """Return every row of `class_names`, in the table's order.

        Raises:
            VidclfError: a path leads out of the table's folder, a time or part is not allowed, or a row is there twice.
        """
        rows = [(line, row) for line, row in self._rows if row["label"] in self.class_names]
        written = {row["split"]: part_named(row["split"]) for _, row in rows if "split" in row}
        if respelled := [f"{name} as {part}" for name, part in written.items() if part not in (None, name)]:
            say(f"{self.file}: in the column split, it reads {first_five(respelled)}.")
        paths = {row["path"]: self._path(row["path"]) for _, row in rows}
        if not self.anywhere:
            self._check_inside(paths)
        videos = [self._video(line, row, paths[row["path"]]) for line, row in rows]
        self._check_each_once([line for line, _ in rows], videos)
        self._check_contradictions([line for line, _ in rows], videos)
        groups_of: dict[str, set[tuple[int, str]]] = {}
        for video in videos:
            groups_of.setdefault(video.path.as_posix(), set()).add(video.unit)
        crossing = [path for path, groups in groups_of.items() if len(groups) > 1]
        if crossing:
            say(
                f"{self.file}: {len(crossing)} file(s) have segments in several groups: {first_five(crossing)}. "
                "A split may separate them, although they come from the same recording."
            )
        return videos

    def _path(self, written: str) -> Path:
        path = self.root / written
        return path if os.path.exists(path) else self.root / written.replace("\\", "/")

    def _check_inside(self, paths: dict[str, Path]) -> None:
        outside = [name for name, path in paths.items() if leads_out(name, path, self.root)]
        if outside:
            raise VidclfError(
                f"{self.file}: {len(outside)} path(s) are absolute or lead out of its folder, directly or by a link: "
                f"{first_five(outside)}. Move the videos there, or pass dataset.anywhere=true if you trust the table."
            )

    def _video(self, line: int, row: Row, path: Path) -> Video:
        start_s, end_s = (seconds(f"{self.file}, line {line}", row, key) for key in TIMES)
        if end_s is not None and (start_s or 0) >= end_s:
            raise VidclfError(
                f"{self.file}, line {line}: start_s={start_s or 0:g} is not before end_s={end_s:g}. Correct the row."
            )
        part = part_named(row.get("split", ""))
        if part is None and "split" in row:
            raise VidclfError(f"{self.file}, line {line}: split={row['split']}: must be one of {', '.join(PARTS)}.")
        label = self.class_names.index(row["label"])
        shared = self.groups == "shared" or "group" not in row  # a file is the same in all classes
        written = Path(row["path"].replace("\\", "/"))
        name = Video(written, label, "", start_s=start_s, end_s=end_s).name
        group = row.get("group", written.as_posix())
        return Video(path, label, group, part, start_s, end_s, name, shared, class_name=row["label"])

    def _check_each_once(self, lines: Sequence[int], videos: Sequence[Video]) -> None:
        seen: dict[str, tuple[int, Video]] = {}
        for line, video in zip(lines, videos, strict=True):
            line_before, before = seen.setdefault(video.name, (line, video))
            if before is video:
                continue
            what = f"names {video.name} again, as line {line_before} does. Remove one"
            if before.label != video.label:
                what = (
                    f"gives {video.name} the label {video.class_name}, line {line_before} gives it "
                    f"{before.class_name}: a video has one label. Keep one"
                )
            raise VidclfError(f"{self.file}: line {line} {what}.")

    def _check_contradictions(self, lines: Sequence[int], videos: Sequence[Video]) -> None:
        segments: dict[str, list[Stretch]] = {}
        for line, video in zip(lines, videos, strict=True):
            times = video.start_s or 0.0, float("inf") if video.end_s is None else video.end_s
            stretch = Stretch(*times, video.class_name, f"line {line}")
            segments.setdefault(str(video.path), []).append(stretch)
        contradictions = {path: settle(stretches)[1] for path, stretches in segments.items()}
        if any(contradictions.values()):
            what = describe(contradictions, self.root)
            raise VidclfError(f"{self.file}: {what}. A moment has one label: correct start_s and end_s.")
