"""What lies around a truss: its secrets, the environment file, its end, and models without a predict."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.testing import Gateway

from .conftest import write_models

Serve = Callable[..., Gateway]

SECRETS = """
def attempt(function):
    try:
        return function()
    except Exception as error:
        return [type(error).__name__, isinstance(error, KeyError), str(error)]

class Model:
    def __init__(self, secrets):
        self.secrets = secrets
        self.early = attempt(lambda: secrets["from_config"])

    def predict(self, names):
        secrets = self.secrets
        return {
            "early": self.early,
            "values": {name: attempt(lambda: secrets[name]) for name in names},
            "get": [secrets.get("unknown", "fallback"), secrets.get("from_config", "fallback")],
            "in": [name in secrets for name in ("from_config", "empty", "unknown")],
            "names": sorted(secrets),
            "len": len(secrets),
        }
"""
DECLARED = """
secrets: {from_config: "config", from_environment: "config", from_directory: "config", from_both: null, empty: null}
"""
SETUP = """
class Model:
    def __init__(self, environment):
        self.told = [["init", environment]]

    def setup_environment(self, environment):
        self.told.append(["setup", environment])

    def load(self):
        self.told.append(["load"])

    def predict(self, _):
        return self.told
"""
ASYNC_SETUP = SETUP.replace("def setup_environment", "async def setup_environment")
ROTATING = """
class Model:
    def __init__(self, secrets):
        self.secrets, self.told = secrets, []

    async def setup_environment(self, environment):
        self.told.append(environment)
        print("heard of", environment["name"])
        if environment["name"] == "broken":
            raise ValueError("setup_environment failed")

    def predict(self, _):
        return [self.secrets["token"], self.told]
"""
UNLOAD = """
import pathlib

class Model:
    def predict(self, x):
        return x

    def unload(self):
        pathlib.Path("../../unloaded").write_text("sync")
"""
ASYNC_UNLOAD = """
import asyncio, pathlib

class Model:
    async def predict(self, x):
        return x

    async def unload(self):
        await asyncio.sleep(0)
        pathlib.Path("../../async-unloaded").write_text("async")
"""

LOGGING = """
import logging

log = logging.getLogger("mine")
log.info("imported")

class Model:
    def load(self):
        log.debug("loading in detail")

    def predict(self, x):
        log.info("asked for %s", x)
        return x
"""


LOGGING_OF_CALLS = """
import logging

log = logging.getLogger("mine")

class Model:
    def predict(self, kind):
        return {"sync": self.sync, "coroutine": self.coroutine, "generator": self.items}.get(kind, self.aitems)(kind)

    def sync(self, kind):
        log.info(kind)

    async def coroutine(self, kind):
        log.info(kind)

    def items(self, kind):
        yield "one"
        log.info(kind)

    async def aitems(self, kind):
        yield "one"
        log.info(kind)
"""


ECHO = "class Model:\n    def predict(self, x):\n        return x\n"
ENVIRON = "import os\nclass Model:\n    def predict(self, _):\n        return 'very-secret' in str(dict(os.environ))\n"
CONFIG = """
class Model:
    def __init__(self, config):
        self.config = config
    def predict(self, keys):
        return [self.config[key] for key in keys]
"""
OF_THE_CLOUD = """
live_reload: true
base_image: {image: nvidia/cuda, python_executable_path: /usr/bin/python3}
system_packages: [ffmpeg]
build_commands: ["false"]
python_version: py39
external_data: [{url: "https://example.com/x", local_data_path: x}]
model_cache: [{repo_id: owner/name, revision: main}]
resources: {memory: 900Ti, instance_type: "H100:8x80", fabric: true}
runtime:
  enable_tracing_data: true
  oidc: {enabled: true}
  remote_ssh: {enabled: true}
  truss_server_version_override: 0.9.0
  health_checks: {restart_threshold_seconds: 1, stop_traffic_threshold_seconds: 1, restart_check_delay_seconds: 1}
training: {of: "an unknown key"}
"""
# What the gateway of this file serves: config.yaml and the code of each.
MODELS = {
    "asked": ("secrets: {token: null}\n", ENVIRON),
    "async-setup": ("", ASYNC_SETUP),
    "calls": ("runtime: {predict_concurrency: 4}\n", LOGGING_OF_CALLS),
    "cloud": (OF_THE_CLOUD, CONFIG),
    "loud": ("runtime: {enable_debug_logs: true}\n", LOGGING),
    "quiet": ("", LOGGING),
    "secrets": (DECLARED, SECRETS),
    "setup": ("", SETUP),
}
TOLD = {"name": "staging", "more": [1]}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with secrets from everywhere and an environment file."""
    here = tmp_path_factory.mktemp("surroundings")
    models = {name: {"config.yaml": config, "model/model.py": code} for name, (config, code) in MODELS.items()}
    write_models(here / "models", models)
    (here / "secrets").mkdir()
    for name in ("from_directory", "from_both", "unknown"):
        (here / "secrets" / name).write_text(" directory\n")
    (here / "environment.json").write_text(json.dumps(TOLD))
    settings = '[gateway]\nsecrets_dir = "secrets"\nenvironment_file = "environment.json"\n'
    (here / "gateway.toml").write_text(settings)
    variables = dict.fromkeys(("from_environment", "from_both", "unknown"), "environment") | {"token": "very-secret"}
    env = {f"TRUSS_SECRET_{name}": value for name, value in variables.items()}
    with Gateway(here / "models", cwd=here, env=env) as running:
        yield running


def predict(gateway: Gateway, model: str, inputs: Any) -> Any:
    request = urllib.request.Request(f"{gateway.url}/v1/models/{model}:predict", json.dumps(inputs).encode())
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def test_secrets_are_looked_up_by_declared_name_in_trusss_order(gateway: Gateway) -> None:
    names = ["from_config", "from_environment", "from_directory", "from_both", "empty", "unknown"]
    found = predict(gateway, "secrets", names)
    empty, unknown = found["values"].pop("empty"), found["values"].pop("unknown")
    assert found["early"] == "config"
    assert found["values"] == {
        "from_config": "config",
        "from_environment": "environment",
        "from_directory": " directory\n",  # as it is, not stripped
        "from_both": "environment",
    }
    for name, raised in (("empty", empty), ("unknown", unknown)):
        assert raised[:2] == ["SecretNotFound", True]
        assert name in raised[2]
        assert "secret manager" in raised[2]
    assert found["get"] == ["fallback", "config"]
    assert found["in"] == [True, False, False]
    assert found["names"] == sorted(names[:-1])
    assert found["len"] == 5


def test_secrets_are_not_in_the_environment_of_the_model_nor_in_the_log(gateway: Gateway) -> None:
    assert predict(gateway, "asked", None) is False
    assert "very-secret" not in gateway.log


@pytest.mark.parametrize("model", ["setup", "async-setup"])
def test_the_environment_file_feeds_constructor_and_setup_before_load(gateway: Gateway, model: str) -> None:
    assert predict(gateway, model, None) == [["init", TOLD], ["setup", TOLD], ["load"]]


def test_without_an_environment_file_setup_is_not_called(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text('[gateway]\nenvironment_file = "missing.json"\n')
    gateway = serve({"m": {"config.yaml": "", "model/model.py": SETUP}})
    assert predict(gateway, "m", None) == [["init", None], ["load"]]


@pytest.mark.slow  # the sources are looked at every 30 s, as under Truss
def test_a_secret_and_an_environment_that_change_reach_the_running_model(serve: Serve, tmp_path: Path) -> None:
    for name, text in (("token", "old"), ("environment.json", '{"name": "staging"}')):
        (tmp_path / name).write_text(text)
    (tmp_path / "gateway.toml").write_text('[gateway]\nsecrets_dir = "."\nenvironment_file = "environment.json"\n')
    gateway = serve({"m": {"config.yaml": "secrets: {token: null}\n", "model/model.py": ROTATING}})
    assert predict(gateway, "m", None) == ["old", [{"name": "staging"}]]

    (tmp_path / "token").write_text("new")
    (tmp_path / "environment.json").write_text('{"name": "broken"}')
    gateway.wait_for("setup_environment failed", timeout=40)  # and the model serves on
    assert predict(gateway, "m", None) == ["new", [{"name": "staging"}, {"name": "broken"}]]
    (tmp_path / "environment.json").write_text('{"name": "production"}')
    gateway.wait_for("heard of production", timeout=40)
    assert predict(gateway, "m", None)[1][-1] == {"name": "production"}


def test_unload_is_called_when_the_gateway_stops(serve: Serve, tmp_path: Path) -> None:
    models = {
        "one": {"config.yaml": "", "model/model.py": UNLOAD},
        "two": {"config.yaml": "", "model/model.py": ASYNC_UNLOAD},
    }
    gateway = serve(models)
    assert gateway.stop() == 0
    assert (tmp_path / "unloaded").read_text() == "sync"
    assert (tmp_path / "async-unloaded").read_text() == "async"


def test_while_a_model_loads_its_routes_are_503_and_the_root_is_true(serve: Serve, tmp_path: Path) -> None:
    wait = "import pathlib, time\nwhile not pathlib.Path('../../go').exists():\n    time.sleep(0.01)\n"
    gateway = serve({"late": {"config.yaml": "", "model/model.py": wait + ECHO}}, until="accepting")
    for path, data in (
        ("/v1/models/late:predict", b"1"),
        ("/v1/models/late:predict", b"{"),  # it is not even parsed
        ("/v1/models/model/loaded", None),
        ("/v1/models/late/schema", None),
        ("/ping", None),
    ):
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(urllib.request.Request(f"{gateway.url}{path}", data), timeout=30)
        with raised.value as answer:
            assert answer.code == 503
            assert answer.headers["x-baseten-error-source"] == "04"
            assert answer.headers["x-baseten-error-code"] == "600"
            assert 1 <= int(answer.headers["retry-after"]) <= 110
            assert json.load(answer) == {"error": "Model with name late is not ready: model 'late' is loading."}
    with urllib.request.urlopen(f"{gateway.url}/") as root:
        assert root.read() == b"true"
    (tmp_path / "go").touch()
    gateway.wait_for(r"model 'late' is ready")
    assert predict(gateway, "late", 1) == 1


def test_without_a_sole_or_default_model_invocations_is_404_and_ping_is_readiness(gateway: Gateway) -> None:
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(urllib.request.Request(f"{gateway.url}/invocations", b"1"), timeout=30)
    with raised.value as answer:
        assert (answer.code, answer.headers["x-baseten-error-code"]) == (404, "600")
        words = "there are several models and no default_model; name one, as in /models/asked/predict"
        assert json.load(answer) == {"error": f"{words} (have: {', '.join(MODELS)})"}
    with urllib.request.urlopen(f"{gateway.url}/ping") as ping:
        assert (ping.status, ping.read()) == (200, b"{}")


def test_what_a_model_logs_stands_in_its_log_from_info_on_or_from_debug_when_it_says_so(gateway: Gateway) -> None:
    for name in ("quiet", "loud"):
        predict(gateway, name, f"this by {name}")
        gateway.wait_for(rf"{name} \| \[[0-9a-f]{{32}}\] INFO mine: asked for this by {name}")
        assert f"{name} | INFO mine: imported" in gateway.log
    assert "loud | DEBUG mine: loading in detail" in gateway.log
    assert "quiet | DEBUG" not in gateway.log


@pytest.mark.parametrize("header", ["x-baseten-request-id", "x-request-id"])
def test_what_a_model_logs_for_a_call_has_the_calls_id(gateway: Gateway, header: str) -> None:
    for kind in ("sync", "coroutine", "generator", "async generator"):
        call = f"id-of-{kind.replace(' ', '-')}-as-{header}"
        url = f"{gateway.url}/v1/models/calls:predict"
        with urllib.request.urlopen(
            urllib.request.Request(url, json.dumps(kind).encode(), {header: call}), timeout=30
        ) as response:
            assert response.headers["x-request-id"] == call
            response.read()
        gateway.wait_for(rf"calls \| \[{call}\] INFO mine: {kind}")


def test_a_truss_that_cannot_be_hosted_says_why_with_its_line_and_stops_nobody(serve: Serve) -> None:
    good = {"config.yaml": "", "model/model.py": ECHO}
    refused = {
        "docker": ("docker_server: {start_command: vllm serve}", "starts its own server in a container"),
        "trt": ("trt_llm: {build: {}}", "runs on Baseten's TensorRT-LLM engine"),
        "bis": ("bis_llm: {}", "runs on Baseten's inference stack"),
        "checkpoints": ("training_checkpoints: {}", "wants the checkpoints of Baseten's training"),
        "grpc": (
            "runtime: {transport: {kind: grpc}}",
            "this model speaks gRPC (transport.kind), which cannot be hosted here",
        ),
        "workers": ("runtime: {num_workers: 2}", "num_workers must be 1"),
        "twice": ("requirements: [a]\nrequirements_file: b", "requirements and requirements_file exclude each other"),
        "caches": ("model_cache: [{repo_id: a}]\nweights: [{source: 'hf://a/b'}]", "model_cache and weights exclude"),
        "uncached": ("build: {no_cache: true}", "build.no_cache cannot be set in the file"),
    }
    models = {name: {**good, "config.yaml": f"{config}\n"} for name, (config, _) in refused.items()}
    models["yml"] = {"config.yml": "", "model/model.py": good["model/model.py"]}
    models["codeless"] = {"config.yaml": ""}
    gateway = serve({**models, "good": good}, until="settled")
    for name, (_, words) in refused.items():
        gateway.wait_for(rf"/{name}/config\.yaml:\d+: .*{re.escape(words)}")
    gateway.wait_for(r"/yml/config\.yml: .*Did you mean to rename it\?")
    gateway.wait_for(r"/codeless: No module class file found: model/model\.py")
    assert gateway.states() == {**dict.fromkeys(models, "failed"), "good": "ready"}
    assert predict(gateway, "good", 1) == 1


def test_keys_of_the_cloud_and_of_image_builds_change_nothing(gateway: Gateway) -> None:
    found = predict(gateway, "cloud", ["live_reload", "system_packages", "python_version", "training"])
    assert found == [True, ["ffmpeg"], "py39", {"of": "an unknown key"}]
