"""Group videos that belong together, by a rule on their paths."""

import re
from collections.abc import Callable

from vidclf.errors import VidclfError
from vidclf.system.terminal import say

GROUPS = """dataset.group must say which videos belong together, so that a split keeps them in the same part:
  dataset.group=parent             videos in the same folder (dataset=folder: in the same sub-folder of a class)
  "dataset.group='(person\\d+)'"   videos with the same match of this regular expression in the path
  dataset.group=subject            dataset=events: videos with a subject in common
  dataset.group=file               none: each file is a group"""


def group_rule(
    group: str | None, parent: Callable[[str], str], key: str = "dataset.group"
) -> Callable[[str], str | None]:
    """Return the rule that `dataset.group` names: from a video's path to its group, or None where it does not fit.

    Args:
        group: "file", "parent", or a regular expression with one group in parentheses.
        parent: from a path to the name that "parent" stands for; "" where there is none.
        key: of the setting, for messages.

    Raises:
        VidclfError: `group` is missing, or is no such expression.
    """
    if group is None:
        raise VidclfError(GROUPS)
    if group == "parent":
        return lambda name: parent(name) or None
    if group == "file":
        say(
            "dataset.group=file: each file is a separate group. If two files show the same person, place or "
            "recording, a split may separate them, and the score is then too high."
        )
        return lambda name: name
    try:
        pattern = re.compile(str(group))
    except re.error as error:
        raise VidclfError(f"{key}={group}: not a regular expression ({error}).\n{GROUPS}") from error
    if pattern.groups != 1:
        raise VidclfError(
            f"{key}={group}: it has {pattern.groups} groups in parentheses; it needs exactly one, around the "
            f"name of the group.\n{GROUPS}"
        )
    return lambda name: (match[1] or None) if (match := pattern.search(name)) else None
