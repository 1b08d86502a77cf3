"""Truss's own server over the same class, where there is one: in the environment whose Python TRUSS_PYTHON names.

It wants one of its own, for its requirements contradict ours. Its models may import `benchmarks.peers.answers`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from gateway.directories.config.config import read_config

from .processes import ROOT, Server, free_port, server

VARIABLE = "TRUSS_PYTHON"
_WHERE = """
import importlib.metadata, importlib.util
print(importlib.util.find_spec("truss").origin)
print(importlib.metadata.version("truss"))
"""


def installed(python: str | None = None) -> tuple[str, Path, str] | None:
    """The Python, the directory of its Truss and the version of that, or None when TRUSS_PYTHON is not set.

    `python` is the one of another environment, for when it is not set.
    """
    python = os.environ.get(VARIABLE, python)
    if not python:
        return None
    done = subprocess.run([python, "-c", _WHERE], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(f"{VARIABLE}={python} has no Truss:\n{done.stderr.strip()[-500:]}")
    origin, version = done.stdout.split()
    return python, Path(origin).parent, version


@contextlib.contextmanager
def truss_server(python: str, truss: Path, files: Mapping[str, str]) -> Iterator[Server]:
    """The server of Truss's image over a model directory, given as {"file": text}, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="truss-bench-") as name:
        place = Path(name) / "app"
        shutil.copytree(truss / "templates" / "server", place)
        shutil.copytree(truss / "templates" / "shared", place / "_truss_shared")
        for file, text in files.items():
            path = place / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        # Its server reads keys without looking whether they are there: building an image writes all of them.
        (place / "config.yaml").write_text(json.dumps(read_config(place).data))
        port = free_port()
        environment = {"INFERENCE_SERVER_PORT": str(port), "PYTHONPATH": str(ROOT)}
        with server([python, "main.py"], port, "/v1/models/model", cwd=place, env=environment) as found:
            yield found
