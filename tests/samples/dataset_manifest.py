import csv
import shutil
from pathlib import Path


def sample(clips: Path, folder: Path) -> list[str]:
    shutil.copytree(clips, folder / "clips")
    rows = [(path.relative_to(folder), path.parent.name) for path in sorted(folder.glob("clips/*/*.avi"))]
    with (folder / "videos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    return [f"dataset.file={folder}/videos.csv", "dataset.group=file"]
