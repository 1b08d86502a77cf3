"""The gateway as the first process of a container: nothing is written outside of its volume, and nobody is left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import container

from .conftest import write_models

MODEL = """
import os, signal, subprocess
class Model:
    def predict(self, inputs):
        if inputs == "leave behind":
            subprocess.run(["sh", "-c", "sleep 0.05 & setsid sleep 0.05 & true"])
        if inputs == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            open("/written", "w").close()
        except OSError as error:
            root = error.strerror
        else:
            root = os.unlink("/written")
        tmp = os.environ["TMPDIR"]
        return {"version": "one", "user": os.getuid(), "parent": os.getppid(), "root": root, "tmp": tmp}
"""


def ask(url: str, inputs: Any) -> tuple[int, Any]:
    request = urllib.request.Request(f"{url}/v1/models/m:predict", json.dumps(inputs).encode())
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def wait_for(holds: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 120
    while not (found := holds()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)  # what it waits for happens in other processes, which tell nobody
    return found


def test_it_serves_survives_a_crash_reloads_and_drains_as_the_first_process_of_a_container(tmp_path: Path) -> None:
    volume, models = tmp_path / "volume", tmp_path / "models"
    volume.mkdir()
    write_models(models, {"m": {"model.py": MODEL}})
    env = {
        **{name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_RUNTIME_DIR")},
        **dict.fromkeys(("TMPDIR", "GATEWAY_CACHE_DIR"), str(volume)),
        "GATEWAY_ADMIN_SOCKET": str(volume / "admin.sock"),
    }
    gateway = [sys.executable, "-P", "-m", "gateway"]
    shared = set(os.listdir("/dev/shm"))
    running = container.start(volume, *gateway, "serve", "--models", str(models), "--port", "0", env=env, cwd=tmp_path)
    try:
        lines: list[str] = []
        assert running.stdout is not None
        threading.Thread(target=lines.extend, args=(running.stdout,), daemon=True).start()
        url = wait_for(lambda: re.search(r"Serving on (http://\S+)\n", "".join(lines)), "it serves")[1]
        wait_for(lambda: ask(url, 1)[0] == 200, "its model is ready")
        first = container.first_process(running)
        seen = ask(url, 1)[1]
        assert Path(seen["tmp"]).parent == volume
        if container.is_possible():
            assert (seen["user"], seen["parent"], seen["root"]) == (container.USER, 1, "Read-only file system")

        for _ in range(3):
            assert ask(url, "leave behind")[0] == 200
        assert ask(url, "die")[0] == 502
        wait_for(lambda: ask(url, 1)[0] == 200, "it is back")
        (models / "m" / "model.py").write_text(MODEL.replace("one", "two"))
        command = [*gateway, "reload", "m", "--url", url]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert ask(url, 1)[1]["version"] == "two"

        wait_for(lambda: all(state != "Z" for _, state in container.children(first)), "no zombie is left")
        os.kill(first, signal.SIGTERM)
        assert running.wait(30) == 0, "".join(lines)
    finally:
        running.kill()
        running.wait()
    left = [path for path in volume.rglob("*") if path.is_file()]
    assert left == []
    assert not list(volume.glob("gateway-replica-*"))
    assert set(os.listdir("/dev/shm")) <= shared


def test_without_a_place_to_write_the_start_says_what_must_be_writable(tmp_path: Path) -> None:
    write_models(tmp_path / "models", {"m": {"model.py": MODEL}})
    readonly = "import tempfile; tempfile._candidate_tempdir_list = lambda: ['/proc/none', '/proc/self']"
    command = [sys.executable, "-c", f"{readonly}; from gateway.cli import main; main()", "serve", "--port", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: there is no directory for temporary files, which every worker needs: none")
    assert "/proc/none, /proc/self can be written to; mount one at /tmp" in done.stderr
    assert len(done.stderr.splitlines()) == 1
