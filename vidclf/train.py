"""Fit a head on train and choose it on val; no test label is scored."""

from omegaconf import DictConfig

from vidclf.cli import verb


@verb
def main(cfg: DictConfig) -> None:
    """Leave a run's folder: see vidclf/runs.py."""
    from pathlib import Path

    import torch
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from vidclf import build, runs
    from vidclf.evaluation import tensorboard
    from vidclf.evaluation.judge import judge, scores_of
    from vidclf.terminal import quiet_lightning, table

    quiet_lightning()
    config = build.check_keys(cfg, "train")
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)

    datamodule = build.build_datamodule(cfg)
    datamodule.prepare()
    runs.write_csv(folder / "split.csv", ("video", "side"), datamodule.sides.rows())
    classifier = build.build_classifier(cfg, datamodule.frozen, len(datamodule.dataset.class_names))
    logger = build.build(cfg.logger)
    describe = runs.Describe(config, list(hydra.overrides.task))
    callbacks = [*build.build(cfg.callbacks).values(), describe]
    trainer = build.build_trainer(cfg, logger, callbacks)

    tensorboard.log_text(logger, "configuration", OmegaConf.to_yaml(cfg, resolve=True))
    trainer.fit(classifier, datamodule=datamodule, ckpt_path=runs.checkpoint_to_resume(cfg.resume))

    best = torch.load(runs.checkpoint_of(folder), map_location="cpu", weights_only=True)
    classifier.load_state_dict(best["state_dict"])
    metrics = scores_of(judge(trainer, classifier, datamodule, "val"), classifier, build.build_aggregations())
    runs.write_metrics(folder, metrics)
    runs.write_failed(folder, datamodule.videos, datamodule.failed)
    tensorboard.log_hyperparameters(logger, config, {f"val/{name}": metrics[name] for name in ("top1", "loss")})
    table(f"Validation, epoch {best['epoch']} (the best of {trainer.current_epoch})", metrics)
    print(f"run {folder}")


if __name__ == "__main__":
    main()
