"""The servers that are compared: ours and the peers', each over the same classes, each in an environment of its own.

A side serves one kind of class at a time. It says below which paths, and where it has none for a kind, it is left out
of what is measured with that.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from ..processes import ROOT, Server, free_port, gateway, server
from ..truss_server import installed, truss_server
from . import classes, tables
from .answers import BATCH
from .asking import Question

PEERS = {  # and distributions
    "mosec": "mosec", "litserve": "litserve", "truss": "truss", "triton": "nvidia-pytriton",
    "bentoml": "bentoml", "mlserver": "mlserver",
}  # fmt: skip
OF_BATCHES = ("mosec", "litserve", "bentoml", "mlserver")  # which can run batches of requests
OF_TABLES = ("mosec", "mlserver")  # which serve models of tables here
ELSEWHERE = ("bentoml", "mlserver")  # measured by `batching` and `rows` only
TITLES = {
    "mosec": "mosec", "litserve": "LitServe", "truss": "Truss", "triton": "Triton",
    "bentoml": "BentoML", "mlserver": "MLServer",
}  # fmt: skip
_FACTS = """
import importlib.metadata, sys, sysconfig
print(importlib.metadata.version(sys.argv[1]), sysconfig.get_path("platlib"), sysconfig.get_config_var("LIBDIR"))
print(f"{sys.version_info[0]}.{sys.version_info[1]}")
"""
_TRITON = """
name: "model"
backend: "python"
input [{ name: "x", data_type: TYPE_FP32, dims: [4] }]
output [{ name: "y", data_type: TYPE_FP32, dims: [4] }]
instance_group [{ kind: KIND_CPU, count: 1 }]
"""


@dataclass(frozen=True, slots=True)
class Side:
    name: str  # with its version
    paths: Mapping[str, str]  # of each kind
    serve: Callable[[str], AbstractContextManager[Server]]  # a kind
    asked: Callable[[Question], Question] = lambda question: question  # in the form that its route takes


def ours() -> Side:
    predict = dict.fromkeys(("async64", "sync64", "one", "stream", "batch"), "/v1/models/model:predict")
    embeddings = dict.fromkeys(("lists", "numpy"), "/v1/embeddings")
    neighbours = {"neighbour": "/v1/models/light:predict", "burn": "/v1/models/burn:predict"}
    paths = {**predict, **embeddings, **neighbours, "tensor": "/v2/models/model/infer"}

    paths |= dict.fromkeys(tables.NAMES, "/v1/models/model:predict")

    @contextlib.contextmanager
    def serve(kind: str) -> Iterator[Server]:
        made = tables.models(kind) if kind in tables.NAMES else contextlib.nullcontext(classes.directories(kind))
        with (
            made as models,
            gateway(models, classes.SETTINGS.get(kind, ""), env={"PYTHONPATH": str(ROOT)}) as found,
        ):
            yield found

    return Side("gateway", paths, serve)


def peers() -> tuple[list[Side], list[str]]:
    """Those whose environment is there, and the names of the others."""
    found = {name: _SIDES[name](python) for name in PEERS if (python := _python(name)) is not None}
    return list(found.values()), [name for name in PEERS if name not in found]


def _python(name: str) -> str | None:
    if name == "truss" and (python := os.environ.get("TRUSS_PYTHON")):
        return python
    place = ROOT / f".venv-peers-{name}"
    return str(place / "bin" / "python") if (place / ".installed").exists() else None


def _facts(name: str, python: str) -> list[str]:
    """The peer's version, its site-packages, the directory of Python's library, and Python's version."""
    done = subprocess.run([python, "-c", _FACTS, PEERS[name]], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(f"{python} has no {PEERS[name]}:\n{done.stderr.strip()[-500:]}")
    return done.stdout.split()


def _mosec(python: str) -> Side:
    @contextlib.contextmanager
    def serve(kind: str) -> Iterator[Server]:
        port = free_port()
        command = [python, "-m", "benchmarks.peers.mosec_server", kind, "--address", "127.0.0.1", "--port", str(port)]
        # Its front waits three seconds for a call, whatever the worker's own limit is.
        command += ["--timeout", "60000", "--log-level", "warning"]
        with _table(kind) as env, server(command, port, "/", cwd=ROOT, env=env, leaves_others=True) as found:
            yield found

    kinds = ("sync64", "one", "neighbour", "batch")
    paths = {**dict.fromkeys(kinds, "/echo"), **_NAMED, "burn": "/burn", **dict.fromkeys(tables.NAMES, "/table")}
    return Side(f"mosec {_facts('mosec', python)[0]}", paths, serve)


def _litserve(python: str) -> Side:
    @contextlib.contextmanager
    def serve(kind: str) -> Iterator[Server]:
        port = free_port()
        command = [python, "-m", "benchmarks.peers.litserve_server", kind, str(port)]
        with server(command, port, "/health", cwd=ROOT, leaves_others=True) as found:
            yield found

    kinds = ("async64", "sync64", "one", "neighbour", "batch")
    paths = {**dict.fromkeys(kinds, "/echo"), **_NAMED, "burn": "/burn"}
    return Side(f"LitServe {_facts('litserve', python)[0]}", paths, serve)


def _truss(python: str) -> Side:
    found = installed(python)
    assert found is not None
    _, place, version = found
    predict = dict.fromkeys(("async64", "sync64", "one", "stream"), "/v1/models/model:predict")
    paths = {**predict, **dict.fromkeys(("lists", "numpy"), "/v1/embeddings")}  # one model a server: no neighbours
    return Side(f"Truss {version}", paths, lambda kind: truss_server(python, place, classes.truss(kind)))


def _bentoml(python: str) -> Side:
    @contextlib.contextmanager
    def serve(kind: str) -> Iterator[Server]:
        port = free_port()
        command = [python, "-m", "bentoml", "serve", "benchmarks.peers.bentoml_server:Echo"]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        quiet = {"BENTOML_DO_NOT_TRACK": "true"}
        with server(command, port, "/readyz", cwd=ROOT, env=quiet, leaves_others=True) as found:
            yield found

    def asked(question: Question) -> Question:
        return Question(question.kind, f'{{"inputs": [{question.body}]}}', _is_listed)

    return Side(f"BentoML {_facts('bentoml', python)[0]}", {"batch": "/echo"}, serve, asked)


def _is_listed(body: str, answer: bytes, binary_from: int | None) -> bool:
    return bool(json.loads(answer) == json.loads(body)["inputs"])


def _mlserver(python: str) -> Side:
    @contextlib.contextmanager
    def serve(kind: str) -> Iterator[Server]:
        port, unused, metrics = free_port(), free_port(), free_port()
        ports = {"http_port": port, "grpc_port": unused, "metrics_port": metrics}
        is_table = kind in tables.NAMES
        made = "Table" if is_table else "Echo"
        model = {"name": "model", "implementation": f"benchmarks.peers.mlserver_model.{made}"}
        with tempfile.TemporaryDirectory(prefix="mlserver-bench-") as name, _table(kind) as env:
            place = Path(name)
            (place / "settings.json").write_text(json.dumps({"host": "127.0.0.1", "debug": False, **ports}))
            batches = {} if is_table else {"max_batch_size": BATCH, "max_batch_time": 0.002}
            (place / "model-settings.json").write_text(json.dumps({**model, **batches}))
            command = [str(Path(python).parent / "mlserver"), "start", name]
            environment = {"PYTHONPATH": str(ROOT), **env}
            with server(command, port, "/v2/health/ready", cwd=place, env=environment, leaves_others=True) as found:
                yield found

    def asked(question: Question) -> Question:
        if question.kind in tables.NAMES:
            rows = json.loads(question.body)["inputs"]
            tensor = {"name": "x", "shape": [len(rows), len(rows[0])], "datatype": "FP32", "data": rows}
            return Question(question.kind, json.dumps({"inputs": [tensor]}), _is_first)
        text = {"name": "x", "shape": [1, 1], "datatype": "BYTES", "data": [question.body]}
        return Question(question.kind, json.dumps({"inputs": [text]}), _is_tensor)

    paths = dict.fromkeys(("batch", *tables.NAMES), "/v2/models/model/infer")
    return Side(f"MLServer {_facts('mlserver', python)[0]}", paths, serve, asked)


def _is_first(body: str, answer: bytes, binary_from: int | None) -> bool:
    row = json.loads(answer)["outputs"][0]["data"]
    return tables.is_first(body, json.dumps({"probabilities": [row]}).encode(), None)


@contextlib.contextmanager
def _table(kind: str) -> Iterator[dict[str, str]]:
    """The variables of a server that reads the file of a table's model; none for another kind."""
    if kind not in tables.NAMES:
        yield {}
        return
    with tables.models(kind) as place:
        yield {"BENCH_TABLE": f"{kind}:{place / 'model' / tables.NAMES[kind]}"}


def _is_tensor(body: str, answer: bytes, binary_from: int | None) -> bool:
    return bool(json.loads(answer)["outputs"][0]["data"] == json.loads(body)["inputs"][0]["data"])


def _triton(python: str) -> Side:
    version, packages, libraries, language = _facts("triton", python)
    carried = Path(packages) / "pytriton" / "tritonserver"

    @contextlib.contextmanager
    def serve(kind: str) -> Iterator[Server]:
        port = free_port()
        with tempfile.TemporaryDirectory(prefix="triton-bench-") as name:
            place = Path(name)
            backend = place / "backends" / "python"
            backend.mkdir(parents=True)
            # Its stub has to lie beside the backend, which the wheel leaves to PyTriton.
            stub = carried / "python_backend_stubs" / language / "triton_python_backend_stub"
            for file in (*(carried / "backends" / "python").glob("*triton_python*"), stub):
                (backend / file.name).symlink_to(file)
            model = place / "models" / "model" / "1"
            model.mkdir(parents=True)
            (model.parent / "config.pbtxt").write_text(_TRITON)
            (model / "model.py").write_text((Path(__file__).parent / "triton_model.py").read_text())
            environment = {
                "LD_LIBRARY_PATH": f"{packages}/nvidia_pytriton.libs:{libraries}",
                # The stub finds its packages by the python3 that comes first, not by PYTHONPATH.
                "PATH": f"{Path(python).parent}:{os.environ['PATH']}",
            }
            command = [str(carried / "bin" / "tritonserver"), f"--model-repository={place / 'models'}"]
            command += [f"--backend-directory={place / 'backends'}", "--http-address=127.0.0.1", f"--http-port={port}"]
            command += ["--allow-grpc=false", "--allow-metrics=false"]
            with server(command, port, "/v2/health/ready", cwd=place, env=environment) as found:
                yield found

    return Side(f"Triton of PyTriton {version}", {"tensor": "/v2/models/model/infer"}, serve)


_NAMED = {"lists": "/v1/embeddings", "numpy": "/v1/embeddings", "stream": "/stream"}
_SIDES: dict[str, Callable[[str], Side]] = {
    "mosec": _mosec, "litserve": _litserve, "truss": _truss, "triton": _triton,
    "bentoml": _bentoml, "mlserver": _mlserver,
}  # fmt: skip
