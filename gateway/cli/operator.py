"""HTTP to the admin socket of a running gateway of this user."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from ..errors import ConfigError
from ..sockets import connect_admin
from .client import message_of

if TYPE_CHECKING:
    from ..settings import Settings


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = connect_admin(self._path)


class Operator:
    """The gateway whose admin socket this is."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def of(cls, settings: Settings, url: str | None) -> Operator:
        """The gateway on the port of `url`, or of these settings."""
        from ..sockets import admin_path

        port = urlsplit(url if "://" in url else f"http://{url}").port if url else None
        return cls(admin_path(settings.gateway.admin_socket, port or settings.gateway.port))

    def ask(self, method: str, path: str) -> Any:
        connection = _Connection(self._path)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read()
        except (FileNotFoundError, ConnectionRefusedError):
            raise click.ClickException(
                f"no gateway of yours listens at {self._path}; is it on another --url?"
            ) from None
        except ConfigError as error:
            raise click.ClickException(str(error)) from error
        except (OSError, http.client.HTTPException) as error:
            raise click.ClickException(f"{self._path}: {error or type(error).__name__}") from error
        finally:
            connection.close()
        if response.status >= 400:
            raise click.ClickException(message_of(body))
        return json.loads(body)
