"""Bodies for models with strict Truss parity: read for the model's name within the bounds of other bodies."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from served import Model, Served

from gateway.http.body import MAX_ITEMS
from gateway.http.off_loop import AT_ONCE
from gateway.http.routes import strict_parity
from gateway.http.routes.strict_parity import MAX_MSGPACK

Serve = Callable[..., Served]
JSON, MSGPACK = "application/json", "application/octet-stream"
KINDS = {JSON: msgspec.json.encode, MSGPACK: msgspec.msgpack.encode}


def models() -> dict[str, Model]:
    return {name: Model({"embeddings": lambda body: b"true"}, parity="strict") for name in ("m", "other")}


@pytest.mark.parametrize("kind", KINDS)
def test_the_name_of_the_model_in_a_large_body_is_no_work_of_the_loop(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    found: list[int] = []

    def watched(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        return lambda body: (found.append(threading.get_ident()), read(body))[1]

    for name in ("_from_json", "_from_msgpack"):
        monkeypatch.setattr(strict_parity, name, watched(getattr(strict_parity, name)))
    served = serve(models())
    loop = served.do(threading.get_ident)
    for size, is_at_once in ((16, True), (AT_ONCE, False)):
        found.clear()
        body = KINDS[kind]({"input": "a" * size, "model": "m"})
        assert served.post("/v1/embeddings", body, content_type=kind).status == 200
        assert len(found) == 1 and (found[0] == loop) is is_at_once


DEAR = {JSON: {"input": [[]] * (MAX_ITEMS + 1), "model": "m"}, MSGPACK: {"input": b"a" * MAX_MSGPACK, "model": "m"}}
ROOMY = {"max_body": 2 * MAX_MSGPACK}


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_that_is_dear_to_read_is_refused_before_it_is_read_for_a_name(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It is not taken for one without a name: its name may be that of another model than the only one."""
    read = threading.Event()
    for name in ("_from_json", "_from_msgpack"):
        monkeypatch.setattr(strict_parity, name, lambda body: read.set())
    one = Model({"embeddings": lambda body: b"true"}, parity="strict", limits=ROOMY)
    answer = serve({"m": one}).post("/v1/embeddings", KINDS[kind](DEAR[kind]), content_type=kind)
    assert answer.status == 413 and answer.error["code"] == "request_too_large"
    assert not read.is_set() and not one.calls


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_whose_model_the_path_names_is_passed_on_whatever_it_holds(serve: Serve, kind: str) -> None:
    one = Model({"embeddings": lambda body: b"true"}, parity="strict", limits=ROOMY)
    body = KINDS[kind]({**DEAR[kind], "model": 1})
    assert serve({"m": one}).post("/models/m/v1/embeddings", body, content_type=kind).status == 200


def test_arrays_of_truss_whose_keys_are_bytes_are_read_for_a_name(serve: Serve) -> None:
    body = KINDS[MSGPACK]({"input": {b"nd": True, b"type": "<f4", b"data": b"0" * AT_ONCE}, "model": "m"})
    assert serve(models()).post("/v1/embeddings", body, content_type=MSGPACK).status == 200


def test_a_body_that_cannot_be_read_is_for_the_only_model(serve: Serve) -> None:
    served = serve({"m": models()["m"]})
    for body, kind in ((b"{", JSON), (b"[" * 2000, JSON), (b"\xc1", MSGPACK), (b'{"model": 1}', JSON)):
        assert served.post("/v1/embeddings", body, content_type=kind).status == 200
