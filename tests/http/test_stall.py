"""Who takes nothing of an answer is cut off, who takes it slowly gets all of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from fakes import VirtualLoop
from served import PATIENCE, Model, Served

from gateway.http.stall import SOME, UNSEEN, Stall

SPAN = 30.0
PREDICT = b"POST /models/m/predict HTTP/1.1\r\nHost: localhost\r\ncontent-length: 2\r\n%b\r\n{}"


class Transport(asyncio.Transport):
    def __init__(self, **extra: Any) -> None:
        super().__init__(extra)
        self.waits, self.aborted = 10 * SOME, False

    def get_write_buffer_size(self) -> int:
        return self.waits

    def abort(self) -> None:
        self.aborted = True


async def after(spans: int, takes: int) -> Transport:
    """What has become of a connection whose client takes so much in each span."""
    transport = Transport()
    stall = Stall(transport, asyncio.get_running_loop(), SPAN)
    await asyncio.sleep(0.5 * SPAN)
    for _ in range(spans):
        transport.waits -= takes
        await asyncio.sleep(SPAN)
    stall.cancel()
    return transport


@pytest.mark.parametrize("takes", [0, 1, SOME - 1])
def test_who_takes_less_than_some_of_it_is_cut_off(takes: int) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(after(1, takes)).aborted


def test_who_takes_some_of_it_in_each_span_is_not() -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert not runner.run(after(9, SOME)).aborted


async def encrypted(spans: int) -> Transport:
    """What has become of a connection of which all that waits is below its TLS."""
    transport = Transport(sslcontext=unchecked())
    transport.waits = 0
    stall = Stall(transport, asyncio.get_running_loop(), SPAN)
    await asyncio.sleep((spans + 0.5) * SPAN)
    stall.cancel()
    return transport


def test_what_waits_below_tls_may_be_taken_as_slowly_and_no_slower() -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert not runner.run(encrypted(UNSEEN // SOME)).aborted
        assert runner.run(encrypted(UNSEEN // SOME + 1)).aborted


ANSWER = b"x" * 20_000  # less than a transport takes before it says that it is full


def fill(served: Served, client: socket.socket) -> None:
    """Ask, and read nothing, until something waits here for the client; so little that nothing is held up by it."""
    [connection] = served.server.server_state.connections
    while not served.do(connection.transport.get_write_buffer_size):
        client.sendall(PREDICT % b"")
        assert served.models["m"].stopped.acquire(timeout=PATIENCE)
    assert not served.do(lambda: connection.flow.write_paused)


LAST = {
    "the last answer": PREDICT % b"connection: close\r\n",
    "what is not HTTP": b"nonsense\r\n\r\n",
    "half a head": b"GET / HT",
    "nothing more": b"",
    "the end": None,
}


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("last", LAST.values(), ids=LAST)
def test_who_takes_nothing_of_a_small_answer_is_cut_off_once_the_connection_is_to_end(
    serve: Callable[..., Served], tmp_path: Path, last: bytes | None, encrypted: bool
) -> None:
    """A transport that is closed goes on until all of it is taken, which may be never."""
    settings: dict[str, Any] = {"send_timeout": 0.2, "keep_alive": 1, "head_timeout": 0.5}
    if encrypted:
        issued = trustme.CA().issue_cert("localhost")
        settings |= {"tls_cert": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem"}
        issued.cert_chain_pems[0].write_to_path(str(settings["tls_cert"]))
        issued.private_key_pem.write_to_path(str(settings["tls_key"]))
    served = serve({"m": Model({"predict": lambda body: ANSWER})}, **settings)
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.settimeout(PATIENCE)
        plain.connect(("127.0.0.1", served.port))
        client = unchecked().wrap_socket(plain) if encrypted else plain
        served.wait_until(lambda: len(served.server.server_state.connections) == 1)
        fill(served, client)
        if last is None:
            if encrypted:
                with contextlib.suppress(OSError):
                    client.unwrap()
            client.shutdown(socket.SHUT_WR)
        else:
            client.sendall(last)
        served.wait_until(lambda: not served.server.server_state.connections)
        client.close()


def unchecked() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
