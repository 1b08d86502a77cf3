"""One request at a time: the first right answer of a server, before it gets any load."""

from __future__ import annotations

import http.client
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..processes import Server

PATIENCE = 60.0  # seconds until a worker that is still starting has answered
PAUSE = 0.005


@dataclass(frozen=True, slots=True)
class Question:
    """What one scenario asks of every side, and what it takes for an answer."""

    kind: str
    body: str
    is_right: Callable[[str, bytes, int | None], bool]


def first_answer(name: str, server: Server, path: str, question: Question) -> None:
    """Wait for the first answer.

    Raises:
        RuntimeError: It does not come, or it is not the right one.
    """
    until = time.monotonic() + PATIENCE
    while True:
        status, answer, binary_from = ask(server, path, question.body)
        if status == 200:
            break
        if time.monotonic() > until:
            raise RuntimeError(f"{name} answers {path} with {status}: {answer[:300]!r}")
        time.sleep(PAUSE)
    try:
        right = question.is_right(question.body, answer, binary_from)
    except (ValueError, LookupError, TypeError, struct.error):  # it has another form
        right = False
    if not right:
        raise RuntimeError(f"{name} answers {path} wrongly: {answer[:300]!r}")


def ask(server: Server, path: str, body: str) -> tuple[int, bytes, int | None]:
    """The status, the answer, and where its binary part begins when it says that."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        connection.request("POST", path, body.encode(), {"content-type": "application/json"})
        answer = connection.getresponse()
        length = answer.getheader("inference-header-content-length")
        return answer.status, answer.read(), int(length) if length else None
    except OSError as error:
        return 0, str(error).encode(), None
    finally:
        connection.close()
