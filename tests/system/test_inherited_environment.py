"""What programs that are run for a model see of the gateway's environment."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from gateway.system import inherited_environment

PACKAGE = Path(inherited_environment.__file__).parents[1]
SECRETS = dict.fromkeys(
    "GATEWAY_API_KEY GATEWAY_API_KEY_FILE GATEWAY_SECRET_HF_TOKEN GATEWAY_SECRETS_DIR TRUSS_SECRET_X HF_TOKEN "
    "OPENAI_API_KEY AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN GOOGLE_APPLICATION_CREDENTIALS GITHUB_TOKEN "
    "SSH_AUTH_SOCK UV_PUBLISH_TOKEN UV_PUBLISH_PASSWORD PIP_PASSWORD UV_COMPILE_BYTECODE TWINE_PASSWORD "
    "DATABASE_URL PASSWORD LD_PRELOAD PYTHONSTARTUP GIT_SSH_COMMAND GIT_ASKPASS DBUS_SESSION_BUS_ADDRESS".split(),
    "s",
)
NEEDED = dict.fromkeys(
    "HOME LANG LC_ALL HTTPS_PROXY no_proxy SSL_CERT_FILE REQUESTS_CA_BUNDLE UV_DEFAULT_INDEX UV_INDEX "
    "UV_INDEX_TEAM_USERNAME UV_INDEX_TEAM_PASSWORD UV_EXTRA_INDEX_URL PIP_INDEX_URL PIP_EXTRA_INDEX_URL "
    "PIP_CONFIG_FILE UV_CACHE_DIR CUDA_HOME".split(),
    "n",
)


def test_a_build_sees_what_it_needs_to_reach_an_index_and_no_secret_of_anybody() -> None:
    assert inherited_environment.of_builds({**SECRETS, **NEEDED}) == NEEDED


def test_a_worker_sees_where_things_are_and_no_secret_of_anybody() -> None:
    found = inherited_environment.of_workers({**SECRETS, **NEEDED, "HF_HOME": "h", "PYTHONPATH": "/p"})
    assert not found.keys() & SECRETS.keys()
    assert {"HOME", "LANG", "LC_ALL", "HTTPS_PROXY", "HF_HOME", "PYTHONPATH", "CUDA_HOME"} <= found.keys()
    assert not [name for name in found if name.startswith(("UV_", "PIP_"))]


@pytest.mark.parametrize("name", ["PATH", "LD_LIBRARY_PATH"])
def test_relative_entries_of_a_search_path_mean_where_the_gateway_is(name: str) -> None:
    value = os.pathsep.join(("", "bin", "/usr/bin", "."))
    expected = os.pathsep.join((str(Path.cwd() / "bin"), "/usr/bin", str(Path.cwd())))
    assert inherited_environment.of_builds({name: value})[name] == expected
    assert inherited_environment.of_workers({name: value})[name] == expected


def test_every_program_that_the_gateway_runs_is_given_an_environment_that_was_chosen_for_it() -> None:
    """By the source: nothing is started with the gateway's own, and none of it is spread into another."""
    starts = {"run", "Popen", "call", "check_call", "check_output", "create_subprocess_exec", "create_subprocess_shell"}
    found = 0
    for path in PACKAGE.rglob("*.py"):
        where = path.relative_to(PACKAGE).as_posix()
        if where == "testing.py":  # starts gateways, for tests
            continue
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in starts:
                owner = ast.unparse(node.func.value)
                if owner in ("subprocess", "asyncio", "asyncio.subprocess"):
                    if owner == "asyncio" and node.func.attr == "run":
                        continue
                    found += 1
                    assert any(word.arg == "env" for word in node.keywords), f"{where}:{node.lineno} inherits all"
            if isinstance(node, ast.Attribute) and node.attr in ("system", "popen", "spawnv", "posix_spawn", "execv"):
                assert ast.unparse(node.value) != "os", f"{where}:{node.lineno} inherits all"
            if isinstance(node, ast.Dict) and where != "worker/sandbox/start.py":
                spread = [ast.unparse(value) for key, value in zip(node.keys, node.values, strict=True) if key is None]
                assert "os.environ" not in spread, f"{where}:{node.lineno} hands on all"
    assert found >= 5, "the worker, the reaper, the build, the trial of the sandbox, and an interpreter's packages"
