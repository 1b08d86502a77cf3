"""The operator's settings from gateway.toml, the environment and flags, as one frozen value.

Flags override the environment, the environment overrides the file, and the file overrides the defaults. `origin`
returns where a value came from. An unknown key is an error with a suggestion. A model directory cannot change any of
this.
"""

# ruff: noqa: RUF009  (`_key` is dataclasses.field with a kind)

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from ..spec import DERIVABLE, DERIVED, MIB, Limits, ModelSpec, Problem
from . import kinds
from .kinds import Kind
from .patterns import tables_of


def _key(kind: Kind, default: Any = MISSING, *, factory: Any = MISSING, shown: bool = True) -> Any:
    metadata = {"kind": kind}
    if factory is not MISSING:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata, repr=shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementSettings:
    """[gateway.placement]: the available devices, and how models share them."""

    devices: str | tuple[Mapping[str, Any], ...] = _key(kinds.devices, "auto")
    headroom: int = _key(kinds.size, 1024**3)  # bytes of each GPU that are never allocated
    unmatched_accelerator: Literal["error", "any", "cpu"] = _key(kinds.choice("error", "any", "cpu"), "error")
    on_full: Literal["error"] = _key(kinds.only_yet("error", "queue", "evict"), "error")
    on_impossible: Literal["fail-model", "refuse-start"] = _key(
        kinds.choice("fail-model", "refuse-start"), "fail-model"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponsesSettings:
    """[gateway.responses]: which answers of /v1/responses are stored, so that clients can continue from them."""

    path: Path | None = _key(kinds.file, None)  # a file; None keeps them in memory
    max_size: int = _key(kinds.size, 64 * MIB)  # bytes in total; 0 stores none
    max_age: float = _key(kinds.seconds, 720 * 3600.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """[gateway.worker]: defaults for the processes of models."""

    sandbox: Literal["basic", "strict"] = _key(kinds.choice("basic", "strict"), "basic")
    yields: bool = _key(kinds.flag, True)


USUAL_FILE = "gateway.toml"
LIMIT_KINDS: Mapping[str, Kind] = {
    "slots": kinds.whole(1),
    "max_queue": kinds.whole(0),
    "queue_timeout": kinds.seconds,
    "wait_for_ready": kinds.seconds,
    "request_timeout": kinds.seconds,
    "first_item_timeout": kinds.seconds,
    "gap_timeout": kinds.seconds,
    "load_timeout": kinds.seconds,
    "cancel_grace": kinds.seconds,
    "worker_silence": kinds.seconds,
    "max_crashes": kinds.whole(1),
    "max_body": kinds.size,
    "max_message": kinds.size,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """[gateway]: the gateway process. Times are seconds."""

    host: str = _key(kinds.text, "127.0.0.1")
    port: int = _key(kinds.whole(0, 65535), 8000)
    models: tuple[Path, ...] = _key(kinds.paths, (Path("models"),))
    plugins: tuple[Path, ...] = _key(kinds.paths, ())
    block_plugins: tuple[str, ...] = _key(kinds.texts, ())
    default_model: str | None = _key(kinds.text, None)
    aliases: Mapping[str, str] = _key(kinds.table, factory=dict)
    allowed_hosts: tuple[str, ...] = _key(kinds.texts, ())
    allowed_origins: tuple[str, ...] = _key(kinds.texts, ())
    api_key: str | None = _key(kinds.text, None, shown=False)  # from the environment only
    keys_file: Path = _key(kinds.file, Path("keys.toml"))  # if it exists, every request needs a key
    tls_cert: Path | None = _key(kinds.file, None)
    tls_key: Path | None = _key(kinds.file, None)  # None: in the file of the certificate
    admin_socket: Path | None = _key(kinds.file, None)  # None: a path of this user, named after the port
    admin_http: bool = _key(kinds.flag, False)
    insecure_no_auth: bool = _key(kinds.flag, False)
    debug: bool = _key(kinds.flag, False)
    log_format: Literal["text", "json"] = _key(kinds.choice("text", "json"), "text")
    log_level: Literal["debug", "info", "warning", "error"] = _key(
        kinds.choice("debug", "info", "warning", "error"), "info"
    )
    access_log: bool = _key(kinds.flag, False)
    truss_parity: Literal["improved", "strict"] = _key(kinds.choice("improved", "strict"), "improved")
    env: Literal["shared", "isolated"] = _key(kinds.choice("shared", "isolated"), "shared")  # default for every model
    drain_timeout: float = _key(kinds.seconds, 30.0)
    drain_delay: float = _key(kinds.seconds, 0.0)
    keep_alive: float = _key(kinds.seconds, 75.0)
    head_timeout: float = _key(kinds.seconds, 10.0)
    body_idle_timeout: float = _key(kinds.seconds, 15.0)
    body_timeout: float = _key(kinds.seconds, 60.0)
    send_timeout: float = _key(kinds.seconds, 30.0)
    max_connections: int | None = _key(kinds.whole(1), None)  # None: min(1024, a quarter of the open files allowed)
    max_inflight: int = _key(kinds.whole(1), 4096)  # queued and running calls of all models
    max_queued_bytes: int = _key(kinds.size, 256 * MIB)  # the bodies of all queued calls
    secrets_dir: Path | None = _key(kinds.directory, None)
    cache_dir: Path | None = _key(kinds.directory, None)
    mount_roots: tuple[Path, ...] = _key(kinds.paths, ())  # models may have a `mount_location` below these
    environment_file: Path | None = _key(kinds.file, None)
    limits: Limits = field(default_factory=Limits)
    placement: PlacementSettings = field(default_factory=PlacementSettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    responses: ResponsesSettings = field(default_factory=ResponsesSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """[models.NAME]: one model, or those that match a pattern. None leaves a value to the model's config.yaml."""

    replicas: int | None = _key(kinds.whole(1), None)
    gpus: int | tuple[Any, ...] | None = _key(kinds.gpus, None)
    gpu_memory: str | None = _key(kinds.gpu_memory, None)
    slots: int | None = _key(LIMIT_KINDS["slots"], None)  # also spelled predict_concurrency
    max_queue: int | None = _key(LIMIT_KINDS["max_queue"], None)
    queue_timeout: float | None = _key(kinds.seconds, None)
    wait_for_ready: float | None = _key(kinds.seconds, None)
    request_timeout: float | None = _key(kinds.seconds, None)
    first_item_timeout: float | None = _key(kinds.seconds, None)
    gap_timeout: float | None = _key(kinds.seconds, None)
    load_timeout: float | None = _key(kinds.seconds, None)
    cancel_grace: float | None = _key(kinds.seconds, None)
    worker_silence: float | None = _key(kinds.seconds, None)
    max_crashes: int | None = _key(kinds.whole(1), None)
    max_body: int | None = _key(kinds.size, None)
    max_message: int | None = _key(kinds.size, None)
    batch_size: int | None = _key(kinds.whole(1, kinds.LARGEST_BATCH), None)
    batch_delay: float | None = _key(kinds.seconds, None)
    batch_concurrency: int | None = _key(kinds.whole(1), None)
    batch_cost: str | None = _key(kinds.text, None)
    batch_budget: float | None = _key(kinds.positive, None)
    batch_key: str | None = _key(kinds.text, None)
    batch_sort: bool | None = _key(kinds.flag, None)
    batch_on_error: Literal["isolate", "fail"] | None = _key(kinds.choice("isolate", "fail"), None)
    load: Literal["eager", "lazy"] = _key(kinds.choice("eager", "lazy"), "eager")
    reload: Literal["beside", "replace"] = _key(kinds.choice("beside", "replace"), "beside")
    runner: str = _key(kinds.text, "process")
    required: bool = _key(kinds.flag, True)  # the gateway is ready only if this model is
    env: Literal["shared", "isolated"] | None = _key(kinds.choice("shared", "isolated"), None)
    environment: Mapping[str, str] | None = _key(kinds.variables, None)
    truss_parity: Literal["improved", "strict"] | None = _key(kinds.choice("improved", "strict"), None)
    derive: tuple[str, ...] = _key(kinds.choices(*DERIVABLE), DERIVED)
    enforce_stop: bool = _key(kinds.flag, False)
    allow_pickle: bool = _key(kinds.flag, False)
    trust_remote_code: bool = _key(kinds.flag, False)
    allow_links: bool = _key(kinds.flag, False)
    secrets: tuple[str, ...] | None = _key(kinds.texts, None)  # the model may only use these secrets
    forward_credentials: bool = _key(kinds.flag, False)
    sandbox: Literal["basic", "strict"] | None = _key(kinds.choice("basic", "strict"), None)
    memory_limit: int | None = _key(kinds.size, None)
    nice: int = _key(kinds.whole(0, 19), 0)
    aliases: tuple[str, ...] = _key(kinds.texts, ())
    mounts: Mapping[str, Path] | None = _key(kinds.places, None)
    options: Mapping[str, Any] | None = _key(kinds.anything, None)  # for the plugin that serves the model


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, shaped like gateway.toml. `problems` are warnings about the environment."""

    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    models: Mapping[str, ModelSettings] = field(default_factory=dict)
    file: Path | None = None
    origins: Mapping[str, str] = field(default_factory=dict, repr=False)
    problems: tuple[Problem, ...] = ()

    def origin(self, key: str) -> str:
        """Return where the value of "gateway.port" came from: "gateway.toml:12", "flag --port", "default", …"""
        if key not in self.origins and key.startswith("models."):
            name, _, field_name = key.removeprefix("models.").rpartition(".")
            for table in reversed(tables_of(name, self.models)):
                if (origin := self.origins.get(f"models.{table}.{field_name}")) is not None:
                    return origin
        return self.origins.get(key, "default")

    def table_origin(self, name: str) -> str:
        """Return where the table [models.NAME] begins."""
        return self.origins.get(f"models.{name}", str(self.file or "settings"))

    def model(self, name: str) -> ModelSettings:
        """Return the settings of a model: of its own table and of those whose pattern matches, see `patterns.py`."""
        tables = tables_of(name, self.models)
        if len(tables) < 2:
            return self.models[tables[0]] if tables else ModelSettings()
        given = {}
        for table in tables:
            for key in fields(found := self.models[table]):
                value = getattr(found, key.name)
                if value != key.default or f"models.{table}.{key.name}" in self.origins:
                    given[key.name] = value
        return ModelSettings(**given)

    def aliases_of(self, models: Iterable[str]) -> dict[str, str]:
        """Return the aliases set for the gateway, and those set for these models."""
        aliases: dict[str, str] = dict(self.gateway.aliases)
        for name in models:
            for alias in self.model(name).aliases:
                aliases.setdefault(alias, name)
        return aliases

    def isolates(self, spec: ModelSpec) -> bool:
        """Return whether a model has an environment of its own. `[gateway] env` only applies to models with code."""
        own = self.model(spec.name).env
        return own == "isolated" if own is not None else self.gateway.env == "isolated" and spec.own_code

    def overrides(self, name: str) -> dict[str, Any]:
        """Return what a format's `find_model` gets: the settings of the model, and the default `limits`."""
        model = self.model(name)
        found = {key.name: value for key in fields(model) if (value := getattr(model, key.name)) != key.default}
        found.setdefault("truss_parity", self.gateway.truss_parity)
        if self.gateway.worker.sandbox != "basic":
            found.setdefault("sandbox", self.gateway.worker.sandbox)
        if not self.gateway.worker.yields:
            found["yields"] = False
        if self.gateway.mount_roots:
            found["mount_roots"] = self.gateway.mount_roots
        found["limits"] = {name: getattr(self.gateway.limits, name) for name in LIMIT_KINDS}
        return found
