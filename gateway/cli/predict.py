"""gateway predict"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from . import options


class Command(click.Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if "unexpected extra argument" in error.message:
                raise click.UsageError(f"{error.message.rstrip('.')}: give the input with -d", ctx) from error
            raise


@click.command("predict", cls=Command)
@click.argument("name")
@click.option("-d", "--data", metavar="JSON", help="Input of the model.")
@click.option("-f", "--file", metavar="FILE", help="File with the input; - is standard input.")
@click.option("-i", "--input", "pairs", multiple=True, metavar="KEY=VALUE", help="One key of the input; repeatable.")
@options.url
@options.config
def command(
    name: str, data: str | None, file: str | None, pairs: tuple[str, ...], url: str | None, config: Path | None
) -> None:
    """Call a model's predict and print the answer.

    Asks a running gateway, and waits while the model loads. A streamed answer is printed as it arrives.

    VALUE of -i is parsed as JSON if possible, else taken as text. Without any of -d, -f and -i, the input is read from
    a pipe.
    """
    from .client import BrokenOff, Client
    from .loading import answered
    from .tables import answers
    from .why import explained

    body = _body(data, file, pairs)
    settings = options.settings_of(config)
    client = Client.of(settings, url)
    path = f"/v1/models/{quote(name)}:predict"
    with explained(settings, url, name), answered(client, name, path, body) as response:
        last, write = b"", answers()
        while chunk := response.read1(65536):
            write(chunk)
            last = chunk
        if response.length:  # `read1` returns b"" both here and at the end of a complete answer
            raise BrokenOff.of(client)
        is_text = (response.getheader("content-type") or "").startswith(("application/json", "text/"))
        if (is_text or sys.stdout.isatty()) and not last.endswith(b"\n"):
            click.echo()


def _body(data: str | None, file: str | None, pairs: tuple[str, ...]) -> bytes:
    if sum(map(bool, (data, file, pairs))) > 1:
        raise click.UsageError("give the input with only one of -d, -f and -i")
    if pairs:
        return json.dumps(dict(map(_pair, pairs))).encode()
    if data is not None:
        try:
            json.loads(data)
        except ValueError as error:
            raise click.UsageError(f"-d is not JSON: {error}") from error
        return data.encode()
    if file == "-" or (file is None and not sys.stdin.isatty()):
        return sys.stdin.buffer.read() or b"{}"
    if file is not None:
        try:
            return Path(file).read_bytes()
        except OSError as error:
            raise click.UsageError(f"-f {file}: {error.strerror}") from error
    return b"{}"


def _pair(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise click.UsageError(f"-i {text}: write KEY=VALUE")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
