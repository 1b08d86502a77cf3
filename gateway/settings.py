"""What the operator decided: gateway.toml, the environment and flags, as one frozen value.

A flag wins over the environment, the environment over the file, the file over the defaults; `origin` tells where a
value came from. An unknown key is an error with a suggestion. A model directory can set nothing of this.
"""

# ruff: noqa: RUF009  (`_key` is dataclasses.field with a kind)

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from . import values
from .errors import ConfigError
from .patterns import tables_of
from .spec import DERIVABLE, DERIVED, MIB, Limits, ModelSpec, Problem
from .values import Kind


def _key(kind: Kind, default: Any = MISSING, *, factory: Any = MISSING, shown: bool = True) -> Any:
    metadata = {"kind": kind}
    if factory is not MISSING:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata, repr=shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementSettings:
    """[gateway.placement]: which devices there are, and how models share them."""

    devices: str | tuple[Mapping[str, Any], ...] = _key(values.devices, "auto")
    headroom: int = _key(values.size, 1024**3)  # bytes of each GPU that are never handed out
    unmatched_accelerator: Literal["error", "any", "cpu"] = _key(values.choice("error", "any", "cpu"), "error")
    on_full: Literal["error"] = _key(values.only_yet("error", "queue", "evict"), "error")
    on_impossible: Literal["fail-model", "refuse-start"] = _key(
        values.choice("fail-model", "refuse-start"), "fail-model"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponsesSettings:
    """[gateway.responses]: what is kept of /v1/responses, so that clients may go on from it."""

    path: Path | None = _key(values.file, None)  # a file; None keeps them in memory
    max_size: int = _key(values.size, 64 * MIB)  # bytes of all of them; 0 keeps none
    max_age: float = _key(values.seconds, 720 * 3600.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """[gateway.worker]: the processes of models that set nothing else."""

    sandbox: Literal["basic", "strict"] = _key(values.choice("basic", "strict"), "basic")


USUAL_FILE = "gateway.toml"
LIMIT_KINDS: Mapping[str, Kind] = {
    "slots": values.whole(1),
    "max_queue": values.whole(0),
    "queue_timeout": values.seconds,
    "wait_for_ready": values.seconds,
    "request_timeout": values.seconds,
    "first_item_timeout": values.seconds,
    "gap_timeout": values.seconds,
    "load_timeout": values.seconds,
    "cancel_grace": values.seconds,
    "worker_silence": values.seconds,
    "max_crashes": values.whole(1),
    "max_body": values.size,
    "max_message": values.size,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """[gateway]: the process itself. Times are seconds."""

    host: str = _key(values.text, "127.0.0.1")
    port: int = _key(values.whole(0, 65535), 8000)
    models: tuple[Path, ...] = _key(values.paths, (Path("models"),))
    plugins: tuple[Path, ...] = _key(values.paths, ())
    block_plugins: tuple[str, ...] = _key(values.texts, ())
    default_model: str | None = _key(values.text, None)
    aliases: Mapping[str, str] = _key(values.table, factory=dict)
    allowed_hosts: tuple[str, ...] = _key(values.texts, ())
    allowed_origins: tuple[str, ...] = _key(values.texts, ())
    api_key: str | None = _key(values.text, None, shown=False)  # from the environment only
    keys_file: Path = _key(values.file, Path("keys.toml"))  # of `gateway keys`; once it is there, a key is needed
    tls_cert: Path | None = _key(values.file, None)
    tls_key: Path | None = _key(values.file, None)  # None: it is in the file of the certificate
    admin_socket: Path | None = _key(values.file, None)  # None: one of the user's own, named after the port
    admin_http: bool = _key(values.flag, False)
    insecure_no_auth: bool = _key(values.flag, False)
    debug: bool = _key(values.flag, False)
    log_format: Literal["text", "json"] = _key(values.choice("text", "json"), "text")
    log_level: Literal["debug", "info", "warning", "error"] = _key(
        values.choice("debug", "info", "warning", "error"), "info"
    )
    access_log: bool = _key(values.flag, False)
    truss_parity: Literal["improved", "strict"] = _key(values.choice("improved", "strict"), "improved")
    env: Literal["shared", "isolated"] = _key(values.choice("shared", "isolated"), "shared")  # of every model
    drain_timeout: float = _key(values.seconds, 30.0)
    drain_delay: float = _key(values.seconds, 0.0)
    keep_alive: float = _key(values.seconds, 75.0)
    head_timeout: float = _key(values.seconds, 10.0)
    body_idle_timeout: float = _key(values.seconds, 15.0)
    body_timeout: float = _key(values.seconds, 60.0)
    send_timeout: float = _key(values.seconds, 30.0)
    max_connections: int | None = _key(values.whole(1), None)  # None: min(1024, a quarter of the open files allowed)
    max_inflight: int = _key(values.whole(1), 4096)  # calls of all models that wait or run
    max_queued_bytes: int = _key(values.size, 256 * MIB)  # of the bodies of all that wait
    secrets_dir: Path | None = _key(values.directory, None)
    cache_dir: Path | None = _key(values.directory, None)
    mount_roots: tuple[Path, ...] = _key(values.paths, ())  # below which models may have a `mount_location`
    environment_file: Path | None = _key(values.file, None)
    limits: Limits = field(default_factory=Limits)
    placement: PlacementSettings = field(default_factory=PlacementSettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    responses: ResponsesSettings = field(default_factory=ResponsesSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """[models.NAME]: one model, or those of a pattern. None leaves it to the model's config.yaml."""

    replicas: int | None = _key(values.whole(1), None)
    gpus: int | tuple[Any, ...] | None = _key(values.gpus, None)
    gpu_memory: str | None = _key(values.gpu_memory, None)
    slots: int | None = _key(LIMIT_KINDS["slots"], None)  # also spelled predict_concurrency
    max_queue: int | None = _key(LIMIT_KINDS["max_queue"], None)
    queue_timeout: float | None = _key(values.seconds, None)
    wait_for_ready: float | None = _key(values.seconds, None)
    request_timeout: float | None = _key(values.seconds, None)
    first_item_timeout: float | None = _key(values.seconds, None)
    gap_timeout: float | None = _key(values.seconds, None)
    load_timeout: float | None = _key(values.seconds, None)
    cancel_grace: float | None = _key(values.seconds, None)
    worker_silence: float | None = _key(values.seconds, None)
    max_crashes: int | None = _key(values.whole(1), None)
    max_body: int | None = _key(values.size, None)
    max_message: int | None = _key(values.size, None)
    load: Literal["eager", "lazy"] = _key(values.choice("eager", "lazy"), "eager")
    reload: Literal["beside", "replace"] = _key(values.choice("beside", "replace"), "beside")
    runner: str = _key(values.text, "process")
    required: bool = _key(values.flag, True)  # counts for the readiness of the gateway
    env: Literal["shared", "isolated"] | None = _key(values.choice("shared", "isolated"), None)
    environment: Mapping[str, str] | None = _key(values.variables, None)
    truss_parity: Literal["improved", "strict"] | None = _key(values.choice("improved", "strict"), None)
    derive: tuple[str, ...] = _key(values.choices(*DERIVABLE), DERIVED)
    enforce_stop: bool = _key(values.flag, False)
    allow_pickle: bool = _key(values.flag, False)
    trust_remote_code: bool = _key(values.flag, False)
    allow_links: bool = _key(values.flag, False)
    secrets: tuple[str, ...] | None = _key(values.texts, None)  # the most that it may declare
    forward_credentials: bool = _key(values.flag, False)
    sandbox: Literal["basic", "strict"] | None = _key(values.choice("basic", "strict"), None)
    memory_limit: int | None = _key(values.size, None)
    aliases: tuple[str, ...] = _key(values.texts, ())
    mounts: Mapping[str, Path] | None = _key(values.places, None)
    options: Mapping[str, Any] | None = _key(values.anything, None)  # of the plugin that serves it


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
        """Return the settings of a model, of its own table and of those whose pattern it matches, see `patterns.py`."""
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
        """Return the aliases of the gateway, and those of these models' own."""
        aliases: dict[str, str] = dict(self.gateway.aliases)
        for name in models:
            for alias in self.model(name).aliases:
                aliases.setdefault(alias, name)
        return aliases

    def isolates(self, spec: ModelSpec) -> bool:
        """Return whether a model has an environment of its own. `[gateway] env` means those with code of their own."""
        own = self.model(spec.name).env
        return own == "isolated" if own is not None else self.gateway.env == "isolated" and spec.extra is None

    def overrides(self, name: str) -> dict[str, Any]:
        """Return what a format's `find_model` gets: what is set for the model, and `limits`, the defaults of all."""
        model = self.model(name)
        found = {key.name: value for key in fields(model) if (value := getattr(model, key.name)) != key.default}
        found.setdefault("truss_parity", self.gateway.truss_parity)
        if self.gateway.worker.sandbox != "basic":
            found.setdefault("sandbox", self.gateway.worker.sandbox)
        if self.gateway.mount_roots:
            found["mount_roots"] = self.gateway.mount_roots
        found["limits"] = {name: getattr(self.gateway.limits, name) for name in LIMIT_KINDS}
        return found


def load_settings(
    file: Path | None = None, *, flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] = os.environ
) -> Settings:
    """Return the settings. `flags` are by dotted key, {"gateway.port": 9000}; those that are None were not given.

    Raises `ConfigError` with a line for everything wrong. Without `file`, ./gateway.toml is read when it exists.
    Relative paths start at the directory of the file, defaults too; those of variables and flags where we are.
    """
    from .settings_sources import Sources

    sources = Sources()
    default = Path(USUAL_FILE)
    if file is not None or default.exists():
        sources.read_file(file or default)
    sources.read_environment(environ)
    sources.read_flags(flags or {})
    return sources.settings(file or (default if default.exists() else None))


def is_address(host: str) -> bool:
    """Whether it is an address of IP, not a name that leads to one."""
    try:
        ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_keys_file(settings: Settings) -> None:
    """Refuse to do without a file of keys that somebody has named: without it everybody would be let in.

    Raises `ConfigError`.
    """
    file, origin = settings.gateway.keys_file, settings.origin("gateway.keys_file")
    if origin != "default" and not file.is_file():
        config = f" --config {settings.file}" if settings.file is not None else ""
        raise ConfigError(
            f"{origin}: keys_file = {file} is not there, and nobody would need a key: run `gateway keys add"
            f" NAME{config}`, or take keys_file out"
        )


def check_bind(settings: Settings) -> None:
    """Refuse to listen where others can reach an open gateway, or one that shows its tracebacks.

    Raises `ConfigError`.
    """
    gateway = settings.gateway
    if is_loopback(gateway.host):
        return
    if gateway.debug:
        raise ConfigError(f"debug shows tracebacks and is for loopback only; not with host {gateway.host}")
    if gateway.api_key is None and not gateway.keys_file.is_file() and not gateway.insecure_no_auth:
        raise ConfigError(
            f"host {gateway.host} is open to other machines and there is no API key: run `gateway keys add NAME` or set"
            " GATEWAY_API_KEY, or pass --insecure-no-auth to serve everybody"
        )
