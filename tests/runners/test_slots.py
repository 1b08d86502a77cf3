"""The slots of a worker hold whatever the gateway sends: here it sends everything at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.spec import Limits

from .started import started

pytestmark = pytest.mark.anyio
SLOTS, CALLS = 3, 20
MODEL = """
    import asyncio, threading, time

    class Model:
        def __init__(self):
            self.lock, self.running, self.most = threading.Lock(), 0, 0
        {hooks}
        def enter(self):
            with self.lock:
                self.running += 1
                self.most = max(self.most, self.running)
        def leave(self):
            with self.lock:
                self.running -= 1
        def predict(self, x):
            self.enter(); time.sleep(0.01); self.leave()
            return x
        async def later(self, x):
            self.enter(); await asyncio.sleep(0.01); self.leave()
            return x
        def count(self, x):
            self.enter()
            for number in range(3):
                yield number
                time.sleep(0.003)
            self.leave()
        async def acount(self, x):
            self.enter()
            for number in range(3):
                yield number
                await asyncio.sleep(0.003)
            self.leave()
        def most_at_once(self, x): return self.most
    """
HOOKS = """
        def preprocess(self, x): return x
        def postprocess(self, x): return x
    """
METHODS = ("later", "count", "acount", "most_at_once")


@pytest.mark.parametrize("hooks", ["", HOOKS.strip()], ids=["plain", "hooks"])
@pytest.mark.parametrize("mixed", [("predict",), ("later",), ("count",), ("acount",), ("predict", *METHODS[:3])])
async def test_a_gateway_that_sends_too_many_calls_runs_no_more_than_the_slots(
    tmp_path: Path, mixed: tuple[str, ...], hooks: str
) -> None:
    source = MODEL.replace("{hooks}", hooks)
    spec = {"limits": Limits(slots=SLOTS, max_queue=0)}
    async with started(tmp_path, source, *METHODS, spec=spec) as found:
        calls = [
            found.open(method, number, stream="count" in method)
            for number in range(CALLS)
            for method in (mixed[number % len(mixed)],)
        ]
        await asyncio.gather(*(found.read(call) if call.req.stream else call.first() for call in calls))
        assert len(found.ended) == CALLS
        assert await found.ask("most_at_once") == SLOTS
