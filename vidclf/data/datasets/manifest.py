"""Your own videos, listed in a table: CSV or Parquet with path, label, and optional group, split, start_s, end_s.

Tables of spreadsheets are read, too, where nothing is ambiguous: with semicolons or tabs, decimal commas, in UTF-16,
with capitalised columns and parts. The deviations are reported.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from vidclf.contracts import PARTS, Video
from vidclf.data.grouping import GROUPS, group_rule
from vidclf.data.listing import (
    DatasetError,
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
REQUIRED, FURTHER = ("path", "label"), ("group", "split")
# Empty cells are read, so that all of them are reported at once.
SCHEMA = Schema(REQUIRED, (*FURTHER, *TIMES), may_be_empty=(*REQUIRED, *FURTHER, *TIMES), numbers=TIMES)


class Manifest:
    """The videos, or labelled segments of videos, that a table lists.

    Args:
        file: CSV or, by its extension, Parquet; paths are relative to its folder.
        group: as in `Folder`, where the table has no column group.
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
        group: str | None = None,
        groups: str = "shared",
        classes: Sequence[str | int | None] | None = None,
        anywhere: bool = False,
        on_error: str = "raise",
    ) -> None:
        check_choice("on_error", on_error, ("raise", "skip"))
        check_choice("groups", groups, ("shared", "of_class"))
        self.file, self.group, self.groups = Path(file).expanduser(), group, groups
        self.anywhere, self.on_error = anywhere, on_error
        if not self.file.is_file():
            raise VidclfError(f"dataset.file={self.file}: there is no such file. Set it to a .csv or .parquet file.")
        self.root = self.file.parent
        is_parquet = self.file.suffix.lower() in (".parquet", ".pq")
        read, unit = (read_parquet, "row") if is_parquet else (read_csv, "line")
        self._rows = [(f"{unit} {number}", row) for number, row in read(self.file, SCHEMA)]
        if not self._rows:
            raise VidclfError(f"{self.file}: it has no rows. Add one for each video.")
        self._group_of = self._group_rule(group)
        labels = {row["label"] for _, row in self._rows if row["label"]}
        self.class_names = choose_classes(classes, sort_names(labels))
        check_custom_classes(self.class_names, self.file)

    def videos(self) -> list[Video]:
        """Return every row of `class_names`, in the table's order.

        Raises:
            DatasetError: a cell is empty or not allowed, a path leads out of the table's folder, or a row is there
                twice.
        """
        problems: list[str] = []
        for where, row in self._rows:
            if empty := [key for key, cell in row.items() if not cell and key not in TIMES]:
                what = f"{', '.join(empty)} is empty. Fill it, or remove the row or the whole column."
                problems.append(f"{self.file}, {where}: {what}")
        rows = [(where, row) for where, row in self._rows if row["path"] and row["label"] in self.class_names]
        written = {row["split"]: part_named(row["split"]) for _, row in rows if "split" in row}
        if respelled := [f"{name} as {part}" for name, part in written.items() if part not in (None, name)]:
            say(f"{self.file}: in the column split, it reads {first_five(respelled)}.")
        paths = {row["path"]: self._path(row["path"]) for _, row in rows}
        outside = {name for name, path in paths.items() if not self.anywhere and leads_out(name, path, self.root)}
        if outside:
            problems.append(
                f"{self.file}: {len(outside)} path(s) are absolute or lead out of its folder, directly or by a link: "
                f"{first_five(sorted(outside))}. Move the videos there, or pass dataset.anywhere=true if you trust the "
                "table."
            )
        found: dict[str, tuple[str, Video]] = {}
        for where, row in rows:
            if row["path"] in outside:
                continue
            try:
                video = self._video(where, row, paths[row["path"]])
                self._check_new(where, video, *found.setdefault(video.name, (where, video)))
            except VidclfError as error:
                problems.append(f"{self.file}, {error}")
        videos = [video for _, video in found.values()]
        if contradictions := self._contradictions(found.values()):
            problems.append(f"{self.file}: {contradictions}. A moment has one label: correct start_s and end_s.")
        self._say_crossing(videos)
        if problems:
            raise DatasetError(problems, videos)
        return videos

    def _group_rule(self, group: str | None) -> Callable[[str], str | None]:
        """Return the rule from a path to its group, for tables without the column.

        Raises:
            VidclfError: there is neither a rule nor a column, or both.
        """
        has_column = "group" in self._rows[0][1]
        if has_column and group is not None:
            raise VidclfError(f"dataset.group={group}: {self.file} has a column group. Leave dataset.group out.")
        if has_column:
            return lambda path: path
        if group is None:
            raise VidclfError(f"{GROUPS}\nOr add a column group to {self.file}.")
        return group_rule(group, parent=lambda path: path.rpartition("/")[0])

    def _path(self, written: str) -> Path:
        path = self.root / written
        return path if os.path.exists(path) else self.root / written.replace("\\", "/")

    def _video(self, where: str, row: Row, path: Path) -> Video:
        start_s, end_s = (seconds(where, row, key) for key in TIMES)
        if end_s is not None and (start_s or 0) >= end_s:
            raise VidclfError(f"{where}: start_s={start_s or 0:g} is not before end_s={end_s:g}. Correct the row.")
        part = part_named(row.get("split", ""))
        if part is None and row.get("split"):
            raise VidclfError(f"{where}: split={row['split']}: must be one of {', '.join(PARTS)}.")
        label = self.class_names.index(row["label"])
        written = Path(row["path"].replace("\\", "/")).as_posix()
        group = row.get("group") or self._group_of(written)
        if group is None:
            raise VidclfError(f"{where}: {written} does not fit dataset.group={self.group}. Correct either.")
        shared = self.groups == "shared" or self.group == "file"  # a file is the same in all classes
        name = Video(Path(written), label, "", start_s=start_s, end_s=end_s).name
        return Video(path, label, group, part, start_s, end_s, name, shared, class_name=row["label"])

    def _check_new(self, where: str, video: Video, where_before: str, before: Video) -> None:
        """Raise VidclfError if another row has the same video, or the same segment of it."""
        if before is video:
            return
        if before.label == video.label:
            raise VidclfError(f"{where} names {video.name} again, as {where_before} does. Remove one.")
        raise VidclfError(
            f"{where} gives {video.name} the label {video.class_name}, {where_before} gives it {before.class_name}: a "
            "video has one label. Keep one."
        )

    def _say_crossing(self, videos: Sequence[Video]) -> None:
        groups_of: dict[str, set[tuple[int, str]]] = {}
        for video in videos:
            groups_of.setdefault(video.path.as_posix(), set()).add(video.unit)
        if crossing := [path for path, groups in groups_of.items() if len(groups) > 1]:
            say(
                f"{self.file}: {len(crossing)} file(s) have segments in several groups: {first_five(crossing)}. "
                "A split may separate them, although they come from the same recording."
            )

    def _contradictions(self, found: Iterable[tuple[str, Video]]) -> str:
        """Return where segments with different labels overlap, for a message; "" if they do not."""
        segments: dict[str, list[Stretch]] = {}
        for where, video in found:
            times = video.start_s or 0.0, float("inf") if video.end_s is None else video.end_s
            segments.setdefault(str(video.path), []).append(Stretch(*times, video.class_name, where))
        contradictions = {path: settle(stretches)[1] for path, stretches in segments.items()}
        return describe(contradictions, self.root) if any(contradictions.values()) else ""
