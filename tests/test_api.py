"""vidclf from Python: a run is loaded and labels videos as the command line does."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from doubles import halve
from omegaconf import OmegaConf
from verbs import SMALL, Outcome

import vidclf as package
from vidclf.errors import VidclfError, VideoError


def test_a_loaded_run_labels_videos_as_predict_does(trained: Outcome, clips: Path, vidclf: Callable[..., Outcome]):
    paths = sorted((clips / "Archery").glob("*.avi"))[:3]
    run = package.load(trained.run)
    assert run.class_names == ["ApplyEyeMakeup", "Archery"]
    assert run.config["sampling"]["rate_hz"] == 10
    printed = vidclf("predict", f"run={trained.run}", f"source={clips / 'Archery'}").out.splitlines()
    assert list(run.predict_many(paths)) == [json.loads(line) for line in printed[:3]]
    assert run.predict(paths[0]) == json.loads(printed[0])


def test_an_embedding_is_the_backbones_features_of_every_view(trained: Outcome, clips: Path):
    features = package.load(trained.run / "checkpoints" / "best.ckpt").embed(clips / "Archery/v_Archery_g01_c01.avi")
    assert features.shape == (6, 1, 1024)  # 12 frames at 25 a second, every second one
    assert features.isfinite().all()
    assert not torch.equal(features[0], features[-1])


def test_a_damaged_video_is_an_error_that_names_it(trained: Outcome, clips: Path, tmp_path: Path):
    path = tmp_path / "cut.avi"
    path.write_bytes((clips / "Archery/v_Archery_g01_c01.avi").read_bytes())
    halve(path)
    for use in (package.load(trained.run).predict, package.load(trained.run).embed):
        with pytest.raises(VideoError, match=r"cut\.avi: "):
            use(path)


def test_a_folder_that_is_no_run_is_an_error(tmp_path: Path):
    with pytest.raises(VidclfError, match=r"nowhere"):
        package.load(tmp_path / "nowhere")


def test_a_composed_configuration_is_what_cfg_job_prints(vidclf: Callable[..., Outcome], tmp_path: Path):
    overrides = ["experiment=demo", "head=linear", "logger=csv", "~callbacks"]
    composed = package.compose("train", overrides)
    assert composed["head"] == {"_target_": "vidclf.models.heads.linear.Linear", "_partial_": True}
    printed = OmegaConf.to_container(OmegaConf.create(vidclf("train", *overrides, "--cfg", "job").out))
    different = {key for key in composed if composed[key] != printed[key]}
    assert different == {"logger"}  # it names the folder of the run


def test_an_unknown_key_is_an_error():
    with pytest.raises(Exception, match="haed"):
        package.compose("train", ["haed=linear"])


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, vidclf; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "hydra", "numpy", "av"} & {*modules}


def test_a_run_in_the_same_process_is_not_disturbed_by_composing(vidclf: Callable[..., Outcome], clips: Path):
    package.compose("train", ["experiment=demo"])
    assert vidclf("train", f"dataset.root={clips}", *SMALL, "trainer.max_epochs=1").status == 0
