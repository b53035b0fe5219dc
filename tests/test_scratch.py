"""A server's folder for files: it goes with the server, and what a killed one left is swept by the next.

python -m pytest tests/test_scratch.py
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from demos.backend import scratch

ROOT = Path(__file__).resolve().parents[1]
LIVING = (
    "import os, tempfile, time; from pathlib import Path; from demos.backend.scratch import own_folder\n"
    "own_folder(); place = Path(os.environ['GRADIO_TEMP_DIR']); (place / 'upload').touch()\n"
    "tempfile.mkdtemp(prefix='tips-zip-'); print(place, flush=True); time.sleep(60)"
)


def begin(folder: Path, **more: str) -> tuple[subprocess.Popen, Path]:
    own = {name: value for name, value in os.environ.items() if name != "GRADIO_TEMP_DIR"} | {"TMPDIR": str(folder)}
    server = subprocess.Popen([sys.executable, "-c", LIVING], cwd=ROOT, env=own | more, stdout=-1)
    return server, Path(server.stdout.readline().decode().strip())


def aged(folder: Path) -> None:
    for each in folder.iterdir():
        os.utime(each, (time.time() - 1e6,) * 2)


def test_what_a_killed_server_left_is_swept_and_a_living_one_is_left_alone(tmp_path):
    killed, left = begin(tmp_path)
    assert list((left.parent / "scratch").glob("tips-zip-*"))  # what is unpacked lies in the same folder
    killed.send_signal(signal.SIGKILL)
    killed.wait(20)
    living, place = begin(tmp_path)
    try:
        assert left.exists()  # young: its lock might be on its way
        elsewhere = tmp_path / "other-app"
        elsewhere.mkdir()
        (tmp_path / f"{scratch.PREFIX}link").symlink_to(elsewhere)
        aged(tmp_path)
        scratch.sweep(tmp_path)
        assert not left.exists() and place.exists() and elsewhere.exists()
    finally:
        living.send_signal(signal.SIGTERM)
        living.wait(20)
    assert not place.parent.exists()


def test_of_a_folder_that_was_given_only_old_uploads_go(tmp_path):
    upload, room, young = tmp_path / ("a" * 64), tmp_path / "visitors" / "somebody", tmp_path / ("b" * 64)
    theirs = tmp_path / "theirs"
    for folder in (upload, room, young, theirs):
        folder.mkdir(parents=True)
        (folder / "file").touch()
        os.utime(folder, (time.time() - (0 if folder == young else 1e6),) * 2)
    scratch.sweep_old(tmp_path)
    assert not upload.exists() and not room.exists() and young.exists() and theirs.exists()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no users here")
def test_another_users_folder_is_left_alone(tmp_path, monkeypatch):
    folder = tmp_path / f"{scratch.PREFIX}x"
    folder.mkdir()
    aged(tmp_path)
    monkeypatch.setattr(os, "getuid", lambda: -1)
    scratch.sweep(tmp_path)
    assert folder.exists()
