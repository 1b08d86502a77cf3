"""Listening sockets, bound before anything else is started, and the URL that leads to them."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import tempfile
from pathlib import Path

from .errors import ConfigError

BACKLOG = 2048


def bind(host: str, port: int) -> list[socket.socket]:
    """Return the listening sockets; for 127.0.0.1 those of both loopback families, as far as there are.

    Raises:
        ConfigError: the address is taken or is not ours.
    """
    hosts = ["127.0.0.1", "::1"] if host in ("127.0.0.1", "localhost") else [host]
    sockets: list[socket.socket] = []
    for number, name in enumerate(hosts):
        try:
            sock = _listen(name, port)
        except OSError as error:
            if number > 0:  # no IPv6 here, or somebody else has that port there
                continue
            raise ConfigError(f"cannot listen on {name}:{port}: {_reason(error)}") from error
        port = port or sock.getsockname()[1]
        sockets.append(sock)
    return sockets


def _listen(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def admin_path(setting: Path | None, port: int) -> Path:
    """Where the admin socket of the gateway on `port` is: in a directory that is the user's alone."""
    if setting is not None:
        return setting
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    place = Path(runtime) if runtime else Path(tempfile.gettempdir(), f"gateway-{os.getuid()}")
    return place / f"gateway-{port}.sock"


def bind_admin(path: Path) -> socket.socket:
    """Return the listening admin socket; only its owner may connect.

    Raises:
        ConfigError: it cannot be there, or another gateway's is.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.parent.stat().st_uid not in (os.getuid(), 0):
            raise ConfigError(f"admin socket {path}: its directory belongs to another user")
        _remove_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        sock.listen(BACKLOG)
    except OSError as error:
        raise ConfigError(f"admin socket {path}: {error.strerror or error}") from error
    sock.setblocking(False)
    return sock


def remove_admin(path: Path, ours: socket.socket) -> None:
    """Take our socket away, unless a gateway that was started on our port meanwhile has put its own there."""
    ours.close()
    with contextlib.suppress(OSError, ConfigError):
        _remove_stale(path)


def _remove_stale(path: Path) -> None:
    """A gateway that was killed leaves its socket behind; one that runs answers."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise ConfigError(f"admin socket {path}: another gateway has it; set admin_socket")


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another process listens there; choose another port with --port"
    if error.errno == errno.EACCES:
        return "ports below 1024 are for root; choose another with --port"
    return error.strerror or str(error)


def url_of(host: str, port: int, tls: bool = False) -> str:
    """Return the URL of a gateway bound to `host`, as this machine reaches it."""
    scheme = "https" if tls else "http"
    host = {"0.0.0.0": "127.0.0.1", "localhost": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
