"""From a truss directory to a model that is ready: imports, constructor arguments, load, and definition errors."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from gateway.near_names import NONE, SMALLEST

from .trusses import Trusses

# What a model gets as `config` for an empty config.yaml.
DEFAULTS = yaml.safe_load("""
apply_library_patches: true
base_image: null
bdn: {access: [], hotload: {enabled: false}, mounts: []}
bis_llm: null
build: {arguments: {}, model_server: TrussServer, no_cache: false, secret_to_path_mapping: {}}
build_commands: []
bundled_packages_dir: packages
cache_internal: []
data_dir: data
description: null
docker_server: null
environment_variables: {}
examples_filename: examples.yaml
external_data: null
external_package_dirs: []
input_type: Any
live_reload: false
model_cache: []
model_class_filename: model.py
model_class_name: Model
model_framework: custom
model_metadata: {}
model_module_dir: model
model_name: null
model_type: Model
python_version: py313
requirements: []
requirements_file: null
resources: {accelerator: null, cpu: "1", memory: 2Gi, use_gpu: false}
runtime:
  egress_restrictions: null
  enable_debug_logs: false
  enable_tracing_data: false
  health_checks: {restart_check_delay_seconds: null, restart_threshold_seconds: null, startup_threshold_seconds: null,
    stop_traffic_threshold_seconds: null}
  is_websocket_endpoint: false
  oidc: {enabled: null}
  predict_concurrency: 1
  remote_ssh: {enabled: false}
  streaming_read_timeout: 60
  transport: {kind: http}
  truss_server_version_override: null
secrets: {}
spec_version: "2.0"
system_packages: []
training_checkpoints: null
trt_llm: null
use_local_src: false
weights: []
""")
CONFIG = """
class Model:
    def __init__(self, config):
        self.config = config

    def predict(self, _):
        return self.config
"""
FULL_CONFIG = """
model_name: My Model
my_own: {deep: [1, 2]}
environment_variables: {FLAG: true, NOTHING: null, NUMBER: 3, TEXT: "x"}
resources: {accelerator: null, cpu: 500m, mine: 1}
runtime: {predict_concurrency: 3, mine: 2}
secrets: {token: default}
model_metadata: {tags: [a]}
"""
EVERYTHING = """
class Model:
    def __init__(self, **kwargs):
        self.given = {name: type(value).__name__ for name, value in kwargs.items()}

    def predict(self, _):
        return self.given
"""
SOME = """
class Model:
    def __init__(self, data_dir, environment, lazy_data_resolver, other=7):
        self.given = [
            type(data_dir).__mro__[1].__name__, str(data_dir), data_dir.is_dir(), environment, other,
            lazy_data_resolver.block_until_download_complete(),
            lazy_data_resolver.block_until_download_complete(log_stats=False, issue_collect=False),
        ]

    def predict(self, _):
        return self.given
"""
BARE = "class Model:\n    def predict(self, x):\n        return x\n"
DATA = """
class Model:
    def __init__(self, data_dir):
        self.text = (data_dir / "file.txt").read_text()

    def predict(self, _):
        return [self.text, open("data/file.txt").read()]
"""
IMPORTS = """
import dataclasses, os, pickle, sys, typing
from model.sibling import NAME
from helper.version import VERSION

@dataclasses.dataclass
class Point:
    x: "int"

class Model:
    def predict(self, _):
        root = os.getcwd()
        return {
            "name": __name__,
            "package": __package__,
            "registered": sys.modules["model.model"].Model is Model,
            "sibling": NAME,
            "helper": VERSION,
            "cwd": os.path.basename(root),
            "first": os.path.samefile(sys.path[0], root),
            "last": [os.path.relpath(path, root) for path in sys.path[-2:]],
            "pickled": pickle.loads(pickle.dumps(Point(1))) == Point(1),
            "hints": typing.get_type_hints(Point) == {"x": int},
        }
"""
OTHER_CLASS = "class Mine:\n    def predict(self, _):\n        return __name__\n"
LIFE = """
import asyncio, os, threading

def loop_runs():
    try:
        asyncio.get_running_loop()
        return True
    except RuntimeError:
        return False

class Model:
    def __init__(self):
        self.told = [["init", loop_runs()]]
        self.thread = threading.current_thread()

    def setup_environment(self, environment):
        self.told.append(["setup", environment])

    def load(self):
        self.told.append(["load", loop_runs(), threading.current_thread() is self.thread, os.environ["FLAG"]])

    def predict(self, _):
        return [*self.told, ["predict", loop_runs(), threading.current_thread() is self.thread]]
"""
ASYNC_LIFE = """
class Model:
    loaded = None
    environment = None

    async def setup_environment(self, environment):
        self.environment = environment

    async def load(self):
        self.loaded = "yes"

    async def predict(self, _):
        return [self.loaded, self.environment]
"""
RETRY = """
class Model:
    inits = loads = 0

    def __init__(self):
        type(self).inits += 1

    def load(self):
        self.loads += 1
        if self.loads < 2:
            raise OSError("not yet")

    def predict(self, _):
        return [self.inits, self.loads]
"""
NEVER_LOADS = """
class Model:
    loads = 0

    def load(self):
        self.loads += 1
        raise RuntimeError(f"attempt {self.loads}")

    def predict(self, _): ...
"""
ASSIGNED = """
class Model:
    def __init__(self):
        self.predict = lambda model_input: ["assigned", model_input]

    def load(self):
        self.chat_completions = lambda body: "too late"
"""
SLOW_LOAD = "import time\nclass Model:\n    def load(self):\n        time.sleep(600)\n    def predict(self, _): ...\n"
ENVIRONMENT_VARIABLES = """
import os
AT_IMPORT = {name: os.environ.get(name) for name in ("FLAG", "NOTHING", "NUMBER", "TEXT")}

class Model:
    def predict(self, _):
        return AT_IMPORT
"""
SHADOWS = """
import multiprocessing
import fastapi
import gateway, gateway.errors, gateway_sklearn
from gateway.errors import WHO

def who(_):
    return gateway.WHO

class Model:
    def load(self):
        import gateway as again
        self.names = [gateway.WHO, WHO, gateway_sklearn.WHO, again is gateway]

    def predict(self, inputs, request: fastapi.Request):
        if inputs == "stream":
            return self._stream()
        if inputs == "raise":
            raise fastapi.HTTPException(418, "short and stout")
        if inputs in ("spawn", "forkserver"):
            with multiprocessing.get_context(inputs).Pool(1) as pool:
                return pool.map(who, [1])
        return [*self.names, request.headers["x-who"], inputs]

    def _stream(self):
        yield "a"
        yield "b"
"""
VARIABLES = "environment_variables: {FLAG: true, NOTHING: null, NUMBER: 3, TEXT: x}\n"


def imports(version: str) -> dict[str, str]:
    """A truss with the same module names as all others, and a helper package of its own."""
    return {
        "config.yaml": "external_package_dirs: [more]\n",
        "model/model.py": IMPORTS,
        "model/sibling.py": f"NAME = 'sibling {version}'\n",
        "packages/helper/version.py": f"VERSION = {version!r}\n",
        "packages/helper/__init__.py": "",
        "more/extra.py": "",
    }


GOOD: dict[str, dict[str, str]] = {
    "config": {"config.yaml": "", "model/model.py": CONFIG},
    "full-config": {"config.yaml": FULL_CONFIG, "model/model.py": CONFIG},
    "everything": {"config.yaml": "", "model/model.py": EVERYTHING},
    "some": {"config.yaml": "", "model/model.py": SOME},
    "bare": {"config.yaml": "", "model/model.py": BARE},
    "data": {"config.yaml": "", "model/model.py": DATA, "data/file.txt": "here"},
    "one": imports("1.0"),
    "two": imports("2.0"),
    "three": imports("3.0"),
    "other-class": {
        "config.yaml": "model_class_name: Mine\nmodel_class_filename: code.py\nmodel_module_dir: src\n",
        "src/code.py": OTHER_CLASS,
    },
    "life": {"config.yaml": VARIABLES, "model/model.py": LIFE},
    "async-life": {"config.yaml": "", "model/model.py": ASYNC_LIFE},
    "retry": {"config.yaml": "", "model/model.py": RETRY},
    "assigned": {"config.yaml": "", "model/model.py": ASSIGNED},
    "shadows": {
        "config.yaml": "weights: [{source: file://data/words.txt}]\n",
        "model/model.py": SHADOWS,
        "data/words.txt": "words",
        "packages/gateway/__init__.py": "WHO = 'mine'\n",
        "packages/gateway/errors.py": "WHO = 'my errors'\n",
        "packages/gateway_sklearn.py": "WHO = 'my sklearn'\n",
    },
    "variables": {"config.yaml": VARIABLES, "model/model.py": ENVIRONMENT_VARIABLES},
}

# ── what cannot be served: the class, and the reason of its failed state ─────────────────────────────────────────────

DEFINITIONS = {
    "two-arguments": (
        "def predict(self, x, y): ...",
        "`predict` method with two arguments must have request as second argument (type annotated). Got: (x, y) "
        '(the body arrives whole, as the first: take one `inputs`, and of that inputs["x"] and inputs["y"])',
    ),
    "default-argument": (
        "def predict(self, x, y=None): ...",
        "`predict` method with two arguments must have request as second argument (type annotated). Got: (x, y=None) "
        '(the body arrives whole, as the first: take one `inputs`, and of that inputs["x"] and inputs["y"])',
    ),
    "stars": (
        "def predict(self, *args, **kwargs): ...",
        "`predict` method with two arguments must have request as second argument (type annotated). "
        "Got: (*args, **kwargs) ",
    ),
    "request-first": (
        "def preprocess(self, request: Request, x): ...\n    def predict(self, x): ...",
        "`preprocess` method with two arguments is not allowed to have request as first argument, request must be "
        "second. Got: (request: starlette.requests.Request, x)",
    ),
    "three-arguments": (
        "def chat_completions(self, a, b, c): ...",
        "`chat_completions` method cannot have more than two arguments. Got: (a, b, c) (the body arrives whole, as the "
        'first: take one `inputs`, and of that inputs["a"], inputs["b"] and inputs["c"])',
    ),
    "health-argument": (
        "def predict(self, x): ...\n    def is_healthy(self, x): ...",
        "`is_healthy` must have only one argument: `self`.",
    ),
    "websocket-arguments": (
        "async def websocket(self, a, b): ...",
        "`websocket` must have only one argument: `websocket`.",
    ),
    "websocket-sync": (
        "def websocket(self, websocket): ...",
        "`websocket` endpoints must be async function definitions.",
    ),
    "websocket-and-predict": (
        "def predict(self, x): ...\n    async def websocket(self, websocket): ...",
        "Truss model cannot have both `websocket` and any of `predict`, `preprocess`, or `postprocess methods.",
    ),
    "neither": ("def load(self): ...", f"{NONE}; {SMALLEST}"),
    "request-only-predict": (
        "def preprocess(self, x): ...\n    def predict(self, request: Request): ...",
        "When using `preprocess`, the predict method cannot only have the request argument (because the result of "
        "`preprocess` would be  discarded).",
    ),
    "request-only-postprocess": (
        "def predict(self, x): ...\n    def postprocess(self, request: Request): ...",
        "The `postprocess` method cannot only have the request argument (because the result of `predict` would be "
        "discarded).",
    ),
}
FAILED: dict[str, dict[str, str]] = {
    **{
        name: {
            "config.yaml": "",
            "model/model.py": f"from starlette.requests import Request\n\nclass Model:\n    {methods}\n",
        }
        for name, (methods, _) in DEFINITIONS.items()
    },
    "relative": {"config.yaml": "", "model/model.py": f"from .sibling import X\n{BARE}", "model/sibling.py": "X = 1"},
    "top-sibling": {"config.yaml": "", "model/model.py": f"import sibling\n{BARE}", "model/sibling.py": ""},
    "missing-module": {"config.yaml": "", "model/model.py": f"import no_such_thing\n{BARE}"},
    "init-raises": {
        "config.yaml": "",
        "model/model.py": "class Model:\n    predict = print\n    def __init__(self):\n        raise KeyError('k')",
    },
    "never-loads": {"config.yaml": "", "model/model.py": NEVER_LOADS},
    "no-retry": {"config.yaml": "environment_variables: {NUM_LOAD_RETRIES_TRUSS: 0}", "model/model.py": NEVER_LOADS},
    "slow-load": {
        "config.yaml": "runtime: {health_checks: {startup_threshold_seconds: 10}}\n",
        "model/model.py": SLOW_LOAD,
    },
    "slow-start": {
        "config.yaml": "runtime: {health_checks: {startup_threshold_seconds: 1}}\n",
        "model/model.py": SLOW_LOAD,
    },
}
TRUSSES = {**GOOD, **FAILED}
SETTINGS = "[models.slow-load]\nload_timeout = 1\n"


# ── the constructor ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_config_is_complete_though_the_file_is_empty(truss: Trusses) -> None:
    assert truss.call("config", None) == DEFAULTS


def test_config_keeps_unknown_keys_at_every_level(truss: Trusses) -> None:
    expected = {
        **DEFAULTS,
        "model_name": "My Model",
        "my_own": {"deep": [1, 2]},
        "environment_variables": {"FLAG": "true", "NOTHING": "None", "NUMBER": "3", "TEXT": "x"},
        "resources": {**DEFAULTS["resources"], "cpu": "500m", "mine": 1},
        "runtime": {**DEFAULTS["runtime"], "predict_concurrency": 3, "mine": 2},
        "secrets": {"token": "default"},
        "model_metadata": {"tags": ["a"]},
    }
    assert truss.call("full-config", None) == expected


def test_a_constructor_that_takes_everything_gets_these_five_and_nothing_else(truss: Trusses) -> None:
    given = truss.call("everything", None)
    assert given.pop("data_dir") in ("PosixPath", "WindowsPath")
    assert given.pop("environment") == "NoneType"
    assert sorted(given) == ["config", "lazy_data_resolver", "secrets"]
    assert given["config"] == "dict"


def test_a_constructor_gets_what_it_names_and_the_data_directory_is_a_relative_path(truss: Trusses) -> None:
    assert truss.call("some", None) == ["Path", "data", True, None, 7, "", ""]


def test_a_class_without_a_constructor_is_fine(truss: Trusses) -> None:
    assert truss.call("bare", [1]) == [1]


def test_bundled_data_is_found_through_the_argument_and_from_the_working_directory(truss: Trusses) -> None:
    assert truss.call("data", None) == ["here", "here"]


# ── imports ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "version"), [("one", "1.0"), ("two", "2.0"), ("three", "3.0")])
def test_trusses_with_the_same_module_names_and_different_helpers_serve_side_by_side(
    truss: Trusses, name: str, version: str
) -> None:
    assert truss.call(name, None) == {
        "name": "model.model",
        "package": None,
        "registered": True,
        "sibling": f"sibling {version}",
        "helper": version,
        "cwd": name,
        "first": True,
        "last": ["packages", "more"],
        "pickled": True,
        "hints": True,
    }


def test_a_bundled_package_with_our_name_is_the_models_own(truss: Trusses) -> None:
    found = truss.call("shadows", 1, x_who="me")
    assert found == ["mine", "my errors", "my sklearn", True, "me", 1]
    assert truss.predict("shadows", b'"stream"', x_who="me").body == b"ab"
    assert truss.predict("shadows", b'"raise"', x_who="me").error[::2] == (418, "short and stout")
    import msgpack

    packed = truss.predict("shadows", msgpack.packb(2), "application/octet-stream", x_who="me")
    assert msgpack.unpackb(packed.body)[-1] == 2


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_process_that_the_model_spawns_has_its_bundled_package_too(truss: Trusses, method: str) -> None:
    assert truss.call("shadows", method) == ["mine"]


def test_file_class_and_directory_may_have_other_names(truss: Trusses) -> None:
    assert truss.call("other-class", None) == "code"


def test_variables_of_the_config_are_there_when_the_file_is_imported(truss: Trusses) -> None:
    assert truss.call("variables", None) == {"FLAG": "true", "NOTHING": "None", "NUMBER": "3", "TEXT": "x"}


def test_a_relative_import_is_refused_with_what_to_write_instead(truss: Trusses) -> None:
    reason = truss.reason("relative")
    assert reason.startswith("ImportError: ")
    assert "replace them with absolute imports" in reason


def test_a_sibling_is_not_a_top_level_module(truss: Trusses) -> None:
    reason = truss.reason("top-sibling")
    assert reason.startswith("ModuleNotFoundError: No module named 'sibling'")
    assert "import it as model.sibling" in reason


def test_a_missing_module_that_may_be_a_file_is_no_package_to_install(truss: Trusses) -> None:
    expected = "ModuleNotFoundError: No module named 'no_such_thing'; if it is your own code, put no_such_thing.py"
    assert truss.reason("missing-module").startswith(expected)


# ── load ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_init_and_load_share_a_thread_without_a_loop_and_predict_has_another(truss: Trusses) -> None:
    assert truss.call("life", None) == [["init", False], ["load", False, True, "true"], ["predict", False, False]]


def test_an_async_load_is_awaited_and_without_an_environment_there_is_no_setup(truss: Trusses) -> None:
    assert truss.call("async-life", None) == ["yes", None]


def test_a_load_that_fails_has_a_second_attempt_on_the_same_instance(truss: Trusses) -> None:
    assert truss.call("retry", None) == [1, 2]


def test_a_load_that_fails_twice_fails_the_model(truss: Trusses) -> None:
    assert truss.reason("never-loads") == "RuntimeError: attempt 2"


def test_the_number_of_attempts_is_trusss_variable(truss: Trusses) -> None:
    assert truss.reason("no-retry") == "RuntimeError: attempt 1"


@pytest.mark.parametrize("name", ["slow-load", "slow-start"])  # gateway.toml says so, or config.yaml
def test_a_load_that_takes_too_long_is_ended(truss: Trusses, name: str) -> None:
    assert truss.reason(name) == "the load took longer than 1 s and was ended"


def test_a_constructor_that_raises_fails_the_model(truss: Trusses) -> None:
    assert truss.reason("init-raises") == "KeyError: 'k'"


def test_a_method_may_be_assigned_in_the_constructor_but_not_in_load(truss: Trusses) -> None:
    assert truss.call("assigned", 1) == ["assigned", 1]
    body = b'{"model": "assigned", "messages": [{"role": "user", "content": "hi"}]}'
    answer = truss.ask("POST", "/v1/chat/completions", body)
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (404, "route_not_supported")


# ── definition errors ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_class_that_cannot_be_served_fails_with_trusss_words(truss: Trusses, name: str) -> None:
    words: Any = DEFINITIONS[name][1]
    assert truss.reason(name) == f"ModelDefinitionError: {words}"


def test_the_others_serve_all_the_same(truss: Trusses) -> None:
    assert truss.gateway.states() == {**dict.fromkeys(GOOD, "ready"), **dict.fromkeys(FAILED, "failed")}
