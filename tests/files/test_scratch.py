from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.files import clearing, scratch

HOLDER = """
import sys
from gateway.files.scratch import Scratch
held = Scratch()
print(held.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_a_killed_gateway_left_behind_is_removed_and_what_others_use_is_not(place: Path) -> None:
    env = {**os.environ, "TMPDIR": str(place)}
    command = [sys.executable, "-c", HOLDER]
    killed, living = (
        subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    )
    assert killed.stdout is not None
    assert living.stdout is not None
    left, used = Path(killed.stdout.readline().strip()), Path(living.stdout.readline().strip())
    (left / "deep").mkdir()
    (left / "deep" / "weights").write_bytes(b"x")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    scratch.clear_leftovers()
    assert not left.exists()
    assert used.is_dir()
    living.communicate()


def test_one_that_was_given_up_leaves_nothing_and_no_file_open(place: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    one = scratch.Scratch()
    (Path(one.path) / "file").touch()
    one.give_up()
    assert clearing.wait(30)
    assert list(place.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_has_the_name_of_one_and_is_none_stays(place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "kept").touch()
    (place / f"{scratch.PREFIX}link").symlink_to(elsewhere)
    (place / f"{scratch.PREFIX}file").touch()
    scratch.clear_leftovers()
    assert (elsewhere / "kept").exists()
    assert (place / f"{scratch.PREFIX}file").exists()


def test_without_a_place_to_write_it_is_said_what_must_be_writable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/none", "/nowhere"])
    with pytest.raises(ConfigError, match=r"none of /proc/none, /nowhere can be written to.*mount one at /tmp"):
        scratch.root()
