"""Score a part of the data with a run, by the run's own settings or by those given."""

from omegaconf import DictConfig

from vidclf.cli import verb


@verb
def main(cfg: DictConfig) -> None:
    """Leave metrics.json, logits, predictions, failed.csv and the confusion matrix in the run's folder."""
    from pathlib import Path

    from vidclf.contracts import PARTS
    from vidclf.errors import VidclfError
    from vidclf.evaluation import probes, report
    from vidclf.evaluation.judge import judge, scores_of
    from vidclf.run import build
    from vidclf.run import compatible as agreement
    from vidclf.run import folder as runs
    from vidclf.run.config import explicit_overrides
    from vidclf.system.ranks import is_first
    from vidclf.system.terminal import quiet_lightning, say_left_out, table

    quiet_lightning()
    config = build.check_keys(cfg, "evaluate")
    explicit = explicit_overrides()
    agreement.check_trusted(config, explicit, cfg.trust)
    if cfg.part not in PARTS:
        raise VidclfError(f"part={cfg.part}: there is no such part; use one of {', '.join(PARTS)}.")
    names = [] if cfg.probe is None else probes.names_of(cfg.probe)
    run = runs.load_run(Path(cfg.run))
    changed = agreement.differences(run, config, explicit)

    datamodule = build.build_datamodule(cfg)
    datamodule.prepare()
    agreement.check_classes(run, datamodule.dataset.class_names)
    agreement.check_weights(run, datamodule.weights_hash)
    agreement.check_split(run, datamodule.sides, cfg.part)
    classifier = build.build_classifier(cfg, datamodule.backbone, len(run.class_names))
    runs.load_trained(run, classifier)

    trainer = build.build_trainer(cfg, datamodule.backbone)
    judged = judge(trainer, classifier, datamodule, cfg.part)
    aggregations = build.build_aggregations()
    if names:
        found = probes.score_probes(trainer, classifier, datamodule, judged, names, aggregations)
        for name, metrics in found:
            if not is_first():
                continue
            folder = run.folder / agreement.results_name(cfg.part, [*changed, f"probe={name}"])
            folder.mkdir(exist_ok=True)
            runs.write_metrics(folder, metrics)
            runs.write_failed(folder, datamodule.videos, datamodule.failed)
            shown = {key: value for key, value in metrics.items() if not key.startswith("top1/")}
            table(f"{cfg.part} part of {run.folder}, probe={name}", shown)
            print(f"results {folder}")
        return
    metrics = scores_of(judged, classifier, aggregations)
    if not is_first():
        return
    folder = run.folder / agreement.results_name(cfg.part, changed)
    folder.mkdir(exist_ok=True)
    runs.write_metrics(folder, metrics)
    runs.write_failed(folder, datamodule.videos, datamodule.failed)
    report.write_logits(folder, judged, datamodule.videos)
    report.write_predictions(folder, judged, classifier.aggregation, datamodule)
    report.write_confusion(folder, judged, classifier.aggregation, run.class_names, run.folder / "tensorboard")
    say_left_out(datamodule.failed.values())
    table(f"{cfg.part} part of {run.folder}", metrics)
    print(f"results {folder}")


if __name__ == "__main__":
    main()
