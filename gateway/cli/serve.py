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
from .tables import tell

if TYPE_CHECKING:
    from ..inspection.inventory import Inventory
    from ..settings.schema import Settings

log = logging.getLogger("gateway.discovery")


@click.command("serve")
@options.models
@click.option("--host", metavar="ADDRESS", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", metavar="NUMBER", help="Port to listen on; 0 picks a free one.  [default: 8000]")
@options.config
@click.option("--only", multiple=True, metavar="NAME,…", help="Serve only these models.")
@options.devices
@options.any_gpu
@click.option("--log-format", metavar="text|json", help="Format of the log on stderr.")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
@click.option("--debug", is_flag=True, default=None, help="Send exceptions of models to clients; loopback only.")
@click.option("--tls-cert", metavar="FILE", help="Serve HTTPS with this certificate.")
@click.option("--tls-key", metavar="FILE", help="Private key, if it is not in the same file.")
@click.option("--reload", is_flag=True, help="Reload models when their files change; find new ones.")
@click.option("--insecure-no-auth", is_flag=True, default=None, help="Allow a public address without API keys.")
def command(config: Path | None, only: tuple[str, ...], reload: bool, **flags: Any) -> None:
    """Serve the models.

    SIGTERM or Ctrl-C stops the gateway after running calls have finished. Press Ctrl-C again to stop immediately.
    """
    import gc

    from ..files import scratch
    from ..settings.bind import check_bind, check_keys_file
    from ..system import adopted_processes, memory
    from ..telemetry import logs, printing
    from ..telemetry.redaction import KNOWN

    gc.disable()  # until the start is over: collections would find next to nothing in what is imported
    printing.forgive()
    memory.leave_no_core()
    adopted_processes.adopt()
    memory.hide()  # this process holds keys and secrets in its memory and environment
    memory.keep_freed()
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
    from ..lifetime import serve
    from ..settings.bind import admin_path, bind, bind_admin, is_loopback, remove_admin, url_of
    from .start_report import Report

    gateway = settings.gateway
    if gateway.insecure_no_auth and gateway.api_key is None and not is_loopback(gateway.host):
        _warn(f"anyone who can reach {gateway.host} may use this gateway: it requires no API key")
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
    """Find the models, print their problems and what they are allowed to do. Without models, fail or wait for one."""
    from ..directories.model_warnings import told_at_start
    from ..inspection.inventory import take_inventory
    from ..settings.allowances import allowances
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
            tell(f"Warning: no model to serve in {roots} yet; watching for new files", err=True)
            return found
        example = settings.gateway.models[0] / "hello" if settings.gateway.models else "models/hello"
        raise click.ClickException(f"no model to serve in {roots}; create one: gateway new {example}")
    return found


def _tell(what: str, code: str, model: str | None, settings: Settings) -> None:
    if settings.gateway.log_format == "text":
        _warn(what)
    else:
        log.warning("%s", what, extra={"code": code, "model": model})


def _warn(text: str, level: str = "warning") -> None:
    """Print a warning. The terminal may already be closed; that does not prevent the start."""
    from ..telemetry.printable import lines
    from ..telemetry.printing import try_to_write

    try_to_write(lines(f"{level.capitalize()}: {text}") + "\n", "stderr")
