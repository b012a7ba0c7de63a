"""Join clips into films whose events are known to the frame, with the truth in every format that vidclf writes.

    python -m experiments.events.make root=UCF-101 to=films classes=A,B,C background=black gap_s=1,6 minutes=2 seed=0

A film holds clips of one group of each class, so films are independent, and a film is a group. Test films are those of
the groups that split 1 of UCF101 tests. The first class is the most frequent: each further one has `RARER` times its
clips, down to one a film. Between clips there is background of `gap_s` seconds: black, or clips of the class that
`background` names.
Even groups become XVID with B-frames in AVI at 25 frames a second, odd ones H.264 in MP4 at 30000/1001.
"""

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torchvision.transforms.v2.functional import resize

from vidclf.contracts import Video
from vidclf.data.datasets.demo.films import Piece, write_film
from vidclf.data.datasets.ucf101 import UCF101, is_test_group
from vidclf.data.decoding import decode_frames, inspect
from vidclf.data.events import Event, formats, write_events

RARER = 0.4
SIZE = (320, 240)
NUM_VAL = 4  # of the groups that are not test
CODECS = ((".avi", "mpeg4", Fraction(25)), (".mp4", "libx264", Fraction(30000, 1001)))


def make_films(
    root: Path, to: Path, classes: list[str], background: str, gap_s: list[float], minutes: float, seed: int
) -> list[Event]:
    """Write a film of each group that has every class, and return the events of all films."""
    dataset = UCF101(root, classes=[*classes, *([] if background == "black" else [background])])
    clips: dict[str, dict[str, list[Video]]] = {}
    for video in dataset.videos():
        name = dataset.class_names[video.label]
        clips.setdefault(video.group, {}).setdefault(name, []).append(video)
    complete = {group: of_class for group, of_class in sorted(clips.items()) if {*classes} <= {*of_class}}
    parts = _parts({group: next(iter(of_class.values()))[0] for group, of_class in complete.items()}, seed)
    events: list[Event] = []
    for number, (group, of_class) in enumerate(complete.items()):
        ending, codec, fps = CODECS[number % 2]
        path = to / f"{group}{ending}"
        pieces = _pieces(of_class, classes, background, gap_s, minutes, fps, np.random.default_rng([seed, number]))
        for label, start, stop in write_film(path, codec, fps, pieces):
            if label in classes:
                times = float(start / fps), float(stop / fps)
                events.append(Event(path.name, *times, label, group=group, part=parts[group]))
        print(f"{path}: {sum(event.path == path.name for event in events)} events", file=sys.stderr)
    return events


def _parts(firsts: dict[str, Video], seed: int) -> dict[str, str]:
    parts = {group: "test" if is_test_group(video, 1) else "train" for group, video in firsts.items()}
    train = [group for group, part in parts.items() if part == "train"]
    held = np.random.default_rng(seed).permutation(train)[:NUM_VAL]
    return parts | dict.fromkeys(map(str, held), "val")


def _pieces(
    of_class: dict[str, list[Video]],
    classes: list[str],
    background: str,
    gap_s: list[float],
    minutes: float,
    fps: Fraction,
    random: np.random.Generator,
) -> Iterator[Piece]:
    """Yield background and clips by turns until the film is long enough; rarer classes come less often."""
    weights = np.array([RARER**rank for rank in range(len(classes))])
    order = [*random.permutation(classes), *random.choice(classes, 1000, p=weights / weights.sum())]
    num_frames = 0
    for label in map(str, order):
        gap = round(random.uniform(*gap_s) * float(fps))
        if clips := of_class.get(background):
            yield "background", _frames_of(clips[random.integers(len(clips))])[:gap]
        else:
            yield "background", np.zeros((gap, *SIZE[::-1], 3), np.uint8)
        frames = _frames_of(of_class[label][random.integers(len(of_class[label]))])
        yield label, frames
        num_frames += gap + len(frames)
        if num_frames >= 60 * minutes * fps:
            return


def _frames_of(clip: Video) -> np.ndarray:
    frames = decode_frames(clip.path, torch.arange(inspect(clip.path).num_frames))
    if frames.shape[2:] != SIZE[::-1]:
        frames = resize(frames, list(SIZE[::-1]), antialias=True)
    return frames.permute(0, 2, 3, 1).contiguous().numpy()


def main() -> None:
    """Make the films that the command line describes."""
    defaults = {
        "root": "",
        "to": "films",
        "classes": "",
        "background": "black",
        "gap_s": "1,6",
        "minutes": "2",
        "seed": "0",
    }
    settings = {**defaults, **dict(argument.split("=", 1) for argument in sys.argv[1:])}
    if not (settings["root"] and settings["classes"]) or settings.keys() - defaults.keys():
        sys.exit(__doc__)
    to = Path(settings["to"])
    to.mkdir(parents=True, exist_ok=True)
    classes, minutes, seed = settings["classes"].split(","), float(settings["minutes"]), int(settings["seed"])
    gap_s = [float(end) for end in settings["gap_s"].split(",")]
    events = make_films(Path(settings["root"]), to, classes, settings["background"], gap_s, minutes, seed)
    infos = {name: inspect(to / name) for name in dict.fromkeys(event.path for event in events)}
    for ending in sorted({ending for module in formats().values() for ending in module.WRITES}):
        if ending in (".eaf", ".srt", ".vtt"):  # about one video each
            for name, info in infos.items():
                of_film = [event for event in events if event.path == name]
                write_events(to / Path(name).with_suffix(ending), of_film, {name: info})
        else:
            write_events(to / f"events{ending}", events, infos)


if __name__ == "__main__":
    main()
