"""The floor: what uvicorn costs when the application does next to nothing.

python -m benchmarks.floor echo|answer|drip|hangup PORT
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import uvicorn

CHUNK = b'data: {"id":"chatcmpl-%b","object":"chat.completion.chunk","created":1,"model":"drip","choices":[]}\n\n' % (
    b"0" * 64
)
ANSWER = b"a" * (1 << 20)


async def _body(receive: Any) -> bytes:
    message = await receive()
    body: bytes = message["body"]
    while message["more_body"]:
        message = await receive()
        body += message["body"]
    return body


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Sends the body back."""
    body = await _body(receive)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """Sends as many bytes as the body asks for."""
    order = json.loads(await _body(receive) or b'{"bytes": 0}')
    headers = [(b"content-type", b"application/json"), (b"content-length", str(order["bytes"]).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER[: order["bytes"]]})


async def drip(scope: Any, receive: Any, send: Any) -> None:
    """Sends chunks one by one; how many and how far apart is in the body."""
    order = json.loads(await _body(receive) or b'{"chunks": 0, "apart": 0}')
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for _ in range(order["chunks"]):
        await asyncio.sleep(order["apart"])
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


_seen: dict[str, float] = {}


async def hangup(scope: Any, receive: Any, send: Any) -> None:
    """Waits until its client has gone; notes when it began and heard of it. A body without a number gets the notes."""
    body = json.loads(await _body(receive) or b"{}")
    if user := body.get("user"):
        number = user.removeprefix("call-")
        _seen[f"begun {number}"] = time.monotonic()
        await receive()
        _seen[f"gone {number}"] = time.monotonic()
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(_seen).encode()})


def main() -> None:
    name, port = sys.argv[1:]
    uvicorn.run(
        {"echo": echo, "answer": answer, "drip": drip, "hangup": hangup}[name],
        port=int(port),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
    )


if __name__ == "__main__":
    main()
