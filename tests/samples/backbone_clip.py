from pathlib import Path


def sample(clips: Path, folder: Path) -> list[str]:
    return ["backbone.name=s3d"]
