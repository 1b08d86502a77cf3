"""A model under fire: clients that come and leave as they like, a worker that is killed again and again.

Every call ends exactly once, with an answer or with an error that says why; nothing is left over.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import GatewayError
from gateway.hosting import backoff
from gateway.hosting.model import HostedModel
from gateway.hosting.replica_maker import Maker
from gateway.runners.pending import ClientLeft
from gateway.runners.process import ProcessReplica
from gateway.runners.replica import Launch
from gateway.spec import Limits, ModelSpec
from gateway.wire.frames import BYTES, DATA, Req
from gateway.wire.values import encode

from .started import write

pytestmark = pytest.mark.anyio
KILLS = 4  # one more would be a crash loop
MODEL = """
    import asyncio, time
    class Model:
        {hooks}
        def predict(self, x): time.sleep(x % 3 / 1000); return x
        async def wait(self, x): await asyncio.sleep(x % 5 / 1000); return x
        def count(self, x):
            for number in range(x): yield "item %d" % number
        async def acount(self, x):
            for number in range(x):
                yield "item %d" % number
                if number % 10 == 0: await asyncio.sleep(0)
        def blob(self, x): return b"x" * (x * 10_000)
        def fail(self, x): raise ValueError(x)
    """
HOOKS = """
        def preprocess(self, x): return x
        async def postprocess(self, x): return x
    """
METHODS = ("predict", "wait", "count", "acount", "blob", "fail")


@pytest.mark.parametrize("hooks", ["", HOOKS], ids=["plain", "hooks"])
async def test_every_call_of_a_storm_ends_once_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hooks: str
) -> None:
    monkeypatch.setattr(backoff, "FIRST_PAUSE", 0.02)
    chance = random.Random(17)
    write(tmp_path, {"model/model.py": MODEL.replace("{hooks}", hooks.strip())})
    limits = Limits(slots=4, max_queue=8, queue_timeout=20)
    spec = ModelSpec(name="m", target="model.model:Model", root=tmp_path, own_code=True, limits=limits)

    def launch(spec: ModelSpec, index: int) -> Launch:
        return Launch(spec=spec, index=index, endpoint_methods=METHODS[1:], on_log=lambda line: None)

    model = HostedModel(spec, Maker(ProcessReplica, launch))
    model.start()
    assert await model.settled() == "ready"
    ledger: Counter[str] = Counter()

    async def client(number: int) -> None:
        """One call after another, some given up at some point."""
        for _ in range(40):
            method, value = chance.choice(METHODS), chance.randrange(100)
            mode, stream = (BYTES, False) if method == "predict" else (DATA, method.endswith("count"))
            body = b"%d" % value if mode == BYTES else encode(b"y" * 400_000 if value == 99 else value)
            ledger["calls"] += 1
            ledger[await outcome(Req(method, mode, stream, "", str(number)), body)] += 1

    async def outcome(req: Req, body: bytes) -> str:
        patience = chance.choice([None, None, 0.0, 0.001, 0.01])
        try:
            with model.call(req, body) as call:
                if patience is not None:
                    asyncio.get_running_loop().call_later(patience, call.client_left)
                head = await call.first()
                while head.stream and await call.take() is not None:
                    pass
            return "answered"
        except GatewayError as error:
            if error.status in (429, 503):
                await asyncio.sleep(0.02)
            return error.code
        except ClientLeft:
            return "left"

    async def killer() -> None:
        for _ in range(KILLS):
            await asyncio.sleep(0.3)
            while model.state != "ready":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            os.kill(next(iter(model.replicas.pids().values())), signal.SIGKILL)

    await asyncio.gather(killer(), *(client(number) for number in range(16)))
    while model.history.restarts < KILLS or model.state != "ready" or model.limiter.in_flight:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    ends = {name: count for name, count in ledger.items() if name != "calls"}
    assert sum(ends.values()) == ledger["calls"] == 16 * 40
    known = {
        "answered",
        "left",
        "model_error",
        "model_crashed",
        "model_overloaded",
        "model_unavailable",
        "invalid_value",
    }
    assert ends.keys() <= known, ends
    assert ends["answered"] > 0, ends
    seat = model.limiter.seats[0]
    assert (seat.used, seat.waiting) == (0, 0)
    await model.stop(5)
    mine: list[Any] = [task for task in asyncio.all_tasks() if task.get_name().startswith("m/")]
    assert mine == []
