"""T50, T54: the gateway is operated by people, not by what it runs; its memory and its environment are its own."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from confining import why_not

from gateway.testing import Gateway

Start = Callable[..., Gateway]

# Asks the admin socket for the models and prints the status. With "orphan" it first sees its parent gone.
ASK = """
import os, socket, sys
parent = os.getppid()
if sys.argv[2] == "orphan":
    while os.getppid() == int(sys.argv[3]): os.sched_yield()
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    sock.sendall(b"POST /admin/models/m/unload HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 0\\r\\n\\r\\n")
    print(sock.recv(100).split()[1].decode())
"""

MODEL = f"""
import os, subprocess, sys
ASK = {ASK!r}

class Model:
    def predict(self, asked):
        how, address = asked["how"], asked["socket"]
        if how == "environment":
            try: return open(f"/proc/{{os.getppid()}}/environ", "rb").read().decode()
            except OSError as error: return type(error).__name__
        if how == "memory":
            try: return open(f"/proc/{{os.getppid()}}/mem", "rb").name
            except OSError as error: return type(error).__name__
        if how == "child":
            return subprocess.run([sys.executable, "-c", ASK, address, how], stdout=subprocess.PIPE).stdout.decode()
        # A process in between starts one in a session of its own, that keeps nothing of our environment, and is gone.
        between = "import os, subprocess, sys; subprocess.Popen([sys.executable, '-I', '-c', *sys.argv[1:], " \\
                  "str(os.getpid())], env={{}}, start_new_session=True)"
        command = [sys.executable, "-c", between, ASK, address, how]
        return subprocess.run(command, stdout=subprocess.PIPE).stdout.decode()
"""


def predict(gateway: Gateway, model: str, body: Any) -> Any:
    request = urllib.request.Request(f"{gateway.url}/models/{model}/predict", data=json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def test_what_a_model_runs_neither_operates_the_gateway_nor_reads_it(start: Start, tmp_path: Path) -> None:
    address = str(tmp_path / "admin/gateway.sock")
    settings = f'[gateway]\nadmin_socket = "{address}"\n[models.strict]\nsandbox = "strict"\n'
    models = {"m": MODEL, "strict": MODEL}
    env = {"GATEWAY_SECRET_A": "a-secret", "TRUSS_SECRET_B": "a-secret"}
    gateway = start(models, settings, env=env, until="settled")
    states = gateway.states()
    names = ["m", *(["strict"] if not why_not() else [])]
    assert {name: state for name, state in states.items() if name not in names} == dict.fromkeys(
        set(models) - set(names), "failed"
    ), "a machine that cannot confine runs no strict model"
    is_bound = "NoNewPrivs:\t1" in Path("/proc/self/status").read_text()
    for name in names:
        for how in ("child", "orphan"):
            assert predict(gateway, name, {"how": how, "socket": address}) == "403\n", (name, how)
    for how in ("environment", "memory") if "strict" in names else ():
        assert predict(gateway, "strict", {"how": how, "socket": address}) == "PermissionError"
    assert gateway.states() == states
    # An operator's own process does what was tried, but for one that is bound as those of models are.
    command = [sys.executable, "-c", ASK, address, "itself"]
    bound = ["import ctypes, os, sys; ctypes.CDLL(None).prctl(38, 1, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"]
    for words in ([sys.executable, "-c", *bound, *command], command):
        expected = "200\n" if words is command or is_bound else "403\n"
        assert (
            subprocess.run(words, env=dict(os.environ), capture_output=True, text=True, timeout=30).stdout == expected
        )


def test_what_a_model_lets_go_is_told_also_by_a_gateway_that_is_bound_as_models_are(tmp_path: Path) -> None:
    """By systemd's NoNewPrivileges, or in many a container: nothing but their ancestors tells them from commands."""
    (tmp_path / "models/m").mkdir(parents=True)
    (tmp_path / "models/m/model.py").write_text(MODEL)
    address = str(tmp_path / "admin/gateway.sock")
    started: list[Gateway] = []

    def start_bound() -> None:
        ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # of this thread, and of what it starts
        started.append(Gateway(tmp_path / "models", env={"GATEWAY_ADMIN_SOCKET": address}))

    thread = threading.Thread(target=start_bound)
    thread.start()
    thread.join()
    with started[0] as gateway:
        assert predict(gateway, "m", {"how": "orphan", "socket": address}) == "403\n"
        assert gateway.states() == {"m": "ready"}


def test_the_gateway_leaves_no_core_and_is_not_traced(tmp_path: Path) -> None:
    """Seen from inside, where `serve` begins to wait for requests."""
    (tmp_path / "models/m").mkdir(parents=True)
    (tmp_path / "models/m/model.py").write_text("class Model:\n    def predict(self, x): return x")
    code = (
        "import ctypes, resource, gateway.lifetime\n"
        "from gateway.cli import cli\n"
        "def serve(*a, **k):\n"
        "    print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))\n"
        "    return 0\n"
        "gateway.lifetime.serve = serve\n"
        "cli(['serve', '--models', 'models', '--port', '0'])\n"
    )
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert "0 (0, 0)" in done.stdout, done.stderr
