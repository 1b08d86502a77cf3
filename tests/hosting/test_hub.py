"""Which model a request means, where models run, what they are told when their surroundings change."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fakes import Fakes, LoadError, VirtualLoop, predict, turns

import gateway.hosting.hub as hub_module
from gateway.access.callers import everybody
from gateway.devices.device import GIB, Device
from gateway.devices.plan import plan_inventory
from gateway.dialects.scoring.rerank import RerankDialect
from gateway.errors import (
    BadRequest,
    ConfigError,
    Draining,
    LoadFailed,
    Loading,
    PlacementError,
    RouteNotSupported,
    Unavailable,
    UnknownModel,
)
from gateway.hookspecs import hookimpl
from gateway.hosting import reload, secrets
from gateway.hosting.hub import Hub
from gateway.hosting.model import HostedModel
from gateway.hosting.reload import use_settings
from gateway.inspection.inventory import Inventory
from gateway.plugins import Plugins
from gateway.settings.schema import GatewaySettings, ModelSettings, PlacementSettings, Settings
from gateway.spec import Capabilities, Endpoint, MethodInfo, ModelSpec, Resources
from gateway.telemetry.redaction import Redactor

pytestmark = pytest.mark.anyio
CHAT = Endpoint(path="/v1/chat/completions", method="chat_completions", dialect="openai_chat")
EMBED = Endpoint(path="/v1/embeddings", method="embeddings", dialect="openai_embeddings")


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture(autouse=True)
def no_reaper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No process is started, so none needs to be reaped; no secret of this machine is read."""

    class Reaper:
        def add(self, pid: int) -> None: ...

        def remove(self, pid: int) -> None: ...

        def close(self) -> None: ...

    async def at_once(function: Any, *arguments: Any) -> Any:  # the clock would not wait for a thread
        return function(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", at_once)
    monkeypatch.setattr(hub_module, "Reaper", Reaper)
    for name in ("TRUSS_DIR", "RUN_DIR", "DEPLOYMENT_FILE"):
        monkeypatch.setattr(secrets, name, tmp_path / "absent" / name)


def spec(name: str, **fields: Any) -> ModelSpec:
    return ModelSpec(**{"name": name, "target": "model:Model", "root": Path("/nowhere"), **fields})


def gpus(count: int, gib: int = 80) -> list[Device]:
    return [
        Device(id=f"GPU-{index}", index=index, kind="cuda", model="H100", total=gib * GIB, free=gib * GIB)
        for index in range(count)
    ]


def serves(*methods: str) -> Capabilities:
    return Capabilities(methods=tuple(MethodInfo(name=name, kind="sync") for name in methods))


class Runners:
    """A fake runner a model; all models without one of their own share the first."""

    def __init__(self, **fakes: Fakes) -> None:
        self.fakes = fakes
        self.launches: list[Any] = []

    def __call__(self, launch: Any) -> Any:
        self.launches.append(launch)
        return self.fakes.setdefault(launch.spec.name, Fakes())(launch)

    def plugins(self) -> Plugins:
        @hookimpl
        def register_runners(register: Any) -> None:
            register("process", self)

        @hookimpl
        def register_endpoints(register: Any) -> None:
            register(CHAT)
            register(EMBED)

        @hookimpl
        def register_dialects(register: Any) -> None:
            register(CHAT.dialect, RerankDialect())
            register(EMBED.dialect, RerankDialect())

        module = ModuleType("fake")
        for hook in (register_runners, register_endpoints, register_dialects):
            setattr(module, hook.__name__, hook)
        plugins = Plugins()
        plugins.register(module, "fake", source="test")
        return plugins


def ask(model: HostedModel) -> Any:
    """A call, as a request makes it: it has a model loaded that loads on demand."""
    model.load_on_demand()
    return model.call(predict(), b"")


@asynccontextmanager
async def hub_of(
    *specs: ModelSpec,
    runners: Runners | None = None,
    devices: list[Device] | None = None,
    models: dict[str, ModelSettings] | None = None,
    start: bool = True,
    **gateway: Any,
) -> AsyncIterator[Hub]:
    settings = Settings(gateway=GatewaySettings(**{"api_key": None, **gateway}), models=models or {})
    hub = Hub(settings, (runners or Runners()).plugins(), specs, devices=devices or [])
    try:
        if start:
            hub.start()
            await turns(10)
        yield hub
    finally:
        await hub.stop(0)


# ── which model ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_model_is_found_by_its_name_and_by_its_aliases() -> None:
    models = {"team/llama": ModelSettings(aliases=("mine",))}
    async with hub_of(spec("team/llama"), spec("other"), models=models, aliases={"gpt-4o": "team/llama"}) as hub:
        for name in ("team/llama", "mine", "gpt-4o"):
            assert hub.catalog.find(name, everybody).name == "team/llama"


async def test_an_unknown_name_is_told_what_there_is_and_is_not_echoed_without_end() -> None:
    async with hub_of(spec("llama"), spec("embedder")) as hub:
        with pytest.raises(UnknownModel, match=r"no model named 'lama' \(have: embedder, llama\)"):
            hub.catalog.find("lama", everybody)
        with pytest.raises(UnknownModel) as caught:
            hub.catalog.find("x" * 10_000, everybody)
        assert len(caught.value.message) < 300
    async with hub_of() as hub:
        with pytest.raises(UnknownModel, match="have: none"):
            hub.catalog.find("x", everybody)


async def test_all_replicas_share_one_room_for_parts_of_answers() -> None:
    runners = Runners()
    async with hub_of(spec("a", replicas=2), spec("b"), runners=runners):
        assert [launch.spec.name for launch in runners.launches] == ["a", "a", "b"]
        assert len({launch.room for launch in runners.launches}) == 1


async def test_the_name_that_truss_clients_send_is_the_sole_or_default_model() -> None:
    async with hub_of(spec("only")) as hub:
        assert hub.catalog.find("model", everybody).name == "only"
    async with hub_of(spec("a"), spec("b"), default_model="b") as hub:
        assert hub.catalog.find("model", everybody).name == "b"
    async with hub_of(spec("a"), spec("model")) as hub:
        assert hub.catalog.find("model", everybody).name == "model"
    async with hub_of(spec("a"), spec("b")) as hub:
        with pytest.raises(UnknownModel):
            hub.catalog.find("model", everybody)


async def test_a_request_without_a_name_means_the_only_model_that_serves_the_route() -> None:
    runners = Runners(a=Fakes(capabilities=serves("chat_completions")), b=Fakes(capabilities=serves("embeddings")))
    async with hub_of(spec("a"), spec("b"), runners=runners) as hub:
        assert hub.catalog.find_for(CHAT, None, everybody).name == "a"
        assert hub.catalog.find_for(EMBED, None, everybody).name == "b"


async def test_a_request_without_a_name_is_told_the_candidates() -> None:
    both = Runners(a=Fakes(capabilities=serves("chat_completions")), b=Fakes(capabilities=serves("chat_completions")))
    async with hub_of(spec("a"), spec("b"), runners=both) as hub:
        with pytest.raises(BadRequest, match=r"\(models that serve /v1/chat/completions: a, b\)") as caught:
            hub.catalog.find_for(CHAT, None, everybody)
        assert (caught.value.code, caught.value.param) == ("missing_required_parameter", "model")
        with pytest.raises(BadRequest, match="models that serve /v1/embeddings: none"):
            hub.catalog.find_for(EMBED, None, everybody)


async def test_a_model_without_the_route_says_what_it_serves() -> None:
    runners = Runners(a=Fakes(capabilities=serves("predict", "embeddings")))
    async with hub_of(spec("a"), runners=runners) as hub:
        with pytest.raises(RouteNotSupported, match="it serves: /v1/models/a:predict, /v1/embeddings"):
            hub.catalog.check_serves(hub.catalog.find_for(CHAT, "a", everybody), CHAT)


async def test_a_route_that_a_slip_of_the_class_left_without_a_method_says_so_to_its_client() -> None:
    told = "the class has `chat`, which nothing calls: did you mean `chat_completions`?"
    fakes = Fakes(capabilities=replace(serves("predict"), asked={"chat_completions": told}))
    async with hub_of(spec("a"), runners=Runners(a=fakes)) as hub:
        with pytest.raises(RouteNotSupported) as caught:
            hub.catalog.check_serves(hub.catalog.find_for(CHAT, "a", everybody), CHAT)
        assert caught.value.message.endswith(f"(it serves: /v1/models/a:predict); {told}")
        with pytest.raises(RouteNotSupported, match=r"predict\)$"):
            hub.catalog.check_serves(hub.catalog.find_for(EMBED, "a", everybody), EMBED)


async def test_a_model_that_never_was_ready_is_believed_to_have_the_method() -> None:
    async with hub_of(spec("a"), runners=Runners(a=Fakes(1000.0))) as hub:
        assert hub.catalog.find_for(CHAT, None, everybody).name == "a"


# ── placement ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_models_start_on_the_devices_they_were_given_and_see_no_others() -> None:
    runners = Runners()
    wanted = [spec("cpu"), spec("one", resources=Resources(gpus=1)), spec("two", resources=Resources(gpus=2))]
    async with hub_of(*wanted, runners=runners, devices=gpus(3)) as hub:
        assert {model.state for model in hub.catalog.models.values()} == {"ready"}
        seen = {launch.spec.name: launch.environment["CUDA_VISIBLE_DEVICES"] for launch in runners.launches}
        assert seen == {"cpu": "", "one": "GPU-2", "two": "GPU-0,GPU-1"}
        assert hub.ledger.devices_of("two") == ["GPU-0,GPU-1"]
        assert hub.ledger.devices_of("cpu") == ["cpu"]


async def test_a_model_that_fits_nowhere_is_failed_with_the_sentence_and_the_others_serve() -> None:
    async with hub_of(spec("big", resources=Resources(gpus=2)), spec("small"), devices=gpus(1)) as hub:
        assert hub.catalog.models["big"].state == "failed"
        assert "2 × GPU wanted, 1 present" in hub.catalog.models["big"].reason
        assert hub.catalog.models["small"].state == "ready"
        with pytest.raises(LoadFailed):
            ask(hub.catalog.models["big"])


async def test_a_gateway_may_refuse_to_start_when_a_model_fits_nowhere() -> None:
    placement = PlacementSettings(on_impossible="refuse-start")
    async with hub_of(spec("big", resources=Resources(gpus=2)), start=False, placement=placement) as hub:
        with pytest.raises(PlacementError, match="big/0 cannot run here"):
            hub.start()


async def test_resources_that_make_no_sense_fail_their_model_only() -> None:
    odd = spec("odd", replicas=3, resources=Resources(gpus=1, pin=(("0",), ("1",))))
    async with hub_of(odd, spec("fine"), devices=gpus(2)) as hub:
        assert hub.catalog.models["odd"].state == "failed"
        assert "pins 2 replicas, but it has 3" in hub.catalog.models["odd"].reason
        assert hub.catalog.models["fine"].state == "ready"


async def test_a_model_that_gets_only_some_of_its_replicas_takes_nothing_from_the_others() -> None:
    greedy = spec("a-greedy", replicas=3, resources=Resources(gpus=1))
    modest = spec("modest", resources=Resources(gpus=1))
    async with hub_of(greedy, modest, devices=gpus(2)) as hub:
        assert hub.catalog.models["a-greedy"].state == "failed"
        assert hub.catalog.models["modest"].state == "ready"
        assert [claim.owner for claim in hub.ledger.claims] == ["modest/0"]


async def test_the_plan_says_what_serving_does() -> None:
    one = Resources(gpus=1)
    wanted = [spec("a", replicas=2, resources=one), spec("b", resources=one), spec("late", resources=one)]
    wanted.append(spec("odd", replicas=3, resources=Resources(gpus=1, pin=(("0",), ("1",)))))
    for count in range(5):
        async with hub_of(*wanted, devices=gpus(count), models={"late": LAZY}) as hub:
            found = Inventory(
                settings=hub.settings,
                plugins=hub.plugins,
                specs=tuple(wanted),
                problems=(),
                devices=tuple(hub.ledger.devices),
            )
            rows = plan_inventory(found)
            for model in hub.catalog.models.values():
                mine = [row for row in rows if row["model"] == model.name]
                if model.state == "unloaded":
                    with pytest.raises((Loading, Unavailable, LoadFailed)):
                        ask(model)
                placed = all(row["state"] == "placed" for row in mine)
                devices = hub.ledger.devices_of(model.name)
                assert placed == (model.state != "failed" and bool(devices)), (count, model.name)
                assert not placed or devices == [row["devices"][0] for row in mine]


async def test_an_unknown_runner_is_a_configuration_error_that_lists_those_there() -> None:
    settings = Settings(models={"a": ModelSettings(runner="ray")})
    with pytest.raises(ConfigError, match=r"\[models.a\] runner = 'ray' is unknown \(have: process\)"):
        Hub(settings, Runners().plugins(), [spec("a")])


# ── on demand ────────────────────────────────────────────────────────────────────────────────────────────────────────

LAZY = ModelSettings(load="lazy")


async def test_a_lazy_model_is_loaded_by_its_first_request_which_is_told_to_come_back() -> None:
    runners = Runners(a=Fakes(7.0))
    lazy = spec("a", resources=Resources(gpus=1))
    async with hub_of(lazy, runners=runners, devices=gpus(1), models={"a": LAZY}) as hub:
        model = hub.catalog.models["a"]
        assert model.state == "unloaded"
        assert runners.launches == []
        assert hub.is_ready, "an unloaded lazy model does not hold up readiness"
        for _ in range(3):
            with pytest.raises(Loading) as caught:
                ask(model)
            assert caught.value.retry_after is not None
        assert await model.settled() == "ready"
        assert runners.launches[0].environment["CUDA_VISIBLE_DEVICES"] == "GPU-0"
        assert hub.ledger.devices_of("a") == ["GPU-0"]
        ask(model)


async def test_a_lazy_model_finds_devices_taken_and_may_ask_again() -> None:
    eager, lazy = spec("eager", resources=Resources(gpus=1)), spec("lazy", resources=Resources(gpus=1))
    async with hub_of(eager, lazy, devices=gpus(1), models={"lazy": LAZY}) as hub:
        for _ in range(2):
            with pytest.raises(Unavailable, match="no device has room for it now") as caught:
                ask(hub.catalog.models["lazy"])
            assert caught.value.retry_after
        assert hub.catalog.models["lazy"].state == "unloaded"
        hub.ledger.claims.clear()
        with pytest.raises(Loading):
            ask(hub.catalog.models["lazy"])


async def test_a_lazy_model_that_never_fits_fails_at_its_first_request() -> None:
    async with hub_of(spec("a", resources=Resources(gpus=1)), models={"a": LAZY}) as hub:
        with pytest.raises(LoadFailed):
            ask(hub.catalog.models["a"])
        assert hub.catalog.models["a"].state == "failed"


async def test_an_unloaded_model_gives_its_devices_to_another_and_may_be_loaded_again() -> None:
    one, two = (spec(name, resources=Resources(gpus=1)) for name in ("one", "two"))
    async with hub_of(one, two, devices=gpus(1), models={"one": LAZY, "two": LAZY}) as hub:
        first, second = hub.catalog.models["one"], hub.catalog.models["two"]
        for loaded, other in ((first, second), (second, first), (first, second)):
            await hub.load(loaded)
            assert await loaded.settled() == "ready"
            with pytest.raises(Unavailable, match="no device has room"):
                await hub.load(other)
            await hub.unload(loaded)
            assert loaded.state == "unloaded"


async def test_a_model_that_could_not_be_loaded_may_be_loaded_again_by_name() -> None:
    runners = Runners(a=Fakes(LoadError("no weights", fatal=True), None))
    async with hub_of(spec("a", resources=Resources(gpus=1)), runners=runners, devices=gpus(1)) as hub:
        model = hub.catalog.models["a"]
        assert await model.settled() == "failed"
        await hub.load(model)
        assert await model.settled() == "ready"
        await hub.load(model)  # which it is
        assert len(runners.launches) == 2


async def test_after_a_reload_that_failed_a_lost_replica_starts_again_where_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runners = Runners(a=Fakes(None, LoadError("no weights", fatal=True), None))
    async with hub_of(spec("a", resources=Resources(gpus=1)), runners=runners, devices=gpus(2)) as hub:
        model = hub.catalog.models["a"]
        monkeypatch.setattr(reload, "read_again", lambda _, model: replace(model.spec))
        with pytest.raises(LoadError, match="no weights"):
            await reload.reload(hub, model)
        runners.fakes["a"].replicas[0].die("crashed")
        await asyncio.sleep(60)  # of the virtual clock: it is tried again after its back-off
        assert model.state == "ready"
        first, failed, again = (launch.environment["CUDA_VISIBLE_DEVICES"] for launch in runners.launches)
        assert failed != first, "it was loaded beside"
        assert again == first and hub.ledger.devices_of("a") == [first]


async def test_after_a_reload_without_room_a_lost_replica_starts_again_where_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runners = Runners(a=Fakes())
    async with hub_of(spec("a", resources=Resources(gpus=1)), runners=runners, devices=gpus(2)) as hub:
        model = hub.catalog.models["a"]
        larger = replace(model.spec, resources=Resources(gpus=3))
        monkeypatch.setattr(reload, "read_again", lambda _, model: larger)
        with pytest.raises(LoadError):
            await reload.reload(hub, model)
        runners.fakes["a"].replicas[0].die("crashed")
        await asyncio.sleep(60)  # of the virtual clock: it is tried again after its back-off
        assert model.state == "ready"
        first, again = (launch.environment["CUDA_VISIBLE_DEVICES"] for launch in runners.launches)
        assert again == first and hub.ledger.devices_of("a") == [first]


async def test_nothing_is_kept_under_the_name_of_a_model_that_is_forgotten() -> None:
    told: list[str] = []
    async with hub_of(spec("a"), spec("b")) as hub:
        hub.catalog.on_forget.append(told.append)
        hub.tails.add("a", "a line")
        a = hub.catalog.models["a"]
        await asyncio.gather(hub.forget(a), hub.forget(a))  # two looks at the roots at once
        assert (list(hub.catalog.models), told, hub.tails.of("a")) == (["b"], ["a"], [])
        assert (hub.ledger.devices_of("a"), hub.ledger.devices_of("b")) == ([], ["cpu"])
        await hub.tell_changes()


async def test_a_gateway_that_drains_loads_nothing_any_more() -> None:
    async with hub_of(spec("a"), models={"a": LAZY}) as hub:
        hub.draining = True
        with pytest.raises(Draining):
            ask(hub.catalog.models["a"])
        assert hub.catalog.models["a"].state == "unloaded"


async def test_an_eager_model_is_not_loaded_again_by_a_request_after_the_stop() -> None:
    async with hub_of(spec("a")) as hub:
        await hub.stop(0)
        with pytest.raises(Unavailable):
            ask(hub.catalog.models["a"])
        assert hub.catalog.models["a"].state == "unloaded"


# ── readiness ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_gateway_is_ready_when_every_required_model_is() -> None:
    runners = Runners(optional=Fakes(LoadError("no", fatal=True)), slow=Fakes(5.0))
    models = {"optional": ModelSettings(required=False)}
    async with hub_of(spec("optional"), spec("slow"), runners=runners, models=models) as hub:
        assert not hub.is_ready
        await hub.catalog.models["slow"].settled()
        assert hub.is_ready
        hub.draining = True
        assert not hub.is_ready


async def test_one_model_whose_stop_goes_wrong_does_not_keep_the_others() -> None:
    async with hub_of(spec("a"), spec("b")) as hub:

        async def broken(grace: float) -> None:
            raise RuntimeError("cannot")

        stop, hub.catalog.models["a"].stop = hub.catalog.models["a"].stop, broken  # type: ignore[method-assign]
        await hub.stop(1)
        assert hub.catalog.models["b"].state == "unloaded"
        hub.catalog.models["a"].stop = stop  # type: ignore[method-assign]


# ── what workers are given ───────────────────────────────────────────────────────────────────────────────────────────


async def test_a_worker_learns_of_endpoints_plugins_and_the_cache(tmp_path: Path) -> None:
    runners = Runners()
    gateway = {"cache_dir": tmp_path / "cache", "plugins": (tmp_path / "my_plugin.py",), "debug": True}
    models = {"b": ModelSettings()}
    mine = spec("b", environment={"GATEWAY_CACHE_DIR": "/own", "COLOUR": "red"})
    async with hub_of(spec("a"), mine, runners=runners, models=models, **gateway):
        first, second = runners.launches
        assert first.endpoint_methods == ("chat_completions", "embeddings")
        assert first.plugin_dirs == [tmp_path]
        assert first.debug
        assert first.environment["GATEWAY_CACHE_DIR"] == str(tmp_path / "cache")
        assert second.environment["GATEWAY_CACHE_DIR"] == "/own"
        assert second.environment["COLOUR"] == "red"


async def test_lines_of_a_worker_are_kept_and_logged_under_the_models_name(caplog: Any) -> None:
    caplog.set_level("INFO")
    runners = Runners()
    async with hub_of(spec("team/a"), runners=runners) as hub:
        runners.launches[0].on_log("hello")
        assert hub.tails.of("team/a") == ["hello"]
        record = next(record for record in caplog.records if record.getMessage() == "hello")
        assert record.name == "gateway.model.team.a"


async def test_a_declared_secret_without_a_value_is_named_in_the_models_log() -> None:
    async with hub_of(spec("a", secrets=("token", "other"))) as hub:
        assert hub.tails.of("a") == ["declared secrets without a value: other, token"]


# ── secrets ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_secrets_come_from_file_environment_and_config_in_that_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each source is taken away in turn, and the next one counts."""
    for name in ("truss", "mine", "run"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(secrets, "TRUSS_DIR", tmp_path / "truss")
    monkeypatch.setattr(secrets, "RUN_DIR", tmp_path / "run")
    sources = secrets.SecretSources(lambda: Settings(gateway=GatewaySettings(secrets_dir=tmp_path / "mine")))
    model = spec("a", secrets=("token",), config={"secrets": {"token": "config", "undeclared": "x"}})
    for directory in ("truss", "mine", "run"):
        (tmp_path / directory / "token").write_text(directory + "\n")
    for variable in ("TRUSS_SECRET_token", "GATEWAY_SECRET_token", "GATEWAY_SECRET_TOKEN"):
        monkeypatch.setenv(variable, variable)
    found = []
    for take_away in (
        lambda: (tmp_path / "truss/token").unlink(),
        lambda: os.environ.pop("TRUSS_SECRET_token"),
        lambda: (tmp_path / "mine/token").unlink(),
        lambda: os.environ.pop("GATEWAY_SECRET_token"),
        lambda: os.environ.pop("GATEWAY_SECRET_TOKEN"),
        lambda: (tmp_path / "run/token").unlink(),
        lambda: None,
    ):
        found.append(sources.for_model(model))
        take_away()
    assert [values["token"] for values in found] == [
        "truss\n",
        "TRUSS_SECRET_token",
        "mine\n",
        "GATEWAY_SECRET_token",
        "GATEWAY_SECRET_TOKEN",
        "run\n",
        "config",
    ]


@pytest.mark.parametrize("name", ["../../etc/passwd", ".hidden", "a/b", "nul\0byte"])
def test_a_secret_never_leads_out_of_its_directory(tmp_path: Path, name: str) -> None:
    sources = secrets.SecretSources(lambda: Settings(gateway=GatewaySettings(secrets_dir=tmp_path)))
    assert sources.for_model(spec("a", secrets=(name,))) == {}


def test_odd_values_and_files_are_no_secrets_and_no_crash(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "directory").mkdir()
    (tmp_path / "empty").write_text("")
    config = {"secrets": {"number": 5, "none": None, "empty": "config"}}
    sources = secrets.SecretSources(lambda: Settings(gateway=GatewaySettings(secrets_dir=tmp_path)))
    names = ("binary", "directory", "empty", "number", "none")
    assert sources.for_model(spec("a", secrets=names, config=config)) == {"number": "5"}


async def test_a_secret_that_changes_is_told_to_the_models_that_declare_it(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("old")
    runners = Runners()
    async with hub_of(spec("a", secrets=("token",)), spec("b"), runners=runners, secrets_dir=tmp_path) as hub:
        assert runners.launches[0].secrets == {"token": "old"}
        await hub.tell_changes()
        (tmp_path / "token").write_text("new")
        await hub.tell_changes()
        await hub.tell_changes()
        assert runners.fakes["a"].last.updates == [({"token": "new"}, None)]
        assert runners.fakes["b"].last.updates == []


async def test_secrets_of_models_that_are_not_loaded_are_hidden_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another model may read their files and print them. They are hidden before any process begins, on a thread."""
    known = Redactor((), (8, 8))
    monkeypatch.setattr("gateway.hosting.hub.KNOWN", known)
    runners = Runners()
    for name in ("lazy", "later", "again"):
        (tmp_path / name).write_text(f"value-of-{name}")
    written = {"secrets": {"own": "written-by-itself", "lazy": None}}
    lazy = {"lazy": ModelSettings(load="lazy")}
    specs = spec("a"), spec("lazy", secrets=("lazy", "own"), config=written)
    async with hub_of(*specs, runners=runners, models=lazy, secrets_dir=tmp_path) as hub:
        assert known("value-of-lazy") == "value-of-lazy"
        await asyncio.to_thread(runners.launches[0].hide_others)  # as its process is started
        assert known("value-of-lazy and written-by-itself") == "*** and written-by-itself"
        hub.host(spec("later", secrets=("later",)))
        await asyncio.gather(*reload._tasks)
        assert known("value-of-later") == "***"
        hub.hide_secrets_of(spec("a", secrets=("again",)))  # read again
        await asyncio.gather(*reload._tasks)
        assert known("value-of-again") == "***"
        (tmp_path / "lazy").write_text("another value")
        await hub.tell_changes()
        assert known("another value") == "***"


async def test_a_directory_of_secrets_that_the_settings_name_counts_at_once(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("new")
    runners = Runners()
    async with hub_of(spec("a", secrets=("token",)), runners=runners) as hub:
        changed = replace(hub.settings, gateway=replace(hub.settings.gateway, secrets_dir=tmp_path, port=1))
        await use_settings(hub, changed, "SIGHUP")
        assert runners.fakes["a"].last.updates == [({"token": "new"}, None)]
        assert hub.settings.gateway == replace(changed.gateway, port=hub.settings.gateway.port)


async def test_a_model_that_could_not_be_loaded_is_loaded_anew_when_a_secret_of_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    async def reload_told(hub: Hub, model: HostedModel, actor: str) -> None:
        told.append(f"{model.name} by {actor}")

    monkeypatch.setattr("gateway.hosting.hub.reload_told", reload_told)
    models = [spec(name, secrets=("token",)) for name in ("ready", "failed", "old")]
    async with hub_of(*models, spec("other"), secrets_dir=tmp_path) as hub:
        for name in ("failed", "other"):
            hub.catalog.models[name].state = "failed"
        hub.catalog.models["old"].note = "the reload failed"
        (tmp_path / "token").write_text("new")
        await hub.tell_changes()
        await hub.tell_changes()
        await turns()
        assert told == ["failed by a change of its secrets", "old by a change of its secrets"]


async def test_the_environment_file_is_told_when_its_content_changed(tmp_path: Path) -> None:
    file = tmp_path / "environment"
    file.write_text(json.dumps({"name": "staging"}))
    runners = Runners()
    async with hub_of(spec("a"), runners=runners, environment_file=file) as hub:
        assert runners.launches[0].deployment == {"name": "staging"}
        updates = runners.fakes["a"].last.updates
        for text, told in (
            (json.dumps({"name": "staging"}), 0),  # written again, the same
            (json.dumps({"name": "production"}), 1),
            ("{not json", 1),
            ("[1]", 1),
            (json.dumps({"name": "production"}), 1),
        ):
            file.write_text(text)
            await hub.tell_changes()
            assert len(updates) == told
        file.unlink()
        await hub.tell_changes()
        assert updates == [(None, {"name": "production"})]


async def test_what_changed_between_two_starts_reaches_the_replica_that_was_there_before(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("old")
    runners = Runners()
    async with hub_of(spec("a", secrets=("token",), replicas=2), runners=runners, secrets_dir=tmp_path) as hub:
        (tmp_path / "token").write_text("new")
        first, second = runners.fakes["a"].replicas
        second.die("crash")
        await asyncio.sleep(2)
        assert runners.launches[-1].secrets == {"token": "new"}
        await hub.tell_changes()
        assert first.updates == [({"token": "new"}, None)]


async def test_sources_are_looked_at_every_half_minute_and_a_failure_is_not_the_end_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise OSError("the network is gone")

    async with hub_of(spec("a")) as hub:
        monkeypatch.setattr(hub, "tell_changes", look)
        await asyncio.sleep(91)
        assert looks == 3
