"""gateway chat"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..telemetry import printable
from . import options

if TYPE_CHECKING:
    from .client import Client


@click.command("chat")
@click.argument("name")
@click.argument("message", required=False)
@click.option("--system", metavar="TEXT", help="System prompt.")
@click.option("--max-tokens", type=int, metavar="NUMBER", help="Maximum length of an answer.")
@click.option(
    "--temperature", type=float, metavar="NUMBER", help="Sampling temperature; 0 always picks the most likely token."
)
@options.url
@options.config
def command(
    name: str,
    message: str | None,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    url: str | None,
    config: Path | None,
) -> None:
    """Chat with a model of a running gateway. Waits while the model loads.

    With MESSAGE, or with a message piped in, print one answer. Otherwise chat until Ctrl-D; Ctrl-C stops an answer.
    """
    from .client import Client
    from .why import explained

    settings = options.settings_of(config)
    client = Client.of(settings, url)
    request = {"model": name, "stream": True, "max_tokens": max_tokens, "temperature": temperature}
    talk = _Talk(client, {key: value for key, value in request.items() if value is not None}, system)
    if message is None and not sys.stdin.isatty():
        message = sys.stdin.read().strip()
        if not message:
            raise click.UsageError("standard input is empty; give a MESSAGE")
    if message is not None:
        with explained(settings, url, name):
            talk.say(message)
    else:
        _converse(talk, lambda: explained(settings, url, name))


class _Talk:
    """The conversation so far."""

    def __init__(self, client: Client, request: dict[str, Any], system: str | None) -> None:
        self._client, self._request = client, request
        self._messages = [{"role": "system", "content": system}] if system is not None else []

    def say(self, message: str) -> None:
        """Print the answer as it arrives. A failed or interrupted exchange is not added to the conversation."""
        from .loading import answered

        messages = [*self._messages, {"role": "user", "content": message}]
        body = json.dumps({**self._request, "messages": messages}).encode()
        answer = ""
        try:
            with answered(self._client, self._request["model"], "/v1/chat/completions", body) as response:
                for text in _texts(response):
                    click.echo(printable.lines(text) if sys.stdout.isatty() else text, nl=False)
                    sys.stdout.flush()
                    answer += text
        finally:
            if answer and not answer.endswith("\n"):
                click.echo()
        self._messages = [*messages, {"role": "assistant", "content": answer}]


def _texts(lines: Iterator[bytes] | Any) -> Iterator[str]:
    """Yield the text of each event."""
    from .client import error_of

    for line in lines:
        if not line.startswith(b"data:") or line[5:].strip() == b"[DONE]":
            continue
        event = json.loads(line[5:])
        if reason := error_of(event):
            raise click.ClickException(reason)
        for choice in event.get("choices", ()):
            if text := (choice.get("delta") or {}).get("content"):
                yield text


def _converse(talk: _Talk, explained: Callable[[], AbstractContextManager[None]]) -> None:
    try:
        import readline  # noqa: F401  (input() edits lines with it)
    except ImportError:
        pass
    while True:
        try:
            message = input("> ").strip()
        except EOFError:
            click.echo()
            return
        except KeyboardInterrupt:
            click.echo()
            continue
        if not message:
            continue
        try:
            with explained():
                talk.say(message)
        except click.ClickException as error:
            error.show()
        except KeyboardInterrupt:
            click.echo()
