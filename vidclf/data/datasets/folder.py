"""Your own videos: one folder a class, any container, and groups by their paths."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from vidclf.contracts import Video
from vidclf.data.datasets.classes import check_choice, check_custom_classes, choose_classes, sort_names
from vidclf.data.files import find_videos, is_video, names_below
from vidclf.errors import VidclfError
from vidclf.system.terminal import say
from vidclf.system.text import first_five

GROUPS = """dataset.group must say which videos belong together, so that a split keeps them on one side:
  dataset.group=parent             the sub-folder that they lie in: <root>/<class>/<group>/<file>
  "dataset.group='(person\\d+)'"   what this regular expression finds in the path below dataset.root
  dataset.group=file               nothing does: each file is its own"""


class Folder:
    """The videos below `root`, one folder a class, at any depth; links are followed.

    Args:
        root: a folder of class folders.
        group: what may not stand on two sides of a split: "parent", the sub-folder of the class folder that a file
            lies in; "file", each file alone; else a regular expression with one group, searched for in the path below
            `root`.
        groups: "shared": a group's name is one thing in all classes (a person, a camera); "of_class": in its class.
        classes: take these classes only; they are in the order of their names.
        on_error: as in `UCF101`.

    Raises:
        VidclfError: `root` holds no class folders, or an argument is not as said.
    """

    split_numbers = ()

    def __init__(
        self,
        root: str | Path,
        group: str | None = None,
        groups: str = "shared",
        classes: Sequence[str | int] | None = None,
        on_error: str = "raise",
    ) -> None:
        check_choice("on_error", on_error, ("raise", "skip"))
        check_choice("groups", groups, ("shared", "of_class"))
        if group is None:
            raise VidclfError(GROUPS)
        self.root, self.group, self.groups, self.on_error = Path(root).expanduser(), group, groups, on_error
        if not self.root.is_dir():
            raise VidclfError(f"{self.root}: there is no such folder. Set dataset.root to one with a folder a class.")
        inside = sorted(map(Path, os.scandir(self.root)))
        names = [path.name for path in inside if path.is_dir() and not path.name.startswith(".")]
        if not names:
            raise VidclfError(f"{self.root}: there is no class folder in it; expected is {self.root}/<class>/<video>.")
        self.class_names = choose_classes(classes, sort_names(names))
        check_custom_classes(self.class_names, self.root)
        loose = [path for path in inside if is_video(path) and path.is_file()]
        if loose:
            named = names_below(loose, self.root)
            say(f"{self.root}: {len(loose)} video(s) lie in no class folder and are left out: {named}.")

    def videos(self) -> list[Video]:
        """Return every video of `class_names`, sorted by label, then path.

        Raises:
            VidclfError: a class folder holds no video, or `group` does not fit the paths.
        """
        group_of = self._group_of()
        found: list[tuple[int, Path]] = []
        others: list[Path] = []
        for label, name in enumerate(self.class_names):
            paths, left = find_videos(self.root / name)
            if not paths:
                raise VidclfError(
                    f"{self.root / name}: the class folder holds no video. Add some, remove it if it is no class, or "
                    "choose the classes with dataset.classes=[...]."
                )
            found += [(label, path) for path in paths]
            others += [path for path in left if not path.name.startswith(".")]
        if others:
            say(f"{self.root}: {len(others)} file(s) are no videos and are left out: {names_below(others, self.root)}.")
        names = [path.relative_to(self.root).as_posix() for _, path in found]
        groups = [group_of(name) for name in names]
        without = [name for name, group in zip(names, groups, strict=True) if group is None]
        if without:
            what = "lie in no sub-folder of their class" if self.group == "parent" else "do not match it"
            raise VidclfError(
                f"dataset.group={self.group}: {len(without)} of {len(names)} videos {what}: {first_five(without)}."
            )
        return [
            Video(path, label, group or "", shared=self.groups == "shared")
            for (label, path), group in zip(found, groups, strict=True)
        ]

    def _group_of(self) -> Callable[[str], str | None]:
        """Return the group of a path below the root; None where it has none."""
        if self.group == "parent":
            return lambda name: "/".join(name.split("/")[1:-1]) or None
        if self.group == "file":
            say(
                "dataset.group=file: each file is a group of its own. If two files show one person, place or "
                "recording, a split may part them, and the score is then too high for new ones."
            )
            return lambda name: name
        try:
            pattern = re.compile(str(self.group))
        except re.error as error:
            raise VidclfError(
                f"dataset.group={self.group}: it is no regular expression ({error}).\n{GROUPS}"
            ) from error
        if pattern.groups != 1:
            raise VidclfError(
                f"dataset.group={self.group}: it has {pattern.groups} groups in parentheses; it needs one, around what "
                f"names the group.\n{GROUPS}"
            )

        def searched(name: str) -> str | None:
            match = pattern.search(name)
            return (match[1] or None) if match else None

        return searched
