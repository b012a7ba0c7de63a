"""Your own videos: a folder per class, any container, groups from the paths."""

from collections.abc import Sequence
from itertools import chain, product
from pathlib import Path

from vidclf.contracts import Video
from vidclf.data.grouping import group_rule
from vidclf.data.listing import (
    DatasetError,
    check_choice,
    check_custom_classes,
    choose_classes,
    find_folders,
    find_videos,
    is_video,
    names_below,
    part_named,
    repeated,
    sort_names,
)
from vidclf.errors import VidclfError
from vidclf.system.terminal import say
from vidclf.system.text import first_five


class Folder:
    """The videos below `root`, in a folder per class, at any depth; links are followed.

    If all folders of `root` are named like parts (train, test, val, valid, ...) and share class folders, their videos
    have these parts.

    Args:
        root: a folder of class folders, or of parts that hold class folders.
        group: which videos a split keeps together: "parent", those in the same sub-folder of the class folder; "file",
            none; else a regular expression with one group, which is searched in the path below `root`.
        groups: "shared": a group's name means the same in all classes (a person, a camera); "of_class": in its class.
        classes: use these classes only; classes are in alphabetical order.
        on_error: as in `UCF101`.

    Raises:
        VidclfError: `root` holds no class folders, or an argument is not allowed.
    """

    split_numbers = ()

    def __init__(
        self,
        root: str | Path,
        group: str | None = None,
        groups: str = "shared",
        classes: Sequence[str | int | None] | None = None,
        on_error: str = "raise",
    ) -> None:
        check_choice("on_error", on_error, ("raise", "skip"))
        check_choice("groups", groups, ("shared", "of_class"))
        self.root, self.group, self.groups, self.on_error = Path(root).expanduser(), group, groups, on_error
        if not self.root.is_dir():
            raise VidclfError(f"{self.root}: there is no such folder. Set dataset.root to a folder of class folders.")
        self._group_of = group_rule(group, parent=lambda name: "/".join(name.split("/")[1:-1]))
        self._part_of = _find_parts(self.root) or {self.root: None}
        names = {path.name for folder in self._part_of for path in find_folders(folder)}
        if not names:
            raise VidclfError(f"{self.root}: there is no class folder in it; expected is {self.root}/<class>/<video>.")
        self.class_names = choose_classes(classes, sort_names(names))
        check_custom_classes(self.class_names, self.root)
        around = (path for folder in {self.root, *self._part_of} for path in folder.iterdir())
        loose = sorted(path for path in around if is_video(path) and path.is_file())
        if loose:
            shown = names_below(loose, self.root)
            say(f"{self.root}: {len(loose)} video(s) are in no class folder and are skipped: {shown}.")

    def videos(self) -> list[Video]:
        """Return every video of `class_names`, sorted by label, then path.

        Raises:
            DatasetError: a class folder holds no video, or `group` does not fit the paths.
        """
        found: list[tuple[int, Path, Path]] = []  # label, folder of the part, video
        skipped: list[Path] = []
        problems: list[str] = []
        for (label, name), folder in product(enumerate(self.class_names), self._part_of):
            if not (folder / name).is_dir():
                continue  # a part may lack a class
            paths, remaining = find_videos(folder / name)
            if not paths:
                problems.append(
                    f"{folder / name}: the class folder holds no video. Add some, remove the folder, or choose the "
                    "classes with dataset.classes=[...]."
                )
            found += [(label, folder, path) for path in paths]
            skipped += [path for path in remaining if not path.name.startswith(".")]
        if skipped:
            shown = names_below(skipped, self.root)
            say(f"{self.root}: {len(skipped)} file(s) are not videos and are skipped: {shown}.")
        names = [path.relative_to(folder).as_posix() for _, folder, path in found]
        groups = [self._group_of(name) for name in names]
        if without := [name for name, group in zip(names, groups, strict=True) if group is None]:
            what = "are in no sub-folder of their class" if self.group == "parent" else "do not match it"
            problems.append(
                f"dataset.group={self.group}: {len(without)} of {len(names)} videos {what}: {first_five(without)}."
            )
        shared = self.groups == "shared"
        videos = [
            Video(path, label, group or name, self._part_of[folder], shared=shared, class_name=self.class_names[label])
            for (label, folder, path), group, name in zip(found, groups, names, strict=True)
        ]
        if problems:
            raise DatasetError(problems, videos)
        return videos


def _find_parts(root: Path) -> dict[Path, str | None]:
    """Return the part of each folder in `root`, if they are named like parts of a split; else {}.

    Raises:
        VidclfError: some are, but others lie beside them, or one has no class in common with another.
    """
    part_of = {folder: part_named(folder.name) for folder in find_folders(root)}
    named = [folder.name for folder, part in part_of.items() if part]
    if len({*part_of.values()} - {None}) < 2:
        return {}  # one class may be called train
    classes = [{inner.name for inner in find_folders(folder)} for folder in part_of]
    shared = {*repeated(chain.from_iterable(classes))}
    if len(named) < len(part_of) or not all(shared & inner for inner in classes):
        raise VidclfError(
            f"{root}: {', '.join(named)} look like parts of a split, not like classes. Put the folders of all classes "
            "into each of them, and no other folder beside them; or rename them."
        )
    say(f"{root}: {', '.join(named)} are taken as parts. split=given uses them; other splits draw new ones.")
    return part_of
