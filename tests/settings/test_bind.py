from __future__ import annotations

import array
import os
import socket
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.settings import bind as sockets
from gateway.settings.bind import bind, bind_admin, connect_admin, remove_admin, url_of
from gateway.system.socket_peers import take_no_files


def test_loopback_is_bound_in_both_families_on_one_port() -> None:
    sockets = bind("127.0.0.1", 0)
    try:
        addresses = [sock.getsockname()[:2] for sock in sockets]
        assert addresses[0][0] == "127.0.0.1"
        assert len({port for _, port in addresses}) == 1
        if socket.has_ipv6 and len(addresses) > 1:
            assert addresses[1][0] == "::1"
        assert not sockets[0].getblocking()
    finally:
        for sock in sockets:
            sock.close()


def test_a_taken_port_is_said_with_the_next_step() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigError, match="another process listens there; choose another port with --port"),
    ):
        bind("127.0.0.1", taken.getsockname()[1])


def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:8000"):
        bind("192.0.2.1", 8000)
    with pytest.raises(ConfigError, match=r"cannot listen on no\.such\.host\.invalid:8000"):
        bind("no.such.host.invalid", 8000)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("localhost", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("10.0.0.7", "http://10.0.0.7:80"),
    ],
)
def test_the_url_is_one_that_this_machine_can_reach(host: str, url: str) -> None:
    assert url_of(host, 80) == url


def test_a_gateway_that_ends_leaves_the_admin_socket_of_the_one_that_came_after_it(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    first = bind_admin(path)
    first.close()  # as soon as it drains
    with bind_admin(path) as second:
        remove_admin(path, first)
        assert path.is_socket()
        remove_admin(path, second)
        assert not path.exists()
        remove_admin(path, second)


@pytest.mark.parametrize(
    ("mode", "is_good"), [(0o700, True), (0o755, True), (0o1777, True), (0o777, False), (0o770, False)]
)
def test_the_admin_socket_is_where_nobody_else_can_put_theirs(tmp_path: Path, mode: int, is_good: bool) -> None:
    place = tmp_path / "run"
    place.mkdir()
    place.chmod(mode)
    if is_good:
        bind_admin(place / "admin.sock").close()
        return
    with pytest.raises(
        ConfigError,
        match=r"other users may write to its directory .*/run; make it accessible only to you \(chmod 700\)",
    ):
        bind_admin(place / "admin.sock")
    assert list(place.iterdir()) == []


def test_a_directory_for_the_admin_socket_that_is_another_users_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "ours").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "run")
    (tmp_path / "theirs").symlink_to(tmp_path / "ours")
    if os.getuid() == 0:
        for name in ("run", "theirs"):
            os.chown(tmp_path / name, 12345, 12345, follow_symlinks=False)
    else:
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    for name in ("run", "link", "theirs"):
        with pytest.raises(ConfigError, match="belongs to another user"):
            bind_admin(tmp_path / name / "admin.sock")


def test_the_admin_socket_takes_no_open_file(tmp_path: Path) -> None:
    """Neither before it has accepted somebody nor then; but where the kernel is older than 6.16."""
    with bind_admin(tmp_path / "admin.sock") as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "admin.sock"))

        def is_taken() -> bool:
            try:
                client.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [client.fileno()]))])
            except PermissionError:
                return False
            return True

        before = is_taken()
        ours, theirs = socket.socketpair()
        with listener.accept()[0], ours, theirs:
            assert [before, is_taken()] == [not take_no_files(ours)] * 2


def test_a_client_asks_no_socket_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with bind_admin(tmp_path / "admin.sock"):
        connect_admin(tmp_path / "admin.sock").close()
        monkeypatch.setattr(sockets, "_peer", lambda sock: 12345)
        with pytest.raises(ConfigError, match="belongs to user 12345, not to you"):
            connect_admin(tmp_path / "admin.sock")
