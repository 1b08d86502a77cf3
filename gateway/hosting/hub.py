"""The life cycle of all hosted models: host, place, start, load, unload, forget, stop.

The `catalog` finds the model of a request, the `ledger` tracks device claims. Each `HostedModel` manages its own
replicas and state.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..admission.shares import Shares
from ..devices.placement import NO_ROOM
from ..devices.visibility import worker_environment
from ..directories.model_warnings import Remarks
from ..errors import ConfigError, Draining, PlacementError, Unavailable
from ..runners.replica import Launch
from ..spec import ModelSpec, Problem
from ..system.reaper import Reaper
from ..telemetry.log_tails import Tails
from ..telemetry.redaction import KNOWN, apart
from ..wire.channel import Room
from ..wording import listed, table_of
from .catalog import Catalog
from .ledger import Ledger
from .loaded_files import LoadedFiles
from .model import HostedModel
from .newest_order import Newest
from .reload import reload_told, spawn
from .replica_maker import Maker
from .secrets import SecretSources

if TYPE_CHECKING:
    from ..devices.device import Device
    from ..plugins import Plugins
    from ..settings.schema import Settings

log = logging.getLogger("gateway.hub")
SECRETS = "a change of its secrets"  # the actor in the audit log
POLL = 30.0  # seconds between two checks of secrets and the environment file, as in Truss
BUSY_RETRY = 10.0  # Retry-After, in seconds, for a model that no device has room for now


class Hub:
    """All hosted models of a gateway.

    `settings` are those in force; `last_read` are those read last, which may not be in force. `only` are the models
    named on the command line, if any.
    """

    def __init__(
        self,
        settings: Settings,
        plugins: Plugins,
        specs: Iterable[ModelSpec],
        *,
        problems: Sequence[Problem] = (),
        devices: Sequence[Device] = (),
    ) -> None:
        self.settings, self.plugins, self.problems = settings, plugins, problems
        self.last_read = settings
        self.only: Sequence[str] = ()
        self.catalog = Catalog(plugins.endpoints(), settings.gateway)
        self.ledger = Ledger(devices, settings.gateway.placement)
        self.remarks, self.reloads, self.tails = Remarks(), Newest(), Tails()
        self.draining = False
        self._methods = tuple(dict.fromkeys(endpoint.method for endpoint in self.catalog.endpoints))
        self._shares = Shares(settings.gateway.max_inflight, settings.gateway.max_queued_bytes)
        self._room, self._reaper = Room(), Reaper()
        self._secrets = SecretSources(lambda: self.settings)
        self._not_hidden: list[ModelSpec] = []  # their secrets may be in no log either, before they are loaded
        self._hiding = threading.Lock()
        self._told: dict[str, tuple[dict[str, str], dict[str, Any] | None]] = {}  # secrets and deployment, by model
        self._watching: asyncio.Task[None] | None = None
        self._expecting: asyncio.Task[None] | None = None
        for spec in specs:
            self.host(spec)
        self.catalog.learn_aliases(settings)

    def start(self) -> None:
        """Place and load every eager model. Returns at once.

        Raises:
            PlacementError: a model does not fit, and `on_impossible` is "refuse-start".
        """
        refused = self.begin(self.catalog.models.values())
        if refused and self.settings.gateway.placement.on_impossible == "refuse-start":
            raise PlacementError("; ".join(text for _, text in refused.values()))
        specs = [model.spec for model in self.catalog.models.values() if not model.spec.is_stand_in]
        self._expecting = asyncio.create_task(
            asyncio.to_thread(self.catalog.expected_routes.read, specs), name="expected_routes"
        )
        self._watching = asyncio.create_task(self._watch_sources(), name="sources")

    def begin(self, models: Iterable[HostedModel]) -> dict[str, tuple[str, str]]:
        """Place and load the eager ones of these models. Returns those that do not fit, like `Ledger.place`."""
        eager = [model for model in models if not model.spec.is_stand_in and not self.is_lazy(model.name)]
        refused = self.ledger.place([model.spec for model in eager])
        for model in eager:
            if model.name in refused:
                model.fail(refused[model.name][1])
            else:
                model.start()
        return refused

    def _load_on_demand(self, name: str) -> None:
        """Load a lazy model because a request needs it.

        Raises:
            Draining: the gateway is shutting down.
            Unavailable: no device has room for it now.
        """
        if self.draining:
            raise Draining("the gateway is shutting down", retry_after=1, cause="stopping")
        model = self.catalog.models[name]
        refused = self.ledger.place([model.spec])
        if not refused:
            model.start()
            return
        reason, text = refused[name]
        if reason == "busy":
            log.warning("model '%s' is not loaded: %s", name, text)
            full = f"model '{name}' is not loaded: no device has room for it now"
            raise Unavailable(full, retry_after=BUSY_RETRY, cause="no_room")
        model.fail(text)

    async def load(self, model: HostedModel) -> None:
        """Begin to load a model that is unloaded or has failed.

        Raises:
            Draining, Unavailable: as for a request to a lazy model.
        """
        if model.state == "failed" and not model.spec.is_stand_in:
            await self.unload(model)
        if model.state == "unloaded":
            self._load_on_demand(model.name)

    async def unload(self, model: HostedModel) -> None:
        """End the model's processes after their running calls, and release its devices."""
        if not model.spec.is_stand_in:  # a stand-in has no processes
            then = "" if self.is_lazy(model.name) else f"; `gateway load {model.name}` loads it"
            then = "; its directory is gone" if model.is_gone else then
            await model.stop(self.settings.gateway.drain_timeout, f"stopped{then}", cause="unloading")
            self.ledger.give_back(self.ledger.held_by(model.name))

    async def forget(self, model: HostedModel) -> None:
        """Unload the model and delete everything that is kept under its name."""
        name = model.name
        await self.unload(model)
        if self.catalog.models.get(name) is not model:  # another scan of the roots was faster and hosts a new model
            return
        self._told.pop(name, None)
        self.ledger.forget(name)
        self.tails.forget(name)
        self.remarks.forget(name)
        self.catalog.remove(name)

    async def stop(self, grace: float) -> None:
        """Stop every model; running calls may finish within `grace` seconds. May be called again with less grace."""
        self.draining = True
        if self._watching is not None:
            self._watching.cancel()
        models = list(self.catalog.models.values())
        results = await asyncio.gather(*(model.stop(grace) for model in models), return_exceptions=True)
        for model, result in zip(models, results, strict=True):
            if isinstance(result, Exception):
                log.error("%s: the stop failed", model.name, exc_info=result)
        self._reaper.close()

    # ── secrets and environment ──────────────────────────────────────────────────────────────────────────────────

    async def _watch_sources(self) -> None:
        while True:
            await asyncio.sleep(POLL)
            try:
                await self.tell_changes()
            except Exception:
                log.exception("the sources of secrets could not be read")

    async def tell_changes(self) -> None:
        """Read secrets and the environment file again, and send what changed to the workers."""
        # On a thread: the files may be on a network file system.
        for name, secrets, deployment in await asyncio.to_thread(self._changes):
            if name not in self._told:  # the model was forgotten meanwhile
                continue
            told_secrets, told_deployment = self._told[name]
            self._told[name] = (secrets, deployment or told_deployment)
            self.catalog.models[name].replicas.update(
                secrets if secrets != told_secrets else None,
                deployment if deployment != told_deployment else None,
            )
            model = self.catalog.models[name]
            if secrets != told_secrets and (model.state == "failed" or model.note):  # this secret may be why
                spawn(reload_told(self, model, SECRETS))

    def hide_secrets_of(self, spec: ModelSpec) -> None:
        """Hide them in all logs, before anything is loaded with them: another model may read their files."""
        self._not_hidden.append(spec)
        if self._watching is not None:  # before that nothing runs, and a load hides them first
            spawn(asyncio.to_thread(self._hide_hosted))

    def _hide_hosted(self) -> None:
        """Hide the secrets of models that were hosted since the last time. Called on any thread, at every load."""
        with self._hiding:
            new, self._not_hidden = self._not_hidden, []
            self._hide({spec.name: (spec, self._secrets.for_model(spec)) for spec in new})

    def _hide(self, found: Mapping[str, tuple[ModelSpec, dict[str, str]]]) -> None:
        KNOWN.hide(value for spec, secrets in found.values() for value in apart(secrets, spec.config.get("secrets"))[0])

    def _changes(self) -> list[tuple[str, dict[str, str], dict[str, Any] | None]]:
        deployment = self._secrets.deployment()
        changes = []
        specs = [model.spec for model in tuple(self.catalog.models.values())]
        found = {spec.name: (spec, self._secrets.for_model(spec)) for spec in specs}
        self._hide(found)
        for name, told in tuple(self._told.items()):
            if name not in found:  # the event loop removed it meanwhile
                continue
            secrets = found[name][1]
            if secrets != told[0] or deployment not in (None, told[1]):
                changes.append((name, secrets, deployment))
        return changes

    @property
    def shares(self) -> Shares:
        """The limits that all models share."""
        return self._shares

    @property
    def is_ready(self) -> bool:
        """Whether every required model is ready; models that load on demand do not count."""
        if self.draining:
            return False
        return all(model.state in ("ready", "unloaded") for model in self.catalog.models.values() if model.required)

    # ── hosting ──────────────────────────────────────────────────────────────────────────────────────────────────

    def host(self, spec: ModelSpec) -> HostedModel:
        """Add a model that is not loaded yet.

        Raises:
            ConfigError: its runner does not exist.
        """
        mine, runners = self.settings.model(spec.name), self.plugins.runners()
        if mine.runner not in runners and not spec.is_stand_in:
            raise ConfigError(f"{table_of(spec.name)} runner = {mine.runner!r} is unknown (have: {', '.join(runners)})")
        maker = Maker(
            runners.get(mine.runner) or next(iter(runners.values())),
            self.launch,
            prepare=self.isolate if self.settings.isolates(spec) else None,
            files=LoadedFiles(),
        )
        model = HostedModel(
            spec,
            maker,
            self._on_change,
            required=mine.required and not spec.is_stand_in,
            debug=self.settings.gateway.debug,
            on_demand=partial(self._load_on_demand, spec.name) if self.is_lazy(spec.name) else None,
            shares=self._shares,
        )
        self.catalog.add(model)
        self.hide_secrets_of(spec)
        return model

    def _on_change(self, event: Mapping[str, Any]) -> None:
        if event["state"] == "failed" and not self.catalog.models[event["model"]].spec.is_stand_in:
            # Whoever sees this model may read its lines, but not which others hold the devices.
            no_place = self.catalog.models[event["model"]].has_no_place
            self.tails.note(event["model"], f"failed: {NO_ROOM if no_place else event['reason']}")
        self.plugins.model_changed(event)

    def is_lazy(self, name: str) -> bool:
        """Return whether the model loads on demand and may be unloaded again."""
        return self.settings.model(name).load == "lazy"

    async def isolate(self, spec: ModelSpec) -> ModelSpec:
        """Return the spec with the Python of its own virtual environment, which is built now if needed.

        Raises:
            ConfigError: the environment cannot be built, or the model has no code of its own.
        """
        if not spec.own_code:
            raise ConfigError("env = 'isolated' is for models with code of their own; this one is served by a plugin")
        variables = self.settings.model(spec.name).environment
        from ..environments import virtualenvs

        python = await virtualenvs.ensure(spec, partial(self.tails.add, spec.name), variables=variables)
        return replace(spec, python=str(python))

    def launch(self, spec: ModelSpec, index: int) -> Launch:
        gateway = self.settings.gateway
        placement = self.ledger.placement_of(spec.name, index)
        models = self.catalog.models.values()
        live = sum(model.spec.replicas for model in models if model.state not in ("failed", "unloaded"))
        environment = worker_environment(
            placement, cpu=spec.resources.cpu, replicas=live, environment=dict(spec.environment)
        )
        if gateway.cache_dir is not None:
            environment.setdefault("GATEWAY_CACHE_DIR", str(gateway.cache_dir.expanduser().absolute()))
        if spec.python is not None:  # the gateway package only, none of our dependencies
            from ..environments import virtualenvs

            environment["PYTHONPATH"] = str(virtualenvs.import_path())
        on_log = partial(self.tails.add, spec.name)
        secrets, deployment = self._secrets.for_model(spec), self._secrets.deployment()
        self._told.setdefault(spec.name, (secrets, deployment))  # another replica may have got older ones
        if missing := [name for name in spec.secrets if name not in secrets]:
            on_log(f"declared secrets without a value: {listed(missing)}")
        return Launch(
            spec=spec,
            index=index,
            environment=environment,
            secrets=secrets,
            hide_others=self._hide_hosted,
            deployment=deployment,
            plugin_dirs=[Path(path).resolve().parent for path in gateway.plugins],
            endpoint_methods=self._methods,
            debug=gateway.debug,
            on_described=self.catalog.models[spec.name].on_described,
            on_batch=self.catalog.models[spec.name].history.batches.add,
            on_log=on_log,
            guard=self._reaper.add,
            unguard=self._reaper.remove,
            room=self._room,
        )
