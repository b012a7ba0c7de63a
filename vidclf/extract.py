"""Fill the feature store for every video of the data set, so that later runs start at once."""

from omegaconf import DictConfig

from vidclf.cli import verb
from vidclf.errors import VidclfError


@verb
def main(cfg: DictConfig) -> None:
    """Leave the store."""
    from vidclf.contracts import PARTS
    from vidclf.run import build
    from vidclf.system.ranks import gather, meet
    from vidclf.system.terminal import quiet_lightning, say_left_out, table

    quiet_lightning()
    build.check_keys(cfg, "extract")
    shard = _parse_shard(cfg.shard)
    datamodule = build.build_datamodule(cfg)
    if not datamodule.stores_features:
        raise VidclfError(
            f"features={cfg.features}: extract fills the feature store; features=store says why it cannot."
        )
    datamodule.trainer = build.build_trainer(cfg, datamodule.backbone)
    meet(datamodule.trainer)
    datamodule.prepare()
    drawn = [one for part in PARTS for one in datamodule.draw(part)]
    computed = sum(gather(datamodule.extract(drawn, shard)))
    say_left_out(datamodule.failed.values())
    num_videos, num_failed = len(datamodule.videos), len(datamodule.failed)
    rows = {"num_videos": num_videos - num_failed, "num_failed": num_failed, "computed": computed}
    table(f"Features in {datamodule.store.folder}", rows)


def _parse_shard(shard: str | int) -> tuple[int, int]:
    """Return (k, n) of `k/n`."""
    number, _, count = str(shard).partition("/")
    if number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
        return int(number), int(count)
    raise VidclfError(f"shard={shard}: it is k/n, the k-th of n parts: 1/64 to 64/64.")


if __name__ == "__main__":
    main()
