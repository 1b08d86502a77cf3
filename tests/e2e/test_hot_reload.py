"""Truss's in-place hot reload, against the real command."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.testing import Gateway

FIRST = """
from model.words import GREETING
class Model:
    def __init__(self):
        self.calls = 0
    def load(self):
        self.loaded = "once"
    def predict(self, x):
        self.calls += 1
        return [GREETING, self.loaded, self.calls]
"""


def post(url: str, body: Any = None) -> tuple[int, Any]:
    request = urllib.request.Request(url, data=json.dumps(body).encode(), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_new_code_serves_the_old_instance_and_broken_code_changes_nothing(
    serve: Callable[..., Gateway], tmp_path: Path
) -> None:
    words, code = tmp_path / "models/hello/model/words.py", tmp_path / "models/hello/model/model.py"
    files = {"model/model.py": FIRST, "model/words.py": 'GREETING = "hello"\n', "config.yaml": ""}
    gateway = serve(
        {"hello": files, "other": {"model.py": "class Model:\n    def predict(self, x):\n        return x\n"}}
    )
    predict, reload = f"{gateway.url}/models/hello/predict", f"{gateway.url}/models/hello/hot-reload"
    assert post(predict) == (200, ["hello", "once", 1])

    words.write_text('GREETING = "howdy"\n')  # of the same size, within the same second
    assert post(predict) == (200, ["hello", "once", 2])
    assert post(reload) == (200, {"msg": "Hot reload complete"})
    assert post(predict) == (200, ["howdy", "once", 3])  # the instance and what it holds are the same

    code.write_text(FIRST.replace("return [", "return ]"))
    status, answer = post(reload)
    assert status == 422
    assert answer["error"].startswith("SyntaxError: ")
    code.write_text(FIRST.replace("class Model", "class Other"))
    assert post(reload) == (422, {"error": "AttributeError: module 'model.model' has no attribute 'Model'"})
    code.write_text(FIRST.replace("self, x", "self, x, y, z"))
    assert "cannot have more than two arguments" in post(reload)[1]["error"]
    assert post(predict) == (200, ["howdy", "once", 4])

    code.write_text(FIRST + "    def chat_completions(self, inputs):\n        yield GREETING\n")
    assert post(reload)[0] == 200
    chat = {"messages": [{"role": "user", "content": "hi"}]}
    status, answer = post(f"{gateway.url}/models/hello/v1/chat/completions", chat)
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "howdy")
    assert post(f"{gateway.url}/hot-reload")[0] == 404  # two models may be meant


def test_the_shared_address_reloads_the_only_model_and_ignores_the_body(
    serve: Callable[..., Gateway], tmp_path: Path
) -> None:
    gateway = serve({"hello": {"model/model.py": FIRST, "model/words.py": 'GREETING = "hello"\n', "config.yaml": ""}})
    predict = f"{gateway.url}/v1/models/model:predict"
    assert post(predict) == (200, ["hello", "once", 1])
    (tmp_path / "models/hello/model/words.py").write_text('GREETING = "good day"\n')
    assert post(f"{gateway.url}/hot-reload", {"nobody": "reads this"}) == (200, {"msg": "Hot reload complete"})
    assert post(predict) == (200, ["good day", "once", 2])


def test_new_code_with_a_schema_that_cannot_be_told_serves_without_one(
    serve: Callable[..., Gateway], tmp_path: Path
) -> None:
    large = FIRST + "    input_schema = {'minimum': 10**320}\n"
    gateway = serve({"hello": {"model/model.py": large, "model/words.py": 'GREETING = "hello"\n', "config.yaml": ""}})
    predict = f"{gateway.url}/v1/models/model:predict"
    assert post(predict) == (200, ["hello", "once", 1])
    (tmp_path / "models/hello/model/words.py").write_text('GREETING = "good day"\n')
    assert post(f"{gateway.url}/hot-reload") == (200, {"msg": "Hot reload complete"})
    assert post(predict) == (200, ["good day", "once", 2])
