"""Fill the feature store for every video of the data set, so that later runs start at once."""

from omegaconf import DictConfig

from vidclf.cli import verb


@verb
def main(cfg: DictConfig) -> None:
    """Leave the store."""
    from vidclf import build
    from vidclf.data.datamodule import PARTS
    from vidclf.errors import VidclfError
    from vidclf.terminal import quiet_lightning, say_left_out, table

    quiet_lightning()
    build.check_keys(cfg, "extract")
    datamodule = build.build_datamodule(cfg)
    if not datamodule.stores_features:
        raise VidclfError(
            f"features={cfg.features}: extract fills the feature store; features=store says why it cannot."
        )
    datamodule.trainer = build.build_trainer(cfg, logger=False, callbacks=[])
    datamodule.prepare()
    computed = datamodule.extract([one for part in PARTS for one in datamodule.draw(part)])
    say_left_out(datamodule.failed.values())
    num_videos, num_failed = len(datamodule.videos), len(datamodule.failed)
    rows = {"num_videos": num_videos - num_failed, "num_failed": num_failed, "computed": computed}
    table(f"Features in {datamodule.store.folder}", rows)


if __name__ == "__main__":
    main()
