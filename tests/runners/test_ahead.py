"""Short calls wait in the worker: what became of them is known even if it dies, drains or takes too long."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gateway.admission.queue import AHEAD
from gateway.errors import Crashed, GatewayError
from gateway.hosting import backoff
from gateway.hosting.model import HostedModel
from gateway.hosting.replica_maker import Maker
from gateway.runners.pending import ClientLeft
from gateway.runners.process import ProcessReplica
from gateway.runners.replica import Launch
from gateway.spec import Limits, ModelSpec
from gateway.wire.frames import BYTES, Req

from .started import until, write

pytestmark = pytest.mark.anyio
DIE, SLOW = "die", "slow"
MODEL = """
    import os, pathlib, time
    here = pathlib.Path(__file__).parent.parent
    begun = open(here / "begun", "a", buffering=1)
    class Model:
        {keyword}def predict(self, x):
            begun.write(x["name"] + "\\n")
            if x["what"] == "die": os._exit(3)
            while x["what"] == "slow" and not (here / "go").exists(): time.sleep(0.005)
            return x["name"]
    """


class Setting:
    """A model of one slot a replica, whose calls are known to be short, and which notes those that begin."""

    def __init__(self, root: Path, replicas: int, is_async: bool, **limits: Any) -> None:
        write(root, {"model/model.py": MODEL.replace("{keyword}", "async " if is_async else "")})
        self.root = root
        self.spec = ModelSpec(
            name="m",
            target="model.model:Model",
            root=root,
            own_code=True,
            replicas=replicas,
            limits=Limits(slots=1, max_queue=500, queue_timeout=20, **limits),
        )
        self.ends: dict[str, str] = {}
        self.most_ahead = 0
        self.names = 0

    async def __aenter__(self) -> Setting:
        self.model = HostedModel(self.spec, Maker(ProcessReplica, self.launch))
        self.model.start()
        await self.all_ready()
        await asyncio.gather(*(self.call() for _ in range(50 * self.spec.replicas)))
        self.model.limiter.mean_service = AHEAD / 100  # a busy machine has measured more
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.model.stop(5)

    async def all_ready(self) -> None:
        while {*self.model.replicas.phases().values()} != {"ready"}:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    @staticmethod
    def launch(spec: ModelSpec, index: int) -> Launch:
        return Launch(spec=spec, index=index, on_log=lambda line: None)

    def let_go(self) -> None:
        """Let the slow call come to its end."""
        (self.root / "go").touch()

    def begun(self) -> Counter[str]:
        return Counter((self.root / "begun").read_text().split())

    async def call(self, what: str = "", patience: float | None = None) -> str:
        """Call it. Returns the name of the call, whose end is then in `ends`."""
        self.names += 1
        name = f"{what or 'call'}-{self.names}"
        body = json.dumps({"name": name, "what": what}).encode()
        try:
            with self.model.call(Req("predict", BYTES, False, "", name), body) as call:
                if patience is not None:
                    asyncio.get_running_loop().call_later(patience, call.client_left)
                self.most_ahead = max(self.most_ahead, *(len(seat.ahead) for seat in self.model.limiter.seats), 0)
                await call.first()
                self.ends[name] = "answered"
        except GatewayError as error:
            self.ends[name] = "lost" if isinstance(error, Crashed) and error.should_retry else error.code
        except ClientLeft:
            self.ends[name] = "left"
        return name


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("replicas", [1, 2])
async def test_a_worker_that_dies_takes_only_the_calls_that_had_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replicas: int, is_async: bool
) -> None:
    """And no call runs twice, because whoever is told that his has not begun may send it again."""
    monkeypatch.setattr(backoff, "FIRST_PAUSE", 0.02)
    async with Setting(tmp_path, replicas, is_async) as served:
        for deaths in range(1, 4):
            calls = [asyncio.create_task(served.call(DIE if number == 20 else "")) for number in range(200)]
            await asyncio.gather(*calls)
            while served.model.history.restarts < deaths:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await served.all_ready()
        begun = served.begun()
        assert served.most_ahead > 0
        assert set(begun.values()) == {1}
        crashed = [name for name, end in served.ends.items() if end == "model_crashed"]
        unbegun = [name for name, end in served.ends.items() if end == "lost"]
        assert begun.keys() == served.ends.keys() - {*unbegun}
        assert {name for name in served.ends if name.startswith(DIE)} <= {*crashed}
        assert len(crashed) < 3 * 70, "no more than were sent to a worker"
        if replicas > 1:
            assert not unbegun  # the other replica took them
        assert served.model.limiter.in_flight == served.model.limiter.queued_bytes == 0


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_a_call_that_was_sent_ahead_is_taken_back_when_its_client_leaves(tmp_path: Path, is_async: bool) -> None:
    async with Setting(tmp_path, 1, is_async) as served:
        slow = asyncio.create_task(served.call(SLOW))
        await asyncio.sleep(0)
        names = await asyncio.gather(*(served.call("left", patience=0.01) for _ in range(10)))
        assert {served.ends[name] for name in names} == {"left"}
        if not is_async:  # whose worker hears of it when the slow one has ended, and before the next one begins
            await until(lambda: not any(seat.ahead for seat in served.model.limiter.seats))
        served.let_go()
        await slow
        await served.call()
        assert not served.begun().keys() & {*names}
        assert served.model.limiter.in_flight == served.model.limiter.queued_bytes == 0


async def test_calls_behind_a_slow_one_begin_on_the_other_replica(tmp_path: Path) -> None:
    async with Setting(tmp_path, 2, False) as served:
        slow = asyncio.create_task(served.call(SLOW))
        await asyncio.sleep(0)
        names = await asyncio.gather(*(served.call() for _ in range(100)))
        assert {served.ends[name] for name in names} == {"answered"}
        assert not slow.done(), "they do not wait for it, or this would never end"
        served.let_go()
        await slow
        assert set(served.begun().values()) == {1}


async def test_a_reload_moves_the_calls_that_have_not_begun_to_the_new_worker(tmp_path: Path) -> None:
    async with Setting(tmp_path, 1, False) as served:
        slow = asyncio.create_task(served.call(SLOW))
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(served.call()) for _ in range(20)]
        await asyncio.sleep(0)
        assert served.model.limiter.seats[0].ahead
        await served.model.reload(served.spec)
        names = await asyncio.gather(*waiting)
        assert not slow.done()
        served.let_go()
        assert {served.ends[name] for name in (*names, await slow)} == {"answered"}
        assert set(served.begun().values()) == {1}


async def test_no_call_that_waits_in_the_worker_outlives_its_time_in_the_queue(tmp_path: Path) -> None:
    async with Setting(tmp_path, 1, False) as served:
        served.model.admission.use(Limits(slots=1, max_queue=500, queue_timeout=0.2, request_timeout=30), replicas=1)
        slow = asyncio.create_task(served.call(SLOW))
        await asyncio.sleep(0)
        names = await asyncio.gather(*(served.call() for _ in range(5)))
        assert {served.ends[name] for name in names} == {"queue_timeout"}
        for replica in served.model.replicas.running():
            await replica.scrape()  # answered after the worker has read what was sent before: the calls are taken back
        served.let_go()
        assert served.ends[await slow] == "answered"
        assert not served.begun().keys() & {*names}
