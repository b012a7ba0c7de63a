"""Count how many planted twins `vidclf check` names, and how many of the named pairs are true.

    python -m experiments.leaks.study root=UCF-101 classes=CuttingInKitchen,JumpingJack,WallPushups each=15 \
        seeds=10,11,12 backbone=custom backbone._target_=experiments.real.lite0.Lite0

Prints a table. For each kind it gives the share of twins that are named with their original, or with another video of
its group in the other part. For all named pairs across two parts it gives the share whose videos are of one group,
where a twin counts in its original's group.
"""

import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from experiments.leaks.plant import TWINS, plant
from vidclf.audit.findings import CheckedCorpus, Findings, _features_of, find_problems
from vidclf.audit.lookalikes import ALIKE, ALIKE_IN_PIXELS, _nearest, _unit_length
from vidclf.build import datasets as sources
from vidclf.build import parts as build
from vidclf.data.corpus import name_videos
from vidclf.data.datasets.ucf101 import UCF101, official_parts
from vidclf.models.backbones.pixels import Pixels
from vidclf.run.config import CONF, HYDRA
from vidclf.system.machine import keep_memory, num_cores

OURS = ("root", "classes", "each", "seeds")


def check_table(table: Path, overrides: list[str]) -> tuple[Findings, float]:
    """Return the problems that `vidclf check` finds, and the share of videos whose nearest is in their group."""
    overrides = ["dataset=manifest", f"dataset.file={table}", "dataset.anywhere=true", "split=given", *overrides]
    cfg = compose("check", [*overrides, "~callbacks", "~logger"])  # which write into a run's folder
    config = OmegaConf.to_container(cfg, resolve=True)
    backbone = build.build_backbone(config)
    corpus = sources.look(config, sources.list_corpus(config, kind=CheckedCorpus))
    assert isinstance(corpus, CheckedCorpus)
    device = build.build_device(config)
    source = sources.build_source(config, corpus, backbone.to(device).eval(), device)
    alike = config["check"]["alike"] or (ALIKE_IN_PIXELS if isinstance(backbone.backbone, Pixels) else ALIKE)
    checked = find_problems(corpus, source, backbone, alike, num_cores())
    videos, features = _features_of(source, backbone, corpus.all_views(), corpus.videos)
    units = [corpus.videos[video].unit for video in videos]
    everyone = torch.arange(len(videos))  # each is its own unit here
    centred = _unit_length(features, features.mean(dim=(0, 1, 2)).expand(len(videos), -1))
    nearest = _nearest(centred, everyone, everyone, everyone)[1][:, 0].tolist()
    return checked, float(np.mean([unit == units[other] for unit, other in zip(units, nearest, strict=True)]))


def main() -> None:
    """Print the table."""
    keep_memory()
    settings = dict(argument.split("=", 1) for argument in sys.argv[1:])
    overrides = [argument for argument in sys.argv[1:] if argument.partition("=")[0] not in OURS]
    classes = settings["classes"].split(",") if "classes" in settings else None
    dataset = UCF101(settings["root"], classes=classes)
    videos = name_videos(dataset.videos(), settings["root"])
    sides = official_parts(videos, 1).parts
    named = defaultdict(list)
    precision, numbers = list[float](), list[int]()
    with initialize_config_dir(CONF, **HYDRA):
        with tempfile.TemporaryDirectory() as folder:
            plant(videos, sides, Path(folder), 0, 0)
            alone, nearest = check_table(Path(folder) / "videos.csv", overrides)
        for seed in map(int, settings.get("seeds", "0").split(",")):
            with tempfile.TemporaryDirectory() as folder:
                twins = plant(videos, sides, Path(folder), int(settings.get("each", 15)), seed)
                checked, _ = check_table(Path(folder) / "videos.csv", overrides)
            listed = checked.corpus.videos
            unit = {str(video.path): video.unit for video in listed}
            true_unit = [unit[twins.get(str(video.path), str(video.path))] for video in listed]
            is_true = [true_unit[pair.first] == true_unit[pair.second] for pair in checked.crossing_pairs]
            found = {
                str(listed[end].path)
                for pair, true in zip(checked.crossing_pairs, is_true, strict=True)
                for end in pair[:2]
                if true
            }
            for twin in twins:
                named[Path(twin).name.partition("-")[0]].append(twin in found)
            precision.append(float(np.mean(is_true)))
            numbers.append(len(is_true))
    print(f"| twin | named of {len(named[next(iter(TWINS))])} |\n| --- | --- |")
    for kind in TWINS:
        print(f"| {kind} | {np.mean(named[kind]):.3f} |")
    usual = [one for kind, found in named.items() if kind != "crop_corner" for one in found]
    print(f"| all but crop_corner | {np.mean(usual):.3f} |")
    print(f"\npairs named on two sides, a seed: {numbers}; of them true: {[round(share, 3) for share in precision]}")
    print(f"without a twin: {len(alone.pairs)} pairs, {len(alone.crossing_pairs)} of them on two sides")
    print(f"nearest one of the same group: {nearest:.3f}")


if __name__ == "__main__":
    main()
