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
    from vidclf.run import build, compatible, folder, grid
    from vidclf.run.config import as_yaml, asked, output_folder
    from vidclf.run.fitted import fit_head
    from vidclf.system.disk import write_csv
    from vidclf.system.ranks import is_first, start_ranks
    from vidclf.system.terminal import quiet_lightning, table

    quiet_lightning()
    config, before = asked(cfg, "train")
    config = build.settle_precision(config)
    backbone = build.build_backbone(config)
    describe = folder.Describe(config, hash_weights(backbone.backbone))
    candidates = grid.spread(config)
    choose = grid.ChooseHead(candidates, describe) if candidates else None
    trainer = build.build_training(config, backbone, describe, choose)
    is_complete = before and compatible.is_complete(before, config, trainer.callbacks)  # type: ignore[attr-defined]
    start_ranks(trainer)
    run_folder, device = trainer.strategy.broadcast(output_folder()), trainer.strategy.root_device

    corpus = build.build_corpus(config)
    corpus.require_for_training()
    if is_first():
        write_csv(run_folder / "split.csv", ("video", "side"), corpus.sides.rows())
    source = build.build_source(config, corpus, backbone, device, training=True)
    datamodule = VideoDataModule(corpus, source, config["batch_size"])
    num_classes = len(corpus.class_names)
    if choose is None:
        classifier = build.build_classifier(config, backbone, num_classes)
    else:  # of all heads: what does not fit into memory is told before anything is computed
        classifier = grid.build_grid(candidates, backbone, num_classes, device)
    datamodule.prepare(trainer.max_epochs)
    resumed = None
    if before:
        compatible.check_resumed(before, config, corpus.class_names, corpus.sides, describe.weights_hash)
        folder.load_trained(before, classifier)
        resumed = folder.take_over(before, run_folder, config, trainer)
    elif scalings := [one for one in classifier.scalings if one.method != "none"]:
        features = datamodule.train_features(backbone, device)
        for scaling in scalings:
            scaling.fit(features)
        del features
    if fit := getattr(classifier.loss, "fit", None):
        fit(datamodule.train_labels())
    rows: list = []
    if hasattr(classifier.head, "fit"):
        rows = fit_head(trainer, classifier, datamodule, device, run_folder / "checkpoints" / "best.ckpt")
    elif not is_complete:
        trainer.fit(classifier, datamodule=datamodule, ckpt_path=resumed, weights_only=True)
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    if choose:
        rows, config = choose.rows(classifier), describe.config  # type: ignore[arg-type]
        classifier = build.build_classifier(config, backbone, num_classes)
    best = folder.load_best(run_folder, trainer.global_step, classifier)
    judged = judge(trainer, classifier, source, corpus, "val")
    if is_first():
        videos = judged.by(classifier.aggregation, corpus.videos)
        metrics = scores_of(judged, videos, corpus, "val", build.build_aggregations())
        write_predictions(run_folder, videos, corpus)
        folder.write_scores(run_folder, metrics, corpus.videos, corpus.failed)
        tensorboard.log_run(trainer.logger, as_yaml(config), compatible.hyperparameters(config), metrics)
        if rows:
            write_csv(run_folder / "heads.csv", rows[0], (row.values() for row in rows))
            tensorboard.log_table(trainer.logger, "heads", rows)
        num_trained = max(trainer.current_epoch, before.num_epochs if before else 0)
        chosen = next((row["chosen"] for row in rows if row["chosen"]), f"the best of {num_trained}")
        of = f", epoch {best.num_epochs} ({chosen})" if num_trained else f" ({chosen})" if rows else ""
        table(f"Validation{of}", metrics, f"run {run_folder}")


if __name__ == "__main__":
    main()
