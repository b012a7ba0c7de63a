"""Fit a head on train and choose it on val; no test label is scored."""

from omegaconf import DictConfig

from vidclf.cli import verb


@verb
def main(cfg: DictConfig) -> None:
    """Leave a run's folder: see vidclf/runs.py."""
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from vidclf.errors import VidclfError
    from vidclf.evaluation import tensorboard
    from vidclf.evaluation.judge import judge, scores_of
    from vidclf.run import build
    from vidclf.run import compatible as agreement
    from vidclf.run import folder as runs
    from vidclf.run.config import task_overrides
    from vidclf.system.ranks import is_first, meet
    from vidclf.system.terminal import quiet_lightning, say_left_out, table

    quiet_lightning()
    config = build.check_keys(cfg, "train")
    if cfg.trainer.max_epochs == 0:
        raise VidclfError("trainer.max_epochs=0: nothing would be trained; give 1 or more.")
    folder = Path(HydraConfig.get().runtime.output_dir)
    resumed = None if cfg.resume is None else runs.checkpoint_to_resume(Path(cfg.resume))

    datamodule = build.build_datamodule(cfg, training=True)
    logger = build.build(cfg.logger)
    callbacks = [*build.build(cfg.callbacks).values(), runs.Describe(config, task_overrides())]
    trainer = build.build_trainer(cfg, datamodule.backbone, logger, callbacks)
    meet(trainer)
    folder = trainer.strategy.broadcast(folder)
    datamodule.prepare()
    if len(datamodule.dataset.class_names) < 2:
        raise VidclfError(f"The data set has one class, {datamodule.dataset.class_names[0]}: nothing to tell apart.")
    if is_first():
        runs.write_csv(folder / "split.csv", ("video", "side"), datamodule.sides.rows())
    classifier = build.build_classifier(cfg, datamodule.backbone, len(datamodule.dataset.class_names))
    if resumed:
        before = runs.load_checkpoint(resumed)
        agreement.check_classes(before, datamodule.dataset.class_names)
        agreement.check_weights(before, datamodule.weights_hash)
        agreement.check_resumed(before, config, datamodule.sides)
        runs.load_trained(before, classifier)
        resumed = trainer.strategy.broadcast(runs.take_over(resumed, folder) if is_first() else None)

    tensorboard.log_text(logger, "configuration", OmegaConf.to_yaml(cfg, resolve=True))
    trainer.fit(classifier, datamodule=datamodule, ckpt_path=resumed)

    best = runs.load_run(folder)
    runs.load_trained(best, classifier)
    metrics = scores_of(judge(trainer, classifier, datamodule, "val"), classifier, build.build_aggregations())
    if not is_first():
        return
    runs.write_metrics(folder, metrics)
    runs.write_failed(folder, datamodule.videos, datamodule.failed)
    tensorboard.log_hyperparameters(logger, config, {f"best/{name}": metrics[name] for name in ("top1", "loss")})
    say_left_out(datamodule.failed.values())
    table(f"Validation, epoch {best.num_epochs} (the best of {trainer.current_epoch})", metrics)
    print(f"run {folder}")


if __name__ == "__main__":
    main()
