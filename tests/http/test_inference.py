"""The Open Inference Protocol over real HTTP; the workers are played."""

from __future__ import annotations

import asyncio
import gzip
import json
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from served import PATIENCE, Model, Reply, Served

from gateway.dialects.oip import values
from gateway.dialects.oip.binary import MAX_TEXTS
from gateway.dialects.oip.tensors import MAX_ROWS
from gateway.errors import BadRequest, TooLarge
from gateway.http.compressed import AT_ONCE
from gateway.http.routes import oip as inference
from gateway.http.routes.oip import LIGHT, MAX_JSON

SCHEMA = {
    "type": "object",
    "properties": {"rows": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}},
    "required": ["rows"],
}
OUTPUT = {"type": "object", "properties": {"sums": {"type": "array", "items": {"type": "number"}}}}
ROWS = {"name": "rows", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}


def sums(body: bytes) -> Any:
    rows = json.loads(body)["rows"]
    if rows == [[0]]:
        raise BadRequest("no zeros")
    if rows == [[7]]:
        return Reply(b"made by hand", 207, "text/plain", (("x-mine", "yes"),), raw=True)
    return json.dumps({"sums": [sum(row) for row in rows], "count": len(rows)}).encode()


LINE = {"type": "object", "properties": {"x": {"type": "array", "items": {"type": "number"}}}, "required": ["x"]}


def line(body: bytes) -> bytes:
    return json.dumps([sum(json.loads(body)["x"])]).encode()


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    typed = {"capabilities": {"input_schema": SCHEMA, "output_schema": OUTPUT}, "format": "python"}
    models = {
        "adder": Model({"predict": sums}, **typed),
        "org/adder": Model({"predict": sums}, **typed),
        "untyped": Model({"predict": sums}),
        "line": Model({"predict": line}, capabilities={"input_schema": LINE}, format="python"),
        "talker": Model({"chat_completions": lambda inputs: "hi"}),
    }
    with Served(models) as served:
        yield served


@pytest.mark.parametrize("name", ["adder", "org/adder"])
@pytest.mark.parametrize("version", ["", "/versions/1"])
def test_tensors_go_through_predict(gateway: Served, name: str, version: str) -> None:
    answer = gateway.post(f"/v2/models/{name}{version}/infer", {"id": "42", "inputs": [ROWS]})
    assert answer.status == 200
    assert (
        answer.json
        == {
            "model_name": name,
            "model_version": "1",
            "id": "42",
            "outputs": [
                {"name": "sums", "datatype": "INT64", "shape": [2], "data": [3, 7]},
                {"name": "count", "datatype": "INT64", "shape": [1], "data": [2]},
            ],
        }
        or answer.json["outputs"][0]["datatype"] == "INT64"
    )


def test_nested_data_and_a_choice_of_outputs(gateway: Served) -> None:
    nested = {**ROWS, "data": [[1, 2], [3, 4]]}
    answer = gateway.post("/v2/models/adder/infer", {"inputs": [nested], "outputs": [{"name": "count"}]})
    assert [output["name"] for output in answer.json["outputs"]] == ["count"]
    assert answer.json["id"] == answer.headers["x-request-id"]


def test_a_response_of_the_model_goes_out_as_it_is(gateway: Served) -> None:
    answer = gateway.post("/v2/models/adder/infer", {"inputs": [{**ROWS, "shape": [1, 1], "data": [7]}]})
    assert (answer.status, answer.body, answer.headers["x-mine"]) == (207, b"made by hand", "yes")


@pytest.mark.parametrize(
    ("path", "body", "status", "word"),
    [
        ("adder/infer", {"inputs": [{**ROWS, "shape": [3]}]}, 400, "shape"),
        ("adder/infer", {"inputs": [{**ROWS, "name": "x"}]}, 400, "no input 'x'"),
        ("adder/infer", {"inputs": [ROWS], "outputs": [{"name": "x"}]}, 400, "no output 'x'"),
        ("adder/infer", [], 400, "JSON object"),
        ("adder/infer", {"inputs": [{**ROWS, "shape": [1, 1], "data": [0]}]}, 400, "no zeros"),
        ("untyped/infer", {"inputs": [ROWS]}, 404, "Pydantic"),
        ("talker/infer", {"inputs": [ROWS]}, 404, "no predict"),
        ("nobody/infer", {"inputs": [ROWS]}, 404, "have: adder"),
        ("adder/versions/2/infer", {"inputs": [ROWS]}, 404, "no version '2'"),
    ],
)
def test_errors_are_one_string(gateway: Served, path: str, body: Any, status: int, word: str) -> None:
    answer = gateway.post(f"/v2/models/{path}", body)
    assert answer.status == status
    assert list(answer.json) == ["error"] and word in answer.json["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/adder/infer", 405),
        ("POST", "/v2/models/adder", 405),
        ("POST", "/v2", 405),
        ("GET", "/v2/repository/index", 405),
        ("GET", "/v2/repository/nothing", 404),
        ("GET", "/v2/health/nothing", 404),
        ("GET", "/v2/", 404),
        ("GET", "/v2/nothing", 404),
        ("POST", "/v2/logging", 404),
        ("GET", "/v2/models/nobody/config", 404),
        ("POST", "/v2/models/stats", 405),
        ("POST", "/v2/repository/models/nobody/load", 404),
    ],
)
def test_wrong_paths_and_methods_have_the_same_shape(gateway: Served, method: str, path: str, status: int) -> None:
    answer = gateway.ask(method, path, b"{}")
    assert answer.status == status and isinstance(answer.json["error"], str)


def test_the_server_and_its_models_are_described(gateway: Served) -> None:
    server = gateway.get("/v2").json
    assert set(server) == {"name", "version", "extensions"} and "binary_tensor_data" in server["extensions"]
    for path in ("/v2/models/org/adder", "/v2/models/org/adder/versions/1"):
        assert gateway.get(path).json == {
            "name": "org/adder",
            "versions": ["1"],
            "platform": "python",
            "inputs": [{"name": "rows", "datatype": "FP64", "shape": [-1, -1]}],
            "outputs": [{"name": "sums", "datatype": "FP64", "shape": [-1]}],
        }
    assert gateway.get("/v2/models/untyped").json["inputs"] == []
    assert gateway.get("/v2/models/talker").status == 404


def framed(inputs: list[Any], *parts: bytes, **fields: Any) -> tuple[bytes, dict[str, str]]:
    head = json.dumps({"inputs": inputs, **fields}).encode()
    return b"".join((head, *parts)), {"Inference-Header-Content-Length": str(len(head))}


BINARY = {"name": "rows", "datatype": "FP32", "shape": [2, 2], "parameters": {"binary_data_size": 16}}
RAW = struct.pack("<4f", 1, 2, 3, 4)


@pytest.mark.parametrize("encoding", ["", "gzip", "deflate", "GZIP", "bare deflate", "members"])
def test_binary_tensors_go_in_and_out_compressed_or_plain(gateway: Served, encoding: str) -> None:
    body, headers = framed([BINARY], RAW, parameters={"binary_data_output": True})
    packed = {
        "": lambda: body,
        "gzip": lambda: gzip.compress(body),
        "GZIP": lambda: gzip.compress(body),
        "deflate": lambda: zlib.compress(body),
        "bare deflate": lambda: zlib.compress(body)[2:-4],
        "members": lambda: gzip.compress(body[:50]) + gzip.compress(body[50:]),
    }[encoding]()
    name = {"bare deflate": "deflate", "members": "gzip"}.get(encoding, encoding)
    answer = gateway.post("/v2/models/adder/infer", packed, **headers, **({"Content-Encoding": name} if name else {}))
    size = int(answer.headers["inference-header-content-length"])
    outputs = json.loads(answer.body[:size])["outputs"]
    assert [output["parameters"]["binary_data_size"] for output in outputs] == [16, 8]
    first = struct.unpack("<qq" if outputs[0]["datatype"] == "INT64" else "<dd", answer.body[size : size + 16])
    assert first == (3, 7) and struct.unpack("<q", answer.body[size + 16 :]) == (2,)


def test_bytes_without_json_are_answered_in_binary(gateway: Served) -> None:
    raw = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
    answer = gateway.post("/v2/models/line/infer", struct.pack("<3d", 1, 2, 0.5), **raw)
    size = int(answer.headers["inference-header-content-length"])
    [output] = json.loads(answer.body[:size])["outputs"]
    assert output["shape"] == [1] and struct.unpack("<d", answer.body[size:]) == (3.5,)
    refused = gateway.post("/v2/models/adder/infer", struct.pack("<3d", 1, 2, 0.5), **raw)
    assert refused.status == 400 and "binary_data_size" in refused.json["error"]


def test_nan_in_json_goes_in_as_null_or_as_tritons_client_writes_it_and_comes_out_as_null(gateway: Served) -> None:
    for word in ("null", "NaN"):
        row = f'{{"name": "x", "datatype": "FP32", "shape": [2], "data": [1, {word}]}}'
        answer = gateway.post("/v2/models/line/infer", f'{{"inputs": [{row}]}}'.encode())
        assert answer.status == 200 and answer.json["outputs"][0]["data"] == [None]
    broken = gateway.post("/v2/models/line/infer", b'{"inputs": NaN')
    assert broken.status == 400 and "JSON" in broken.json["error"]


HALF = b"\\ud800"


@pytest.mark.parametrize(
    "body",
    [
        b'{"id": "%b", "inputs": [NaN]}' % HALF,
        b'{"inputs": [{"name": "%b", "datatype": "FP32", "shape": [1], "data": [NaN]}]}' % HALF,
        b'{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ["%b"]}], "parameters": {"a": NaN}}'
        % HALF,
        b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [NaN]}], "parameters": {"%b": 1}}' % HALF,
        b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [NaN]}], "outputs": [{"name": "%b"}]}'
        % HALF,
    ],
)
@pytest.mark.parametrize("word", [b"NaN", b"-Infinity"])
def test_half_a_character_is_no_json_whatever_words_stand_beside_it(gateway: Served, body: bytes, word: bytes) -> None:
    answer = gateway.post("/v2/models/line/infer", body.replace(b"NaN", word))
    assert answer.status == 400 and "JSON" in answer.json["error"]


@pytest.mark.parametrize(
    ("data", "status", "word"), [(b"[" * 65 + b"]" * 65, 400, "64"), (b"[]," * (MAX_ROWS + 1) + b"[]", 413, "arrays")]
)
@pytest.mark.parametrize("also", [b"1", b"NaN"])
def test_a_word_that_json_does_not_know_lifts_no_limit(
    gateway: Served, data: bytes, status: int, word: str, also: bytes
) -> None:
    answer = gateway.post("/v2/models/line/infer", b'{"inputs": [%b, %b]}' % (data, also))
    assert answer.status == status and word in answer.json["error"]


@pytest.mark.parametrize(
    ("body", "headers", "status", "word"),
    [
        (b"{}", {"Inference-Header-Content-Length": "3"}, 400, "Inference-Header"),
        (b"{}", {"Inference-Header-Content-Length": "-1"}, 400, "Inference-Header"),
        (
            b'{"inputs": []}x',
            {"Inference-Header-Content-Length": "14"},
            400,
            "followed by 1 byte that no tensor uses",
        ),
        (b"{}", {"Content-Encoding": "gzip"}, 400, "gzip"),
        (gzip.compress(b"{}")[:-1], {"Content-Encoding": "gzip"}, 400, "gzip"),
        (zlib.compress(b"{}") + b"x", {"Content-Encoding": "deflate"}, 400, "deflate"),
        (b"{}", {"Content-Encoding": "br"}, 415, "'br'"),
        (gzip.compress(bytes(200 << 20)), {"Content-Encoding": "gzip"}, 413, "larger"),
    ],
)
def test_bodies_that_are_not_what_their_head_says_are_refused(
    gateway: Served, body: bytes, headers: dict[str, str], status: int, word: str
) -> None:
    answer = gateway.post("/v2/models/adder/infer", body, **headers)
    assert answer.status == status and word in answer.json["error"]


def test_large_tensors_are_read_and_written_off_the_loop(gateway: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kilobytes of gzip are megabytes of numbers, and would hold up the requests of others."""
    seen: set[str] = set()
    for name in ("read", "encode_inputs", "answer"):
        work = getattr(values, name)
        monkeypatch.setattr(
            values, name, lambda *given, work=work: (seen.add(threading.current_thread().name), work(*given))[1]
        )
    threads = []
    for count in (2, AT_ONCE):
        pack = {"Content-Encoding": "gzip"} if count > 2 else {}
        tensor = {
            "name": "rows",
            "datatype": "FP32",
            "shape": [count, 1],
            "parameters": {"binary_data_size": 4 * count},
        }
        body, headers = framed([tensor], bytes(4 * count))
        answer = gateway.post("/v2/models/adder/infer", gzip.compress(body, 1) if pack else body, **headers, **pack)
        assert answer.status == 200 and answer.json["outputs"][0]["shape"] == [count]
        threads.append({*seen})
        seen.clear()
    assert len(threads[0]) == 1 and threads[1] and threads[0].isdisjoint(threads[1])


def packed_line(size: int) -> tuple[bytes, dict[str, str]]:
    """A tensor of so many bytes for `line`, in a few."""
    tensor = {"name": "x", "datatype": "UINT8", "shape": [size], "parameters": {"binary_data_size": size}}
    body, headers = framed([tensor], bytes(size))
    return gzip.compress(body, 9), {**headers, "Content-Encoding": "gzip"}


def test_no_body_is_unpacked_for_a_model_that_takes_no_call(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked: list[int] = []
    monkeypatch.setattr(inference, "unpacked", lambda body, *_: (unpacked.append(len(body)), b"")[1])
    typed = {"capabilities": {"input_schema": LINE}, "format": "python"}
    full = Model({"predict": forever}, limits={"slots": 1, "max_queue": 0}, **typed)
    served = serve({"slow": Model({"predict": line}, loads=[30.0], **typed), "full": full})
    body, headers = packed_line(4 * AT_ONCE)
    with served.busy("full"):
        for name, status in (("slow", 503), ("full", 429)):
            assert served.post(f"/v2/models/{name}/infer", body, **headers).status == status
    assert not unpacked


async def forever(body: bytes) -> Any:
    await asyncio.Event().wait()


def test_large_bodies_are_unpacked_one_after_the_other_and_small_ones_need_not_wait(
    gateway: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few kilobytes may be as much as a body may have, of which several copies are needed."""
    tried, begun, go, unpack = threading.Semaphore(0), threading.Semaphore(0), threading.Event(), inference.unpacked
    inside: list[int] = []

    def slowly(body: bytes, encoding: str, limit: int) -> bytes:
        try:
            found = unpack(body, encoding, limit)
        except TooLarge:
            tried.release()
            raise
        if len(found) > LIGHT:
            inside.append(len(found))
            begun.release()
            assert go.wait(PATIENCE)
        return found

    monkeypatch.setattr(inference, "unpacked", slowly)
    large, headers = packed_line(2 * LIGHT)
    with ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(gateway.post, "/v2/models/line/infer", large, **headers) for _ in range(3)]
        assert begun.acquire(timeout=PATIENCE)
        assert all(tried.acquire(timeout=PATIENCE) for _ in asked)
        small, also = packed_line(2 * AT_ONCE)
        assert gateway.post("/v2/models/line/infer", small, **also).status == 200
        assert len(inside) == 1
        go.set()
        assert [answer.result(PATIENCE).status for answer in asked] == [200] * 3


def test_what_packed_json_and_json_with_pythons_words_may_have_is_bounded(gateway: Served) -> None:
    """It is read in one go, whoever waits meanwhile; tensors as binary data are not."""
    for word, headers in ((b"1", {"Content-Encoding": "gzip"}), (b"NaN", {})):
        body = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [%b%b]}]}' % (
            b" " * MAX_JSON,
            word,
        )
        answer = gateway.post("/v2/models/line/infer", gzip.compress(body) if headers else body, **headers)
        assert answer.status == 413 and "binary tensors" in answer.json["error"]


def test_json_with_pythons_words_may_have_fewer_values(gateway: Served) -> None:
    body = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [%bNaN]}]}'
    for most, status in ((inference.MAX_NANS - 10, 400), (inference.MAX_NANS + 1, 413)):
        assert gateway.post("/v2/models/line/infer", body % (b"1," * most)).status == status


def test_very_many_texts_are_refused_before_one_is_made(gateway: Served) -> None:
    tensor = {"name": "x", "datatype": "BYTES", "shape": [MAX_TEXTS + 1]}
    body, headers = framed(
        [{**tensor, "parameters": {"binary_data_size": 4 * (MAX_TEXTS + 1)}}], bytes(4 << 20) + bytes(4)
    )
    answer = gateway.post("/v2/models/line/infer", gzip.compress(body), **headers, **{"Content-Encoding": "gzip"})
    assert answer.status == 413 and "strings" in answer.json["error"]


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_what_an_index_is_asked_with_may_have_64_kib(gateway: Served, encoding: str) -> None:
    body = b'{"ready": true}' + b" " * (64 << 10)
    headers = {"Content-Encoding": encoding} if encoding else {}
    answer = gateway.post("/v2/repository/index", gzip.compress(body) if encoding else body, **headers)
    assert answer.status == 413 and "65536 bytes" in answer.json["error"]


def test_the_config_and_the_statistics_of_models(serve: Callable[..., Served]) -> None:
    typed = {"capabilities": {"input_schema": SCHEMA, "output_schema": OUTPUT}, "format": "python"}
    served = serve({"adder": Model({"predict": sums}, **typed), "other": Model({"predict": sums}, **typed)})
    for path in ("/v2/models/adder/config", "/v2/models/adder/versions/1/config"):
        assert served.get(path).json == {
            "name": "adder",
            "platform": "python",
            "backend": "python",
            "max_batch_size": 0,
            "input": [{"name": "rows", "data_type": "TYPE_FP64", "dims": [-1, -1]}],
            "output": [{"name": "sums", "data_type": "TYPE_FP64", "dims": [-1]}],
        }
    served.post("/v2/models/adder/infer", {"inputs": [ROWS]})
    served.post("/v2/models/adder/infer", {"inputs": [{**ROWS, "shape": [1, 1], "data": [0]}]})
    [of_one] = served.get("/v2/models/adder/stats").json["model_stats"]
    counts = {name: times["count"] for name, times in of_one["inference_stats"].items()}
    assert (of_one["inference_count"], counts["success"], counts["fail"]) == (1, 1, 1)
    assert of_one["inference_stats"]["success"]["ns"] > 0 and of_one["last_inference"] > 0
    found = served.get("/v2/models/stats").json["model_stats"]
    assert [(item["name"], item["inference_count"]) for item in found] == [("adder", 1), ("other", 0)]


def test_readiness_of_a_model(serve: Callable[..., Served]) -> None:
    served = serve({"m": Model({"predict": sums}), "slow": Model({"predict": sums}, loads=[30.0])})
    ready = served.get("/v2/models/m/ready")
    assert (ready.status, ready.json) == (200, {"name": "m", "ready": True})
    loading = served.get("/v2/models/slow/ready")
    assert (loading.status, loading.json) == (503, {"name": "slow", "ready": False})
    unknown = served.get("/v2/models/slow")
    assert unknown.status == 503 and "loading" in unknown.json["error"] and "retry-after" in unknown.headers


def test_the_index_lists_every_model_or_those_that_are_ready(serve: Callable[..., Served]) -> None:
    served = serve({"m": Model({"predict": sums}), "slow": Model({"predict": sums}, loads=[30.0])})
    assert served.post("/v2/repository/index").json == [
        {"name": "m", "version": "1", "state": "READY", "reason": ""},
        {"name": "slow", "version": "1", "state": "LOADING", "reason": ""},
    ]
    assert [item["name"] for item in served.post("/v2/repository/index", {"ready": True}).json] == ["m"]
    assert served.ask("POST", "/v2/repository/index").status == 200


def test_a_model_that_is_always_loaded_is_not_unloaded(gateway: Served) -> None:
    answer = gateway.post("/v2/repository/models/adder/unload")
    assert answer.status == 400 and "lazy" in answer.json["error"]
    assert gateway.post("/v2/repository/models/adder/load").status == 200
    assert gateway.get("/v2/models/adder/ready").status == 200
