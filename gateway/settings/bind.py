"""Listening sockets, bound before anything else starts, and the URL of the gateway."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..files import scratch
from ..system.socket_peers import take_no_files

if TYPE_CHECKING:
    from .schema import Settings

BACKLOG = 2048
ADMIN_BACKLOG = 64  # further connections wait; without a bound, models could connect endlessly


def bind(host: str, port: int) -> list[socket.socket]:
    """Return the listening sockets. For 127.0.0.1 and localhost: of both loopback families, where available.

    Raises:
        ConfigError: the address is in use or not of this machine.
    """
    hosts = ["127.0.0.1", "::1"] if host in ("127.0.0.1", "localhost") else [host]
    sockets: list[socket.socket] = []
    for number, name in enumerate(hosts):
        try:
            sock = _listen(name, port)
        except OSError as error:
            if number > 0:  # no IPv6 here, or another process has the port there
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
    """Return the path of the admin socket of the gateway on `port`, in a directory that only this user can access."""
    if setting is not None:
        return setting
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    place = Path(runtime) if runtime else scratch.root() / f"gateway-{os.getuid()}"
    return place / f"gateway-{port}.sock"


def admin_paths(setting: Path | None) -> list[Path]:
    """Return the admin sockets of all gateways of this user, also of killed ones, and the path in the settings."""
    found = sorted(admin_path(None, 0).parent.glob("gateway-*.sock"))
    return found if setting is None or setting in found else [setting, *found]


def running() -> list[int]:
    """Return the ports of this user's running gateways, except one with `admin_socket` set."""
    found = []
    for path in admin_paths(None):
        try:
            connect_admin(path).close()
        except (OSError, ConfigError):
            continue
        found.append(int(path.stem.removeprefix("gateway-")))
    return found


def bind_admin(path: Path) -> socket.socket:
    """Return the listening admin socket; only its owner may connect.

    Raises:
        ConfigError: the socket cannot be created, another gateway has it, or other users could replace it.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if reason := _not_ours_alone(path.parent):
            raise ConfigError(
                f"admin socket {path}: {reason}; make it accessible only to you (chmod 700) or set admin_socket"
            )
        _remove_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        take_no_files(sock)
        sock.listen(ADMIN_BACKLOG)
    except OSError as error:
        raise ConfigError(f"admin socket {path}: {error.strerror or error}") from error
    sock.setblocking(False)
    return sock


def _not_ours_alone(place: Path) -> str | None:
    """Return why other users could replace files in a directory; None if they cannot. A link to it has an owner too."""
    for found in (place.lstat(), place.stat()):
        if found.st_uid not in (os.getuid(), 0):
            return f"its directory {place} belongs to another user"
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        return f"other users may write to its directory {place}"
    return None


def connect_admin(path: Path) -> socket.socket:
    """Return a connection to the admin socket of a gateway of this user or of root.

    Raises:
        OSError: no process listens there.
        ConfigError: a process of another user listens there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(str(path))
        if (owner := _peer(sock)) not in (None, os.getuid(), 0):
            raise ConfigError(f"{path}: the process that listens there belongs to user {owner}, not to you")
    except BaseException:
        sock.close()
        raise
    return sock


def _peer(sock: socket.socket) -> int | None:
    """Return the user of the peer; None if the system does not report it."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    _, user, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(user)


def remove_admin(path: Path, ours: socket.socket) -> None:
    """Remove our socket file, unless a gateway started on the same port in the meantime has put its own there."""
    ours.close()
    with contextlib.suppress(OSError, ConfigError):
        _remove_stale(path)


def _remove_stale(path: Path) -> None:
    """Remove the socket of a gateway that was killed.

    Raises:
        ConfigError: a running gateway answers on it.
    """
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise ConfigError(f"admin socket {path}: another gateway uses it; set admin_socket")


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another process listens there; choose another port with --port"
    if error.errno == errno.EACCES:
        return "ports below 1024 require root; choose another with --port"
    return error.strerror or str(error)


def url_of(host: str, port: int, tls: bool = False) -> str:
    """Return the URL at which this machine reaches a gateway bound to `host`."""
    scheme = "https" if tls else "http"
    host = {"0.0.0.0": "127.0.0.1", "localhost": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def is_address(host: str) -> bool:
    """Return whether `host` is an IP address rather than a host name."""
    try:
        ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Return whether `host` is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_keys_file(settings: Settings) -> None:
    """Refuse to start if the configured key file does not exist: without it, no request would need a key.

    Raises `ConfigError`.
    """
    file, origin = settings.gateway.keys_file, settings.origin("gateway.keys_file")
    if origin != "default" and not file.is_file():
        config = f" --config {settings.file}" if settings.file is not None else ""
        raise ConfigError(
            f"{origin}: keys_file = {file} does not exist, so no request would need a key: run `gateway keys add"
            f" NAME{config}`, or remove keys_file"
        )


def check_bind(settings: Settings) -> None:
    """Refuse a public address if the gateway requires no key or sends tracebacks to clients.

    Raises `ConfigError`.
    """
    gateway = settings.gateway
    if is_loopback(gateway.host):
        return
    if gateway.debug:
        raise ConfigError(f"debug shows tracebacks and is allowed on loopback only, not with host {gateway.host}")
    if gateway.api_key is None and not gateway.keys_file.is_file() and not gateway.insecure_no_auth:
        raise ConfigError(
            f"host {gateway.host} is reachable by other machines but has no API key: run `gateway keys add NAME` or set"
            " GATEWAY_API_KEY, or pass --insecure-no-auth to serve without keys"
        )
