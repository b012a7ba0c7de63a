"""Fit a head on train and choose the best on val; no test label is scored."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import lightning as L
import torch

from vidclf.build.datasets import build_corpus, build_source
from vidclf.build.grid import ChooseHead, build_grid, expand_grid
from vidclf.build.parts import (
    build_aggregations,
    build_backbone,
    build_classifier,
    check_views,
    fix_precision,
    is_grid,
    prepare_backbone,
)
from vidclf.build.training import Describe, build_learner, build_training, check_stages
from vidclf.comparison.settings import defaults_of, settings_of
from vidclf.contracts import Head, Loss, optional
from vidclf.data.corpus import Corpus
from vidclf.datamodule import VideoDataModule
from vidclf.errors import VidclfError
from vidclf.evaluation import tensorboard
from vidclf.evaluation.ethogram import report_timelines
from vidclf.evaluation.logits import ViewLogits, compute_metrics, score_part
from vidclf.evaluation.results import print_scores, write_predictions
from vidclf.features.recipe import hash_weights
from vidclf.models.backbones.wrap import FrozenBackbone
from vidclf.models.classifier import Classifier
from vidclf.models.learner import Learner
from vidclf.run.compatible import split_table
from vidclf.run.config import Config, as_yaml, is_sweep, output_folder
from vidclf.run.folder import Run, load_best, load_trained, shown_folder, write_scores
from vidclf.run.jobs import Progress, job_of_sweep
from vidclf.run.resume import PREVIOUS, check_resumed, is_complete, prepare_folder
from vidclf.system.disk import write_atomically, write_csv
from vidclf.system.machine import free_memory
from vidclf.system.ranks import is_rank_zero, start_ranks
from vidclf.system.terminal import say

NO_SETTINGS = ("epoch", "epochs", "chosen")  # columns of heads.csv that are no settings of a head, as its scores
COPIES = 5  # of the features in memory: scaled, averaged over steps, and in float64


def run(config: Config, run: Run | None) -> None:
    """Leave a run's folder, see vidclf/run/folder.py; a repeated job of a sweep goes on where it stopped.

    Args:
        config: of the job.
        run: to resume; None: a new one.
    """
    config = fix_precision(config)
    if not is_sweep():
        _train(config, run)
        return
    with job_of_sweep(output_folder(), config) as (progress, unfinished):
        if progress is not Progress.DONE:
            _train(config, unfinished or run)


def _train(config: Config, before: Run | None) -> None:
    check_stages(config)
    corpus = build_corpus(config)  # cheap mistakes first: no file is opened and no weights are fetched yet
    corpus.require_classes()
    backbone = build_backbone(config)
    candidates = expand_grid(config) if is_grid(config) else []
    check_views({**config, **candidates[0].changes} if candidates else config, backbone)
    choose = ChooseHead(candidates) if candidates else None
    trainer = build_training(config, backbone, choose)
    is_trained = bool(before and is_complete(before, config, trainer.callbacks))  # type: ignore[attr-defined]
    start_ranks(trainer)
    folder, device = trainer.strategy.broadcast(output_folder()), trainer.strategy.root_device
    corpus.look().require_for_training()
    config = prepare_backbone(config, backbone, lambda: corpus)
    weights_hash = hash_weights(backbone.backbone)
    table_of_split = split_table(corpus)
    digest = hashlib.sha256(table_of_split).hexdigest()
    if before:
        check_resumed(before, config, corpus.class_names, corpus.split, digest, weights_hash)
    resumed_in = folder / "checkpoints" if before else None
    trainer.callbacks.append(  # type: ignore[attr-defined]
        Describe(config, weights_hash, digest, resumed_in, choose.changes if choose else dict)
    )
    if is_rank_zero():
        write_atomically(folder / "split.csv", table_of_split)
    source = build_source(config, corpus, backbone, device, training=True)
    datamodule = VideoDataModule(corpus, source, config["batch_size"])
    num_classes = len(corpus.class_names)
    if choose is None:
        learner = build_learner(config, backbone, num_classes)
    else:  # all heads: what does not fit into memory is refused before anything is computed
        learner = build_grid(config, candidates, backbone, num_classes, device)
    datamodule.prepare(trainer.max_epochs)
    if before:
        load_trained(before, learner)
        prepare_folder(before, folder)
    else:
        fit_scaling(learner, datamodule)
    rows = _fit(trainer, learner, datamodule, folder, before.path if before else None, is_trained)
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    if choose:
        rows, config = choose.rows(learner), {**config, **choose.changes()}  # type: ignore[arg-type]
    classifier = build_classifier(config, backbone, num_classes) if choose else learner
    best = load_best(folder, trainer.global_step, classifier)
    view_logits = score_part(trainer, classifier, source, corpus, "val")
    if is_rank_zero():
        metrics = _write(folder, config, trainer, corpus, view_logits, classifier, rows)
        num_trained = max(trainer.current_epoch, before.num_epochs if before else 0)
        title = folder.name if is_sweep() else f"Validation{_chosen(best.num_epochs, num_trained, rows)}"
        print_scores(title, metrics, f"run {folder}", in_one_line=is_sweep())
        if not is_sweep():
            say(f"next: vidclf evaluate run={shown_folder(folder)}, then vidclf report {shown_folder(folder)}")


def _fit(
    trainer: L.Trainer,
    learner: Learner,
    datamodule: VideoDataModule,
    folder: Path,
    resumed: Path | None,
    is_trained: bool,
) -> list[dict[str, object]]:
    """Train, or solve a head that is not trained by gradients; return the rows of heads.csv, if any."""
    if fit := optional(learner.loss, Loss, "fit"):
        fit(datamodule.train_labels())
    if optional(learner.head, Head, "fit"):
        return fit_head(trainer, learner, datamodule, folder / "checkpoints" / "best.ckpt")
    if not is_trained:
        trainer.fit(learner, datamodule=datamodule, ckpt_path=resumed, weights_only=True)
    return []


def fit_scaling(learner: Learner, datamodule: VideoDataModule) -> None:
    """Fit the scaling before the head, or before each head of a grid, to the training features."""
    scalings = [scaling for scaling in learner.scalings if scaling.method != "none"]
    if scalings:
        features, _ = datamodule.labelled("train")
        for scaling in scalings:
            scaling.fit(features)


def fit_head(
    trainer: L.Trainer, learner: Learner, datamodule: VideoDataModule, checkpoint: Path
) -> list[dict[str, object]]:
    """Solve the head on the training features and write the run's checkpoint; return the rows of heads.csv.

    Raises:
        VidclfError: the backbone is trained, or memory has no room for the features.
    """
    name, device = type(learner.head).__name__, trainer.strategy.root_device
    if not isinstance(learner.backbone, FrozenBackbone):
        raise VidclfError(
            f"head: {name} needs fixed features, and those of a trained backbone change. Set backbone.trainable=none."
        )
    if learner.mixing:
        say(f"mixing is off: {name} is solved on the features as they are.")
    learner.to(device)
    parts = []
    for part in ("train", "val"):
        features, labels = datamodule.labelled(part)
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
        num_bytes = COPIES * 4 * features.numel()
        if num_bytes > free:
            raise VidclfError(
                f"head: {name} needs all features of {part} at once, {num_bytes / 1e9:.1f} GB of memory, and "
                f"{free / 1e9:.1f} GB are free. Use fewer views (sampling), narrower features (backbone.layer), or "
                "head=linear."
            )
        parts.append((learner.scaling(learner.features(features.to(device))), labels.to(device)))
    rows = learner.head.fit(*parts, learner.loss)  # type: ignore[operator]
    trainer.validate(learner, datamodule=datamodule, verbose=False)
    if not trainer.fast_dev_run:  # type: ignore[attr-defined]
        trainer.save_checkpoint(checkpoint)
    return rows


def _write(
    folder: Path,
    config: Config,
    trainer: L.Trainer,
    corpus: Corpus,
    view_logits: ViewLogits,
    classifier: Classifier,
    rows: Sequence[dict[str, object]],
) -> dict[str, float]:
    """Write and return the validation scores; of several heads, write those of each."""
    predictions = view_logits.aggregate(classifier.aggregation, corpus.videos)
    metrics = compute_metrics(view_logits, predictions, corpus, "val", build_aggregations())
    metrics |= report_timelines(folder, predictions, corpus, config.get("timeline"), val=None)
    write_predictions(folder, predictions, corpus)
    write_scores(folder, metrics, corpus.videos, corpus.failed)
    (folder / PREVIOUS).unlink(missing_ok=True)
    tensorboard.log_views(trainer, corpus, view_logits, predictions)
    tensorboard.log_run(trainer, as_yaml(config), defaults_of(config) | settings_of(config), metrics)
    if rows:
        write_csv(folder / "heads.csv", rows[0], (row.values() for row in rows))
        tensorboard.log_table(trainer.logger, "heads", rows)
    return metrics


def _chosen(epoch: int, num_trained: int, rows: Sequence[Mapping[str, object]]) -> str:
    """Return which epoch, and which of several heads, the scores are from, and how many it is the best of."""
    best_of = f"the best of {num_trained}" if num_trained else ""
    for row in rows:
        if row["chosen"]:
            settings = [f"{key}={value}" for key, value in row.items() if key not in NO_SETTINGS and "val/" not in key]
            best_of = ", ".join([*settings, str(row["chosen"])])
    return (f", epoch {epoch}" if num_trained else "") + (f" ({best_of})" if best_of else "")
