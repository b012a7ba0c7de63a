from pathlib import Path


def sample(clips: Path, folder: Path) -> list[str]:
    """Write empty files with HMDB51's names, which have the group before the action."""
    for path in clips.glob("*/*.avi"):
        action = path.parent.name
        (folder / action).mkdir(exist_ok=True)
        (folder / action / path.name.removeprefix("v_").replace("_g", f"_{action}_g")).touch()
    return [f"dataset.root={folder}"]
