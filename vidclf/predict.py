"""Label a file, a folder of files or a stream with a run: JSON lines on stdout."""

from omegaconf import DictConfig

from vidclf.cli import verb


@verb
def main(cfg: DictConfig) -> None:
    """Print {"path", "label", "probability", "top5"} for each video, and "start_s" for each window of a stream."""
    import json
    from collections.abc import Iterable
    from pathlib import Path

    from vidclf.data.decoding import is_stream
    from vidclf.errors import VidclfError
    from vidclf.evaluation.labelling import Labeller, find_videos, leave_out_damaged
    from vidclf.features.store import hash_weights
    from vidclf.models.backbones.trained import wrap
    from vidclf.run import build
    from vidclf.run import compatible as agreement
    from vidclf.run import folder as runs
    from vidclf.run.config import explicit_overrides
    from vidclf.system.machine import num_cores
    from vidclf.system.terminal import quiet_lightning

    quiet_lightning()
    config = build.check_keys(cfg, "predict")
    explicit = explicit_overrides()
    agreement.check_trusted(config, explicit, cfg.trust)
    if not cfg.window_s > 0:
        raise VidclfError(f"window_s={cfg.window_s}: it must be above 0, in seconds.")
    if not cfg.source:
        raise VidclfError("source= names nothing; give a video, a folder of videos, a URL, a camera, or -.")
    run = runs.load_run(Path(cfg.run))
    agreement.differences(run, config, explicit)  # raises where conf/ has changed since
    backbone = build.build_backbone(cfg)
    agreement.check_weights(run, hash_weights(backbone))
    classifier = build.build_classifier(cfg, wrap(backbone), len(run.class_names))
    runs.load_trained(run, classifier)
    trainer = build.build_trainer(cfg, classifier.backbone)
    labeller = Labeller(
        classifier,
        build.build(cfg.sampling),
        build.build_transform(cfg, backbone.picture_format),
        run.class_names,
        trainer.strategy.root_device,
    )
    if is_stream(cfg.source):
        lines: Iterable = ({"path": cfg.source, **label} for label in labeller.label_stream(cfg.source, cfg.window_s))
    else:
        labelled = labeller.label_files(find_videos(Path(cfg.source)), cfg.num_threads or num_cores())
        lines = leave_out_damaged(labelled, skip=config["dataset"].get("on_error") == "skip")
    for line in lines:
        print(json.dumps(line), flush=True)  # ASCII: any file name, on any terminal


if __name__ == "__main__":
    main()
