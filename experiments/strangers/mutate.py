"""Change a run as a stranger could, and count how its use ends: a sentence, a stack trace, or as if nothing were wrong.

    PYTHONPATH=tests python -m experiments.strangers.mutate checkpoints 600 --seed 0

It prints a line for each stack trace and for each change that passes, and the counts.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import encoders  # type: ignore[import-not-found]
import timm
import torch
from verbs import SMALL, Outcome, call  # type: ignore[import-not-found]
from videos import write_ucf101_tree  # type: ignore[import-not-found]

OVERRIDES = """
    head head.dropout head.widths +head.positions sampling sampling.rate_hz aggregation optimizer.lr optimizer.eps
    +optimizer.betas batch_size seed scaling layer_decay num_threads num_workers features compile store.root store.draws
    split.number split.val_fraction split.seed split.validation dataset.classes dataset.root dataset.lists
    dataset.on_error loss loss.label_smoothing mixing +mixing.mixup augmentation scheduler scheduler.warmup callbacks
    callbacks.best.monitor callbacks.view_sheets.num_views logger backbone backbone.trainable backbone.precision
    trainer.max_epochs trainer.precision trainer.devices trainer.gradient_clip_val trainer.accumulate_grad_batches
    +trainer.limit_train_batches transform transform.crops trust resume
"""
TEXTS = """
    null 0 -1 1 3 1e400 nan -inf 0.5 true '' x [] [0] [1,x] {} {a:1} 2147483648 [[1]] a/b '${x}' [nan] [null] 1e-320
    999999999999999999999 é
"""


def values(draw: random.Random) -> Any:
    """Return something that hardly belongs where it is put."""
    simple: list[Any] = [None, True, 0, -1, 2**70, 0.5, float("nan"), float("inf"), "", "x", "\ud800", "../x", b"x"]
    shapes = [(), (0,), (3,), (2, 2), (1, 0, 4)]
    tensor = torch.zeros(draw.choice(shapes), dtype=draw.choice([torch.float32, torch.int64, torch.bool, torch.cfloat]))
    rest = [[], {}, [1, "a"], {"a": 1}, {1: 2}, {"_target_": "os.system"}, tensor, torch.zeros(1).expand(1000)]
    return draw.choice([*simple, *rest, torch.zeros(2, 2).to_sparse(), "x" * 5000])


def change(content: Any, draw: random.Random) -> str:
    """Change one place of nested dicts and lists, in place; say where and how."""
    here, path = content, []
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        key = draw.choice(keys)
        path.append(str(key))
        below = here[key]
        if not (isinstance(below, dict | list) and len(below)) or draw.random() < 0.15:
            break
        here = below
    kind = draw.choice(["value", "value", "value", "shape", "delete", "add", "rename"])
    if kind == "shape" and isinstance(here[key], torch.Tensor):
        old = here[key]
        here[key] = draw.choice(
            [old.flatten(), old.half(), old[None], old * float("nan"), old.flatten()[:1].expand(old.numel()), old[:0]]
            if old.ndim
            else [old[None], old.to(torch.int64), old.expand(9), old.bool()]
        )
    elif kind == "delete":
        del here[key]
    elif kind == "add" and isinstance(here, dict):
        here[draw.choice(["a", 1, None, True, "\ud800", "_target_", "a.b"])] = values(draw)
    elif kind == "rename" and isinstance(here, dict):
        here[draw.choice(["a", 1, None, "\ud800", "x" * 300])] = here.pop(key)
    else:
        here[key] = values(draw)
    return f"{kind} {'.'.join(path)}"


def mutate_checkpoints(run: Path, draw: random.Random) -> tuple[str, str, list[str]]:
    name = draw.choice(["best.ckpt", "last.ckpt"])
    path = run / "checkpoints" / name
    content = torch.load(path, weights_only=True)
    where = " and ".join(change(content, draw) for _ in range(draw.choice([1, 1, 1, 2])))
    torch.save(content, path)
    if name == "last.ckpt":
        return where, "train", [f"resume={run}", "trainer.max_epochs=3"]
    verb = draw.choice(["evaluate", "predict", "compare"])
    return where, verb, [f"run={run}", *(["source=clips/Archery"] if verb == "predict" else [])]


def mutate_files(run: Path, draw: random.Random) -> tuple[str, str, list[str]]:
    paths = sorted(path for path in run.rglob("*") if path.is_file() and path.suffix in (".csv", ".json", ".txt"))
    path = draw.choice([*paths, *run.rglob("*.safetensors")])
    data = path.read_bytes()
    kind = draw.choice(["empty", "cut", "bytes", "json", "rows", "folder", "missing", "link"])
    at = draw.randrange(len(data) or 1)
    if kind in ("folder", "missing", "link"):
        path.unlink()
        if kind == "folder":
            path.mkdir()
        if kind == "link":
            path.symlink_to("nowhere")
    elif kind == "json" and path.suffix == ".json":
        content = json.loads(data)
        where = change(content, random.Random(draw.random()))
        path.write_text(json.dumps(content, default=str), errors="surrogateescape")
        kind = f"json {where}"
    else:
        junk = draw.choice([b"", b"\x00", b"\xff\xfe", b'"', b"\n", b",,,,", b"nan", b"1e999", b"\xed\xa0\x80", b"\r"])
        path.write_bytes({"empty": b"", "cut": data[:at]}.get(kind, data[:at] + junk + data[at + len(junk) :]))
    verb = draw.choice(["compare", "compare", "evaluate", "train"])
    more = {"train": [f"resume={run}", "trainer.max_epochs=3"], "evaluate": [f"run={run}", "sampling.rate_hz=5"]}
    return f"{kind} {path.relative_to(run)}", verb, more.get(verb, [f"run={run}"])


def mutate_models(run: Path, draw: random.Random) -> tuple[str, str, list[str]]:
    """Change the model folder of a small encoder beside the run, and label a file with it."""
    folder, kind = run / "model", draw.choice(["videomae", "vjepa2", "dinov2", "timm"])
    if kind == "timm":
        network = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, embed_dim=32, num_heads=2)
        timm.models.save_for_hf(network, folder, model_config={"input_size": [3, 32, 32]}, safe_serialization=True)
    else:
        getattr(encoders, kind)(folder)
    path = draw.choice([*folder.glob("*.json")] * 4 + [*folder.glob("*.safetensors")])
    if path.suffix == ".json" and draw.random() < 0.9:
        content = json.loads(path.read_bytes())
        where = " and ".join(change(content, draw) for _ in range(draw.choice([1, 1, 2])))
        path.write_text(json.dumps(content, default=str), errors="surrogatepass")
    else:
        data, at = path.read_bytes(), draw.randrange(200)
        where = f"bytes of {path.name}"
        path.write_bytes(data[:at] + draw.choice([b"\xff", b"", b"{"]) + data[at + draw.choice([1, 50, 10**6]) :])
    name = f"local-dir:{folder}" if kind == "timm" else str(folder)
    backbone = [f"backbone={'timm' if kind == 'timm' else 'transformers'}", f"backbone.name={name}", "features=frames"]
    frames = {"videomae": 4, "vjepa2": 6}.get(kind, 2)
    settings = [
        "dataset.root=clips",
        "sampling=uniform",
        f"sampling.num_frames={frames}",
        "head=linear",
        "batch_size=8",
    ]
    trainer = ["trainer.max_epochs=1", "num_threads=2", "num_workers=0"]
    return f"{kind} {path.name} {where}", "train", [*backbone, *settings, *trainer]


def mutate_overrides(run: Path, draw: random.Random) -> tuple[str, str, list[str]]:
    chosen = [
        f"{draw.choice(OVERRIDES.split())}={draw.choice([*TEXTS.split(), 'x' * 300])}"
        for _ in range(draw.choice([1, 1, 2]))
    ]
    verb = draw.choice(["train", "train", "evaluate", "predict"])
    start = {"train": ["dataset.root=clips", *SMALL], "evaluate": [f"run={run}"]}
    return " ".join(chosen), verb, [*start.get(verb, [f"run={run}", "source=clips/Archery"]), *chosen]


def main() -> None:
    """Make a run, change copies of it, and count."""
    kinds: dict[str, Callable[..., Any]] = {
        "checkpoints": mutate_checkpoints,
        "files": mutate_files,
        "models": mutate_models,
        "overrides": mutate_overrides,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one change, whose messages are printed")
    options = parser.parse_args()
    counts, ends = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_ucf101_tree(folder / "clips", groups=(1, 2, 8, 9, 10))
        trained = call("train", "dataset.root=clips", *SMALL, folder=folder)
        assert trained.status == 0, trained.err
        for part in ("test", "val") if options.kind == "files" else ("test",):
            assert call("evaluate", f"run={trained.run}", f"part={part}", folder=folder).status == 0
        numbers = range(options.count) if options.only is None else [options.only]
        for number in numbers:
            copy = folder / "runs" / "stranger"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(folder / trained.run, copy)
            where, verb, arguments = kinds[options.kind](copy, random.Random(f"{options.seed} {number}"))
            outcome: Outcome = call(verb, *arguments, folder=folder)
            end = "trace" if "Traceback" in outcome.err else "sentence" if outcome.status else "passed"
            counts[end] += 1
            if end == "trace":
                last = outcome.err.strip().splitlines()[-1][:150]
                places = [line for line in outcome.err.splitlines() if "/vidclf/" in line]
                ends[f"{last.partition(':')[0]} {places[-1].strip()[-70:] if places else ''}"] += 1
                print(number, verb, where, "->", last, places[-1].strip()[-70:] if places else "", flush=True)
            if options.only is not None:
                print(where, outcome, file=sys.stderr)
                print(outcome.err, file=sys.stderr)
            elif number % 50 == 49:
                print(number + 1, dict(counts), flush=True)
    for end, count in ends.most_common():
        print(count, end)
    print(dict(counts))


if __name__ == "__main__":
    main()
