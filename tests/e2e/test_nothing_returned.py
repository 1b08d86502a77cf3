"""A method that lacks its `return` answers None, which is legal: the model's log asks once."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from gateway.testing import Gateway

FORGOT = {
    "sync": ("predict", "def predict(self, x):\n        x['sum'] = 1\n"),
    "awaited": ("predict", "async def predict(self, x):\n        x['sum'] = 1\n"),
    "chats": ("chat_completions", "def chat_completions(self, body):\n        body.get('messages')\n"),
    "before": ("preprocess", "def preprocess(self, x):\n        pass\n\n    def predict(self, x):\n        return 1\n"),
    "after": (
        "postprocess",
        "def predict(self, x):\n        return 1\n\n    def postprocess(self, x):\n        return\n",
    ),
    "between": ("predict", "def predict(self, x):\n        pass\n\n    def postprocess(self, x):\n        return 1\n"),
}
MEANT = {
    "written": "def predict(self, x):\n        if x:\n            return None\n",
    "annotated": "def predict(self, x) -> None:\n        pass\n",
    "either": "def predict(self, x) -> 'int | None':\n        pass\n",
    "yields": "def predict(self, x):\n        yield None\n",
}


@pytest.fixture
def gateway(serve: Callable[..., Gateway]) -> Gateway:
    methods = {**{name: text for name, (_, text) in FORGOT.items()}, **MEANT}
    return serve({name: {"model.py": f"class Model:\n    {text}"} for name, text in methods.items()})


def ask(gateway: Gateway, path: str, body: Any) -> bytes:
    request = urllib.request.Request(f"{gateway.url}{path}", data=json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=30) as response:
        return bytes(response.read())


def test_a_missing_return_is_told_once_by_the_method_and_its_line_and_one_that_is_meant_is_not(
    gateway: Gateway,
) -> None:
    for name in (*FORGOT, *MEANT):
        for _ in range(2):
            if name == "chats":
                message = {"role": "user", "content": "hello"}
                ask(gateway, "/v1/chat/completions", {"model": name, "messages": [message]})
            else:
                answer = ask(gateway, f"/models/{name}/predict", {"a": 1})
                assert answer == (b"1" if name in ("before", "between") else b"null\n" if name == "yields" else b"null")
    for name, (method, _) in FORGOT.items():
        line = 5 if name == "after" else 2
        said = rf"{name}.*{method} returned None \(model.py:{line}\): is a `return` or `yield` missing\?"
        gateway.wait_for(said)
        assert len(re.findall(said, gateway.log)) == 1, gateway.log
    assert gateway.log.count("returned None") == len(FORGOT)
