"""The schema route: what a truss's annotations say of its inputs and outputs."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.testing import Gateway

from .trusses import JSON, Trusses

HEAD = """
from typing import *
import collections.abc
from pydantic import BaseModel
from starlette.requests import Request

class In(BaseModel):
    text: str

class Out(BaseModel):
    n: int

class Model:
"""
IN = {
    "properties": {"text": {"title": "Text", "type": "string"}},
    "required": ["text"],
    "title": "In",
    "type": "object",
}
OUT = {
    "properties": {"n": {"title": "N", "type": "integer"}},
    "required": ["n"],
    "title": "Out",
    "type": "object",
}
# Methods, and the answer: input_schema, output_schema, supports_streaming.
CASES: dict[str, tuple[str, Any, Any, Any]] = {
    "model": ("def predict(self, x: In) -> Out: ...", IN, OUT, False),
    "generator": ("def predict(self, x: In) -> Generator[str, None, None]: yield ''", IN, None, True),
    "async-generator": ("async def predict(self, x: In) -> AsyncGenerator[str, None]: yield ''", IN, None, True),
    "iterator": ("def predict(self, x: In) -> Iterator[bytes]: yield b''", IN, None, True),
    "async-iterator": ("def predict(self, x: In) -> AsyncIterator[bytes]: ...", IN, None, True),
    "abc-iterator": ("def predict(self, x: In) -> collections.abc.Iterator[str]: ...", IN, None, True),
    "awaitable": ("def predict(self, x: In) -> Awaitable[Out]: ...", IN, OUT, False),
    "coroutine": ("async def predict(self, x: In) -> Out: ...", IN, OUT, False),
    "union": ("def predict(self, x: In) -> Union[Out, Generator[str, None, None]]: ...", IN, OUT, True),
    "awaitable-union": (
        "async def predict(self, x: In) -> Union[Awaitable[Out], AsyncGenerator[str, None]]: ...",
        IN,
        OUT,
        True,
    ),
    "pipe": ("def predict(self, x: In) -> Out | collections.abc.Iterator[str]: ...", IN, None, None),
    "optional": ("def predict(self, x: In) -> Optional[Out]: ...", IN, None, None),
    "three-arms": ("def predict(self, x: In) -> Union[Out, str, Generator[str, None, None]]: ...", IN, None, None),
    "plain-output": ("def predict(self, x: In) -> dict: ...", IN, None, None),
    "input-only": ("def predict(self, x: In): ...", IN, None, None),
    "output-only": ("def predict(self, x) -> Out: ...", None, OUT, False),
    "generator-only": ("def predict(self, x) -> Generator[str, None, None]: yield ''", None, None, True),
    "bare-generator": ("def predict(self, x) -> Generator: yield ''", None, None, True),
    "with-request": ("def predict(self, x: In, request: Request) -> Out: ...", IN, OUT, False),
    "string": ("def predict(self, x: 'In') -> 'Out': ...", IN, OUT, False),
    "pipeline": (
        "def preprocess(self, x: In): ...\n"
        "    def predict(self, x: Out) -> In: ...\n"
        "    def postprocess(self, x) -> Out: ...",
        IN,
        OUT,
        False,
    ),
}
UNTYPED = {
    "untyped": "def predict(self, x): ...",
    "builtins": "def predict(self, x: dict) -> list: ...",
    "hidden": "def preprocess(self, x): ...\n    def predict(self, x: In): ...",
    "chat-only": "def chat_completions(self, x: In) -> Out: ...",
    "websocket": "async def websocket(self, websocket): ...",
}
TRUSSES = {
    name: {"config.yaml": "", "model/model.py": f"{HEAD}    {methods}\n"}
    for name, methods in {**{name: case[0] for name, case in CASES.items()}, **UNTYPED}.items()
}


@pytest.mark.parametrize("name", CASES)
def test_a_schema_follows_the_annotations(truss: Trusses, name: str) -> None:
    _, inputs, outputs, streaming = CASES[name]
    answer = truss.get(f"/v1/models/{name}/schema")
    assert (answer.status, answer.content_type) == (200, JSON)
    found = json.loads(answer.body)
    assert list(found) == ["input_schema", "output_schema", "supports_streaming"]
    assert found == {"input_schema": inputs, "output_schema": outputs, "supports_streaming": streaming}


@pytest.mark.parametrize("name", UNTYPED)
def test_a_model_that_is_not_typed_has_no_schema(truss: Trusses, name: str) -> None:
    assert truss.get(f"/v1/models/{name}/schema").error == (404, "600", "No schema found")


# Says where it is in a file, and goes on when there is another.
GATED = f"""
import pathlib, time

def wait(stage):
    pathlib.Path("../../at-" + stage).touch()
    while not pathlib.Path("../../go-" + stage).exists():
        time.sleep(0.005)

wait("import-" + pathlib.Path.cwd().name)
{HEAD}    def load(self):
        wait("load-" + pathlib.Path.cwd().name)

"""


def schema_of(gateway: Gateway, model: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"{gateway.url}/v1/models/{model}/schema", timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            assert error.headers["x-baseten-error-code"] == "600"
            return error.code, json.load(error)["error"]


def wait_until(holds: Callable[[], bool]) -> None:
    waited = threading.Event()
    for _ in range(2000):
        if holds():
            return
        waited.wait(0.01)
    raise TimeoutError("it never came to that")


def test_a_schema_is_known_when_the_class_is_and_its_absence_when_the_model_is_loaded(
    serve: Callable[..., Gateway], tmp_path: Path
) -> None:
    models = {"typed": "    def predict(self, x: In): ...\n", "untyped": "    def predict(self, x): ...\n"}
    gateway = serve(
        {name: {"config.yaml": "", "model/model.py": GATED + text} for name, text in models.items()},
        until="accepting",
    )
    later = "Schema not available, please try again later."
    known = {"input_schema": IN, "output_schema": None, "supports_streaming": None}
    loading = {"typed": (200, known), "untyped": (503, later)}
    for name in models:
        wait_until((tmp_path / f"at-import-{name}").exists)
        assert schema_of(gateway, name) == (503, f"Model with name {name} is not ready: model '{name}' is loading.")
        (tmp_path / f"go-import-{name}").touch()
        wait_until((tmp_path / f"at-load-{name}").exists)
        wait_until(lambda name=name: schema_of(gateway, name) == loading[name])  # type: ignore[misc]
    for name in models:
        (tmp_path / f"go-load-{name}").touch()
        gateway.wait_for(f"model '{name}' is ready")
    assert schema_of(gateway, "typed") == (200, known)
    assert schema_of(gateway, "untyped") == (404, "No schema found")
