"""The whole plugin API on one page.

A plugin is a module with functions marked `@hookimpl`. Hooks are synchronous and run at start-up or once a call, never
once a chunk. `gateway plugins` prints who provides what; docs/plugins.md shows a complete one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import click

    from .callers import Caller
    from .devices import Device
    from .replica import Runner
    from .spec import Endpoint, ModelSpec, Problem

hookspec = pluggy.HookspecMarker("gateway")
hookimpl = pluggy.HookimplMarker("gateway")


@hookspec(firstresult=True)
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    """Describe the model in this directory, or None when it is not yours.

    Read file names and small text files only; import no framework and no user code. `overrides` is the model's
    table in gateway.toml. Raise `ConfigError` when the directory is yours but broken: it is reported, not served.
    """


@hookspec
def check_model(spec: ModelSpec) -> Iterable[Problem]:  # type: ignore[empty-body]
    """Say what else keeps a model of yours from serving, for `gateway check`; asked for every model.

    May import a framework and read large files; must not run code that the model directory brings.
    """


@hookspec
def register_endpoints(register: Callable[[Endpoint], None]) -> None:
    """Say which Model method answers which route, and in which dialect."""


@hookspec
def register_dialects(register: Callable[[str, Any], None]) -> None:
    """Add an encoder of the event vocabulary, by the name that endpoints use."""


@hookspec
def register_runners(register: Callable[[str, Runner], None]) -> None:
    """Add a way to run a replica, by the name that `[models.NAME] runner` uses."""


@hookspec
def find_devices() -> Sequence[Device]:  # type: ignore[empty-body]
    """List accelerators of this machine; they are added to the built-in ones."""


@hookspec(firstresult=True)
def authorize(scope: Mapping[str, Any]) -> Caller | str | None:
    """Say who is calling (an ASGI scope, before the body is read), or None to leave it to the built-in keys.

    A `gateway.Caller` says what that one may do. A plain name may use every model, and do nothing else: it has the
    scope `infer` only.

    Raise `gateway.errors.Unauthorized` to refuse. Runs inside the outer guard, on every route.
    """


@hookspec
def configure_app(config: Any) -> None:
    """Change Litestar's AppConfig before the app is built: extra handlers, middleware.

    Middleware does not cover the hot routes (predict and the dialects); use `authorize` for access.
    """


@hookspec
def model_changed(event: Mapping[str, Any]) -> None:
    """Observe a model's state: {"model", "state", "previous", "reason", "at"}."""


@hookspec
def call_finished(record: Mapping[str, Any]) -> None:
    """Observe a finished call: {"model", "route", "status", "queue", "duration", "request_id", "outcome"}, seconds."""


@hookspec
def register_commands(cli: click.Group) -> None:
    """Add commands under `gateway`."""
