"""Trusses that could not share an interpreter, served at the same time by one gateway.

All of them call their modules the same. Their helper packages differ, and one wants a version of click that the
gateway, which uses click itself, could not run with.
"""

from __future__ import annotations

import importlib.metadata
import json
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gateway.testing import Gateway

from .conftest import write_models

NAMES = ("one", "two", "three", "old-click")
# Answers only when a call is inside each of the four models at once.
MODEL = f"""
import importlib.metadata, os, pathlib, time
from helper.version import VERSION
from model.words import NAME

INSIDE = pathlib.Path("../../inside")

class Model:
    def __init__(self, config):
        self.config = config

    def predict(self, round):
        (INSIDE / f"{{round}} {{NAME}}").touch()
        for _ in range(4000):
            if len(list(INSIDE.glob(f"{{round}} *"))) == {len(NAMES)}:
                return {{
                    "name": NAME,
                    "display": self.config["model_name"],
                    "helper": VERSION,
                    "click": importlib.metadata.version("click"),
                    "process": os.getpid(),
                }}
            time.sleep(0.005)
        raise TimeoutError("the other models are not called")
"""
OLD = "8.1.8"


def truss(name: str, version: str, config: str = "") -> dict[str, str]:
    return {
        "config.yaml": f"model_name: The {name}\nruntime: {{predict_concurrency: 8}}\n{config}",
        "model/model.py": MODEL,
        "model/words.py": f"NAME = {name!r}\n",
        "packages/helper/__init__.py": "",
        "packages/helper/version.py": f"VERSION = {version!r}\n",
    }


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    here = tmp_path_factory.mktemp("side-by-side")
    (here / "inside").mkdir()
    (here / "gateway.toml").write_text('[models.old-click]\nenv = "isolated"\n')
    models = {
        "one": truss("one", "1.0"),
        "two": truss("two", "2.0"),
        "three": truss("three", "3.0"),
        "old-click": truss("old-click", "4.0", f'requirements: ["click=={OLD}"]\n'),
    }
    write_models(here / "models", models)
    env = {"GATEWAY_CACHE_DIR": str(here / "cache")}
    with Gateway(here / "models", cwd=here, env=env, timeout=300) as running:
        yield running


def post(url: str, inputs: Any) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(inputs).encode()), timeout=60) as response:
        return json.load(response)


@pytest.mark.parametrize("style", ["/v1/models/{}:predict", "/models/{}/predict", "/models/{}/v1/models/model:predict"])
def test_trusses_with_the_same_names_and_contradicting_packages_answer_at_the_same_time(
    gateway: Gateway, style: str
) -> None:
    asked = [f"{gateway.url}{style.format(name)}" for name in NAMES]
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda url: post(url, style.replace("/", " ")), asked))
    assert [answer["name"] for answer in answers] == list(NAMES)
    assert [answer["display"] for answer in answers] == [f"The {name}" for name in NAMES]
    assert [answer["helper"] for answer in answers] == ["1.0", "2.0", "3.0", "4.0"]
    ours = importlib.metadata.version("click")
    assert ours != OLD
    assert [answer["click"] for answer in answers] == [ours, ours, ours, OLD]
    assert len({answer["process"] for answer in answers}) == len(NAMES)


def test_a_storm_of_calls_to_all_of_them_never_reaches_a_neighbours_helper(gateway: Gateway) -> None:
    rounds = [(name, f"storm {number}") for number in range(6) for name in NAMES]
    with ThreadPoolExecutor(len(rounds)) as pool:
        answers = pool.map(lambda call: post(f"{gateway.url}/models/{call[0]}/predict", call[1]), rounds)
        found = {(answer["name"], answer["helper"]) for answer in answers}
    assert found == {("one", "1.0"), ("two", "2.0"), ("three", "3.0"), ("old-click", "4.0")}
