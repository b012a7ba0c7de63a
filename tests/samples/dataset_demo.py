from pathlib import Path

from vidclf.data.datasets.demo import ABOUT, ABOUT_FILE, scenes


def sample(clips: Path, folder: Path) -> list[str]:
    """Write the demo's files, empty: a data set reads names only."""
    for name in (name for scene in scenes() for name in scene.names()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / ABOUT_FILE).write_text(ABOUT, encoding="utf-8")
    return [f"dataset.root={folder}"]
