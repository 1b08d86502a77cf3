"""The command `gateway`: one module per command. A module imports what it needs when its command runs.

`gateway --help` loads click and the names below, nothing else. The commands of plugins are looked up only when a name
is not one of ours, because that loads every plugin.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from .. import __version__
from ..errors import ConfigError
from ..telemetry import printable

COMMANDS = (
    *("serve", "check", "doctor", "models", "plan", "run", "predict", "chat", "new", "keys"),
    *("ps", "logs", "reload", "load", "unload", "formats", "plugins", "settings"),
)
ALIASES = {"init": "new"}


class Commands(click.Group):
    """Commands, each named after its module. Errors in settings are printed a line each, with exit status 2."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        name = ALIASES.get(name, name)
        if name not in COMMANDS:
            return _of_plugins(name)
        command: click.Command = importlib.import_module(f".{name}", __name__).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS, n=1) if args else []
            hint = f"did you mean {close[0]}?" if close else f"have: {', '.join(COMMANDS)}"
            raise click.UsageError(f"{error.message.rstrip('.')} ({hint})", ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            error.message = printable.lines(error.message)  # type: ignore[misc]
            raise
        except ConfigError as error:
            for line in str(error).splitlines():
                click.echo(f"Error: {printable.lines(line)}", err=True)
            ctx.exit(2)


def _of_plugins(name: str) -> click.Command | None:
    from ..plugins import Plugins
    from ..settings.load import load_settings

    gateway = load_settings().gateway
    group = click.Group()
    Plugins.load(gateway.plugins, gateway.block_plugins).register_commands(group)
    return group.commands.get(name)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Settings come from ./gateway.toml, GATEWAY_… variables and options. Plugins may add commands.",
)
@click.version_option(__version__, prog_name="gateway")
def cli() -> None:
    """Serve a directory of Python model classes behind the OpenAI API."""


def main() -> None:
    cli(prog_name="gateway")
    sys.exit(0)
