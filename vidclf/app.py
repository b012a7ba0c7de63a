"""Label an uploaded video, or the webcam, in a browser on this machine, by Gradio: no other machine is asked."""

import html
import math
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import UInt8
from matplotlib.figure import Figure
from torchvision.transforms.v2 import functional as F

from vidclf.api import LoadedRun, cleaning_in, windows_of
from vidclf.data.catalogue import VideoFacts
from vidclf.data.decoding import VideoInfo, decode_frames, inspect
from vidclf.errors import VidclfError, VideoError
from vidclf.prediction.live import LiveLabeller, WindowLabel
from vidclf.prediction.timeline import LabelledBout, Timeliner
from vidclf.prediction.windows import Windows
from vidclf.run.config import Config
from vidclf.run.folder import Run
from vidclf.run.values import fits
from vidclf.system.extras import require
from vidclf.system.text import sanitize

if TYPE_CHECKING:
    import gradio

SILENT = {  # before Gradio is imported: it, and the hub that it imports, would ask the network
    **{"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"},
    **{"DO_NOT_TRACK": "1"},
}
HOST = "127.0.0.1"
CAMERA_HZ = 10.0  # frames that the page sends a second
STRIDE_S = 0.5  # from one label of the camera to the next
WINDOW_S = 2.0
MAX_FRAMES, MAX_SIDE = 16, 240  # of an uploaded video that are shown
KEPT_S = 600  # what a page has shown stays on the disk


def run(config: Config, run: Run | None) -> None:
    """Serve the page until Ctrl-C."""
    assert run is not None
    port, upload_mb = config["port"], config["upload_mb"]
    if not 1 <= port <= 65535:
        raise VidclfError(f"port={port}: must be from 1 to 65535.")
    if upload_mb < 1:
        raise VidclfError(f"upload_mb={upload_mb}: must be 1 or more.")
    require("gradio", "6.31", "app", "vidclf app")
    windows = _choose_windows(config)
    loaded = LoadedRun(config, run)
    timeliner = None
    if "window_s" in config["dataset"]:
        step_s, cleaning = cleaning_in(config, run)
        timeliner = Timeliner(loaded.predictor, windows, step_s, **cleaning)
    with serving(Labels(loaded, windows, timeliner), run.folder.name, port, upload_mb):
        print(f"Open http://{HOST}:{port} in a browser on this machine. Ctrl-C ends it.", flush=True)
        threading.Event().wait()


def _choose_windows(config: Config) -> Windows:
    dataset = config["dataset"]
    window_s = dataset.get("window_s", WINDOW_S) if config["window_s"] is None else config["window_s"]
    if not (fits(window_s, float) and 0.1 <= window_s < math.inf):
        raise VidclfError(f"window_s={window_s}: must be a number of seconds, at least 0.1.")
    windows = windows_of(config, window_s, dataset.get("stride_s", STRIDE_S))
    assert windows is not None
    return windows


class Labels:
    """Labels uploads, and frames of the camera, with a run.

    Args:
        loaded: the run.
        windows: of the camera.
        timeliner: of long videos; None: each upload gets one label.
    """

    def __init__(self, loaded: LoadedRun, windows: Windows, timeliner: Timeliner | None = None) -> None:
        self.loaded, self.windows, self.timeliner = loaded, windows, timeliner

    def of_video(self, path: Path, info: VideoInfo) -> dict[str, float]:
        """Return the five highest probabilities of a clip."""
        ((_, label),) = self.loaded.predictor.label_files([(path, VideoFacts("", info))], num_threads=1)
        if isinstance(label, VideoError):
            raise label
        return _as_label(label["top5"])

    def bouts(self, path: Path, info: VideoInfo) -> list[LabelledBout]:
        """Return the timeline of a long video."""
        assert self.timeliner is not None
        return list(self.timeliner.bouts(path, info))

    def frames(self, path: Path, info: VideoInfo) -> list[tuple[np.ndarray, str]]:
        """Return some frames that were looked at, (h, w, 3), and when each is shown."""
        sampling = self.loaded.predictor.sampling
        if self.timeliner:
            starts_s = self.windows.times_of(path, info)[0]
            in_window = sampling(round(self.windows.window_s * info.fps), info.fps)
            places = torch.cat([round(start_s * info.fps) + in_window for start_s in starts_s]).unique()
        else:
            places = sampling(info.num_frames, info.fps).unique()
        places = places[torch.linspace(0, len(places) - 1, min(MAX_FRAMES, len(places))).long()]
        frames = decode_frames(path, info.frames_at(places), whole=True)
        if max(frames.shape[-2:]) > MAX_SIDE:
            frames = F.resize(frames, None, max_size=MAX_SIDE)
        times = [f"{place / info.fps:.1f} s" for place in places.tolist()]
        return [(frame.permute(1, 2, 0).numpy(), time) for frame, time in zip(frames, times, strict=True)]

    def of_frame(
        self, image: UInt8[np.ndarray, "H W 3"], labeller: LiveLabeller | None
    ) -> tuple[LiveLabeller, WindowLabel | None]:
        """Take a frame of the camera that has just come; return the newest window's label, if there is a new one."""
        if labeller is None:
            labeller = LiveLabeller(self.loaded.predictor, self.windows, CAMERA_HZ, name="the camera")
        labeller.push(time.monotonic(), torch.tensor(image).permute(2, 0, 1).contiguous())
        done = [labeller.work(0.0), labeller.work(0.0)]  # the features of this frame, and the window that it ends
        return labeller, next((label for label in reversed(done) if label), None)


def _as_label(top5: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {sanitize(top["label"]): top["probability"] for top in top5}


def _as_row(bout: LabelledBout) -> list[object]:
    probability = "" if bout.probability is None else f"{bout.probability:.3f}"
    return [bout.start_s, bout.end_s, sanitize(bout.label or ""), probability]


@contextmanager
def serving(labels: Labels, title: str, port: int, upload_mb: int) -> Iterator[None]:
    """Serve the page on this machine; what it keeps on the disk is removed in the end.

    Raises:
        VidclfError: the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="vidclf-app-") as folder:
        os.environ |= {**SILENT, "GRADIO_TEMP_DIR": folder}
        import gradio as gr

        page = build_page(labels, title)
        local: dict[str, Any] = {
            "share": False,
            "pwa": False,
            "mcp_server": False,
            "ssr_mode": False,
            "run_history": False,
        }
        theme = gr.themes.Default(font="system-ui", font_mono="monospace")  # others are fetched
        try:
            page.launch(
                server_name=HOST,
                server_port=port,
                max_file_size=f"{upload_mb}mb",
                prevent_thread_lock=True,
                quiet=True,
                footer_links=[],
                enable_monitoring=False,
                theme=theme,
                **local,
            )
        except OSError as error:
            raise VidclfError(
                f"port={port}: cannot be used ({error}). Choose another, e.g. port={port + 1}."
            ) from error
        try:
            yield
        finally:
            page.close(verbose=False)


def build_page(labels: Labels, title: str) -> "gradio.Blocks":
    """Return the page: a tab for uploads and one for the webcam."""
    import gradio as gr

    def label_upload(name: str | None) -> tuple[Any, ...]:
        if name is None:
            return None, None, None, None
        path = Path(name)
        try:
            info = inspect(path)
            if labels.timeliner:
                bouts = labels.bouts(path, info)
                return None, draw_bouts(bouts), [_as_row(bout) for bout in bouts], labels.frames(path, info)
            return None, labels.of_video(path, info), None, labels.frames(path, info)
        except VidclfError as error:
            sentence = html.escape(sanitize(str(error).replace(name, path.name)))
            gr.Warning(sentence, duration=None, title="Not labelled")
            return None, None, None, None
        finally:
            path.unlink(missing_ok=True)

    def label_frame(image: np.ndarray | None, labeller: LiveLabeller | None) -> tuple[Any, ...]:
        if image is None:
            return labeller, gr.skip(), gr.skip()
        labeller, label = labels.of_frame(image, labeller)
        if label is None:
            return labeller, gr.skip(), gr.skip()
        delay_ms = 1000 * (time.monotonic() - label.arrived_s)
        return labeller, _as_label(label.top5), f"{delay_ms:.0f} ms, {label.dropped} frames dropped"

    with gr.Blocks(title="vidclf", analytics_enabled=False, delete_cache=(60, KEPT_S)) as page:
        gr.HTML(f"<h1>{html.escape(sanitize(title))}</h1>")
        with gr.Tab("Video"):
            upload = gr.File(label="A video. It is deleted once it is labelled.", type="filepath")
            result: Any = gr.Plot(show_label=False) if labels.timeliner else gr.Label(label="Label")
            table = gr.Dataframe(
                headers=["from (s)", "to (s)", "label", "probability"], visible=labels.timeliner is not None
            )
            frames = gr.Gallery(label="Frames that were looked at", columns=8, height="auto", interactive=False)
            upload.upload(label_upload, upload, [upload, result, table, frames], concurrency_limit=1)
        with gr.Tab("Webcam"):
            camera = gr.Image(
                label="Webcam", sources="webcam", streaming=True, webcam_options=gr.WebcamOptions(mirror=False)
            )
            live, delay = gr.Label(label="Label of the last seconds"), gr.Textbox(label="Delay", interactive=False)
            held = gr.State()
            camera.stream(
                label_frame, [camera, held], [held, live, delay], stream_every=1 / CAMERA_HZ, show_progress="hidden"
            )
    return page


def draw_bouts(bouts: Sequence[LabelledBout]) -> Figure:
    """Draw the bouts of a long video along its time, a row for each label."""
    names = sorted({sanitize(bout.label or "no label") for bout in bouts})
    figure = Figure(figsize=(10, 0.8 + 0.3 * len(names)), layout="constrained")
    axis = figure.subplots()
    for bout in bouts:
        row = names.index(sanitize(bout.label or "no label"))
        axis.broken_barh([(bout.start_s, bout.end_s - bout.start_s)], (row - 0.4, 0.8), color=f"C{row % 10}")
    axis.set_yticks(range(len(names)), [name.replace("$", r"\$") for name in names])
    axis.set(xlabel="time (s)", xlim=(0, bouts[-1].end_s))
    axis.invert_yaxis()
    return figure
