"""Find the ports of a model's own servers, and detect a load that used a port of another process.

A class may start a server in `load` and wait until it answers. While an old replica serves, a server on a fixed port
cannot start, and the old replica's server answers instead. Linux only: elsewhere nothing is detected.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from ...spec import ModelSpec
from ...system.process_family import family, inodes_of, tcp_sockets
from ...wording import TOML, table_of

LISTEN = "0A"  # the state in /proc/net/tcp
READ_AT_MOST = 1024 * 1024  # bytes of a source or settings file of the model
KINDS = (".py", ".yaml", ".yml", ".json", ".toml", ".sh", ".env")


def listening(process: int) -> frozenset[int]:
    """Return the TCP ports that a process and its descendants, or its process group, listen on."""
    inodes = {inode for pid in family(process) for inode in inodes_of(pid)}
    return frozenset(each.port for each in tcp_sockets() if each.state == LISTEN and each.inode in inodes)


class Asked:
    """Record which of these local ports Python code of this process connects to, until `end`."""

    def __init__(self, ports: Collection[int]) -> None:
        self._ports = frozenset(ports)
        self.found: set[int] = set()
        if self._ports:
            sys.addaudithook(self._hear)  # audit hooks cannot be removed, so add it only if needed

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and self._ports:
            address = arguments[1]
            if isinstance(address, tuple) and address[1] in self._ports and _is_local(str(address[0])):
                self.found.add(address[1])

    def end(self) -> None:
        self._ports = frozenset()


def _is_local(host: str) -> bool:
    return host.startswith("127.") or host in ("localhost", "::1", "0.0.0.0", "::", "")


def foreign(spec: ModelSpec, taken: Iterable[int], asked: Collection[int], own: Collection[int]) -> int | None:
    """Return a port of another process that this load used as its own server's; None if there is none."""
    for port in sorted(set(taken) - set(own)):
        if port in asked or _is_written(spec, port):
            return port
    return None


def advice(name: str, port: int) -> str:
    return (
        f"port {port} belongs to the replica that serves, so a server of this load cannot listen there and its new code"
        f' is not what answers; set reload = "replace" in {table_of(name)} of {TOML}'
    )


def _is_written(spec: ModelSpec, port: int) -> bool:
    """Return whether the port number is in the model's files: only connects of Python's sockets are recorded."""
    number = re.compile(rf"(?<![0-9.]){port}(?![0-9.])")
    if any(number.search(value) for value in spec.environment.values()):
        return True
    for place in (spec.root, *spec.import_dirs):
        for path in place.rglob("*"):
            is_hidden = any(part.startswith(".") for part in path.relative_to(place).parts)
            if path.suffix in KINDS and path.is_file() and not is_hidden and number.search(_beginning(path)):
                return True
    return False


def _beginning(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(READ_AT_MOST).decode("utf-8", "replace")
    except OSError:  # then the model's code cannot read it either
        return ""
