"""Options that several commands have, and the settings that they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..settings import Settings

config = click.option(
    "--config", metavar="FILE", type=click.Path(path_type=Path), help="Settings instead of ./gateway.toml."
)
models = click.option("--models", multiple=True, metavar="DIR", help="Directory of model directories; may be repeated.")
devices = click.option("--devices", metavar="LIST", help='GPUs instead of those found, as in "2xH100:80GiB".')
any_gpu = click.option("--any-gpu", is_flag=True, default=None, help="Put models that name an absent GPU on any other.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def url(command: Any) -> Any:
    """--url, and --cacert, which `trust.py` finds in the context."""
    command = click.option(
        "--cacert",
        metavar="FILE",
        type=click.Path(path_type=Path),
        expose_value=False,
        callback=_keep,
        help="Certificates to trust over HTTPS.  [default: tls_cert, and those of this machine]",
    )(command)
    where = "The gateway to ask.  [default: GATEWAY_URL, or as settings say]"
    return click.option("--url", metavar="URL", help=where)(command)


def _keep(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
    context.meta["gateway.cacert"] = value


def settings_of(
    config: Path | None = None, *, devices: str | None = None, any_gpu: bool | None = None, **gateway: Any
) -> Settings:
    """Return the settings with these options over them; what was not given is None."""
    from ..settings import load_settings

    flags = {f"gateway.{name}": value for name, value in gateway.items()}
    flags["gateway.placement.devices"] = devices
    flags["gateway.placement.unmatched_accelerator"] = "any" if any_gpu else None
    return load_settings(config, flags=flags)
