from pathlib import Path


def sample(clips: Path, folder: Path) -> list[str]:
    return ["backbone.name=vit_tiny_patch16_224"]
