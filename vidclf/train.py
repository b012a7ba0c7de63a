"""Fit a head on train and choose it on val; no test label is scored."""

from omegaconf import DictConfig

from vidclf.cli import verb


@verb
def main(cfg: DictConfig) -> None:
    """Leave a run's folder: see vidclf/run/folder.py."""
    from vidclf.datamodule import VideoDataModule
    from vidclf.evaluation import tensorboard
    from vidclf.evaluation.judge import judge, scores_of
    from vidclf.evaluation.report import write_predictions
    from vidclf.features.recipe import hash_weights
    from vidclf.run import build, compatible, folder
    from vidclf.run.config import as_yaml, asked, output_folder
    from vidclf.system.disk import write_csv
    from vidclf.system.ranks import is_first, start_ranks
    from vidclf.system.terminal import quiet_lightning, table

    quiet_lightning()
    config, before = asked(cfg, "train")
    config = build.settle_precision(config)
    backbone = build.build_backbone(config)
    describe = folder.Describe(config, hash_weights(backbone.backbone))
    trainer = build.build_training(config, backbone, describe)
    is_complete = before and compatible.is_complete(before, config, trainer.callbacks)  # type: ignore[attr-defined]
    start_ranks(trainer)
    run_folder, device = trainer.strategy.broadcast(output_folder()), trainer.strategy.root_device

    corpus = build.build_corpus(config)
    corpus.require_for_training()
    if is_first():
        write_csv(run_folder / "split.csv", ("video", "side"), corpus.sides.rows())
    source = build.build_source(config, corpus, backbone, device, training=True)
    datamodule = VideoDataModule(corpus, source, config["batch_size"])
    datamodule.prepare(trainer.max_epochs)
    classifier = build.build_classifier(config, backbone, len(corpus.class_names))
    resumed = None
    if before:
        compatible.check_resumed(before, config, corpus.class_names, corpus.sides, describe.weights_hash)
        folder.load_trained(before, classifier)
        resumed = folder.take_over(before, run_folder, config, trainer)
    elif classifier.scaling.method != "none":
        classifier.scaling.fit(datamodule.train_features(backbone, device))
    if fit := getattr(classifier.loss, "fit", None):
        fit(datamodule.train_labels())
    if not is_complete:
        trainer.fit(classifier, datamodule=datamodule, ckpt_path=resumed, weights_only=True)
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    best = folder.load_best(run_folder, trainer.global_step, classifier)
    judged = judge(trainer, classifier, source, corpus, "val")
    if is_first():
        videos = judged.by(classifier.aggregation, corpus.videos)
        metrics = scores_of(judged, videos, corpus, "val", build.build_aggregations())
        write_predictions(run_folder, videos, corpus)
        folder.write_scores(run_folder, metrics, corpus.videos, corpus.failed)
        tensorboard.log_run(trainer.logger, as_yaml(config), compatible.hyperparameters(config), metrics)
        num_trained = max(trainer.current_epoch, before.num_epochs if before else 0)
        table(f"Validation, epoch {best.num_epochs} (the best of {num_trained})", metrics, f"run {run_folder}")


if __name__ == "__main__":
    main()
