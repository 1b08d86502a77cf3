"""Listening sockets, bound before anything else is started, and the URL that leads to them."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
from pathlib import Path

from . import scratch
from .errors import ConfigError
from .peers import take_no_files

BACKLOG = 2048
ADMIN_BACKLOG = 64  # who connects while so many wait does wait as well: models may be among them, without end


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
    place = Path(runtime) if runtime else scratch.root() / f"gateway-{os.getuid()}"
    return place / f"gateway-{port}.sock"


def admin_paths(setting: Path | None) -> list[Path]:
    """Those of every gateway of this user that runs, or was killed, and the one that is set."""
    found = sorted(admin_path(None, 0).parent.glob("gateway-*.sock"))
    return found if setting is None or setting in found else [setting, *found]


def running() -> list[int]:
    """The ports of the gateways of this user that run, but for one whose settings place its admin socket."""
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
        ConfigError: it cannot be there, another gateway's is, or others could put theirs in its place.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if reason := _not_ours_alone(path.parent):
            raise ConfigError(f"admin socket {path}: {reason}; make it yours alone (chmod 700) or set admin_socket")
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
    """Why others could replace what is in a directory; None when they cannot. A link to it belongs to somebody too."""
    for found in (place.lstat(), place.stat()):
        if found.st_uid not in (os.getuid(), 0):
            return f"its directory {place} belongs to another user"
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        return f"others may write to its directory {place}"
    return None


def connect_admin(path: Path) -> socket.socket:
    """Return a connection to the admin socket of a gateway of this user, or of root's.

    Raises:
        OSError: nobody listens there.
        ConfigError: somebody else does.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(str(path))
        if (owner := _peer(sock)) not in (None, os.getuid(), 0):
            raise ConfigError(f"{path}: the process that listens there is of user {owner}, and not of yours")
    except BaseException:
        sock.close()
        raise
    return sock


def _peer(sock: socket.socket) -> int | None:
    """The user of the other end, where the system tells."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    _, user, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(user)


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
