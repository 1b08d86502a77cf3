"""`serve --reload`: the newest change of a model is what serves, whatever loads of it at the moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import Fakes, LoadError, VirtualLoop, predict, turns
from test_model import Hosted, hosted

from gateway.errors import ConfigError
from gateway.hosting import follow_changes, reload
from gateway.hosting.follow_changes import AT_ONCE, Following, reload_changed
from gateway.hosting.newest_order import Newest
from gateway.spec import ModelSpec
from gateway.telemetry.log_tails import Tails

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"loop_factory": VirtualLoop}


class Claim:
    def __init__(self, owner: str) -> None:
        self.owner = owner


class FakeHub:
    """Models whose files are numbered."""

    def __init__(self, *found: Hosted) -> None:
        models = {each.model.name: each.model for each in found}
        self.catalog, self.ledger = SimpleNamespace(models=models), FakeLedger(models)
        self.settings = SimpleNamespace(
            gateway=SimpleNamespace(drain_timeout=30.0), model=lambda name: SimpleNamespace(reload="beside")
        )
        self.tails, self.version = Tails(), 0
        self.remarks, self.reloads = self, Newest()

    def read(self, hub: FakeHub, model: Any) -> ModelSpec:
        self.version += 1
        return replace(model.spec, display_name=str(self.version))

    async def tell(self, spec: ModelSpec) -> None:
        """There are no files of which anything could be said."""

    def hide_secrets_of(self, spec: ModelSpec) -> None:
        """Nothing here has secrets."""

    def is_lazy(self, name: str) -> bool:
        return False


class FakeLedger:
    """`has_room` says whether old and new find room."""

    def __init__(self, names: Iterable[str]) -> None:
        self.has_room, self.claims = True, [Claim(name) for name in names]

    def held_by(self, name: str) -> list[Claim]:
        return [claim for claim in self.claims if claim.owner == name]

    def place(self, specs: Sequence[ModelSpec]) -> dict[str, tuple[str, str]]:
        (spec,) = specs
        if not self.has_room and self.held_by(spec.name):
            return {spec.name: ("busy", "no room")}
        self.claims.append(Claim(spec.name))
        return {}

    def give_back(self, claims: Sequence[Claim]) -> None:
        self.claims = [claim for claim in self.claims if claim not in claims]

    def hold(self, claims: Sequence[Claim]) -> None:
        self.claims += claims

    def places_of(self, name: str) -> dict[str, Any]:
        return {}

    def put_back(self, name: str, places: dict[str, Any]) -> None:
        """Nothing is placed here."""


@asynccontextmanager
async def followed(monkeypatch: pytest.MonkeyPatch, *found: Hosted) -> AsyncIterator[tuple[Any, Following]]:
    async def at_once(work: Any, *arguments: Any) -> Any:
        return work(*arguments)

    hub: Any = FakeHub(*found)
    monkeypatch.setattr(asyncio, "to_thread", at_once)
    monkeypatch.setattr(reload, "read_again", hub.read)
    follows = Following(hub)
    try:
        yield hub, follows
    finally:
        follows.close()
        await turns(20)


async def served(follows: Following, found: Hosted, version: int) -> None:
    """Wait until nothing is left to do of its model; that version is what serves then."""
    for task in [task for task in follows._tasks if task.get_name() == f"{found.model.name}/following"]:
        await task
    assert (found.model.state, found.model.spec.display_name) == ("ready", str(version))


async def test_a_newer_change_ends_the_reload_that_hangs_and_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    async with hosted(replicas=2) as found, followed(monkeypatch, found) as (hub, follows):
        await turns()
        old = list(found.fakes.replicas)
        found.fakes.loads = [None, asyncio.Event()]
        began = asyncio.get_running_loop().time()
        follows.changed(["m"])
        await asyncio.sleep(5)
        assert len(found.fakes.replicas) == 4 and found.model.state == "ready"
        assert found.model.call(predict(), b"") in [call for replica in old for call in replica.open_calls]

        follows.changed(["m"])
        await served(follows, found, 2)
        good, hanging = found.fakes.replicas[2:4]
        assert good.killed and hanging.killed
        assert asyncio.get_running_loop().time() - began < 7
        for call in found.fakes.opened:
            old[0].end(call)
            old[1].end(call)
        await turns(20)
        assert len(hub.ledger.claims) == 1 and all(replica.stopped for replica in old)


async def test_a_first_load_that_hangs_is_given_up_for_a_change_and_who_waits_hears_how_that_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with hosted(asyncio.Event()) as found, followed(monkeypatch, found) as (hub, follows):
        await turns()
        settled = asyncio.create_task(found.model.settled())
        found.fakes.loads = [asyncio.Event()]
        for _ in range(2):
            follows.changed(["m"])
            await asyncio.sleep(1)
        await served(follows, found, 2)
        assert [bool(replica.killed) for replica in found.fakes.replicas] == [True, True, False]
        assert await settled == "ready" and len(hub.ledger.claims) == 1


async def test_a_load_that_hangs_keeps_no_other_model_from_being_reloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    second = Hosted(Fakes(), name="n")
    async with hosted() as first, followed(monkeypatch, first, second) as (_, follows):
        second.model.start()
        await second.model.settled()
        first.fakes.loads = [asyncio.Event()]
        follows.changed(["m"])
        await turns(20)
        follows.changed(["n"])
        await served(follows, second, 2)
        assert not first.fakes.last.killed
        await second.model.stop(0)


async def test_a_change_ends_an_operators_reload_that_hangs_who_hears_how_the_newer_one_went(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with hosted() as found, followed(monkeypatch, found) as (hub, follows):
        found.fakes.loads = [asyncio.Event()]
        ordered = asyncio.create_task(reload.reload(hub, found.model))
        await asyncio.sleep(5)
        assert not found.fakes.last.killed and len(found.fakes.replicas) == 2
        follows.changed(["m"])
        await served(follows, found, 2)
        await ordered
        assert found.fakes.replicas[1].killed and len(hub.ledger.claims) == 1


async def test_a_change_while_an_operator_unloads_does_not_load_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with hosted() as found, followed(monkeypatch, found) as (_, follows):
        call = found.model.call(predict(), b"")
        unloading = asyncio.create_task(found.model.stop(30))
        await turns()
        follows.changed(["m"])
        await turns(20)
        found.fakes.last.answer(call)
        await unloading
        await turns(20)
        assert (found.model.state, found.model.spec.display_name) == ("unloaded", "1")
        assert len(found.fakes.replicas) == 1


async def test_where_there_is_no_room_for_both_a_change_during_the_drain_is_what_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with hosted() as found, followed(monkeypatch, found) as (hub, follows):
        hub.ledger.has_room = False
        call = found.model.call(predict(), b"")
        found.fakes.loads = [asyncio.Event()]
        follows.changed(["m"])
        await asyncio.sleep(1)
        follows.changed(["m"])
        await asyncio.sleep(1)
        assert found.model.state == "draining"
        found.fakes.last.answer(call)
        await served(follows, found, 2)
        assert len(hub.ledger.claims) == 1 and all(replica.lost.done() for replica in found.fakes.replicas[:-1])


async def test_a_stop_in_the_turns_after_a_newer_change_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for count in range(12):
        async with hosted(replicas=3) as found, followed(monkeypatch, found) as (hub, follows):
            await turns()
            found.fakes.loads = [None, None, asyncio.Event()]
            follows.changed(["m"])
            await asyncio.sleep(1)
            follows.changed(["m"])
            await turns(count)
            await found.model.stop(0)
            await asyncio.sleep(1)
            assert found.model.state == "unloaded"
            assert all(replica.lost.done() for replica in found.fakes.replicas)
            hub.ledger.give_back(hub.ledger.held_by("m")[:1])  # as the unload does with what it serves from
            assert hub.ledger.claims == []


async def test_a_model_that_writes_to_its_directory_whenever_it_loads_is_loaded_in_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with hosted() as found, followed(monkeypatch, found) as (_, follows):

        async def load(replica: Any) -> None:
            await asyncio.sleep(1)
            if not found.model.spec.display_name:
                follows.changed(["m"])
            await asyncio.sleep(20)

        monkeypatch.setattr(found.fakes, "load", load)
        follows.changed(["m"])
        await served(follows, found, AT_ONCE + 6)
        assert caplog.text.count("m: its files changed during 10 loads in a row; if it writes them itself, they") == 1


async def test_code_that_is_no_good_is_told_and_the_next_change_is_served(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with hosted() as found, followed(monkeypatch, found) as (hub, follows):
        found.fakes.loads = [LoadError("a syntax error", fatal=True)]
        hub.catalog.models["m"].spec = replace(found.model.spec, root=Path("/"))
        follows.changed(["m"])
        await turns(20)
        assert "failed, but the previously loaded code keeps serving: a syntax error" in caplog.text
        follows.changed(["m"])
        await served(follows, found, 2)


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_directory_that_is_removed_while_it_is_looked_at_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_there: bool
) -> None:
    async def fail(*_: Any) -> None:
        raise ConfigError("it has no model.py")

    async def at_once(work: Any) -> Any:
        return work()

    monkeypatch.setattr(asyncio, "to_thread", at_once)
    monkeypatch.setattr(reload, "_reload", fail)
    root = tmp_path if is_there else tmp_path / "gone"
    model: Any = SimpleNamespace(name="m", state="ready", note="", spec=SimpleNamespace(root=root))
    hub: Any = SimpleNamespace(tails=Tails(), reloads=Newest())
    await reload_changed(hub, model)
    assert ("it has no model.py" in caplog.text) is is_there
    assert bool(model.note) is bool(hub.tails.of("m")) is is_there


async def test_a_reload_that_takes_long_says_how_to_begin_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def load(*_: Any) -> bool:
        await asyncio.sleep(follow_changes.SLOW + 1)
        return True

    caplog.set_level("INFO")
    monkeypatch.setattr(follow_changes, "reload_told", load)
    model: Any = SimpleNamespace(name="m", state="ready")
    await reload_changed(SimpleNamespace(), model)  # type: ignore[arg-type]
    assert caplog.text.count("m: it is still loading; the next change of its files restarts the load") == 1


async def test_what_is_to_be_reloaded_while_it_is_stopped_is_read_after_that_and_that_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gateway.audit")
    async with hosted() as found, followed(monkeypatch, found) as (hub, _):
        call = found.model.call(predict(), b"")
        stopping = asyncio.create_task(found.model.stop(30))
        await turns()
        told = asyncio.create_task(reload.reload_told(hub, found.model, "SIGHUP"))
        await asyncio.sleep(1)
        assert not told.done() and found.model.note == "" and hub.tails.of("m") == []
        found.fakes.last.answer(call)
        await stopping
        assert await told and found.model.state == "unloaded"
        assert [record.getMessage() for record in caplog.records if record.name == "gateway.audit"] == [
            f"audit: reload of model 'm' by SIGHUP: {reload.ONLY_READ}"
        ]


async def test_of_two_orders_the_newer_one_counts_and_both_hear_how_it_went(monkeypatch: pytest.MonkeyPatch) -> None:
    async with hosted() as found, followed(monkeypatch, found) as (hub, _):
        found.fakes.loads = [asyncio.Event(), LoadError("no good", fatal=True), None]
        hub.catalog.models["m"].spec = replace(found.model.spec, root=Path("/"))
        orders = []
        for _ in range(2):
            orders.append(asyncio.create_task(reload.reload(hub, found.model)))
            await asyncio.sleep(1)
        for order in orders:
            with pytest.raises(LoadError, match="no good"):
                await order
        assert len(hub.tails.of("m")) == 1
        await reload.reload(hub, found.model)
        assert found.model.note == "" and len(hub.ledger.claims) == 2  # that of the old one goes when it has ended
