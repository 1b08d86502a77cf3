"""T31 to T34: nowhere to write, no memory left, plugins and directories that are broken. T24 to T30 are elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import pkgutil
import struct
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from served import Model, Served

from gateway.access.callers import everybody
from gateway.cli import cli
from gateway.directories.model_warnings import told_at_start
from gateway.files import clearing
from gateway.hosting.hub import Hub
from gateway.hosting.model_roots import look_again
from gateway.inspection.inventory import Inventory, take_inventory
from gateway.settings.load import load_settings
from gateway.settings.schema import GatewaySettings, Settings
from gateway.testing import Gateway

Serve = Callable[..., Served]
Start = Callable[..., Gateway]
ECHO = "class Model:\n    def predict(self, inputs):\n        return inputs\n"


def post(gateway: Gateway, model: str, body: Any) -> tuple[int, Any]:
    host, port = gateway.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    connection.request("POST", f"/models/{model}/predict", json.dumps(body))
    answer = connection.getresponse()
    status, data = answer.status, answer.read()
    connection.close()
    return status, json.loads(data) if data else None


# ── T31: nowhere to write ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_gateway_with_nowhere_to_write_serves(start: Start) -> None:
    nowhere = "/dev/null/nowhere"
    env = dict.fromkeys(("GATEWAY_CACHE_DIR", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "HOME"), nowhere)
    running = start({"m": ECHO}, env=env)
    assert post(running, "m", {"a": 1}) == (200, {"a": 1})
    assert running.stop() == 0


# ── T32 ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

GREEDY = "class Model:\n    def predict(self, size):\n        return len(bytearray(size))\n"


def test_a_model_over_its_memory_limit_costs_the_gateway_nothing(start: Start) -> None:
    running = start({"m": GREEDY, "other": ECHO}, '[models.m]\nmemory_limit = "512MiB"\n')
    before = resident(running.process.pid)
    assert post(running, "m", 1024**3)[0] == 500
    assert post(running, "m", 1000) == (200, 1000)
    assert post(running, "other", 1) == (200, 1)
    assert resident(running.process.pid) - before < 32 * 1024**2


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


# ── T34: what is broken ──────────────────────────────────────────────────────────────────────────────────────────────

BROKEN_PLUGINS = {
    "import error": "import nothing_of_that_name",
    "syntax error": "def (",
    "exit": "raise SystemExit(1)",
    "unknown parameter": "from gateway import hookimpl\n@hookimpl\ndef find_model(path, colour): ...",
    "hook raises": "from gateway import hookimpl\n@hookimpl\ndef find_model(path, overrides): raise OSError('no')",
    "no spec": "from gateway import hookimpl\n@hookimpl\ndef find_model(path, overrides): return 5",
    "shadows health": (
        "from gateway import Endpoint, hookimpl\n@hookimpl\ndef register_endpoints(register):\n"
        "    for path in ('/livez', '/', '/metrics', '/v1/models', 'no slash', '/models/x/predict', '/admin/x'):\n"
        "        register(Endpoint(path=path, method='predict', dialect='openai_chat'))"
    ),
    "endpoints raise": "from gateway import hookimpl\n@hookimpl\ndef register_endpoints(register): raise OSError('x')",
}
BROKEN_MODELS = {
    "syntax": {"model.py": "class Model: def"},
    "no-class": {"model.py": "class Other: ..."},
    "bad-yaml": {"config.yaml": "a: [", "model/model.py": ECHO},
    "bomb": {"config.yaml": "a: &a [1]\n" + "".join(f"k{n}: &b{n} [*a, *a]\n" for n in range(2000)), "model.py": ECHO},
    "evil-yaml": {"config.yaml": "a: !!python/object/apply:os.system [true]", "model.py": ECHO},
    "leaves": {"config.yaml": "data_dir: ../..", "model.py": ECHO},
    "empty-truss": {"config.yaml": ""},
    "import-error": {"model.py": "import nothing_of_that_name\n" + ECHO},
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/good").mkdir(parents=True)
    (tmp_path / "models/good/model.py").write_text(ECHO)
    return tmp_path


def plug(here: Path, *names: str) -> None:
    files = []
    for name in names:
        files.append(f"{name.replace(' ', '_')}.py")
        (here / files[-1]).write_text(BROKEN_PLUGINS[name])
    (here / "gateway.toml").write_text(f"[gateway]\nplugins = {json.dumps(files)}\n")


def place(here: Path, *names: str) -> None:
    for name in names:
        for file, text in BROKEN_MODELS[name].items():
            path = here / "models" / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


@pytest.mark.parametrize("name", BROKEN_PLUGINS)
def test_a_broken_plugin_is_told_and_harms_no_model(here: Path, name: str) -> None:
    plug(here, name)
    lines = json.loads(CliRunner().invoke(cli, ["doctor", "--json"]).output)
    told = [line for line in lines if name.replace(" ", "_") in line["name"] + line["what"] and line["level"] != "pass"]
    assert told, lines
    assert [line["level"] for line in lines if line["name"] == "model good"] == ["pass"]


@pytest.mark.parametrize("name", BROKEN_MODELS)
def test_a_broken_directory_is_told_and_harms_no_other(here: Path, name: str) -> None:
    place(here, name)
    result = CliRunner().invoke(cli, ["doctor", "--json"])
    levels = {line["name"]: line["level"] for line in json.loads(result.output)}
    assert levels["model good"] == "pass"
    if name != "import-error":  # which only a load can tell
        assert levels[f"model {name}"] == "danger"
        assert result.exit_code == 1


def test_pipes_and_files_without_end_hold_up_nobody(here: Path) -> None:
    """An archive may hold a pipe that nobody writes to, a link to a device, or gigabytes of nothing."""
    beside = {
        "config.yaml": ("model.skops",),
        "SHA256SUMS": ("model.skops",),
        "config.json": ("model.safetensors",),
        "modules.json": (),
        "config_sentence_transformers.json": ("modules.json",),
        "uv.toml": ("model.py",),
    }
    for name, others in beside.items():
        for kind in ("pipe", "device", "large"):
            root = here / "models" / f"{kind}-{name.replace('.', '-')}"
            root.mkdir()
            for other in others:
                (root / other).write_bytes(b"")
            if kind == "pipe":
                os.mkfifo(root / name)
            elif kind == "device":
                (root / name).symlink_to("/dev/zero")
            else:
                (root / name).touch()
                os.truncate(root / name, 1 << 40)
    before = resident(os.getpid())
    result = CliRunner().invoke(cli, ["check", "--json"])
    assert not isinstance(result.exception, Exception), result.exception
    assert resident(os.getpid()) - before < 600_000_000  # most of it modules that it imports
    assert "good" not in {line["model"] for line in json.loads(result.output) if line["level"] == "error"}


def test_metadata_of_other_types_than_they_should_be_are_one_directorys_problem(here: Path) -> None:
    key = b"general.architecture"
    header = struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, len(key)) + key
    for name, value in (("number", struct.pack("<II", 4, 3)), ("list", struct.pack("<IIQI", 9, 4, 1, 3))):
        (here / "models" / name).mkdir()
        (here / "models" / name / "m.gguf").write_bytes(header + value)
    result = CliRunner().invoke(cli, ["check", "--json"])
    found = json.loads(result.output)
    said = {line["model"]: line["what"] for line in found if line["level"] == "error"}
    assert said.keys() == {"number", "list"}
    assert "it has no tensors" in said["number"] and "of the wrong type" in said["list"]


async def served_again(found: Inventory) -> list[str]:
    """The routes of the good model, after a look at all directories."""
    hub = Hub(found.settings, found.plugins, found.specs)
    await look_again(hub, everybody, "somebody")
    routes = {name: hub.catalog.routes(model) for name, model in hub.catalog.models.items()}
    await hub.stop(0)
    return routes["good"]


@pytest.mark.parametrize(
    "look",
    [
        "gateway.directories.discovery.find_unserved",
        "gateway.directories.discovery.other_weights",
        "gateway.inspection.check.placeholders",
        "gateway.inspection.check.read_config",
        "gateway.inspection.check.read_class",
        "gateway.directories.model_warnings.unset",
        "gateway.directories.code.expected_routes.read_class",
    ],
)
def test_whatever_goes_wrong_with_a_directory_is_its_problem_alone(
    here: Path, monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    """In check, at the start and at a reload: an exception that nobody expected, whose text may be of any file."""
    for name, file, text in (
        ("odd", "model.py", ECHO),
        ("odd-data", "config.json", "{}"),
        ("odd-code", "model.py", "("),
    ):
        (here / "models" / name).mkdir()
        (here / "models" / name / file).write_text(text)
    (here / "models/odd-gguf").mkdir()
    (here / "models/odd-gguf/m.gguf").write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, 0))
    found, raised = pkgutil.resolve_name(look), 0

    def broken(first: Any, *rest: Any, **more: Any) -> Any:
        nonlocal raised
        if "odd" in str(first):
            raised += 1
            raise TypeError("what the file says")
        return found(first, *rest, **more)

    monkeypatch.setattr(look, broken)
    result = CliRunner().invoke(cli, ["check", "--json"])
    assert not isinstance(result.exception, Exception), result.exception
    lines = json.loads(result.stdout)
    assert "good" not in {line["model"] for line in lines if line["level"] == "error"}
    told = [line for line in lines if line["code"] == "unexpected" and "TypeError" in line["what"]]
    settings = load_settings(None, environ={})
    found_there = take_inventory(settings, with_devices=False)
    assert "good" in {spec.name for spec in found_there.specs}
    at_start = [each for spec in found_there.specs for each in told_at_start(spec)]
    assert asyncio.run(served_again(found_there))
    told += [{"what": each.what} for each in at_start if each.code == "unexpected"]
    assert raised and (told or "expected_routes" in look)
    assert "what the file says" not in result.stdout + str(at_start)


def test_names_that_no_file_can_have_are_one_directorys_problem(here: Path) -> None:
    long = "n" * 300
    (here / "models/link").symlink_to(long)
    odd = {
        "sums": {"SHA256SUMS": f"{'0' * 64}  {'n' * 200_000}\n", "model.py": ECHO},
        "class": {"config.yaml": f"model_class_filename: {long}.py\n", "model/model.py": ECHO},
        "packages": {"config.yaml": f"bundled_packages_dir: {long}\n", "model.py": ECHO},
        "data": {"config.yaml": f"data_dir: {long}\n", "model.py": ECHO},
        "lines": {"config.yaml": f"requirements_file: {long}.txt\n", "model.py": ECHO},
        "include": {"requirements.txt": f"-r {long}.txt\n", "model.py": ECHO},
        "elsewhere": {"config.yaml": f"external_package_dirs: [{long}]\n", "model.py": ECHO},
        "weights": {"config.yaml": f"weights: [{{source: {long}, mount_location: /{long}}}]\n", "model.py": ECHO},
        "imports": {"model.py": f"import {long}\n{ECHO}"},
        "index": {"model.safetensors.index.json": json.dumps({"weight_map": {"a": long}}), "config.json": "{}"},
    }
    for name, files in odd.items():
        for file, text in files.items():
            (here / "models" / name / file).parent.mkdir(parents=True, exist_ok=True)
            (here / "models" / name / file).write_text(text)
    result = CliRunner().invoke(cli, ["check", "--json"])
    assert not isinstance(result.exception, Exception), result.exception
    lines = json.loads(result.stdout)
    assert "good" not in {line["model"] for line in lines if line["level"] == "error"}
    assert [line for line in lines if line["code"] in ("unexpected", "plugin")] == []
    with Gateway("models", cwd=here, until="settled") as running:
        assert post(running, "good", {"a": 1}) == (200, {"a": 1})


def test_all_that_is_broken_together_leaves_the_good_model_served(here: Path) -> None:
    plug(here, *BROKEN_PLUGINS)
    place(here, *BROKEN_MODELS)
    with Gateway("models", cwd=here, until="settled") as running:
        assert post(running, "good", {"a": 1}) == (200, {"a": 1})
        with urllib.request.urlopen(f"{running.url}/livez", timeout=20) as answer:
            assert json.load(answer)["status"] == "ok"
        with urllib.request.urlopen(f"{running.url}/v1/models", timeout=20) as answer:
            states = {model["id"]: model["status"] for model in json.load(answer)["data"]}
        assert states["good"] == "ready"
        assert states["import-error"] == "failed"


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/health", "/ping", "/", "/metrics", "/v1/models", "/admin/x", "x"]
)
def test_no_plugin_takes_a_path_that_is_the_gateways(here: Path, path: str) -> None:
    (here / "p.py").write_text(
        "from gateway import Endpoint, hookimpl\n@hookimpl\ndef register_endpoints(register):\n"
        f"    register(Endpoint(path={path!r}, method='predict', dialect='openai_chat'))\n"
    )
    plugins = take_inventory(
        Settings(gateway=GatewaySettings(models=(), plugins=(here / "p.py",))), with_devices=False
    ).plugins
    assert path not in {endpoint.path for endpoint in plugins.endpoints()}
    assert any(path in problem.what and "belongs to the gateway" in problem.what for problem in plugins.problems)


def test_the_guard_stands_before_every_plugin(serve: Serve) -> None:
    """What plugins add to the application is behind the outer guard; a walk over all routes is in test_guards.py."""
    served = serve({"m": Model({"predict": lambda body: b"1"})}, api_key="sesame-0123456789")
    for endpoint in served.hub.catalog.endpoints:
        assert served.post(endpoint.path, {}).status == 401


@pytest.mark.parametrize("command", ["check", "models", "plan", "doctor"])
def test_a_tree_that_is_deeper_than_any_path_is_told_in_a_line(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("good", "deep"):
        Path("models", name).mkdir(parents=True)
        Path("models", name, "model.py").write_text(ECHO)
    with contextlib.chdir("models/deep"):
        for _ in range(30):
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
        for name in ("x.gguf", "x.py", "x.yaml"):
            Path(name).touch()
    result = CliRunner().invoke(cli, [command])
    assert not isinstance(result.exception, Exception), result.exception
    said = result.output + caplog.text
    assert "Traceback" not in said
    assert "good" in said or "1 model can be served" in said
    assert len(said) < 8000
    if command in ("check", "doctor"):
        assert "it cannot be checked completely: File name too long" in said
    clearing.clear_away(tmp_path / "models")  # deeper than pytest removes
