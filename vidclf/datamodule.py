"""From a data set to batches of Views: lists, splits, samples, and reads features or frames."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path

import lightning as L
import torch
from jaxtyping import Float, UInt8
from torch import Generator, Tensor, nn

from vidclf.contracts import Dataset, Sampling, Transform, Video, VideoError, VideoViews, Views, death_of
from vidclf.data.catalogue import FactBook, VideoFacts
from vidclf.data.decoding import check_whole, decode_frames
from vidclf.data.frames import FeatureBatches, FrameBatches, own_rows
from vidclf.data.prefetch import run_ahead
from vidclf.data.splits import Split
from vidclf.errors import VidclfError
from vidclf.features.extract import COMPILE, fill_store
from vidclf.features.store import (
    REMEDY,
    FeatureStore,
    Request,
    hash_weights,
    recipe_of,
    units_of,
    why_not_stored,
)
from vidclf.models.backbones.trained import wrap
from vidclf.system.disk import writing_to
from vidclf.system.machine import num_cores
from vidclf.system.ranks import gather, num_here, rank_and_size
from vidclf.system.seeds import generator_for
from vidclf.system.terminal import say, track

FEATURES = ("auto", "store", "frames")


class VideoDataModule(L.LightningDataModule):
    """Videos of a data set as batches of Views: of features where they can be stored, else of pictures.

    Args:
        dataset: lists the videos.
        split: (videos, number of views of each) -> Split.
        sampling: (num_frames, fps, generator) -> frame indices (V, T).
        transform: frames -> pictures.
        backbone: what the features are of; trained, if any of its parameters wants a gradient.
        store: folder of the feature store and of what is known of the videos.
        features: `store` reads stored features, `frames` decodes, `auto` takes the store where it is exact.
        batch_size: views in a training batch, those of all processes together.
        num_threads: videos decoded at once; None: one a core.
        seed: of the training draws and of their order.
        augmentation: frames -> pictures by chance, in place of `transform` in training.
        compile: whether torch.compile makes a frozen backbone faster: `auto` where there is enough work, True, False.

    Where several processes work as one, each reads and computes videos of its own: see `ranks`.

    Raises:
        VidclfError: `features` is unknown, `store` where the store cannot serve, or an augmentation would belie
            the classes.
    """

    allow_zero_length_dataloader_with_multiple_devices = True  # Lightning's: a process may have no video to score

    def __init__(
        self,
        dataset: Dataset,
        split: Callable[[Sequence[Video], Sequence[int]], Split],
        sampling: Sampling,
        transform: Transform,
        backbone: nn.Module,
        store: Path | str,
        features: str = "auto",
        batch_size: int = 128,
        num_threads: int | None = None,
        seed: int = 0,
        augmentation: Callable[[Tensor], Tensor] | None = None,
        compile: str | bool = "auto",
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("num_threads", num_threads)):
            if value is not None and value < 1:
                raise VidclfError(f"{name}={value}: it must be 1 or more.")
        if compile not in COMPILE:
            raise VidclfError(f"compile={compile}: allowed are auto, true, false.")
        if augmentation and hasattr(augmentation, "check_classes"):  # one's own need not have it
            augmentation.check_classes(dataset.class_names)
        self.dataset, self.split, self.sampling, self.transform = dataset, split, sampling, transform
        self.backbone, self.store_root = wrap(backbone), Path(store)
        self.weights_hash = hash_weights(backbone)  # before any training
        self.batch_size, self.seed, self.augmentation = batch_size, seed, augmentation
        self._num_threads, self.compile = num_threads, compile
        obstacle = why_not_stored(backbone, transform)
        if augmentation:
            obstacle = f"{type(augmentation).__name__} draws by chance, so its pictures change"
        self.stores_features = _choose_features(features, obstacle)
        self.failed: dict[int, VideoError] = {}  # by position in `videos`
        self.scored_part = "test"  # what predict_dataloader yields
        self.probe: Callable[[VideoViews], VideoViews] | None = None  # what is scored in place of a video's views
        self._listed = False
        self._ready: dict[str, tuple[list[VideoViews], Tensor]] = {}  # without chance: all videos, own features

    def prepare(self) -> None:
        """List, examine and split the videos, once."""
        if self._listed:
            return
        self.videos = self.dataset.videos()
        with writing_to(self.store_root, REMEDY):
            self.store_root.mkdir(parents=True, exist_ok=True)
            facts = FactBook(self.store_root / "videos.json").look_up(
                [video.path for video in self.videos], self.num_threads
            )
        self.facts: dict[int, VideoFacts] = {}
        num_views = []
        for index, fact in enumerate(facts):
            if isinstance(fact, VideoError):
                self.leave_out(index, fact)
                num_views.append(1)  # so that it counts in a part's size
            else:
                self.facts[index] = fact
                num_views.append(len(self.sampling(fact.info.num_frames, fact.info.fps)))
        if getattr(self.split, "per_view", False) and self.sampling.random:
            raise VidclfError(
                f"split.validation=frame_level puts single views on a side, but {type(self.sampling).__name__} "
                "draws its training views by chance. Use sampling=rate or sampling=uniform."
            )
        numbers, number = getattr(self.dataset, "split_numbers", None), getattr(self.split, "number", None)
        if numbers and number not in (None, *numbers):
            raise VidclfError(
                f"split.number={number}: {type(self.dataset).__name__} has split {', '.join(map(str, numbers))} only."
            )
        self.sides = self.split(self.videos, num_views)
        self._listed = True

    def setup(self, stage: str) -> None:
        """Make what the stage reads ready: all that is missing in the store is computed here."""
        self.prepare()
        parts = {"fit": ("train", "val"), "validate": ("val",)}.get(stage, (self.scored_part,))
        if self._reads_store:
            epochs = {part: 0 if (stage, part) == ("fit", "train") else None for part in parts}
            self.extract([one for part, epoch in epochs.items() for one in self.draw(part, epoch)])
        elif stage == "fit" and self.dataset.on_error == "skip":
            self._leave_out_damaged("train")
        for part in parts:
            self._require_videos(part)

    def train_dataloader(self) -> Iterable[Views]:
        """Yield this epoch's training views, shuffled."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        if self.trainer and self.trainer.reload_dataloaders_every_n_epochs != 1:  # type: ignore[attr-defined]
            say("trainer.reload_dataloaders_every_n_epochs is not 1: epochs repeat the draws of the first.")
        generator = generator_for(self.seed, epoch)
        if not self.stores_features:
            self._share_failed()
            drawn = self.draw("train", epoch)
            shuffled = [drawn[index] for index in torch.randperm(len(drawn), generator=generator).tolist()]
            return self._frames("train", shuffled, self.batch_size, generator, epoch)
        drawn, features = self._features("train", epoch)
        rows = own_rows(drawn, _own(drawn), self.transform.num_crops)
        order = torch.randperm(len(rows), generator=generator)
        return FeatureBatches(
            features, drawn[_share()], self.batch_size, order, rows if rank_and_size()[1] > 1 else None
        )

    def val_dataloader(self) -> Iterable[Views]:
        """Yield the validation views, in order."""
        return self.scoring_batches("val", self.batch_size, in_step=True)

    def predict_dataloader(self) -> Iterable[Views]:
        """Yield all views of `scored_part`, one video a batch."""
        return self.scoring_batches(self.scored_part)

    def scoring_batches(self, part: str, batch_size: int | None = None, in_step: bool = False) -> Iterable[Views]:
        """Return all views of a part, in order; one video a batch where frames are read or no size is given.

        Where several processes work as one, these are the views of this one's videos; `in_step` gives all processes
        as many batches.
        """
        if not self._reads_store:
            self._share_failed()
            return self._frames(part, self.draw(part), in_step=in_step)
        drawn, features = self._features(part)
        if not len(features):
            return []
        num_batches = 0
        if in_step and batch_size:
            counts = [sum(len(one.views) for one in drawn[_share(rank)]) for rank in range(rank_and_size()[1])]
            num_batches = -(-max(counts) * self.transform.num_crops // batch_size)
        return FeatureBatches(features, drawn[_share()], batch_size, num_batches=num_batches)

    def train_features(self) -> Float[Tensor, "N S D"]:
        """Return the features of the first epoch's training views, of all processes', which heads scale by."""
        if self.stores_features:
            drawn, features = self._features("train", epoch=0)
            return features if rank_and_size()[1] == 1 else self._gather(drawn)
        device = self._device()
        drawn = self.draw("train", epoch=0)
        batches = self._frames("train", drawn)
        self.backbone.to(device).eval()
        features_of = {int(batch.video[0]): self.backbone(batch.inputs.to(device)).cpu() for batch in batches}
        everyones = {video: features for part in gather(features_of) for video, features in part.items()}
        return torch.cat([everyones[one.video] for one in drawn if one.video in everyones])

    def draw(self, part: str, epoch: int | None = None) -> list[VideoViews]:
        """Return the views of a part that are used: all of them, or in a training epoch what chance gives."""
        drawn = []
        for video, views in self.sides.views_of(part):
            if video in self.failed:
                continue
            info = self.facts[video].info
            if epoch is not None and self.sampling.random:
                frames = self.sampling(info.num_frames, info.fps, generator_for(self.seed, epoch, video))
                chosen = torch.arange(len(frames))
            else:
                chosen = torch.as_tensor(views, dtype=torch.int64)
                frames = self.sampling(info.num_frames, info.fps)[chosen]
            drawn.append(VideoViews(video, self.videos[video].label, chosen, frames))
        return [self.probe(one) for one in drawn] if self.probe else drawn

    def extract(self, drawn: Sequence[VideoViews], shard: tuple[int, int] = (1, 1)) -> int:
        """Compute what is missing in the store; return the number of units (frames or clips) computed here.

        Each process begins with videos of its own and then takes what the others have not begun, so that none waits
        long and all know in the end what failed. `shard` (k, n) takes the k-th of n parts of the videos, k from 1 on.
        """
        number, count = shard
        wanted: dict[int, list[Tensor]] = {}
        for one in drawn:
            if one.video % count == number - 1:
                wanted.setdefault(one.video, []).append(units_of(one.frames, self.backbone.picture_format))
        requests = {
            Request(self.videos[video].path, torch.cat(units), self.facts[video].content): video
            for video, units in wanted.items()
        }
        results = fill_store(
            self.store,
            list(requests),
            self.transform,
            self.backbone,
            self._device(),
            self.num_threads,
            self.compile,
        )
        computed = 0
        for request, result in results:
            if isinstance(result, VideoError):
                self.leave_out(requests[request], result)
            else:
                computed += result
        return computed

    def _share_failed(self) -> None:
        """Leave out here, too, what another process found damaged: all must share the same videos."""
        for failed in gather(self.failed):
            self.failed |= failed

    @cached_property
    def store(self) -> FeatureStore:
        """The feature store of this backbone and transform."""
        backbone = self.backbone.backbone
        name = getattr(backbone, "name", type(backbone).__name__.lower())
        recipe = recipe_of(backbone, self.weights_hash, self.transform)
        return FeatureStore(self.store_root, recipe, name)

    @property
    def _reads_store(self) -> bool:
        """Whether features are stored and worth it: clips in a probe's disorder are never asked for again."""
        return self.stores_features and not (self.probe and self.backbone.picture_format.clip_length > 1)

    @property
    def num_threads(self) -> int:
        """Videos decoded at once, by this process."""
        return self._num_threads or max(1, num_cores() // num_here())

    def part_size(self, part: str) -> int:
        """Return the number of videos with a view in a part, damaged ones included."""
        return len(self._videos_of(part))

    def leave_out(self, video: int, error: VideoError) -> None:
        """Leave a damaged video out of all that follows, or raise, as the data set's `on_error` says."""
        if self.dataset.on_error == "raise":
            raise error
        self.failed[video] = error

    def pictures(self, one: VideoViews) -> Float[Tensor, "N T 3 h w"]:
        """Decode and transform the views of one video."""
        return self._of_video(one, lambda: self.transform(self._decoded(one)))

    def _of_video(self, one: VideoViews, work: Callable[[], Tensor]) -> Tensor:
        """Do what a decoding thread does; what fails there fails with the video's name."""
        try:
            return work()
        except VidclfError:
            raise
        except Exception as error:
            raise death_of(self.videos[one.video].path, error) from error

    def _decoded(self, one: VideoViews) -> UInt8[Tensor, "V T 3 H W"]:
        return decode_frames(self.videos[one.video].path, one.frames)

    def _augmented(self, one: VideoViews, frames: UInt8[Tensor, "V T 3 H W"], epoch: int) -> Float[Tensor, "V T 3 h w"]:
        assert self.augmentation
        with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's own random state
            torch.default_generator.manual_seed(generator_for(self.seed, epoch, one.video).initial_seed())
            return self.augmentation(frames)

    def _features(self, part: str, epoch: int | None = None) -> tuple[list[VideoViews], Tensor]:
        """Return the views of a part, and the features of this process's share, read back from the store."""
        by_chance = epoch is not None and self.sampling.random
        if part in self._ready and not by_chance and not self.probe:
            return self._ready[part]
        drawn = self.draw(part, epoch)
        self.extract(drawn)
        self._require_videos(part)
        drawn = [one for one in drawn if one.video not in self.failed]
        result = drawn, self._gather(drawn[_share()])
        if not by_chance and not self.probe:
            self._ready[part] = result
        return result

    def _gather(self, drawn: Sequence[VideoViews]) -> Float[Tensor, "N S D"]:
        """Read the stored features of all videos."""
        if not drawn:
            return torch.empty(0, 1, self.backbone.feature_dim)
        requests = [
            Request(
                self.videos[one.video].path,
                units_of(one.frames, self.backbone.picture_format),
                self.facts[one.video].content,
            )
            for one in drawn
        ]
        counts = [len(one.frames) for one in drawn]
        return self.store.gather(requests, counts, self.transform.num_crops, self._device())

    def _frames(
        self,
        part: str,
        drawn: list[VideoViews],
        batch_size: int | None = None,
        generator: Generator | None = None,
        epoch: int | None = None,
        in_step: bool = False,
    ) -> FrameBatches:
        """Return batches of pictures, augmented where an `epoch` of training is given."""
        self._require_videos(part)
        load, augment, num_crops = self.pictures, None, self.transform.num_crops
        if self.augmentation and epoch is not None:
            load = lambda one: self._of_video(one, lambda: self._decoded(one))  # noqa: E731
            augment, num_crops = partial(self._augmented, epoch=epoch), 1
        batches = FrameBatches(
            drawn, load, self.leave_out, self.num_threads, batch_size, generator, augment, num_crops, own=_own(drawn)
        )
        size = rank_and_size()[1]
        if size > 1 and (in_step or batch_size):
            batches.num_batches = len(batches) if batch_size else -(-len(drawn) // size)
        return batches

    def _videos_of(self, part: str) -> set[int]:
        return {video for video, _ in self.sides.views_of(part)}

    def _leave_out_damaged(self, part: str) -> None:
        """Decode all videos of a part: one that failed later would leave an epoch short of the batches that were
        announced, and Lightning would then not validate it.
        """

        def decode(video: int) -> Iterator[VideoError | None]:
            try:
                check_whole(self.videos[video].path)
                yield None
            except VideoError as error:
                yield error

        videos = sorted(self._videos_of(part) - self.failed.keys())[_share()]
        results = run_ahead(decode, videos, self.num_threads)
        for video, error in track(results, len(videos), "Decoding", "videos"):
            if error is not None:
                self.leave_out(video, error)
        self._share_failed()

    def _require_videos(self, part: str) -> None:
        videos = self._videos_of(part)
        if not videos:
            raise VidclfError(f"The {part} part has no videos; check dataset.root, dataset.classes and split.number.")
        if videos <= self.failed.keys():
            first = self.failed[min(videos)]
            raise VidclfError(f"No video of the {part} part can be read, {len(videos)} failed. The first: {first}")
        size, num_videos = rank_and_size()[1], len(videos - self.failed.keys())
        if part != self.scored_part and num_videos < size:
            raise VidclfError(
                f"The {part} part has {num_videos} videos for {size} processes, and each needs one of its own. "
                "Set trainer.devices to fewer."
            )

    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")


def _choose_features(features: str, obstacle: str | None) -> bool:
    """Return whether features are stored."""
    if features not in FEATURES:
        raise VidclfError(f"features={features}: unknown; use one of {', '.join(FEATURES)}.")
    if features == "store" and obstacle:
        raise VidclfError(f"features=store: {obstacle}. Use features=frames or features=auto.")
    if features == "auto" and obstacle:
        say(f"features=auto reads frames, not the store: {obstacle}.")
    return features != "frames" and obstacle is None


def _share(rank: int | None = None) -> slice:
    """Return which of a list's items are this process's own, or another one's."""
    own, size = rank_and_size()
    return slice(own if rank is None else rank, None, size)


def _own(drawn: Sequence[VideoViews]) -> range:
    return range(len(drawn))[_share()]
