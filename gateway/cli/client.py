"""HTTP client of a running gateway, over its public routes only. Every failure is reported as one line."""

from __future__ import annotations

import http.client
import json
import os
import ssl
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import SplitResult, urlsplit

import click

from .trust import chosen, context_for

if TYPE_CHECKING:
    from pathlib import Path

    from ..settings.schema import Settings

CONNECT_TIMEOUT = 10.0  # seconds; the time for an answer is limited by the gateway


def given_url() -> str | None:
    """Return the URL in GATEWAY_URL, if it is set."""
    return os.environ.get("GATEWAY_URL") or None


class NoUrl(click.UsageError):
    """The given URL does not lead to a gateway."""

    @classmethod
    def of(cls, url: str) -> Self:
        return cls(f"{url} is not a gateway URL, such as http://127.0.0.1:8000")


def parsed(url: str) -> SplitResult:
    """Return the parts of a URL, or of an address without a scheme. The port, if any, is a number."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        _ = parts.port  # `port` is parsed on access
    except ValueError as error:
        raise NoUrl.of(url) from error
    return parts


class Refused(click.ClickException):
    """The gateway answered with an error status."""

    def __init__(self, status: int, message: str, retry_after: float = 1.0) -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.retry_after = status, retry_after


class BrokenOff(click.ClickException):
    """The connection closed before the answer was complete."""

    @classmethod
    def of(cls, client: Client) -> Self:
        return cls(f"the answer of {client.url} broke off")


class Client:
    def __init__(self, url: str, key: str | None = None, *, tls_cert: Path | None = None, is_own: bool = False) -> None:
        """`tls_cert` is the certificate in the settings. `is_own`: the gateway is the one these settings configure."""
        parts = parsed(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise NoUrl.of(url)
        self.url, self._key, self._parts = url, key, parts
        self._tls_cert, self._is_own = tls_cert, is_own
        self._prefix = parts.path.rstrip("/").removesuffix("/v1")  # a base_url of an SDK works too

    @classmethod
    def of(cls, settings: Settings, url: str | None) -> Self:
        """Return a client for the gateway at `url`, at GATEWAY_URL, or at the address in these settings."""
        from ..settings.bind import url_of

        gateway, given = settings.gateway, url or given_url()
        ours = url_of(gateway.host, gateway.port, gateway.tls_cert is not None)
        return cls(given or ours, gateway.api_key, tls_cert=gateway.tls_cert, is_own=not given)

    def get(self, path: str) -> Any:
        with self._request("GET", path, None) as response:
            return json.loads(response.read())

    def ask(self, method: str, path: str) -> Any:
        """Send an operator's request over HTTP."""
        with self._request(method, path, b"" if method == "POST" else None) as response:
            return json.loads(response.read())

    def stream(self, path: str) -> AbstractContextManager[http.client.HTTPResponse]:
        """Return the response to an operator's request, to be read as it arrives."""
        return self._request("GET", path, None)

    @contextmanager
    def post(self, path: str, body: bytes) -> Iterator[http.client.HTTPResponse]:
        """Yield the response, to be read as it arrives."""
        with self._request("POST", path, body) as response:
            yield response

    @contextmanager
    def _request(self, method: str, path: str, body: bytes | None) -> Iterator[http.client.HTTPResponse]:
        connection, pinned = self._connection()
        headers = {"content-type": "application/json", "user-agent": "gateway-cli"}
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key}"
        try:
            connection.connect()
            if pinned is not None and connection.sock.getpeercert(binary_form=True) != pinned:  # before the key is sent
                raise click.ClickException(f"{self.url} does not use the certificate {self._tls_cert} of the settings")
            if connection.sock is not None:
                connection.sock.settimeout(None)
            connection.request(method, f"{self._prefix}{path}", body, headers)
            response = connection.getresponse()
            if response.status >= 400:
                said = f"{message_of(response.read())}{self._advice(response)}"
                raise Refused(response.status, said, _retry_after(response))
            yield response
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, (http.client.IncompleteRead, ConnectionResetError)):
                raise BrokenOff.of(self) from error
            raise click.ClickException(self._why(error)) from error
        finally:
            connection.close()

    def _connection(self) -> tuple[Any, bytes | None]:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=CONNECT_TIMEOUT), None
        context, pinned = context_for(chosen(), self._tls_cert, self._is_own)
        return http.client.HTTPSConnection(host, port, timeout=CONNECT_TIMEOUT, context=context), pinned

    def _advice(self, response: http.client.HTTPResponse) -> str:
        if response.status != 401:
            return ""
        which = "another key" if self._key is not None else "your key"
        return f" Set GATEWAY_API_KEY to {which}; `gateway keys add NAME` makes one."

    def _why(self, error: Exception) -> str:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"{self.url}: {error.verify_message}; --cacert FILE names the certificates to trust"
        if isinstance(error, ConnectionRefusedError):
            from ..settings.bind import is_loopback

            is_here = is_loopback(self._parts.hostname or "")
            there = running_elsewhere(self._parts.scheme, but=self._parts.port) if is_here else ""
            return f"no gateway answers at {self.url}; {there or 'start it with: gateway serve'}"
        return f"{self.url}: {error or type(error).__name__}"


def running_elsewhere(scheme: str, but: int | None = None) -> str:
    """Return how to reach this user's gateways on other ports; empty if there are none."""
    from ..settings.bind import running, url_of

    urls = [url_of("127.0.0.1", port, scheme == "https") for port in running() if port != but]
    return f"one of yours is running: add --url {' or '.join(urls)}" if urls else ""


def _retry_after(response: http.client.HTTPResponse) -> float:
    given = response.getheader("retry-after") or ""
    return float(given) if given.isdecimal() else 1.0


def message_of(body: bytes) -> str:
    """Return the message of an error body, in any dialect, as one line."""
    from ..telemetry.logs import clean

    try:
        found = json.loads(body)["error"]
    except (ValueError, TypeError, KeyError):
        return clean(body.decode("utf-8", "replace"))
    return clean(str(found.get("message", found) if isinstance(found, dict) else found))


def error_of(event: Any) -> str | None:
    """Return the message of an error event in a stream, None for any other event."""
    return message_of(json.dumps(event).encode()) if isinstance(event, dict) and event.get("error") else None
