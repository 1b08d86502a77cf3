"""What is refused before it is a request is counted by its reason, and told at a bounded rate."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text
from served import PATIENCE, Model, Served

from gateway.http.refused_connections import EVERY, QUIET, REASONS, Refused

Serve = Callable[..., Served]
HEAD = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n"
SENT = {
    "invalid_http": b"FOOBAR / HTTP/1.1\r\n\r\n",
    "url_too_long": b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "head_too_large": HEAD + b"x-a: " + b"b" * 70_000 + b"\r\n\r\n",
    "head_timeout": HEAD,
    "nothing_sent": b"",
    "invalid_handshake": HEAD.replace(b"/v1/models", b"/v1/websocket")
    + b"connection: Upgrade\r\nupgrade: websocket\r\n\r\n",
}


def refused(served: Served) -> dict[str, float]:
    families = parse_text(served.get("/metrics").body.decode())
    samples = [sample for family in families for sample in family.samples]
    counts = {s.labels["reason"]: s.value for s in samples if s.name == "gateway_refused_connections_total"}
    assert counts.keys() == REASONS.keys()
    return {reason: count for reason, count in counts.items() if count}


@pytest.mark.parametrize(("reason", "sent"), SENT.items(), ids=SENT)
def test_what_never_became_a_request_is_counted_by_its_reason_and_told(
    serve: Serve, caplog: pytest.LogCaptureFixture, reason: str, sent: bytes
) -> None:
    wait = 0.5 if reason in ("head_timeout", "nothing_sent") else PATIENCE
    served = serve({"m": Model({"predict": lambda body: body})}, head_timeout=wait)
    answer = served.send(sent)
    assert refused(served) == {reason: 1}
    told = [record for record in caplog.records if REASONS[reason] in record.getMessage()]
    assert len(told) == (reason not in QUIET)
    for line in told:
        assert line.levelno == logging.WARNING and "127.0.0.1" in line.getMessage()
    if reason not in ("head_timeout", "nothing_sent", "invalid_handshake"):  # those get no answer, or not one of ours
        [request_id] = [part for part in answer.split(b"\r\n") if part.startswith(b"x-request-id: ")]
        assert request_id.removeprefix(b"x-request-id: ").decode() in told[0].getMessage()


LONG = {"url": b"GET /" + b"a" * 8180, "header": b"GET /v1/websocket HTTP/1.1\r\ncookie: " + b"b" * 9000}


@pytest.mark.parametrize("head", LONG.values(), ids=LONG)
def test_a_websocket_whose_line_only_http_allows_is_refused_at_once(serve: Serve, head: bytes) -> None:
    """The library for websockets takes lines of 8 KiB, and reports others by no event."""
    served = serve({"m": Model({"predict": lambda body: body})})
    rest = b"host: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    first = b" HTTP/1.1\r\n" if b"HTTP" not in head else b"\r\n"
    answer = served.send(head + first + rest + b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ") and b"a line of a websocket's more than 8192" in answer
    assert refused(served) == {"invalid_handshake": 1}
    served.wait_until(lambda: not served.server.server_state.connections)


def test_connections_beyond_the_bound_are_counted(serve: Serve) -> None:
    served = serve({"m": Model({"predict": lambda body: body})}, max_connections=1)
    with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE):
        served.wait_until(lambda: len(served.server.server_state.connections) == 1)
        assert served.send(b"").startswith(b"HTTP/1.1 503 ")
    served.wait_until(lambda: not served.server.server_state.connections)
    assert refused(served) == {"too_many_connections": 1}


def test_a_flood_of_them_is_one_line_in_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    counter = Refused(lambda: now)
    for _ in range(1000):
        counter.note("invalid_http", "10.0.0.1")
    now += EVERY
    counter.note("invalid_http", "10.0.0.2", "8f4c")
    first, second = [record.getMessage() for record in caplog.records]
    assert first == "refused a connection of 10.0.0.1: what it sent is not valid HTTP"
    assert second == (
        "refused a connection of 10.0.0.2: what it sent is not valid HTTP, answered as request 8f4c; "
        "999 more like it since the last such line"
    )
    assert counter.counts["invalid_http"] == 1001
