"""Files are written whole or not at all, and a disk that refuses is reported in one sentence."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vidclf.errors import VidclfError
from vidclf.system.disk import (
    empty_on_disk,
    locked,
    replacing,
    require_space,
    scratch_folder,
    write_atomically,
    writing_to,
)


def test_a_file_is_replaced_as_a_whole(tmp_path: Path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with path.open("rb") as reader:
        write_atomically(path, b"new and longer")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new and longer"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_the_old_file_whole(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    program = (
        "import os, pathlib, signal, sys\n"
        "from vidclf.system import disk\n"
        "disk.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "disk.write_atomically(pathlib.Path(sys.argv[1]), b'new' * 100_000)"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(path)], timeout=30)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    with replacing(path):  # removes what the killed process left, and nothing else
        (tmp_path / ".file.d1").write_bytes(b"another's")
        write_atomically(path, b"new")
        assert len(list(tmp_path.iterdir())) == 3  # the temporary of a living process stays
    assert {path.name for path in tmp_path.iterdir()} == {"file", ".file.d1"}


def test_a_scratch_folder_is_removed_at_the_end_and_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program = (
        "import os, signal, sys, tempfile\n"
        "from vidclf.system import disk\n"
        "tempfile.tempdir = sys.argv[1]\n"
        "with disk.scratch_folder() as folder:\n"
        "    (folder / 'big').write_bytes(b'0' * 100)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=30).returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob("*/big"))) == 1
    with scratch_folder() as first, scratch_folder() as second:
        (first / "file").touch()
        assert sorted(tmp_path.iterdir()) == sorted([first, second])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_listed_once_however_many_files_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    listed = []
    monkeypatch.setattr(os, "listdir", lambda folder, listdir=os.listdir: listed.append(folder) or listdir(folder))
    for number in range(5):
        write_atomically(tmp_path / f"{number % 2}", b"new")
    assert listed == [tmp_path]


@pytest.mark.parametrize("make", [os.symlink, os.link])
def test_a_lock_that_is_a_link_is_refused(make: Callable, tmp_path: Path):
    (tmp_path / "mine").write_bytes(b"mine")
    make(tmp_path / "mine", tmp_path / "lock")
    with pytest.raises(VidclfError, match="lock: is a link"), locked(tmp_path / "lock"):
        pass
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fail_with(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"


def test_a_block_that_fails_replaces_nothing_and_leaves_nothing(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(IsADirectoryError), replacing(path) as temporary:
        assert temporary.write_bytes(b"half") == tmp_path.write_bytes(b"")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"


def test_a_held_lock_is_waited_for_and_the_wait_is_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    order = []
    started = threading.Event()

    def hold() -> None:
        with locked(tmp_path / "lock") as has_waited:
            started.set()
            time.sleep(0.2)
            order.append(has_waited)

    thread = threading.Thread(target=hold)
    thread.start()
    started.wait()
    with locked(tmp_path / "lock", "waiting") as has_waited:
        order.append(has_waited)
    thread.join()
    assert order == [False, True]
    assert capsys.readouterr().err == "waiting\n"


def fail_with(number: int):
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        *((errno.ENOSPC, "No space left on device"), (errno.EROFS, "Read-only file system"), (errno.EDQUOT, "quota")),
        (errno.ENOENT, "No such file or directory"),  # /proc, or a folder that was removed meanwhile
    ],
)
def test_a_disk_that_refuses_is_reported_with_the_remedy(number: int, reason: str):
    sentence = rf"some/folder: cannot write \(.*{reason}.*is whole\. Do this\.$"
    with pytest.raises(VidclfError, match=sentence), writing_to(Path("some/folder"), "Do this."):
        fail_with(number)()


def test_a_folder_that_is_a_file_is_reported(tmp_path: Path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        sentence = r"file.*: cannot write \((File exists|Not a directory)\)"
        with pytest.raises(VidclfError, match=sentence), writing_to(folder, "Name another."):
            folder.mkdir(parents=True, exist_ok=True)


def test_an_error_that_the_disk_did_not_cause_passes_unchanged():
    with pytest.raises(OSError, match="Bad file descriptor"), writing_to(Path("folder"), "Do this."):
        fail_with(errno.EBADF)()


def test_needed_and_free_space_are_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3 * 10**9))
    require_space(tmp_path, 3 * 10**9, "Do this.")
    with pytest.raises(VidclfError, match=r"folder: 3\.50 GB needed, 3\.00 GB free\. Do this\."):
        require_space(tmp_path / "not" / "there" / "folder", 3_500_000_000, "Do this.")


def test_a_folder_that_does_not_exist_yet_is_measured_by_its_parent(tmp_path: Path):
    with pytest.raises(VidclfError, match=r"there: 1000000000000000\.00 GB needed, \d+\.\d\d [GM]B free"):
        require_space(tmp_path / "not" / "there", 10**24, "Do this.")


def test_a_tensor_on_disk_is_a_tensor_and_leaves_no_file(tmp_path: Path):
    tensor = empty_on_disk(tmp_path, (5, 1, 7), torch.bfloat16, "")
    assert list(tmp_path.iterdir()) == []
    tensor[:] = torch.arange(35).view(5, 1, 7)
    assert tensor.dtype == torch.bfloat16
    assert tensor[torch.tensor([4, 0])].flatten().tolist() == [*range(28, 35), *range(7)]
    assert tensor.max() == 34


def test_a_tensor_too_large_for_the_disk_is_refused(tmp_path: Path):
    with pytest.raises(VidclfError, match=r"GB needed, .* [GM]B free\. Free space\."):
        empty_on_disk(tmp_path, (10**12, 10), torch.float32, "Free space.")
