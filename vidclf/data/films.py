"""From the names, subjects and parts in a table of events to files, groups and parts of a split."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vidclf.data.events import Event
from vidclf.data.grouping import group_rule
from vidclf.data.listing import VIDEO_ENDINGS, find_videos, leads_out, part_named
from vidclf.errors import VidclfError
from vidclf.system.terminal import say
from vidclf.system.text import first_five


def find_files(file: Path, events: Iterable[Event], root: Path, anywhere: bool) -> dict[str, Path]:
    """Return the file of each path in a table: below `root`, or else the only one there of this name.

    A path without a video's ending is the name of a file without its ending.

    Raises:
        VidclfError: there is no such file, or several have the name.
    """
    where: dict[str, str] = {}
    for event in events:
        where.setdefault(event.path, event.where)
    found = {
        path: root / path
        for path in where
        if os.path.isfile(root / path) and (anywhere or not leads_out(path, root / path, root))
    }
    by_name: dict[str, list[Path]] = {}
    for video in find_videos(root)[0] if len(found) < len(where) else ():
        for name in {video.name, video.stem}:
            by_name.setdefault(name, []).append(video)
    missing, ambiguous, moved = list[str](), list[str](), list[str]()
    for path in where:
        same = by_name.get(path.rpartition("/")[2], []) if path not in found else []
        if len(same) == 1:
            found[path] = same[0]
            moved += [path] if Path(path).suffix.lower() in VIDEO_ENDINGS else []
        elif same:
            ambiguous.append(f"{path} ({where[path]}): {first_five([str(one.relative_to(root)) for one in same])}")
        elif path not in found:
            missing.append(f"{path} ({where[path]})")
    if ambiguous:
        raise VidclfError(
            f"{file}: several videos below {root} have the names of {first_five(ambiguous)}. Write their folders, too."
        )
    if missing:
        raise VidclfError(
            f"{file}: {len(missing)} of {len(where)} videos are not below {root}: {first_five(missing)}. Set "
            "dataset.root to their folder, or pass dataset.anywhere=true if they are elsewhere and you trust the table."
        )
    if moved:
        say(f"{file}: {len(moved)} videos are found by their names, in another folder: {first_five(moved)}.")
    return {path: found[path] for path in where}


def group_files(events: Sequence[Event], group: str | None, root: Path) -> dict[str, str]:
    """Return the group of each file, by its path; files with a subject (or group) in common are in one group.

    Args:
        events: with the paths of the files.
        group: see `Events`.
        root: of the videos.

    Raises:
        VidclfError: `group` is not allowed, or a file has no such group.
    """
    paths = list(dict.fromkeys(event.path for event in events))
    column = any(event.group for event in events)
    if group == "file" or (group is None and not column):
        return {path: _below(path, root) for path in paths}
    if group in (None, "subject"):
        key = "subject" if group else "group"
        if without := [event.where for event in events if not getattr(event, key)]:
            raise VidclfError(
                f"dataset.group={group or 'null'}: {len(without)} events have no {key}: {first_five(without)}. Fill "
                "the column, or choose dataset.group=file."
            )
        keys_of: dict[str, set[str]] = {path: set() for path in paths}
        for event in events:
            keys_of[event.path].add(getattr(event, key))
        return _components(keys_of)
    group_of = group_rule(group, parent=lambda name: name.rpartition("/")[0])
    groups = {path: group_of(_below(path, root)) for path in paths}
    if without := [path for path, found in groups.items() if not found]:
        what = "are in no sub-folder of dataset.root" if group == "parent" else "do not match it"
        raise VidclfError(
            f"dataset.group={group}: {len(without)} of {len(paths)} videos {what}: {first_five(without)}."
        )
    return {path: found or "" for path, found in groups.items()}


def part_of_files(file: Path, events: Sequence[Event], may_cross: bool) -> dict[str, str | None]:
    """Return the part of each file, by its path; None where the table gives none.

    Raises:
        VidclfError: there is no such part, or a file, or a subject where it may not cross, is in two parts.
    """
    parts: dict[str, dict[str, set[str | None]]] = {"video": {}, "subject": {}}
    for event in events:
        part = part_named(event.part)
        if event.part and part is None:
            raise VidclfError(f"{file}, {event.where}: part={event.part}: must be one of train, val, test.")
        parts["video"].setdefault(event.path, set()).add(part)
        if event.subject and part:
            parts["subject"].setdefault(event.subject, set()).add(part)
    for kind, of_kind in parts.items():
        crossing = [
            f"{name} ({' and '.join(sorted(map(str, found)))})" for name, found in of_kind.items() if len(found) > 1
        ]
        if crossing and not (kind == "subject" and may_cross):
            hint = "" if kind == "video" else ", or pass dataset.group=file if that is intended"
            raise VidclfError(
                f"{file}: {len(crossing)} {kind}(s) are in two parts: {first_five(crossing)}. Each belongs to one, or "
                f"the score measures memory. Correct the column part{hint}."
            )
    return {path: next(iter(found)) for path, found in parts["video"].items()}


def _below(path: str, root: Path) -> str:
    return Path(path).relative_to(root).as_posix() if Path(path).is_relative_to(root) else path


def _components(keys_of: Mapping[str, set[str]]) -> dict[str, str]:
    """Return a group for each file: the keys of all files that are connected by keys in common."""
    members = {key: {key} for keys in keys_of.values() for key in keys}
    for keys in keys_of.values():
        joined = set().union(*(members[key] for key in keys))
        members |= dict.fromkeys(joined, joined)
    return {path: "+".join(sorted(members[next(iter(keys))])) for path, keys in keys_of.items()}
