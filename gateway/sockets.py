"""Listening sockets, bound before anything else is started, and the URL that leads to them."""

from __future__ import annotations

import errno
import socket

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


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another process listens there; choose another port with --port"
    if error.errno == errno.EACCES:
        return "ports below 1024 are for root; choose another with --port"
    return error.strerror or str(error)


def url_of(host: str, port: int) -> str:
    """Return the URL of a gateway bound to `host`, as this machine reaches it."""
    host = {"0.0.0.0": "127.0.0.1", "localhost": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
