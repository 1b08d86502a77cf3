"""The model roots are looked at again: what is new or mended is served, what cannot be read says why."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import VirtualLoop, turns
from test_hub import Runners, no_reaper

from gateway.access.callers import everybody
from gateway.directories.searching import narrow, search
from gateway.errors import LoadFailed, UnknownModel
from gateway.hosting.hub import Hub
from gateway.hosting.model_roots import find_again, host_broken, look_again
from gateway.runners.replica import LoadError
from gateway.settings.schema import GatewaySettings, ModelSettings, Settings

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_reaper")]
assert no_reaper  # a fixture of the hub's tests
GOOD = "class Model:\n    def predict(self, x):\n        return x\n"
TYPO = "class Model\n"


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"loop_factory": VirtualLoop}


def write(root: Path, name: str, text: str) -> None:
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / name / "model.py").write_text(text)


@asynccontextmanager
async def hub_over(root: Path, only: tuple[str, ...] = (), **tables: ModelSettings) -> AsyncIterator[Hub]:
    """A hub that has started over a root, as `gateway serve` makes it, with played workers."""
    from gateway.plugins import Plugins

    plugins, formats = Runners().plugins(), Plugins.load([], [])
    plugins.find_model = formats.find_model  # type: ignore[method-assign]
    settings = Settings(gateway=GatewaySettings(models=(root,)), models=tables)
    specs, problems = narrow(*search(settings, plugins), only)
    hub = Hub(settings, plugins, specs, problems=problems)
    hub.only = only
    host_broken(hub, problems)
    hub.start()
    await turns()
    try:
        yield hub
    finally:
        await hub.stop(0)


def audits(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "gateway.audit"]


def states(hub: Hub) -> dict[str, str]:
    return {name: model.state for name, model in hub.catalog.models.items()}


async def test_a_directory_that_cannot_be_read_is_a_failed_model_with_its_reason(tmp_path: Path) -> None:
    write(tmp_path, "good", GOOD)
    write(tmp_path, "bad", TYPO)
    async with hub_over(tmp_path) as hub:
        assert states(hub) == {"good": "ready", "bad": "failed"}
        bad = hub.catalog.models["bad"]
        assert "model.py:1" in bad.reason and "syntax" in bad.reason and str(tmp_path) not in bad.reason
        assert hub.catalog.reason(bad, everybody, False) == bad.reason
        assert isinstance(bad.not_ready(), LoadFailed)
        assert hub.is_ready  # one bad directory takes no others out of service


async def test_a_broken_directory_does_not_make_the_only_model_one_of_several(tmp_path: Path) -> None:
    write(tmp_path, "good", GOOD)
    write(tmp_path, "bad", TYPO)
    async with hub_over(tmp_path) as hub:
        assert hub.catalog.find("model", everybody).name == "good"


async def test_what_is_mended_or_new_is_loaded_and_what_is_gone_is_forgotten(tmp_path: Path) -> None:
    write(tmp_path, "bad", TYPO)
    write(tmp_path, "worse", TYPO)
    async with hub_over(tmp_path) as hub:
        write(tmp_path, "bad", GOOD)
        write(tmp_path, "new", GOOD)
        write(tmp_path, "newly-broken", TYPO)
        (tmp_path / "worse/model.py").unlink()
        changes = await look_again(hub, everybody, "a test")
        await turns()
        assert states(hub) == {"bad": "ready", "new": "ready", "newly-broken": "failed"}
        assert (changes.new, changes.gone, list(changes.broken)) == (["bad", "new"], ["worse"], ["newly-broken"])
        again = await look_again(hub, everybody, "a test")
        assert (again.new, again.gone) == ([], [])


async def test_a_reason_follows_the_file_and_a_model_that_serves_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path, "bad", TYPO)
    write(tmp_path, "good", GOOD)
    async with hub_over(tmp_path) as hub:
        write(tmp_path, "bad", "x = 1\ny = (\n")
        write(tmp_path, "good", TYPO)
        await look_again(hub, everybody, "a test")
        assert "model.py:2" in hub.catalog.models["bad"].reason
        assert hub.catalog.models["good"].state == "ready"
        (tmp_path / "good/model.py").unlink()
        await look_again(hub, everybody, "a test")
        assert hub.catalog.models["good"].state == "ready"


async def test_a_look_touches_only_models_that_its_actor_sees(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And leaves the others, and what is wrong with them, to the look of who sees them."""
    for name in ("mine-gone", "other-gone", "mine-mended", "other-mended"):
        write(tmp_path, name, TYPO)
    for name in ("mine-left", "other-left"):
        write(tmp_path, name, GOOD)
    async with hub_over(tmp_path) as hub:
        for name in ("mine", "other"):
            write(tmp_path, f"{name}-new", GOOD)
            write(tmp_path, f"{name}-mended", GOOD)
            write(tmp_path, f"{name}-broken", TYPO)
            (tmp_path / f"{name}-gone/model.py").unlink()
            (tmp_path / f"{name}-left/model.py").unlink()

        def of(whose: str) -> dict[str, str]:
            return {name: state for name, state in states(hub).items() if name.startswith(whose)}

        before = of("other")
        caplog.clear()
        changes = await look_again(hub, lambda name: name.startswith("mine"), "a test")
        await turns()
        after = {"mended": "ready", "left": "ready", "new": "ready", "broken": "failed"}
        assert of("mine") == {f"mine-{what}": state for what, state in after.items()}
        assert of("other") == before and not hub.catalog.models["other-left"].note
        assert (changes.new, changes.gone, list(changes.broken)) == (
            ["mine-mended", "mine-new"],
            ["mine-gone"],
            ["mine-broken"],
        )
        assert "mine-broken" in caplog.text and "other-" not in caplog.text
        caplog.clear()
        await look_again(hub, everybody, "another test")
        await turns()
        assert of("other") == {f"other-{what}": state for what, state in after.items()}
        assert "other-broken" in caplog.text and "mine-broken" not in caplog.text


async def test_a_new_model_that_loads_on_demand_waits_for_its_request(tmp_path: Path) -> None:
    write(tmp_path, "good", GOOD)
    async with hub_over(tmp_path, lazy=ModelSettings(load="lazy", aliases=("idle",))) as hub:
        write(tmp_path, "lazy", GOOD)
        await look_again(hub, everybody, "a test")
        assert hub.catalog.models["lazy"].state == "unloaded"
        assert hub.catalog.find("idle", everybody).name == "lazy"


async def test_models_that_the_command_did_not_name_are_not_found_later(tmp_path: Path) -> None:
    write(tmp_path, "good", GOOD)
    async with hub_over(tmp_path, only=("good",)) as hub:
        write(tmp_path, "new", GOOD)
        await look_again(hub, everybody, "a test")
        assert states(hub) == {"good": "ready"}


async def test_an_order_for_an_unknown_or_broken_model_looks_for_it_first(tmp_path: Path) -> None:
    write(tmp_path, "bad", TYPO)
    async with hub_over(tmp_path) as hub:
        with pytest.raises(LoadError, match="syntax"):
            await find_again(hub, "bad", everybody, "a test")
        with pytest.raises(UnknownModel):
            await find_again(hub, "nobody", everybody, "a test")
        write(tmp_path, "new", GOOD)
        assert (await find_again(hub, "new", everybody, "a test")).state in ("loading", "ready")
        await hub.load(hub.catalog.models["bad"])
        assert hub.catalog.models["bad"].state == "failed"


async def test_what_comes_goes_and_breaks_is_audited_once_with_who_had_it_looked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "serves", GOOD)
    write(tmp_path, "broken", TYPO)
    async with hub_over(tmp_path) as hub:
        write(tmp_path, "new", GOOD)
        write(tmp_path, "other", TYPO)
        for name in ("serves", "broken"):
            (tmp_path / name / "model.py").unlink()
            (tmp_path / name).rmdir()
        for _ in range(2):
            await look_again(hub, everybody, "a test")
        await hub.catalog.models["new"].settled()
        await turns()
        told = audits(caplog)
        assert told[0].startswith("audit: forget of model 'serves' by a test: not yet: the loaded model keeps serving")
        assert told[1].startswith("audit: find of model 'other' by a test: failed: model.py")
        assert told[2:] == [
            "audit: find of model 'new' by a test: done",
            "audit: forget of model 'broken' by a test: done",
            "audit: load of model 'new' by a test: done",
        ]


async def test_a_model_that_is_broken_at_the_start_is_known_by_its_aliases_at_once(tmp_path: Path) -> None:
    write(tmp_path, "broken", TYPO)
    async with hub_over(tmp_path, broken=ModelSettings(aliases=("nick",))) as hub:
        assert hub.catalog.find("nick", everybody).name == "broken"
