"""Fit a head on train and choose it on val; no test label is scored."""

from omegaconf import DictConfig

from vidclf.cli import verb


@verb
def main(cfg: DictConfig) -> None:
    """Leave a run's folder: see vidclf/run/folder.py."""
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig

    from vidclf.datamodule import VideoDataModule
    from vidclf.errors import VidclfError
    from vidclf.evaluation import tensorboard
    from vidclf.evaluation.judge import judge, scores_of
    from vidclf.features.recipe import hash_weights
    from vidclf.run import build, compatible, folder
    from vidclf.run.config import as_yaml, asked
    from vidclf.system.disk import write_csv
    from vidclf.system.ranks import is_first, start_ranks
    from vidclf.system.terminal import quiet_lightning, say, say_left_out, table

    quiet_lightning()
    config, before = asked(cfg, "train")
    num_epochs = build.check_epochs(config)
    run_folder = Path(HydraConfig.get().runtime.output_dir)

    config = build.settle_precision(config)
    backbone = build.build_backbone(config)
    weights_hash = hash_weights(backbone.backbone)  # before any training
    logger = build.build(config["logger"])
    callbacks = [*build.build_callbacks(config), folder.Describe(config, weights_hash)]
    is_complete = before is not None and compatible.is_complete(before, config, callbacks)
    trainer = build.build_trainer(config, backbone, logger, callbacks)
    build.check_validated(trainer)
    start_ranks(trainer)
    run_folder = trainer.strategy.broadcast(run_folder)
    device = trainer.strategy.root_device

    corpus = build.build_corpus(config)
    if len(corpus.class_names) < 2:
        raise VidclfError(f"The data set has one class, {corpus.class_names[0]}: nothing to tell apart.")
    corpus.require("train", "val", one_each=True)
    if is_first():
        write_csv(run_folder / "split.csv", ("video", "side"), corpus.sides.rows())
    source = build.build_source(config, corpus, backbone, device, training=True)
    datamodule = VideoDataModule(corpus, source, config["batch_size"])
    datamodule.prepare(num_epochs)

    classifier = build.build_classifier(config, backbone, len(corpus.class_names))
    resumed = None
    if before:
        compatible.check_classes(before, corpus.class_names)
        compatible.check_weights(before, weights_hash)
        compatible.check_resumed(before, config, corpus.sides)
        folder.load_trained(before, classifier)
        if is_first() and (run_folder / ".hydra").is_dir():  # where Hydra has written its defaults
            (run_folder / ".hydra" / "config.yaml").write_text(as_yaml(config), encoding="utf-8")
        taken_over = folder.take_over(before, run_folder, callbacks) if is_first() else None
        resumed = trainer.strategy.broadcast(taken_over)
    elif classifier.scaling.method != "none":
        classifier.scaling.fit(datamodule.train_features(backbone, device))
    if fit := getattr(classifier.loss, "fit", None):
        fit(datamodule.train_labels())

    tensorboard.log_configuration(trainer.logger, as_yaml(config))
    if not is_complete:
        trainer.fit(classifier, datamodule=datamodule, ckpt_path=resumed, weights_only=True)
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        say("trainer.fast_dev_run: all of it ran, on a few batches; no checkpoint and no scores were kept.")
        return

    best = folder.load_best(run_folder, trainer.global_step)
    folder.load_trained(best, classifier)
    judged = judge(trainer, classifier, source, corpus, "val")
    metrics = scores_of(judged, classifier, build.build_aggregations())
    if not is_first():
        return
    folder.write_metrics(run_folder, metrics)
    folder.write_failed(run_folder, corpus.videos, corpus.failed)
    tensorboard.log_hyperparameters(logger, compatible.hyperparameters(config), metrics)
    say_left_out(corpus.failed.values())
    trained = before.num_epochs if before and is_complete else trainer.current_epoch
    table(f"Validation, epoch {best.num_epochs} (the best of {trained})", metrics)
    print(f"run {run_folder}")


if __name__ == "__main__":
    main()
