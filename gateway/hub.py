"""Every hosted model by its name: which one a request means, and where each one runs.

Starts and stops models, keeps the ledger of devices, tells models what changed around them. What a model does is its
own business.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import environments
from .access import Guests, KeyRing
from .channel import Room
from .claims import Claim, NoFit, Placement, claims_of
from .cpu import worker_environment
from .errors import BadRequest, ConfigError, Draining, PlacementError, RouteNotSupported, Unavailable, UnknownModel
from .foretold import Foretold
from .hosted import HostedModel
from .loaded_files import LoadedFiles
from .newest import Newest
from .placement import NO_ROOM, explain, plan_models
from .reloading import reload_told, spawn
from .remarks import Remarks
from .replica import Launch
from .responses_store import ResponsesStore
from .runners.reaper import Reaper
from .secret_sources import SecretSources
from .shares import Shares
from .spec import Endpoint, ModelSpec, Problem
from .tails import Tails
from .wording import listed, table_of

if TYPE_CHECKING:
    from .devices import Device
    from .plugins import Plugins
    from .settings import Settings

log = logging.getLogger("gateway.hub")
Sees = Callable[[str], bool]  # whether a model exists for a caller
SECRETS = "a change of its secrets"  # who gives the orders then, for the audit log
SOLE = "model"  # the id that every Truss client sends
POLL = 30.0  # seconds between two looks at secrets and the environment file, as in Truss
BUSY_RETRY = 10.0  # seconds until a client may ask again for a model that no device has room for now
ASK = "gateway ps shows why, on the machine of the gateway"


class Hub:
    """name → HostedModel."""

    def __init__(
        self,
        settings: Settings,
        plugins: Plugins,
        specs: Iterable[ModelSpec],
        *,
        problems: Sequence[Problem] = (),
        devices: Sequence[Device] = (),
    ) -> None:
        self.settings, self.plugins, self.problems, self.devices = settings, plugins, problems, devices
        self.last_read = settings  # what was last read, which is not all in force
        self.remarks, self.reloads = Remarks(), Newest()
        self.only: Sequence[str] = ()  # the models that the command names, when it does
        self.endpoints = plugins.endpoints()
        self.methods = tuple(dict.fromkeys(endpoint.method for endpoint in self.endpoints))
        self._shares = Shares(settings.gateway.max_inflight, settings.gateway.max_queued_bytes)
        self._room = Room()
        self.keys = KeyRing(settings.gateway.api_key, settings.gateway.keys_file)
        self.responses = ResponsesStore(settings.gateway.responses)
        self.guests, self.tails, self.draining = Guests(), Tails(), False
        self.foretold, self._reaper = Foretold(self.endpoints), Reaper()
        self._secrets = SecretSources(lambda: self.settings)
        self._placements: dict[str, Placement] = {}
        self._claims: list[Claim] = []
        self._told: dict[str, tuple[dict[str, str], dict[str, Any] | None]] = {}  # secrets and deployment, by model
        self._watching: asyncio.Task[None] | None = None
        self._foretelling: asyncio.Task[None] | None = None
        self.on_forget: list[Callable[[str], None]] = []  # called with the name of a model that is hosted no more
        self.models: dict[str, HostedModel] = {spec.name: self.host(spec) for spec in specs}
        self.aliases = settings.aliases_of(self.models)

    # ── which model ──────────────────────────────────────────────────────────────────────────────────────────────

    def seen(self, sees: Sees) -> list[HostedModel]:
        """The models that exist for a caller. Whatever tells of several models, a list or a number, asks here."""
        return [model for model in self.models.values() if sees(model.name)]

    def reason(self, model: HostedModel, sees: Sees, is_admin: bool) -> str:
        """Why the model is as it is. What its code raised is its operator's to see.

        Who holds the devices that it lacks is told to those only who see every model.
        """
        if model.has_no_place and len(self.seen(sees)) < len(self.models):
            return NO_ROOM
        if model.has_no_place or model.spec.is_stand_in or is_admin or self.settings.gateway.debug or not model.reason:
            return model.reason
        return ASK

    def find(self, name: str, sees: Sees) -> HostedModel:
        """The model of that name, or alias, among those that the caller sees.

        Raises:
            UnknownModel: listing what there is.
        """
        model = self.models.get(name) or self.models.get(self.aliases.get(name, ""))
        if model is not None and sees(model.name):
            return model
        seen = self.seen(sees)
        if name == SOLE and (sole := self.sole(seen)) is not None:
            return sole
        have = ", ".join(sorted(model.name for model in seen)) or "none"
        if name == SOLE and seen:
            say = f"name one, as in /models/{min(model.name for model in seen)}/predict (have: {have})"
            raise UnknownModel(f"there are several models and no default_model; {say}", param="model")
        error = UnknownModel(f"no model named '{name[:128]}' (have: {have})", param="model")
        error.asked, error.cause = name, "" if model is None else "model_hidden"
        raise error

    def find_for(self, endpoint: Endpoint, name: str | None, sees: Sees) -> HostedModel:
        """The model that a request to a shared route means; a named one may not serve it, see `check_serves`.

        Without a name: the only one that serves the route.

        Raises:
            UnknownModel: the named one is not there.
            BadRequest: no name, and several candidates.
        """
        if name is not None:
            return self.find(name, sees)
        serving = [model for model in self.seen(sees) if self.serves(model, endpoint)]
        sole = self.sole(serving)
        if sole is not None:
            return sole
        candidates = ", ".join(model.name for model in serving) or "none"
        raise BadRequest(
            f"you must provide a model parameter (models that serve {endpoint.path}: {candidates})",
            param="model",
            code="missing_required_parameter",
        )

    def sole(self, models: list[HostedModel]) -> HostedModel | None:
        """The only one of these, or the default among them. What could not be read is meant by its name alone."""
        models = [model for model in models if not model.spec.is_stand_in] or models
        if len(models) == 1:
            return models[0]
        default = self.settings.gateway.default_model
        return next((model for model in models if model.name == default), None)

    def method_for(self, model: HostedModel, endpoint: Endpoint) -> str | None:
        """The method that answers the route: its own, or one that it is derived from; None when there is neither.

        A model that never was ready is believed to have its own until it says.
        """
        methods = model.capabilities.methods
        names = {method.name for method in methods}
        if not methods or endpoint.method in names:
            return endpoint.method
        derived = endpoint.derived_from in names and endpoint.method in model.spec.derive
        return endpoint.derived_from if derived else None

    def serves(self, model: HostedModel, endpoint: Endpoint) -> bool:
        if self.method_for(model, endpoint) is not None:
            return True
        if model.spec.parity == "strict":
            return False
        others = (other for other in self.endpoints if other.path == endpoint.beside)
        return any(self.method_for(model, other) is not None for other in others)

    def check_serves(self, model: HostedModel, endpoint: Endpoint) -> None:
        if not self.serves(model, endpoint):
            have = ", ".join(self.routes(model)) or "nothing over HTTP"
            asked = model.capabilities.asked
            slip = asked.get(endpoint.method) or asked.get(endpoint.derived_from or "")
            raise RouteNotSupported(
                f"model '{model.name}' does not serve {endpoint.path} (it serves: {have})"
                + (f"; {slip}" if slip else ""),
                param="model",
            )

    def routes(self, model: HostedModel) -> list[str]:
        """The paths that the model answers; of one that was never loaded, those that its source speaks of."""
        if not (methods := model.capabilities.methods) and model.state in ("unloaded", "loading"):
            return self.foretold.routes(model.spec)
        predict = [f"/v1/models/{model.name}:predict"] if any(method.name == "predict" for method in methods) else []
        return predict + [endpoint.path for endpoint in self.endpoints if methods and self.serves(model, endpoint)]

    def derived(self, model: HostedModel) -> list[str]:
        """The paths among them that the class has no method for."""
        own = {method.name for method in model.capabilities.methods if not method.derived}
        return [
            endpoint.path
            for endpoint in self.endpoints
            if own and endpoint.method not in own and self.serves(model, endpoint)
        ]

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Place and load every eager model. Returns at once.

        Raises:
            PlacementError: something does not fit, and the settings say to refuse then.
            ConfigError: the file for responses cannot be used.
        """
        self.responses.open()
        refused = self.begin(self.models.values())
        if refused and self.settings.gateway.placement.on_impossible == "refuse-start":
            raise PlacementError("; ".join(text for _, text in refused.values()))
        specs = [model.spec for model in self.models.values() if not model.spec.is_stand_in]
        self._foretelling = asyncio.create_task(asyncio.to_thread(self.foretold.read, specs), name="foretold")
        self._watching = asyncio.create_task(self._watch_sources(), name="sources")

    def begin(self, models: Iterable[HostedModel]) -> dict[str, tuple[str, str]]:
        """Place and load the eager ones of these; returns those that do not fit, as `place`."""
        eager = [model for model in models if not model.spec.is_stand_in and not self.is_lazy(model.name)]
        refused = self.place([model.spec for model in eager])
        for model in eager:
            if model.name in refused:
                model.fail(refused[model.name][1])
            else:
                model.start()
        return refused

    def _load_on_demand(self, name: str) -> None:
        """A request met the lazy model unloaded.

        Raises:
            Draining: the gateway is about to end.
            Unavailable: no device has room for it now.
        """
        if self.draining:
            raise Draining("the gateway is shutting down", retry_after=1, cause="stopping")
        model = self.models[name]
        refused = self.place([model.spec])
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
        """Begin to load a model that is not loaded, or could not be.

        Raises:
            Draining, Unavailable: as for a request to a lazy model.
        """
        if model.state == "failed" and not model.spec.is_stand_in:
            await self.unload(model)
        if model.state == "unloaded":
            self._load_on_demand(model.name)

    async def unload(self, model: HostedModel) -> None:
        """End a model's processes, when what they run has finished, and give back its devices."""
        if not model.spec.is_stand_in:  # which has none
            then = "" if self.is_lazy(model.name) else f"; `gateway load {model.name}` loads it"
            then = "; its directory is gone" if model.is_gone else then
            await model.stop(self.settings.gateway.drain_timeout, f"stopped{then}", cause="unloading")
            self.give_back(self.held_by(model.name))

    async def forget(self, model: HostedModel) -> None:
        """Host it no more: nothing is kept under its name."""
        name = model.name
        await self.unload(model)
        if self.models.get(name) is not model:  # another look at the roots was faster, and may host a new one by now
            return
        del self.models[name]
        self._told.pop(name, None)
        for index in range(model.spec.replicas):
            self._placements.pop(f"{name}/{index}", None)
        self.tails.forget(name)
        self.remarks.forget(name)
        for forget in self.on_forget:
            forget(name)

    async def stop(self, grace: float) -> None:
        """End every model; each may finish what it runs. May be called again meanwhile, with less grace."""
        self.draining = True
        if self._watching is not None:
            self._watching.cancel()
        models = list(self.models.values())
        results = await asyncio.gather(*(model.stop(grace) for model in models), return_exceptions=True)
        for model, result in zip(models, results, strict=True):
            if isinstance(result, Exception):
                log.error("%s: the stop went wrong", model.name, exc_info=result)
        self._reaper.close()

    # ── devices ──────────────────────────────────────────────────────────────────────────────────────────────────

    def place(self, specs: Sequence[ModelSpec]) -> dict[str, tuple[str, str]]:
        """Claim devices for every replica of these models, all or none of a model.

        Returns those that got none, with "impossible" or "busy", and a sentence.
        """
        rules = self.settings.gateway.placement
        unmatched, headroom = rules.unmatched_accelerator, rules.headroom
        planned = plan_models(self.devices, specs, claims=self._claims, headroom=headroom, unmatched=unmatched)
        refused: dict[str, tuple[str, str]] = {}
        for name, replicas in planned.items():
            places = []
            for request, outcome in replicas:
                if isinstance(outcome, NoFit):
                    refused[name] = (outcome.reason, explain(request, outcome))
                    break
                self._placements[request.owner] = outcome
                self._claims += claims_of(request, outcome)
                places.append(",".join(device.id for device in outcome.devices) or "cpu")
            else:
                self.models[name].devices = places
        return refused

    def held_by(self, name: str) -> list[Claim]:
        """What the replicas of a model hold."""
        return [claim for claim in self._claims if claim.owner.rpartition("/")[0] == name]

    def give_back(self, claims: Sequence[Claim]) -> None:
        """These and no others: during a reload, what is held twice looks the same."""
        gone = {id(claim) for claim in claims}
        self._claims = [claim for claim in self._claims if id(claim) not in gone]

    def hold(self, claims: Sequence[Claim]) -> None:
        """Claim again what was given back a moment ago."""
        self._claims += claims

    def places_of(self, name: str) -> dict[str, Placement]:
        """Where its replicas are started, by owner of the claim."""
        return {owner: place for owner, place in self._placements.items() if owner.rpartition("/")[0] == name}

    def put_back(self, name: str, places: Mapping[str, Placement], devices: Sequence[str]) -> None:
        """Start its replicas there again, when the places of a reload that failed have come to nothing."""
        for owner in self.places_of(name):
            del self._placements[owner]
        self._placements.update(places)
        self.models[name].devices = list(devices)

    # ── secrets and environment ──────────────────────────────────────────────────────────────────────────────────

    async def _watch_sources(self) -> None:
        while True:
            await asyncio.sleep(POLL)
            try:
                await self.keys.reload_if_changed()
                await self.tell_changes()
            except Exception:
                log.exception("the sources of secrets could not be looked at")

    async def tell_changes(self) -> None:
        """Read the secrets of the models and the environment file again; what changed goes to the workers."""
        # In a thread: these may be files on a network.
        for name, secrets, deployment in await asyncio.to_thread(self._changes):
            if name not in self._told:  # it was forgotten meanwhile
                continue
            told_secrets, told_deployment = self._told[name]
            self._told[name] = (secrets, deployment or told_deployment)
            self.models[name].update(
                secrets if secrets != told_secrets else None,
                deployment if deployment != told_deployment else None,
            )
            model = self.models[name]
            if secrets != told_secrets and (model.state == "failed" or model.note):  # it may have been this secret
                spawn(reload_told(self, model, SECRETS))

    def _changes(self) -> list[tuple[str, dict[str, str], dict[str, Any] | None]]:
        deployment = self._secrets.deployment()
        changes = []
        for name, told in tuple(self._told.items()):
            if (model := self.models.get(name)) is None:  # the loop has forgotten it meanwhile
                continue
            secrets = self._secrets.for_model(model.spec)
            if secrets != told[0] or deployment not in (None, told[1]):
                changes.append((name, secrets, deployment))
        return changes

    @property
    def is_ready(self) -> bool:
        """Every required model is ready; one that loads on demand does not count."""
        if self.draining:
            return False
        return all(model.state in ("ready", "unloaded") for model in self.models.values() if model.required)

    # ── hosting ──────────────────────────────────────────────────────────────────────────────────────────────────

    def host(self, spec: ModelSpec) -> HostedModel:
        mine, runners = self.settings.model(spec.name), self.plugins.runners()
        if mine.runner not in runners and not spec.is_stand_in:
            raise ConfigError(f"{table_of(spec.name)} runner = {mine.runner!r} is unknown (have: {', '.join(runners)})")
        return HostedModel(
            spec,
            runners.get(mine.runner) or next(iter(runners.values())),
            self.launch,
            self._on_change,
            required=mine.required and not spec.is_stand_in,
            debug=self.settings.gateway.debug,
            on_demand=partial(self._load_on_demand, spec.name) if self.is_lazy(spec.name) else None,
            prepare=self.isolate if self.settings.isolates(spec) else None,
            files=LoadedFiles(),
            shares=self._shares,
        )

    def _on_change(self, event: Mapping[str, Any]) -> None:
        if event["state"] == "failed" and not self.models[event["model"]].spec.is_stand_in:
            self.tails.note(event["model"], f"failed: {event['reason']}")
        self.plugins.model_changed(event)

    def is_lazy(self, name: str) -> bool:
        """Whether it loads on demand, and may be unloaded again."""
        return self.settings.model(name).load == "lazy"

    async def isolate(self, spec: ModelSpec) -> ModelSpec:
        """The spec with the Python of an environment of its own, built now if need be.

        Raises:
            ConfigError: it cannot be built, or the model has no code that could want one.
        """
        if spec.extra is not None:
            raise ConfigError("env = 'isolated' is for models with code of their own; this one is served by a plugin")
        variables = self.settings.model(spec.name).environment
        python = await environments.ensure(spec, partial(self.tails.add, spec.name), variables=variables)
        return replace(spec, python=str(python))

    def launch(self, spec: ModelSpec, index: int) -> Launch:
        gateway = self.settings.gateway
        placement = self._placements.get(f"{spec.name}/{index}", Placement())
        live = sum(model.spec.replicas for model in self.models.values() if model.state not in ("failed", "unloaded"))
        environment = worker_environment(
            placement, cpu=spec.resources.cpu, replicas=live, environment=dict(spec.environment)
        )
        if gateway.cache_dir is not None:
            environment.setdefault("GATEWAY_CACHE_DIR", str(gateway.cache_dir.expanduser().absolute()))
        if spec.python is not None:  # our package and nothing else of ours
            environment["PYTHONPATH"] = str(environments.import_path())
        on_log = partial(self.tails.add, spec.name)
        secrets, deployment = self._secrets.for_model(spec), self._secrets.deployment()
        self._told.setdefault(spec.name, (secrets, deployment))  # another replica may have heard older ones
        if missing := [name for name in spec.secrets if name not in secrets]:
            on_log(f"declared secrets without a value: {listed(missing)}")
        return Launch(
            spec=spec,
            index=index,
            environment=environment,
            secrets=secrets,
            deployment=deployment,
            plugin_dirs=[Path(path).resolve().parent for path in gateway.plugins],
            endpoint_methods=self.methods,
            debug=gateway.debug,
            on_described=self.models[spec.name].on_described,
            on_log=on_log,
            guard=self._reaper.add,
            unguard=self._reaper.remove,
            room=self._room,
        )
