"""HTTP client for the admin socket of this user's gateway, or for the `admin_http` of one on another machine."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError
from ..settings.bind import connect_admin, is_loopback
from .client import Client, given_url, message_of, parsed, running_elsewhere

if TYPE_CHECKING:
    from ..settings.schema import Settings


class Absent(click.ClickException):
    """No gateway listens on the socket."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, patience: float | None) -> None:
        super().__init__("localhost")
        self._path, self._patience = path, patience

    def connect(self) -> None:
        self.sock = connect_admin(self._path)
        self.sock.settimeout(self._patience)


class Operator:
    """The gateway behind an admin socket. `patience`: the seconds that it may be silent; None is any time."""

    def __init__(self, path: Path, elsewhere: Client | None = None, patience: float | None = None) -> None:
        self._path, self._elsewhere, self._patience = path, elsewhere, patience

    @classmethod
    def of(cls, settings: Settings, url: str | None) -> Operator:
        """Return the gateway on the port of `url`, GATEWAY_URL or these settings, or the one on another machine."""
        from ..settings.bind import admin_path

        gateway, url = settings.gateway, url or given_url()
        parts = parsed(url) if url else None
        host = (parts.hostname or "") if parts else ""
        is_here = not host or is_loopback(host) or host in (gateway.host.strip("[]"), "0.0.0.0", "::")
        elsewhere = None if is_here else Client.of(settings, url)
        return cls(admin_path(gateway.admin_socket, (parts.port if parts else None) or gateway.port), elsewhere)

    def ask(self, method: str, path: str) -> Any:
        if self._elsewhere is not None:
            return self._elsewhere.ask(method, path)
        with self._request(method, path) as response:
            return json.loads(response.read())

    def lines(self, path: str) -> Iterator[Any]:
        """Yield the objects of a stream as they arrive, until the gateway ends it."""
        answer = self._request("GET", path) if self._elsewhere is None else self._elsewhere.stream(path)
        with answer as response:
            while line := response.readline():
                yield json.loads(line)

    @contextmanager
    def _request(self, method: str, path: str) -> Iterator[http.client.HTTPResponse]:
        connection = _Connection(self._path, self._patience)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            if response.status >= 400:
                raise click.ClickException(message_of(response.read()))
            yield response
        except (FileNotFoundError, ConnectionRefusedError):
            told = running_elsewhere("http") or "does it need another --url?"
            raise Absent(f"no gateway of yours listens at {self._path}; {told}") from None
        except ConfigError as error:
            raise click.ClickException(str(error)) from error
        except (OSError, http.client.HTTPException) as error:
            raise click.ClickException(f"{self._path}: {error or type(error).__name__}") from error
        finally:
            connection.close()
