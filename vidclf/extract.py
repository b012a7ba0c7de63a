"""Fill the feature store for every video of the data set, and write it as a table."""

from pathlib import Path

from vidclf.build.datasets import build_stored_features, list_corpus, look
from vidclf.build.parts import build_backbone, build_transform, prepare_backbone
from vidclf.build.training import build_trainer
from vidclf.contracts import PARTS
from vidclf.errors import VidclfError
from vidclf.features.recipe import why_not_storable
from vidclf.features.table import check_target, write_table
from vidclf.run.config import Config
from vidclf.run.folder import Run
from vidclf.system.ranks import gather, is_rank_zero, start_ranks
from vidclf.system.terminal import say, table


def run(config: Config, run: Run | None) -> None:
    """Fill the store, and write a table to `to`."""
    shard = _parse_shard(config["shard"])
    target = None if config["to"] is None else Path(config["to"])
    if target:
        check_target(target)
    if config["features"] not in ("auto", "store"):
        raise VidclfError(f"features={config['features']}: extract fills the feature store. Leave it out.")
    corpus = list_corpus(config, shard)
    backbone = build_backbone(config)
    trainer = build_trainer(config, backbone)
    start_ranks(trainer)
    look(config, corpus)
    config = prepare_backbone(
        config, backbone, lambda: corpus if shard == (1, 1) else look(config, list_corpus(config))
    )
    transform = build_transform(config, backbone.picture_format)
    if obstacle := why_not_storable(backbone.backbone, transform):
        raise VidclfError(f"extract: these features cannot be stored: {obstacle}. Train without extracting.")
    source = build_stored_features(config, corpus, backbone, transform, trainer.strategy.root_device)
    draws = range(source.num_draws if corpus.is_random else 0)
    views = [video for draw in draws for video in corpus.views("train", draw)]
    views += [video for part in PARTS for video in corpus.views(part)]
    computed = sum(gather(source.prepare(views, shard)))
    corpus.share_failed()
    for error in corpus.failed.values():
        say(f"left out: {error}")
    rows = {"num_videos": len(corpus.facts), "num_failed": len(corpus.failed), "computed": computed}
    if target and is_rank_zero():
        rows["rows"] = write_table(target, corpus, source)
    table(f"Features in {source.store.folder}", rows)


def _parse_shard(shard: str | int) -> tuple[int, int]:
    """Return (k, n) for `k/n`."""
    number, _, count = str(shard).partition("/")
    if number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
        return int(number), int(count)
    raise VidclfError(f"shard={shard}: must be k/n, the k-th of n shards. Use 1/64 to 64/64 for 64.")
