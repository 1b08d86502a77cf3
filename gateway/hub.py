"""Every hosted model by its name: which one a request means, and where each one runs.

Starts and stops models, keeps the ledger of devices. What a model does is its own business.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .claims import Claim, NoFit, Placement, claims_of, to_requests
from .cpu import worker_environment
from .errors import BadRequest, ConfigError, PlacementError, RouteNotSupported, UnknownModel
from .hosted import HostedModel
from .placement import explain, plan_all
from .replica import Launch
from .runners.reaper import Reaper
from .secret_sources import SecretSources
from .spec import Endpoint, ModelSpec, Problem

if TYPE_CHECKING:
    from .devices import Device
    from .plugins import Plugins
    from .settings import Settings

log = logging.getLogger("gateway.hub")
SOLE = "model"  # the id that every Truss client sends


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
        self.endpoints = plugins.endpoints()
        self.methods = tuple(dict.fromkeys(endpoint.method for endpoint in self.endpoints))
        self.draining = False
        self._reaper = Reaper()
        self._secrets = SecretSources(settings)
        self._placements: dict[str, Placement] = {}
        self._claims: list[Claim] = []
        self._logs: dict[str, logging.Logger] = {}
        self.models: dict[str, HostedModel] = {spec.name: self._host(spec) for spec in specs}
        self.aliases = self._check_aliases()

    # ── which model ──────────────────────────────────────────────────────────────────────────────────────────────

    def find(self, name: str) -> HostedModel:
        """The model of that name, or alias.

        Raises:
            UnknownModel: listing what there is.
        """
        model = self.models.get(name) or self.models.get(self.aliases.get(name, ""))
        if model is not None:
            return model
        if name == SOLE and (sole := self._sole(list(self.models.values()))) is not None:
            return sole
        have = ", ".join(sorted(self.models)) or "none"
        raise UnknownModel(f"no model named '{name[:128]}' (have: {have})", param="model")

    def find_for(self, endpoint: Endpoint, name: str | None) -> HostedModel:
        """The model that a request to a shared route means. Without a name: the only one that serves the route.

        Raises:
            UnknownModel, RouteNotSupported: the named one is not there, or lacks the method.
            BadRequest: no name, and several candidates.
        """
        if name is not None:
            model = self.find(name)
            self.check_serves(model, endpoint)
            return model
        serving = [model for model in self.models.values() if self.serves(model, endpoint)]
        sole = self._sole(serving)
        if sole is not None:
            return sole
        candidates = ", ".join(model.name for model in serving) or "none"
        raise BadRequest(
            f"you must provide a model parameter (models that serve {endpoint.path}: {candidates})",
            param="model",
            code="missing_required_parameter",
        )

    def _sole(self, models: list[HostedModel]) -> HostedModel | None:
        if len(models) == 1:
            return models[0]
        default = self.settings.gateway.default_model
        return next((model for model in models if model.name == default), None)

    def serves(self, model: HostedModel, endpoint: Endpoint) -> bool:
        """Whether the model has the method. One that never was ready is believed to have it until it says."""
        methods = model.capabilities.methods
        return not methods or any(method.name == endpoint.method for method in methods)

    def check_serves(self, model: HostedModel, endpoint: Endpoint) -> None:
        if not self.serves(model, endpoint):
            have = ", ".join(self.routes(model)) or "nothing over HTTP"
            raise RouteNotSupported(
                f"model '{model.name}' does not serve {endpoint.path} (it serves: {have})", param="model"
            )

    def routes(self, model: HostedModel) -> list[str]:
        """The paths that the model answers."""
        names = {method.name for method in model.capabilities.methods}
        predict = [f"/v1/models/{model.name}:predict"] if "predict" in names else []
        return predict + [endpoint.path for endpoint in self.endpoints if endpoint.method in names]

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Place and load every eager model. Returns at once.

        Raises:
            PlacementError: something does not fit, and the settings say to refuse then.
        """
        placement = self.settings.gateway.placement
        eager = [model for model in self.models.values() if self.settings.model(model.name).load == "eager"]
        requests = [request for model in eager for request in to_requests(model.spec)]
        outcomes = plan_all(
            self.devices, requests, headroom=placement.headroom, unmatched=placement.unmatched_accelerator
        )
        refused: dict[str, str] = {}
        for request, outcome in outcomes:
            name = request.owner.rpartition("/")[0]
            if isinstance(outcome, NoFit):
                refused[name] = explain(request, outcome)
            else:
                self._placements[request.owner] = outcome
                self._claims += claims_of(request, outcome)
        if refused and placement.on_impossible == "refuse-start":
            raise PlacementError("; ".join(refused.values()))
        for model in eager:
            if model.name in refused:
                model.fail(refused[model.name])
            else:
                model.devices = [
                    ",".join(device.id for device in self._placements[request.owner].devices) or "cpu"
                    for request in to_requests(model.spec)
                ]
                model.start()

    async def stop(self, grace: float) -> None:
        """End every model; each may finish what it runs."""
        self.draining = True
        await asyncio.gather(*(model.stop(grace) for model in self.models.values()))
        self._reaper.close()

    @property
    def is_ready(self) -> bool:
        """Every required model is ready; one that loads on demand does not count."""
        if self.draining:
            return False
        return all(model.state in ("ready", "unloaded") for model in self.models.values() if model.required)

    # ── hosting ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _host(self, spec: ModelSpec) -> HostedModel:
        mine = self.settings.model(spec.name)
        runners = self.plugins.runners()
        if mine.runner not in runners:
            raise ConfigError(f"[models.{spec.name}] runner = {mine.runner!r} is unknown (have: {', '.join(runners)})")
        return HostedModel(
            spec,
            runners[mine.runner],
            self._launch,
            self.plugins.model_changed,
            required=mine.required,
            debug=self.settings.gateway.debug,
        )

    def _launch(self, spec: ModelSpec, index: int) -> Launch:
        placement = self._placements.get(f"{spec.name}/{index}", Placement())
        live = sum(model.spec.replicas for model in self.models.values() if model.state != "failed")
        environment = worker_environment(
            placement, cpu=spec.resources.cpu, replicas=live, environment=dict(spec.environment)
        )
        model = self.models[spec.name]
        logger = logging.getLogger(f"gateway.model.{spec.name.replace('/', '.')}")

        def on_log(line: str) -> None:
            model.tail.append(line)
            logger.info("%s", line, extra={"model": spec.name})

        return Launch(
            spec=spec,
            index=index,
            environment=environment,
            secrets=self._secrets.for_model(spec),
            deployment=self._secrets.deployment(spec),
            plugin_dirs=[Path(path).resolve().parent for path in self.settings.gateway.plugins],
            endpoint_methods=self.methods,
            debug=self.settings.gateway.debug,
            on_log=on_log,
            guard=self._reaper.add,
            unguard=self._reaper.remove,
        )

    def _check_aliases(self) -> Mapping[str, str]:
        aliases: dict[str, str] = dict(self.settings.gateway.aliases)
        for name in self.models:
            for alias in self.settings.model(name).aliases:
                aliases.setdefault(alias, name)
        for alias, name in aliases.items():
            if name not in self.models:
                log.warning("alias '%s' points to model '%s', which is not hosted", alias, name)
        return aliases


def row(model: HostedModel, hub: Hub) -> dict[str, Any]:
    """What tables and JSON show of a model."""
    return {
        "model": model.name,
        "state": model.state,
        "reason": model.reason,
        "format": model.spec.format,
        "devices": model.devices,
        "routes": hub.routes(model),
        "slots": model.spec.limits.slots,
        "replicas": model.spec.replicas,
        "running": model.limiter.running,
        "queued": model.limiter.queued,
        "restarts": model.restarts,
    }
