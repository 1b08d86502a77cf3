"""Every request and how it ended: once, and in one of these ways.

ok        the whole, right answer of the right model
status    an error with a body that says why
event     an error within a stream, as its last event
refused   the connection was not accepted: nothing was begun
lost      accepted, and no answer
torn      an answer that stops without an error
wrong     an answer to something else, or a body that makes no sense
hung      no end within a minute
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

PATIENCE = 60.0  # seconds until a request counts as hung
PIECES = 5  # of a streamed answer
GOOD = ("ok", "status", "event", "refused")

# Its directory's name is in every answer, so that one of another model shows.
MODEL = f"""
import asyncio, pathlib, time
NAME = pathlib.Path.cwd().name

class Model:
    def predict(self, inputs):
        time.sleep(inputs.get("seconds", 0.005))
        return {{"model": NAME, "token": inputs["token"]}}

    async def chat_completions(self, inputs):
        token = inputs["messages"][-1]["content"]
        async def stream():
            for _ in range({PIECES}):
                yield f"{{NAME}}:{{token}} "
                await asyncio.sleep(0.002)
        return stream()
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    kind: str
    detail: str = ""  # the status, or the code of the error
    seconds: float = 0.0
    retry_after: str | None = None
    value: Any = None  # of a good answer


@dataclass(slots=True)
class Ledger:
    """`open` are requests under way; at the end there must be none."""

    ended: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # model, kind, detail
    open: int = 0
    strange: list[str] = field(default_factory=list)  # the first of what must not be

    def note(self, model: str, outcome: Outcome) -> None:
        self.open -= 1
        self.ended[model, outcome.kind, outcome.detail] += 1
        if outcome.kind not in GOOD and len(self.strange) < 20:
            self.strange.append(f"{model}: {outcome.kind} {outcome.detail}")

    def count(self, *kinds: str, model: str | None = None) -> int:
        found = self.ended.items()
        return sum(number for (name, kind, _), number in found if kind in kinds and model in (None, name))

    def lines(self) -> list[str]:
        """The ledger as people read it."""
        rows = [f"  {model:<12} {kind:<8} {detail:<20} {number:>8,}" for (model, kind, detail), number in
                sorted(self.ended.items())]  # fmt: skip
        return [*rows, f"  {'all':<12} {'':<8} {'':<20} {sum(self.ended.values()):>8,}", *self.strange]


class Client:
    """One kept-alive connection, made anew when it broke."""

    def __init__(self, port: int, ledger: Ledger) -> None:
        self._port, self._ledger = port, ledger
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def predict(self, model: str, token: str, **inputs: Any) -> Outcome:
        return await self.ask_predict(model, {"token": token, **inputs}, {"model": model, "token": token})

    async def chat(self, model: str, token: str) -> Outcome:
        return await self.ask_chat(model, token, f"{model}:{token} " * PIECES)

    async def ask_predict(self, model: str, inputs: Any, expected: Any = None) -> Outcome:
        """A whole answer; without `expected` any JSON is a good one."""
        return await self._ask(model, f"/models/{model}/predict", inputs, expected)

    async def ask_chat(self, model: str, text: str, expected: str | None = None) -> Outcome:
        """A streamed one; without `expected` any text is good that ends as it should."""
        body = {"model": model, "stream": True, "messages": [{"role": "user", "content": text}]}
        return await self._ask(model, "/v1/chat/completions", body, expected)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _ask(self, model: str, path: str, body: Any, expected: Any) -> Outcome:
        self._ledger.open += 1
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                outcome = await self._once(path, body, expected)
        except TimeoutError:
            outcome = Outcome("hung")
        if outcome.kind != "ok":
            self.close()
        outcome = replace(outcome, seconds=time.monotonic() - began)
        self._ledger.note(model, outcome)
        return outcome

    async def _once(self, path: str, body: Any, expected: Any) -> Outcome:
        if self._streams is None:
            try:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                return Outcome("refused")
        reader, writer = self._streams
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(data)}\r\n\r\n"
        try:
            writer.write(head.encode() + data)
            first = await reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError) as error:
            return Outcome("lost", type(error).__name__)
        status, headers = _head(first)
        answer, complete = await _body(reader, headers)
        if headers.get("connection") == "close":
            self.close()
        if headers.get("content-type", "").startswith("text/event-stream"):
            return _streamed(answer, complete, expected)
        if not complete:
            return Outcome("torn", str(status))
        return _whole(status, headers, answer, expected)


def _head(data: bytes) -> tuple[int, dict[str, str]]:
    lines = data.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines[1:] if line)
    return int(lines[0].split()[1]), {name.lower(): value.strip() for name, _, value in pairs}


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> tuple[bytes, bool]:
    """The body, and whether its end came."""
    parts = []
    try:
        if "content-length" in headers:
            return await reader.readexactly(int(headers["content-length"])), True
        while size := int(await reader.readuntil(b"\r\n"), 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readexactly(2)
    except (OSError, asyncio.IncompleteReadError):
        return b"".join(parts), False
    return b"".join(parts), True


def _whole(status: int, headers: dict[str, str], answer: bytes, expected: Any) -> Outcome:
    try:
        value = json.loads(answer)
    except ValueError:
        return Outcome("wrong", f"{status} {answer[:60]!r}")
    if status == 200:
        good = expected is None or value == expected
        return Outcome("ok", value=value) if good else Outcome("wrong", f"{value!r:.60}")
    error = value.get("error") if isinstance(value, dict) else None
    if not error:
        return Outcome("wrong", f"{status} without a reason")
    return Outcome("status", str(status), retry_after=headers.get("retry-after"))


def _streamed(answer: bytes, complete: bool, expected: str | None) -> Outcome:
    """A stream ends with [DONE] and all of its text, or with an error event; anything else is a lie."""
    text, error, done = "", "", False
    for block in answer.decode(errors="replace").split("\n\n"):
        if not block.startswith("data: "):
            continue
        if block == "data: [DONE]":
            done = True
            continue
        try:
            event = json.loads(block[6:])
        except ValueError:
            return Outcome("torn", "half an event")
        if "error" in event:
            error = event["error"]["code"]
        for choice in event.get("choices", ()):
            text += choice["delta"].get("content") or ""
    if expected is not None and not expected.startswith(text):
        return Outcome("wrong", f"{text!r:.60}")
    if error and not done:
        return Outcome("event", error)
    if done and complete and text == (expected or text):
        return Outcome("ok", value=text)
    return Outcome("torn", "a stream without its end")
