"""Chunks: what one chunk of a chat stream costs the gateway, queued with others and alone.

Queued: the model yields as fast as it can, and what is there when the client can take more goes out in one write.
Alone: every chunk comes by itself and is written by itself. With one stream only, most of that is the price of waking
an idle process, which a bare uvicorn pays too; so there the ratio counts.
"""

from __future__ import annotations

import json
import statistics

from .load import Load, Seen, drive
from .processes import Server, floor, gateway
from .report import Row, at_most

PATH = "/v1/chat/completions"
CLIENTS, BURST, SHORT = 20, 2000, 5
APART = 0.002  # seconds between the chunks of a stream that are to be alone
MODELS = {
    "burst/model.py": """
class Model:
    def chat_completions(self, body):
        for number in range(body["max_tokens"]):
            yield "token "
""",
    "burst/config.yaml": f"runtime:\n  predict_concurrency: {CLIENTS}\n",
    "drip/model.py": f"""
import asyncio

class Model:
    async def chat_completions(self, body):
        for number in range(body["max_tokens"]):
            await asyncio.sleep({APART})
            yield "token "
""",
    "drip/config.yaml": f"runtime:\n  predict_concurrency: {CLIENTS}\n",
}
QUEUED, ALONE, RATE = 10.0, 30.0, 40_000


def run(quick: bool) -> list[Row]:
    queued, alone, single, bare = [], [], [], []
    rates, short = [], []
    chunks = 200 if quick else 1000
    with gateway(MODELS) as ours, floor("drip") as drip:
        _stream(ours, "burst", 100, CLIENTS)
        for _ in range(2 if quick else 7):
            seen = _stream(ours, "burst", BURST, CLIENTS, streams=1 if quick else 10)
            queued.append(_cost(seen))
            rates.append(seen.events / seen.seconds)
            seen = _stream(ours, "burst", SHORT, CLIENTS, streams=10 if quick else 100)
            short.append(seen.cpu_us)
            alone.append(_cost(_stream(ours, "drip", chunks, CLIENTS)))
            single.append(_cost(_stream(ours, "drip", chunks, 1)))
            body = json.dumps({"chunks": chunks, "apart": APART})
            bare.append(_cost(drive(Load(port=drip.port, pid=drip.pid, path="/", body=body, requests=1))))
    middle = statistics.median
    capacity = 1e6 / middle(queued)
    return [
        at_most(f"gateway CPU a chunk, queued with others ≤ {QUEUED:g} µs", queued, QUEUED, "µs"),
        at_most(f"gateway CPU a chunk, alone, {CLIENTS} streams ≤ {ALONE:g} µs", alone, ALONE, "µs"),
        Row(
            "  1 stream, the process idle in between",
            f"{middle(single):.0f} µs",
            middle(a / b for a, b in zip(single, bare, strict=True)),
            f"bare uvicorn, {middle(bare):.0f} µs",
        ),
        Row(
            f"chunks a second of gateway CPU ≥ {RATE:,}",
            f"{capacity:,.0f}/s ({middle(rates):,.0f} by the clock)",
            capacity / RATE,
            f"{RATE:,}/s",
            capacity >= RATE,
        ),
        Row(f"gateway CPU a whole request whose stream has {SHORT} chunks", f"{middle(short):.0f} µs"),
    ]


def _cost(seen: Seen) -> float:
    """CPU microseconds a chunk."""
    return seen.cpu / seen.events * 1e6


def _stream(ours: Server, model: str, chunks: int, clients: int, streams: int = 1) -> Seen:
    """Every client reads so many streams, one after the other."""
    message = {"role": "user", "content": "Go on."}
    body = json.dumps({"model": model, "stream": True, "max_tokens": chunks, "messages": [message]})
    load = Load(port=ours.port, pid=ours.pid, path=PATH, body=body, connections=clients, requests=streams)
    seen = drive(load)
    if seen.events < clients * streams * chunks:
        raise RuntimeError(f"only {seen.events} events of {clients * streams} streams came through")
    return seen
