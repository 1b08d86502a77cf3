from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.sockets import bind, bind_admin, remove_admin, url_of


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
