"""Label a file, a folder of files or a stream with a run: JSON lines on stdout."""

from omegaconf import DictConfig

from vidclf.cli import verb


@verb
def main(cfg: DictConfig) -> None:
    """Print {"path", "label", "probability", "top5"} for each video, and "start_s" for each window of a stream."""
    import json
    import os
    from collections.abc import Iterable
    from pathlib import Path

    from vidclf import agreement, build, runs
    from vidclf.data.decoding import is_stream
    from vidclf.evaluation.labelling import Labeller, find_videos, leave_out_damaged
    from vidclf.features import hash_weights
    from vidclf.models.backbones.frozen import Frozen
    from vidclf.terminal import quiet_lightning

    quiet_lightning()
    run = runs.load_run(Path(cfg.run))
    config = build.check_keys(cfg, "predict")
    agreement.check_trusted(config, cfg.trust)
    agreement.differences(run, config, agreement.explicit_overrides(run))
    backbone = build.build_backbone(cfg)
    agreement.check_weights(run, hash_weights(backbone))
    classifier = build.build_classifier(cfg, Frozen(backbone), len(run.class_names))
    runs.load_head(run, classifier)
    trainer = build.build_trainer(cfg, logger=False, callbacks=[])
    labeller = Labeller(
        classifier,
        build.build(cfg.sampling),
        build.build_transform(cfg, backbone.preset),
        run.class_names,
        trainer.strategy.root_device,
    )
    if is_stream(cfg.source):
        lines: Iterable = ({"path": cfg.source, **label} for label in labeller.label_stream(cfg.source, cfg.window_s))
    else:
        labelled = labeller.label_files(find_videos(Path(cfg.source)), cfg.num_threads or os.cpu_count() or 1)
        lines = leave_out_damaged(labelled, skip=config["dataset"].get("on_error") == "skip")
    for line in lines:
        print(json.dumps(line, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
