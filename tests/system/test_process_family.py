"""Whose a connection is, by the kernel's tables alone: nobody is asked, and what cannot be seen is said."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.system import process_family
from gateway.system.process_family import STRANGER, Holder, who_holds

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")

CLIENT, SERVER = ("127.0.0.1", 5000), ("127.0.0.1", 8000)
LINE = "   0: {here} {there} 01 00000000:00000000 00:00000000 00000000 {user} 0 {inode} 1 0 20 4 30 10 -1\n"
WORKER, CHILD, OTHER = 10, 11, 20


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A worker with a child, and a stranger; the connection's client end is file 99, which nobody has."""
    monkeypatch.setattr(process_family, "PROC", tmp_path)
    (tmp_path / "self/net").mkdir(parents=True)
    write_table(tmp_path, ("0100007F:1388", "0100007F:1F40", 99))
    for pid, parent, group in ((WORKER, 1, WORKER), (CHILD, WORKER, CHILD), (OTHER, 1, OTHER)):
        (tmp_path / str(pid) / "fd").mkdir(parents=True)
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a) b) S {parent} {group} 1 0")
    return tmp_path


def write_table(place: Path, *lines: tuple[str, str, int], user: int | None = None) -> None:
    user = os.geteuid() if user is None else user
    text = "".join(LINE.format(here=here, there=there, inode=inode, user=user) for here, there, inode in lines)
    (place / "self/net/tcp").write_text("head\n" + text)


def give(place: Path, pid: int, inode: int) -> None:
    (place / str(pid) / "fd" / "3").symlink_to(f"socket:[{inode}]")


def hide(place: Path, pid: int) -> None:
    """What cannot be listed. A mode would not do: root lists all, and the tests may be root's."""
    (place / str(pid) / "fd").rmdir()
    (place / str(pid) / "fd").touch()


def look(until: float | None = None) -> Holder:
    return who_holds(CLIENT, SERVER, [WORKER], time.monotonic() + 30 if until is None else until)


def test_what_a_worker_or_its_child_holds_is_the_workers(tables: Path) -> None:
    give(tables, CHILD, 99)
    assert look() == Holder(WORKER)


def test_what_another_is_seen_to_hold_is_not_though_the_worker_hides_its_files(tables: Path) -> None:
    hide(tables, WORKER)
    assert look() == Holder(hidden=(WORKER,))
    give(tables, OTHER, 99)
    assert look() == STRANGER


def test_what_hides_from_us_is_no_other_users(tables: Path) -> None:
    hide(tables, WORKER)
    write_table(tables, ("0100007F:1388", "0100007F:1F40", 99), user=os.geteuid() + 1)
    assert look() == STRANGER


def test_a_connection_between_other_addresses_is_another_though_its_ports_are_the_same(tables: Path) -> None:
    write_table(tables, ("0100007F:1388", "0100007F:1F40", 99), ("0200007F:1388", "0200007F:1F40", 98))
    give(tables, WORKER, 98)
    assert look() == STRANGER


def test_what_is_not_found_in_time_is_a_strangers(tables: Path) -> None:
    give(tables, WORKER, 99)
    assert look(until=time.monotonic() - 1) == STRANGER


def test_processes_that_each_started_the_next_are_looked_at_once(tables: Path) -> None:
    below = {pid: [pid + 1] for pid in range(1, 100_000)}
    begun = time.process_time()
    assert len(process_family._below(1, below)) == 100_000
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(("kind", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_the_kernels_own_tables_are_read(kind: socket.AddressFamily, host: str) -> None:
    for client, server, child in connected(kind, host):
        found = who_holds(client, server, [child.pid, os.getpid()], time.monotonic() + 30)
        assert found == Holder(child.pid)
        assert who_holds(server, client, [child.pid], time.monotonic() + 30) == STRANGER, "the other end is ours"


def test_a_client_of_ipv6_that_asks_an_address_of_ipv4_is_found() -> None:
    for client, server, child in connected(socket.AF_INET, "127.0.0.1", asks="::ffff:127.0.0.1"):
        assert who_holds(client, server, [child.pid], time.monotonic() + 30) == Holder(child.pid)


def connected(
    kind: socket.AddressFamily, host: str, asks: str = ""
) -> Iterator[tuple[process_family.Address, process_family.Address, subprocess.Popen[bytes]]]:
    program = "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2]))); s.recv(1)"
    with socket.socket(kind) as listener:
        listener.bind((host, 0))
        listener.listen()
        listener.settimeout(30)
        server = listener.getsockname()[:2]
        with subprocess.Popen([sys.executable, "-c", program, asks or host, str(server[1])]) as child:
            connection, client = listener.accept()
            with connection:
                yield client[:2], server, child
