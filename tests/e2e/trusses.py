"""A client of Truss's routes, and what a test says of an answer, byte for byte."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

from gateway.testing import Gateway

JSON, BINARY = "application/json", "application/octet-stream"


class _Raised(str):
    """What a client hears of an exception of the model: the way to its log, with the id of the request."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        pattern = r"model '([\w-]+)' raised an error; `gateway logs \1` shows it under the request id [\w-]+"
        return isinstance(other, str) and re.fullmatch(pattern, other) is not None


RAISED = _Raised("raised")


@dataclass(frozen=True)
class Answer:
    status: int
    content_type: str | None
    body: bytes
    headers: Message

    @property
    def short(self) -> tuple[int, str | None, bytes]:
        return self.status, self.content_type, self.body

    @property
    def error(self) -> tuple[int, str | None, Any]:
        """Status, X-BASETEN-ERROR-CODE and what stands under `error`, after a look at what all errors share."""
        value = json.loads(self.body)
        assert list(value) == ["error"]
        assert self.content_type == JSON
        assert self.headers["x-baseten-error-source"] == "04"
        return self.status, self.headers["x-baseten-error-code"], value["error"]


class Trusses:
    """A running gateway over the trusses of one test file. `file(name)` is a path that tests and models share."""

    def __init__(self, gateway: Gateway, shared: Path) -> None:
        self.gateway, self.shared = gateway, shared

    def file(self, name: str) -> Path:
        return self.shared / name

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.gateway.url.removeprefix("http://"), timeout=60)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, response.headers["content-type"], response.read(), response.headers)

    def get(self, path: str) -> Answer:
        return self.ask("GET", path)

    def predict(self, model: str, body: bytes, content_type: str = JSON, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", f"/v1/models/{model}:predict", body, {"content-type": content_type, **named})

    def call(self, model: str, inputs: Any, **headers: str) -> Any:
        """The value that a model answers with 200."""
        answer = self.predict(model, json.dumps(inputs).encode(), **headers)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    @contextlib.contextmanager
    def streaming(self, model: str, inputs: Any, **headers: str) -> Iterator[http.client.HTTPResponse]:
        """A predict whose head has come; leaving the block leaves the connection."""
        with contextlib.closing(self.connect()) as connection:
            connection.request("POST", f"/v1/models/{model}:predict", json.dumps(inputs).encode(), headers)
            yield connection.getresponse()

    def reason(self, model: str) -> str:
        """Why a model is in the failed state."""
        listed = {entry["id"]: entry for entry in json.loads(self.get("/v1/models").body)["data"]}
        assert listed[model]["status"] == "failed", listed[model]
        return self.gateway.reason(model)

    def wait_for_file(self, name: str, seconds: float = 60) -> str:
        """What stands in a file that a model writes, as soon as it does."""
        waited = threading.Event()
        for _ in range(int(seconds * 100)):
            with contextlib.suppress(FileNotFoundError):
                if text := self.file(name).read_text():
                    return text
            waited.wait(0.01)
        raise TimeoutError(f"no model has written {name}")


def chunks(response: http.client.HTTPResponse) -> list[bytes]:
    """The body by its HTTP chunks, as they were framed. The response must be chunked."""
    assert response.headers["transfer-encoding"] == "chunked"
    assert response.fp is not None
    found = []
    while size := int(response.fp.readline(), 16):
        found.append(response.fp.read(size))
        assert response.fp.read(2) == b"\r\n"
    return found
