"""Fit a head on train and choose it on val; no test label is scored."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from vidclf.cli import verb

if TYPE_CHECKING:
    from pathlib import Path

    import lightning as L

    from vidclf.data.corpus import Corpus
    from vidclf.datamodule import VideoDataModule
    from vidclf.evaluation.logits import Judged
    from vidclf.models.classifier import Classifier
    from vidclf.models.learner import Learner
    from vidclf.run.folder import Run


@verb
def main(cfg: DictConfig) -> None:
    """Leave a run's folder: see vidclf/run/folder.py. A job of a sweep that was called again goes on where it was."""
    from vidclf.build.parts import settle_precision
    from vidclf.run.config import asked, output_folder
    from vidclf.run.jobs import Progress, job_of_sweep
    from vidclf.system.terminal import quiet_lightning

    quiet_lightning()
    config, before = asked(cfg, "train")
    config = settle_precision(config)
    with job_of_sweep(output_folder(), config) as (progress, begun):
        if progress is not Progress.DONE:
            _train(config, begun or before)


def _train(config: dict, before: "Run | None") -> None:
    from vidclf.build import datasets as sources
    from vidclf.build import grid, training
    from vidclf.build import parts as build
    from vidclf.datamodule import VideoDataModule
    from vidclf.evaluation.logits import judge
    from vidclf.features.recipe import hash_weights
    from vidclf.run import folder, resume
    from vidclf.run.config import output_folder
    from vidclf.system.disk import write_csv
    from vidclf.system.ranks import is_first, start_ranks
    from vidclf.system.terminal import table

    backbone = build.build_backbone(config)
    describe = training.Describe(config, hash_weights(backbone.backbone))
    candidates = grid.spread(config)
    choose = grid.ChooseHead(candidates, describe) if candidates else None
    trainer = training.build_training(config, backbone, describe, choose)
    is_complete = bool(before and resume.is_complete(before, config, trainer.callbacks))  # type: ignore[attr-defined]
    start_ranks(trainer)
    run_folder, device = trainer.strategy.broadcast(output_folder()), trainer.strategy.root_device
    corpus = sources.build_corpus(config)
    corpus.require_for_training()
    if sources.calibrate_int8(config, backbone, corpus):
        describe.weights_hash = hash_weights(backbone.backbone)
    if before:
        resume.check_resumed(before, config, corpus.class_names, corpus.sides, describe.weights_hash)
    if is_first():
        write_csv(run_folder / "split.csv", ("video", "side"), corpus.sides.rows())
    source = sources.build_source(config, corpus, backbone, device, training=True)
    datamodule = VideoDataModule(corpus, source, config["batch_size"])
    num_classes = len(corpus.class_names)
    if choose is None:
        learner = training.build_learner(config, backbone, num_classes)
    else:  # of all heads: what does not fit into memory is told before anything is computed
        learner = grid.build_grid(candidates, backbone, num_classes, device)
    datamodule.prepare(trainer.max_epochs)
    resumed = None
    if before:
        folder.load_trained(before, learner)
        resumed = resume.take_over(before, run_folder, config, trainer)
    rows = _fit(trainer, learner, datamodule, run_folder, resumed, is_complete)
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    if choose:
        rows, config = choose.rows(learner), describe.config  # type: ignore[arg-type]
    classifier = build.build_classifier(config, backbone, num_classes) if choose else learner
    best = folder.load_best(run_folder, trainer.global_step, classifier)
    judged = judge(trainer, classifier, source, corpus, "val")
    if is_first():
        metrics = _leave(run_folder, config, trainer, corpus, judged, classifier, rows)
        num_trained = max(trainer.current_epoch, before.num_epochs if before else 0)
        table(f"Validation{_chosen(best.num_epochs, num_trained, rows)}", metrics, f"run {run_folder}")


def _fit(
    trainer: "L.Trainer",
    learner: "Learner",
    datamodule: "VideoDataModule",
    run_folder: "Path",
    resumed: "Path | None",
    is_complete: bool,
) -> list[dict]:
    """Train, from `resumed` on, or solve a head that is not trained; return what is told of several heads."""
    from vidclf.build.fit_features import fit_head, fit_scaling

    device = trainer.strategy.root_device
    if resumed is None:
        fit_scaling(learner, datamodule, device)
    if fit := getattr(learner.loss, "fit", None):
        fit(datamodule.train_labels())
    if hasattr(learner.head, "fit"):
        return fit_head(trainer, learner, datamodule, device, run_folder / "checkpoints" / "best.ckpt")
    if not is_complete:
        trainer.fit(learner, datamodule=datamodule, ckpt_path=resumed, weights_only=True)
    return []


def _leave(
    run_folder: "Path",
    config: dict,
    trainer: "L.Trainer",
    corpus: "Corpus",
    judged: "Judged",
    classifier: "Classifier",
    rows: Sequence[dict],
) -> dict[str, float]:
    """Write and return the scores, and of several heads those of each."""
    from vidclf.build import parts as build
    from vidclf.comparison.settings import made_choices
    from vidclf.evaluation import tensorboard
    from vidclf.evaluation.logits import scores_of
    from vidclf.evaluation.results import write_predictions
    from vidclf.run import folder
    from vidclf.run.config import as_yaml, explicit_overrides
    from vidclf.system.disk import write_csv

    videos = judged.by(classifier.aggregation, corpus.videos)
    metrics = scores_of(judged, videos, corpus, "val", build.build_aggregations())
    write_predictions(run_folder, videos, corpus)
    folder.write_scores(run_folder, metrics, corpus.videos, corpus.failed)
    tensorboard.log_views(trainer, corpus, judged, videos)
    tensorboard.log_run(trainer, as_yaml(config), made_choices(config, explicit_overrides()), metrics)
    if rows:
        write_csv(run_folder / "heads.csv", rows[0], (row.values() for row in rows))
        tensorboard.log_table(trainer.logger, "heads", rows)
    return metrics


def _chosen(epoch: int, num_trained: int, rows: Sequence[Mapping[str, object]]) -> str:
    """Return which epoch the scores are of, and of how many scores they are the best."""
    of_heads = next((str(row["chosen"]) for row in rows if row["chosen"]), "")
    if num_trained:
        return f", epoch {epoch} ({of_heads or f'the best of {num_trained}'})"
    return f" ({of_heads})" if of_heads else ""


if __name__ == "__main__":
    main()
