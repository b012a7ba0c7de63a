from pathlib import Path

import encoders


def sample(clips: Path, folder: Path) -> list[str]:
    return [f"backbone.name='{encoders.videomae(folder / 'a folder')}'"]
