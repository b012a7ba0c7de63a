"""Count how often a sweep computes a feature: frames through the backbone over the distinct frames of its jobs."""

from pathlib import Path

from experiments.benchmark.setting import Setting, twin
from experiments.benchmark.verbs import run_verb
from vidclf.data.decoding import inspect
from vidclf.data.sampling import Rate

RATES_HZ = (1, 2)
JOBS = (  # 12
    "head=mlp,linear,mean_pool",
    f"sampling.rate_hz={','.join(map(str, RATES_HZ))}",
    "aggregation=mode,mean",
)
LAST_TEST_GROUP = 7  # of split 1; train asks for no test frame


def one_process(setting: Setting) -> dict[str, float]:
    """Return the counts for jobs that run one after another."""
    return count_frames(setting.work / "one_process")


def parallel(setting: Setting) -> dict[str, float]:
    """Return the counts for parallel jobs that share a store, which is empty at first."""
    return count_frames(setting.work / "parallel", "sweep=local_parallel")


def count_frames(folder: Path, *launcher: str) -> dict[str, float]:
    """Sweep over the 1 % twin with an empty store; return the computed frames and the distinct frames of the jobs."""
    folder.mkdir()
    counts = folder / "counts.txt"
    outcome = run_verb(
        "train",
        "-m",
        *launcher,
        *JOBS,
        f"dataset.root={twin('1%')}",
        "transform=tutorial",
        "backbone=custom",
        "backbone._target_=experiments.benchmark.backbones.Counting",
        f"+backbone.counts={counts.absolute()}",
        "trainer.max_epochs=1",
        f"store.root={folder}/features",
        f"hydra.sweep.dir={folder}/runs",
    )
    given = sum(map(int, counts.read_text().split()))
    distinct = num_distinct()
    return {"given": given, "distinct": distinct, "ratio": given / distinct, "seconds": outcome.seconds}


def num_distinct() -> int:
    """Return how many frames of the training groups the rates need together."""
    total = 0
    for clip in twin("1%").glob("*/*.avi"):
        if int(clip.stem.split("_g")[-1][:2]) > LAST_TEST_GROUP:
            info = inspect(clip)
            total += len({i for rate in RATES_HZ for i in Rate(rate)(info.num_frames, info.fps).flatten().tolist()})
    return total
