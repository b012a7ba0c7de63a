"""Damage real videos as disks and networks do, and count how decoding reacts.

    python -m experiments.fuzz.fuzz num=2000 seed=0 VIDEO...

Prints how many of the damaged copies gave an error message, the right frames, wrong frames unnoticed, a stack trace, a
crash of the process or a hang. OpenCV is measured beside it; it reports no damage, so none of its wrong frames are
noticed.
"""

import multiprocessing
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import BinaryIO

LIMIT_S = 60  # for one input
NUM_CHILDREN = 2
OUTCOMES = ("error message", "right frames", "wrong frames, unnoticed", "stack trace", "crash", "hang")
Damage = Callable[[bytearray, random.Random], None]


def place(content: bytearray, chance: random.Random, length: int) -> slice:
    """Return the random place of `length` bytes."""
    start = chance.randrange(max(1, len(content) - length))
    return slice(start, start + length)


def flip_bits(content: bytearray, chance: random.Random) -> None:
    """Flip up to 16 bits anywhere."""
    for _ in range(chance.randint(1, 16)):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def cut(content: bytearray, chance: random.Random) -> None:
    """Cut the end off."""
    del content[chance.randrange(len(content)) :]


def zero(content: bytearray, chance: random.Random) -> None:
    """Overwrite a stretch with zeros, as a disk does with lost sectors."""
    where = place(content, chance, chance.choice((16, 512, 4096)))
    content[where] = bytes(len(content[where]))


def noise(content: bytearray, chance: random.Random) -> None:
    """Overwrite a stretch with random bytes."""
    where = place(content, chance, chance.choice((4, 64, 1024)))
    content[where] = chance.randbytes(len(content[where]))


def swap(content: bytearray, chance: random.Random) -> None:
    """Exchange two stretches, as packets that arrive in the wrong order."""
    length = chance.choice((188, 1024))
    one, other = place(content, chance, length), place(content, chance, length)
    content[one], content[other] = content[other], content[one]


def spoil_header(content: bytearray, chance: random.Random) -> None:
    """Flip up to 8 bits in the first kilobyte."""
    for _ in range(chance.randint(1, 8)):
        content[chance.randrange(min(1024, len(content)))] ^= 1 << chance.randrange(8)


def insert(content: bytearray, chance: random.Random) -> None:
    """Insert bytes."""
    where = place(content, chance, 0)
    content[where] = chance.randbytes(chance.choice((1, 16, 700)))


def graft(content: bytearray, chance: random.Random) -> None:
    """Continue with the bytes of another place in the file."""
    start, source = chance.randrange(len(content)), chance.randrange(len(content))
    content[start:] = content[source:]


DAMAGES: dict[str, Damage] = {
    damage.__name__: damage for damage in (flip_bits, cut, zero, noise, swap, spoil_header, insert, graft)
}


def read_by_vidclf(path: Path) -> list[bytes]:
    """Return one frame a second."""
    import torch

    from vidclf.data.decoding import decode_frames, inspect
    from vidclf.data.sampling import Rate

    info = inspect(path)
    frames = decode_frames(path, info.frames_at(Rate(1)(info.num_frames, info.fps)), whole=True)
    return [one.contiguous().view(torch.uint8).numpy().tobytes() for one in frames]


def read_by_opencv(path: Path) -> list[bytes]:
    """Return one frame a second, as the tutorial reads them."""
    import cv2

    video = cv2.VideoCapture(str(path))
    step, number, frames = max(1, int(video.get(cv2.CAP_PROP_FPS) or 0)), 0, []
    while (read := video.read())[0]:
        if number % step == 0:
            frames.append(read[1].tobytes())
        number += 1
    if not frames:
        raise OSError(path)  # the one thing that is seen
    return frames


READERS = {"vidclf": read_by_vidclf, "OpenCV": read_by_opencv}


def serve(pipe: Connection, reader: str) -> None:
    """Read each file that comes through the pipe and answer with its outcome; a printed stack trace is one, too."""
    with tempfile.TemporaryFile(buffering=0) as printed:
        os.dup2(printed.fileno(), sys.stderr.fileno())
        _serve(pipe, reader, printed)


def _serve(pipe: Connection, reader: str, printed: BinaryIO) -> None:
    from vidclf.errors import VideoError

    while True:
        try:
            path, sound = pipe.recv()
        except EOFError:  # that was all
            return
        try:
            frames = READERS[reader](path)
            answer: object = frames if sound is None else OUTCOMES[1] if frames == sound else OUTCOMES[2]
        except (VideoError, OSError) as error:
            answer = OUTCOMES[0] if isinstance(error, VideoError) or reader == "OpenCV" else repr(error)
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        printed.seek(0)
        if b"Traceback" in (lines := printed.read()):  # as where PyAV calls back
            answer = lines.decode(errors="replace").splitlines()[-1]
        elif answer == OUTCOMES[2] and b"are left out" in lines:
            answer = OUTCOMES[0]  # other frames, but not unseen
        printed.truncate(0)
        printed.seek(0)
        pipe.send(answer)


class Child:
    """A process that reads damaged files; another replaces it when it crashes or hangs."""

    def __init__(self, reader: str) -> None:
        self.reader = reader
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, self.reader), daemon=True)
        self.process.start()
        theirs.close()

    def read(self, path: Path, sound: list[bytes] | None) -> object:
        """Return the frames of a sound file (`sound` is None), or the outcome of a damaged file."""
        answer: object = "hang"
        try:
            self.pipe.send((path, sound))
            if self.pipe.poll(LIMIT_S):
                return self.pipe.recv()
        except (EOFError, OSError):
            answer = "crash"
        self.process.kill()
        self._start()
        return answer


def fuzz(videos: list[Path], num: int, seed: int, reader: str) -> dict[str, Counter]:
    """Return the outcomes of `num` damaged copies of each video; print stack traces and how to repeat them."""
    counts: dict[str, Counter] = {}

    def share(number: int) -> list[tuple[Path, str]]:
        child = Child(reader)
        found = []
        with tempfile.TemporaryDirectory() as folder:
            for video in videos:
                sound = child.read(video, None)
                if not isinstance(sound, list):
                    print(f"{reader} does not read {video.name} undamaged: {sound}", flush=True)
                    continue
                for index in range(number, num, NUM_CHILDREN):
                    chance = random.Random(f"{seed} {video.name} {index}")
                    kind = chance.choice(list(DAMAGES))
                    content = bytearray(video.read_bytes())
                    DAMAGES[kind](content, chance)
                    path = Path(folder) / f"{number}{video.suffix}"
                    path.write_bytes(content)
                    outcome = str(child.read(path, sound))
                    if outcome not in OUTCOMES:
                        print(f"{reader} {video.name} seed={seed} index={index} {kind}: {outcome}", flush=True)
                        outcome = "stack trace"
                    found.append((video, outcome))
        return found

    with ThreadPoolExecutor(NUM_CHILDREN) as pool:
        for found in pool.map(share, range(NUM_CHILDREN)):
            for video, outcome in found:
                counts.setdefault(video.name, Counter())[outcome] += 1
    return counts


def main() -> None:
    """Print a table for each reader that is installed."""
    settings = dict(argument.split("=") for argument in sys.argv[1:] if "=" in argument)
    videos = [Path(argument) for argument in sys.argv[1:] if "=" not in argument]
    num, seed = int(settings.get("num", 100)), int(settings.get("seed", 0))
    for reader in settings.get("readers", "vidclf,OpenCV").split(","):
        counts = fuzz(videos, num, seed, reader)
        counts["all"] = sum(counts.values(), Counter())
        print(f"\n| {reader} | {' | '.join(OUTCOMES)} |\n|{' --- |' * (len(OUTCOMES) + 1)}")
        for name, count in counts.items():
            print(f"| {name} | {' | '.join(f'{count[outcome] / count.total():.1%}' for outcome in OUTCOMES)} |")


if __name__ == "__main__":
    main()
