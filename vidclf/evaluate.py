"""Score a part of the data with a run, by the run's own settings or by those given."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from vidclf.cli import verb

if TYPE_CHECKING:
    from vidclf.data.corpus import Corpus
    from vidclf.evaluation.logits import Judged
    from vidclf.evaluation.scores import JudgedVideos
    from vidclf.models.classifier import Classifier
    from vidclf.run.folder import Run


@verb
def main(cfg: DictConfig) -> None:
    """Leave metrics.json, logits, predictions, failed.csv, tables and pictures in the run's folder."""
    from vidclf.build import datasets as sources
    from vidclf.build import parts as build
    from vidclf.build.training import build_trainer
    from vidclf.contracts import PARTS
    from vidclf.errors import VidclfError
    from vidclf.evaluation.logits import judge
    from vidclf.evaluation.probes import Prober, names_of
    from vidclf.run import compatible
    from vidclf.run.config import asked, explicit_overrides
    from vidclf.system.ranks import start_ranks
    from vidclf.system.terminal import quiet_lightning

    quiet_lightning()
    config, run = asked(cfg, "evaluate")
    assert run is not None
    part = config["part"]
    if part not in PARTS:
        raise VidclfError(f"part={part}: there is no such part; use one of {', '.join(PARTS)}.")
    names = [] if config["probe"] is None else names_of(config["probe"])
    changed = compatible.differences(run, config, explicit_overrides())
    classifier = build.rebuild(config, run)
    trainer = build_trainer(config, classifier.backbone)
    start_ranks(trainer)
    device = trainer.strategy.root_device

    corpus = sources.build_corpus(config)
    compatible.check_scored(run, corpus, part)
    source = sources.build_source(config, corpus, classifier.backbone, device)
    source.prepare(corpus.views(part))
    judged = judge(trainer, classifier, source, corpus, part)
    videos = judged.by(classifier.aggregation, corpus.videos)
    if not names:
        _leave_scores(run, config, part, changed, judged, videos, classifier, corpus)
        return
    if classifier.backbone.picture_format.clip_length > 1:  # clips in disorder are never asked for again
        source = sources.build_source(config, corpus, classifier.backbone, device, stored=False)
    for probe, scores in Prober(trainer, classifier, source, corpus, part, videos).score(names):
        _leave_probe(run, part, [*changed, f"probe={probe}"], scores, corpus)


def _leave_scores(
    run: "Run",
    config: dict,
    part: str,
    changed: list[str],
    judged: "Judged",
    videos: "JudgedVideos",
    classifier: "Classifier",
    corpus: "Corpus",
) -> None:
    """Write the scores of a part, tables and pictures, and print the scores."""
    from pathlib import Path

    from vidclf.audit.shortcuts import kept_shortcuts
    from vidclf.build import parts as build
    from vidclf.comparison.scored import temperature_in
    from vidclf.evaluation.logits import say_warnings, scores_of
    from vidclf.evaluation.results import write_aggregations, write_report
    from vidclf.evaluation.tensorboard import BEST, log_report
    from vidclf.run import compatible, folder
    from vidclf.system.ranks import is_first
    from vidclf.system.terminal import table

    if not is_first():
        return
    temperature = temperature_in(run.folder / compatible.results_name("val", changed) if changed else run.folder)
    aggregations = build.build_aggregations()
    metrics = scores_of(judged, videos, corpus, part, aggregations, temperature)
    results = folder.results_folder(run, compatible.results_name(part, changed))
    write_report(results, judged, videos, classifier.aggregation, corpus)
    if part == "test":
        metrics |= kept_shortcuts(Path(config["store"]["root"]), corpus)
        write_aggregations(results, judged, aggregations, corpus.videos)
    logs, best = (folder.results_folder(run, name) for name in ("tensorboard", f"tensorboard/{BEST}"))
    log_report(logs, best, results, part, corpus, judged, videos)
    folder.write_scores(results, metrics, corpus.videos, corpus.failed)
    say_warnings(videos, corpus.class_names)
    table(f"{part} part of {run.folder}", metrics, f"results {results}")


def _leave_probe(run: "Run", part: str, changed: list[str], scores: Mapping[str, float], corpus: "Corpus") -> None:
    """Write and print the scores of a probe."""
    from vidclf.run import compatible, folder
    from vidclf.system.ranks import is_first
    from vidclf.system.terminal import table

    if is_first():
        results = folder.results_folder(run, compatible.results_name(part, changed))
        folder.write_scores(results, scores, corpus.videos, corpus.failed)
        table(f"{part} part of {run.folder}, {changed[-1]}", scores, f"results {results}")


if __name__ == "__main__":
    main()
