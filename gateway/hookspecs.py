"""The whole plugin API on one page.

A plugin is a module with functions marked `@hookimpl`. Hooks are synchronous. They run at start-up or once for each
call, never once for each chunk. `gateway plugins` lists the hooks of each plugin. docs/plugins.md has a complete
example of each kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import click

    from .access.callers import Caller
    from .devices.device import Device
    from .dialects.base import Dialect
    from .runners.replica import Runner
    from .spec import Endpoint, Format, ModelSpec, Problem

hookspec = pluggy.HookspecMarker("gateway")
hookimpl = pluggy.HookimplMarker("gateway")


@hookspec(firstresult=True)
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    """Describe the model in this directory, or return None if it is not one of yours.

    Read only file names and small text files. Import no framework and no user code. `overrides` is the model's table in
    gateway.toml. Raise `ConfigError` if the directory is yours but broken: the error is reported and the model is not
    served.
    """


@hookspec
def register_formats(register: Callable[[str, Format], None]) -> None:
    """Describe the kinds of directories that your `find_model` recognizes, under the name of their framework."""


@hookspec
def check_model(spec: ModelSpec) -> Iterable[Problem]:  # type: ignore[empty-body]
    """List problems that would keep a model of yours from serving, for `gateway check`. Called for every model.

    It may import a framework and read large files. It must not run code from the model directory.
    """


@hookspec
def register_endpoints(register: Callable[[Endpoint], None]) -> None:
    """Register routes: which Model method answers which path, and in which dialect."""


@hookspec
def register_dialects(register: Callable[[str, Dialect], None]) -> None:
    """Add a way to read requests and write answers, under the name that endpoints use."""


@hookspec
def register_runners(register: Callable[[str, Runner], None]) -> None:
    """Add a way to run a replica, under the name that `[models.NAME] runner` uses."""


@hookspec
def find_devices() -> Sequence[Device]:  # type: ignore[empty-body]
    """Return accelerators of this machine. They are added to the built-in ones."""


@hookspec(firstresult=True)
def authorize(scope: Mapping[str, Any]) -> Caller | str | None:
    """Identify the caller from an ASGI scope, before the body is read. None leaves it to the built-in keys.

    A `gateway.Caller` says what the caller may do. A plain name may use every model and has the scope `infer` only.

    Raise `gateway.errors.Unauthorized` to refuse the request. It runs inside the outer guard, on every route.
    """


@hookspec
def configure_app(config: Any) -> None:
    """Change Litestar's AppConfig before the app is built: add handlers or middleware.

    Middleware does not cover the hot routes (predict and the dialects). Use `authorize` to control access.
    """


@hookspec
def model_changed(event: Mapping[str, Any]) -> None:
    """Observe a change of a model's state: {"model", "state", "previous", "reason", "at"}."""


@hookspec
def call_finished(record: Mapping[str, Any]) -> None:
    """Observe a finished call: {"model", "route", "status", "queue", "duration", "request_id", "outcome"}, in
    seconds.
    """


@hookspec
def register_commands(cli: click.Group) -> None:
    """Add commands under `gateway`."""
