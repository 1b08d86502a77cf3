"""Options shared by several commands, and the settings that result from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..settings.schema import Settings

config = click.option(
    "--config", metavar="FILE", type=click.Path(path_type=Path), help="Settings file to use instead of ./gateway.toml."
)
models = click.option("--models", multiple=True, metavar="DIR", help="Directory of model directories; repeatable.")
devices = click.option("--devices", metavar="LIST", help='GPUs to use instead of those found, as in "2xH100:80GiB".')
any_gpu = click.option(
    "--any-gpu", is_flag=True, default=None, help="Allow any GPU if the one a model names is absent."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def url(command: Any) -> Any:
    """Add --url, and --cacert, which `trust.py` reads from the click context."""
    command = click.option(
        "--cacert",
        metavar="FILE",
        type=click.Path(path_type=Path),
        expose_value=False,
        callback=_keep,
        help="Certificates to trust over HTTPS.  [default: the system's, and tls_cert]",
    )(command)
    where = "URL of the gateway.  [default: GATEWAY_URL, else from the settings]"
    return click.option("--url", metavar="URL", help=where)(command)


def _keep(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
    context.meta["gateway.cacert"] = value


def settings_of(
    config: Path | None = None, *, devices: str | None = None, any_gpu: bool | None = None, **gateway: Any
) -> Settings:
    """Return the settings with these options applied. An option of None was not given."""
    from ..settings.load import load_settings

    flags = {f"gateway.{name}": value for name, value in gateway.items()}
    flags["gateway.placement.devices"] = devices
    flags["gateway.placement.unmatched_accelerator"] = "any" if any_gpu else None
    return load_settings(config, flags=flags)
