"""gateway serve"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options

if TYPE_CHECKING:
    from ..inventory import Inventory
    from ..settings import Settings

log = logging.getLogger("gateway.discovery")


@click.command("serve")
@options.models
@click.option("--host", metavar="ADDRESS", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", metavar="NUMBER", help="Port to listen on; 0 takes a free one.  [default: 8000]")
@options.config
@click.option("--only", multiple=True, metavar="NAME,…", help="Serve these models and no others.")
@options.devices
@options.any_gpu
@click.option("--log-format", metavar="text|json", help="Form of the log on stderr.")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
@click.option("--debug", is_flag=True, default=None, help="Show clients the exceptions of models; loopback only.")
@click.option("--tls-cert", metavar="FILE", help="Serve HTTPS with this certificate.")
@click.option("--tls-key", metavar="FILE", help="Its key, unless that is in the same file.")
@click.option("--reload", is_flag=True, help="Reload a model when its files change; find new ones.")
@click.option("--insecure-no-auth", is_flag=True, default=None, help="Let everybody in on a public address.")
def command(config: Path | None, only: tuple[str, ...], reload: bool, **flags: Any) -> None:
    """Serve the models until a signal ends it.

    SIGTERM or Ctrl-C lets running calls finish; a second one does not.
    """
    from .. import adopted, logs, memory, printing, scratch
    from ..redaction import KNOWN
    from ..settings import check_bind, check_keys_file

    printing.forgive()
    memory.leave_no_core()
    adopted.adopt()
    memory.hide()  # keys and secrets are in our memory, and in our environment
    settings = options.settings_of(config, **flags)
    check_keys_file(settings)
    check_bind(settings)
    scratch.root()
    KNOWN.hide([settings.gateway.api_key or ""])
    logs.set_up(settings.gateway.log_format, settings.gateway.log_level)
    again = partial(options.settings_of, config, **flags)
    sys.exit(_serve(settings, [name for part in only for name in part.split(",") if name], reload, again))


def _serve(settings: Settings, only: list[str], reload: bool, again: Callable[[], Settings]) -> int:
    from ..errors import ConfigError
    from ..serve import serve
    from ..settings import is_loopback
    from ..sockets import admin_path, bind, bind_admin, remove_admin, url_of
    from .report import Report

    gateway = settings.gateway
    if gateway.insecure_no_auth and gateway.api_key is None and not is_loopback(gateway.host):
        _warn(f"everybody who reaches {gateway.host} may use this gateway: there is no key")
    try:
        sockets = bind(gateway.host, gateway.port)
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    found = _find_models(settings, only, reload)
    port = sockets[0].getsockname()[1]
    report = Report(found, url_of(gateway.host, port, gateway.tls_cert is not None))
    path = admin_path(gateway.admin_socket, port)
    try:
        admin = bind_admin(path)
    except ConfigError as error:
        if gateway.admin_socket is not None:
            raise click.ClickException(str(error)) from error
        _warn(f"{error}; gateway ps, logs and reload will not reach this gateway")
        return serve(found, sockets, report.watch, reload=reload, settings_again=again)
    try:
        return serve(found, sockets, report.watch, admin=admin, reload=reload, settings_again=again)
    finally:
        remove_admin(path, admin)


def _find_models(settings: Settings, only: list[str], reload: bool) -> Inventory:
    """What there is, its problems and dangers told. Without any model there is nothing to do but to wait for one."""
    from ..allowances import allowances
    from ..inventory import take_inventory
    from ..remarks import told_at_start
    from ..wording import shorten

    found = take_inventory(settings, only=only)
    found = replace(found, remarks=tuple(each for spec in found.specs for each in told_at_start(spec)))
    for problem in (*found.problems, *found.remarks):
        if settings.gateway.log_format == "text":
            _warn(shorten(str(problem)), problem.level)
        else:
            log.log(problem.log_level, "%s", problem, extra={"code": problem.code, "model": problem.model})
    for allowance in allowances(settings, found.specs):
        _tell(allowance.what, "allowance", allowance.model, settings)
    if not found.specs:
        roots = ", ".join(str(root) for root in settings.gateway.models)
        if reload and any(root.expanduser().is_dir() for root in settings.gateway.models):
            click.echo(f"Warning: there is no model to serve in {roots} yet; its files are watched", err=True)
            return found
        example = settings.gateway.models[0] / "hello" if settings.gateway.models else "models/hello"
        raise click.ClickException(f"there is no model to serve in {roots}; make one: gateway new {example}")
    return found


def _tell(what: str, code: str, model: str | None, settings: Settings) -> None:
    if settings.gateway.log_format == "text":
        _warn(what)
    else:
        log.warning("%s", what, extra={"code": code, "model": model})


def _warn(text: str, level: str = "warning") -> None:
    """A line for people, whose terminal may be gone by now; that is no reason not to start."""
    from ..printable import lines
    from ..printing import try_to_write

    try_to_write(lines(f"{level.capitalize()}: {text}") + "\n", "stderr")
