"""Score a part of the data with a run, by the run's own settings or by those given."""

from omegaconf import DictConfig

from vidclf.cli import verb


@verb
def main(cfg: DictConfig) -> None:
    """Leave metrics.json, logits, predictions, failed.csv and the confusion matrix in the run's folder."""
    from vidclf.contracts import PARTS
    from vidclf.errors import VidclfError
    from vidclf.evaluation import probes, report
    from vidclf.evaluation.judge import judge, scores_of
    from vidclf.features.recipe import hash_weights
    from vidclf.run import build, compatible, folder
    from vidclf.run.config import asked, explicit_overrides
    from vidclf.system.ranks import is_first, start_ranks
    from vidclf.system.terminal import quiet_lightning, say_left_out, table

    quiet_lightning()
    config, run = asked(cfg, "evaluate")
    assert run is not None
    part = config["part"]
    if part not in PARTS:
        raise VidclfError(f"part={part}: there is no such part; use one of {', '.join(PARTS)}.")
    names = [] if config["probe"] is None else probes.names_of(config["probe"])
    changed = compatible.differences(run, config, explicit_overrides())

    config = build.settle_precision(config)
    backbone = build.build_backbone(config)
    compatible.check_weights(run, hash_weights(backbone.backbone))
    classifier = build.build_classifier(config, backbone, len(run.class_names))
    folder.load_trained(run, classifier)
    trainer = build.build_trainer(config, backbone)
    start_ranks(trainer)
    device = trainer.strategy.root_device

    corpus = build.build_corpus(config)
    compatible.check_classes(run, corpus.class_names)
    compatible.check_split(run, corpus.sides, part)
    corpus.require(part)
    source = build.build_source(config, corpus, backbone, device)
    source.prepare(corpus.views(part))
    judged = judge(trainer, classifier, source, corpus, part)
    aggregations = build.build_aggregations()

    if names:
        # Clips in a probe's disorder are never asked for again.
        stored = backbone.picture_format.clip_length == 1
        of_probes = build.build_source(config, corpus, backbone, device, stored=stored)
        prober = probes.Prober(trainer, classifier, of_probes, corpus, part, judged)
        for name, metrics in prober.score(names, aggregations):
            if not is_first():
                continue
            results = folder.results_folder(run, compatible.results_name(part, [*changed, f"probe={name}"]))
            folder.write_metrics(results, metrics)
            folder.write_failed(results, corpus.videos, corpus.failed)
            shown = {key: value for key, value in metrics.items() if not key.startswith("top1/")}
            table(f"{part} part of {run.folder}, probe={name}", shown)
            print(f"results {results}")
        return

    metrics = scores_of(judged, classifier, aggregations)
    if not is_first():
        return
    results = folder.results_folder(run, compatible.results_name(part, changed))
    folder.write_metrics(results, metrics)
    folder.write_failed(results, corpus.videos, corpus.failed)
    report.write_logits(results, judged, corpus.videos)
    report.write_predictions(results, judged, classifier.aggregation, corpus)
    logs = folder.results_folder(run, "tensorboard")
    report.write_confusion(results, judged, classifier.aggregation, run.class_names, logs)
    say_left_out(corpus.failed.values())
    table(f"{part} part of {run.folder}", metrics)
    print(f"results {results}")


if __name__ == "__main__":
    main()
