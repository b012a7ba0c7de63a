from pathlib import Path


def sample(clips: Path, folder: Path) -> list[str]:
    return [f"dataset.root={clips}", "dataset.group=file"]
