"""What `gateway.testing` gives to people who test their models."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from gateway.access import keys
from gateway.testing import Gateway

from .conftest import write_models

ECHO = "class Model:\n    def predict(self, inputs):\n        return inputs\n"
FAILING = (  # with an error of the code, which no other try of the load could mend
    "class Model:\n    def load(self):\n        raise ImportError('no weights')\n    def predict(self, inputs): ...\n"
)

SLOW = "import time\ntime.sleep(0.3)\n" + ECHO  # it is loading still when the gateway answers

CONFTEST = 'pytest_plugins = ["gateway.testing"]\n'
THEIR_TEST = """
import json, urllib.request

def test_my_model(start_gateway):
    gateway = start_gateway("models")
    with urllib.request.urlopen(f"{gateway.url}/v1/models/echo:predict", b"[1]") as response:
        assert json.load(response) == [1]
"""


def test_the_fixture_works_in_a_project_of_its_own(tmp_path: Path) -> None:
    write_models(tmp_path / "models", {"echo": {"model.py": ECHO}})
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_mine.py").write_text(THEIR_TEST)
    done = subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=tmp_path, capture_output=True, text=True)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_class_alone_needs_no_pytest() -> None:
    script = "import gateway.testing, sys; sys.exit('pytest' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_model_that_is_not_ready_ends_the_start_with_the_log(tmp_path: Path) -> None:
    write_models(tmp_path, {"failing": {"model.py": FAILING}})
    with pytest.raises(RuntimeError, match="no weights"):
        Gateway(tmp_path, cwd=tmp_path).__enter__()


@pytest.mark.parametrize("model", [SLOW, FAILING], ids=["slow", "failing"])
def test_a_gateway_that_needs_a_key_is_waited_for_too(tmp_path: Path, model: str) -> None:
    write_models(tmp_path / "models", {"m": {"model.py": model}})
    key, _ = keys.create("ada")
    keys.write(tmp_path / "keys.toml", [key])
    if model == FAILING:
        with pytest.raises(RuntimeError, match="no weights"):
            Gateway("models", cwd=tmp_path).__enter__()
        return
    with Gateway("models", cwd=tmp_path, env={"GATEWAY_API_KEY": "sesame"}) as gateway:
        assert gateway.states() == {"m": "ready"}
    with Gateway("models", cwd=tmp_path) as gateway:
        assert gateway.states() == {} and "model 'm' is ready" in gateway.log


def test_a_gateway_that_does_not_start_ends_the_wait_with_the_log(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="this model root does not exist"), Gateway(tmp_path / "nothing"):
        pass


def test_the_shared_gateway_has_the_light_demo_models(gateway: Gateway) -> None:
    assert set(gateway.states()) == {"shout", "text-stats", "ticker"}
    with urllib.request.urlopen(f"{gateway.url}/v1/models") as response:
        assert {model["status"] for model in json.load(response)["data"]} == {"ready"}
