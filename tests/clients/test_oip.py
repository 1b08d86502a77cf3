"""The clients of Triton and KServe: every datatype, in binary and in JSON, in every form that an array may have."""

from __future__ import annotations

import asyncio
from typing import Any

import kserve
import ml_dtypes
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

NUMBERS = [
    *(np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64),
    *(np.float16, np.float32, np.float64, ml_dtypes.bfloat16),
]
KINDS: list[Any] = [*NUMBERS, np.object_]


@pytest.fixture
def headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def server(url: str) -> Any:
    with triton.InferenceServerClient(url.removeprefix("http://")) as made:
        yield made


def arrays(kind: Any) -> list[Any]:
    """Whole, empty, and laid out in other orders."""
    whole = np.arange(24).reshape(4, 6).astype(kind)
    if kind is np.object_:
        whole = np.array([f"é{number}" for number in range(24)], object).reshape(4, 6)
    return [whole, whole[:0], whole[:, :0], whole.T, whole[::2, ::-1], whole[0], np.asfortranarray(whole)]


def echoed(server: Any, headers: dict[str, str], array: Any, *, binary: bool, outputs: Any, compression: Any) -> Any:
    given = triton.InferInput("x", list(array.shape), np_to_triton_dtype(array.dtype))
    given.set_data_from_numpy(array, binary_data=binary)
    asked = None if outputs is None else [triton.InferRequestedOutput("y", binary_data=outputs)]
    answer = server.infer("echo", [given], outputs=asked, headers=headers, request_compression_algorithm=compression)
    return answer.as_numpy("y")


@pytest.mark.parametrize("outputs", [None, True, False])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_tritons_client_gets_every_array_back(
    server: Any, headers: dict[str, str], kind: Any, binary: bool, outputs: Any
) -> None:
    compressions = {None: None, True: "gzip", False: "deflate"}
    for array in arrays(kind):
        is_binary = binary or kind is ml_dtypes.bfloat16  # which has no other form
        compression = compressions[outputs]
        found = echoed(server, headers, array, binary=is_binary, outputs=outputs, compression=compression)
        if kind is np.object_:
            texts = [item if isinstance(item, str) else item.decode() for item in found.flatten()]
            assert texts == array.flatten().tolist()
        else:
            assert np.array_equal(found.reshape(array.shape).astype(np.float64), array.astype(np.float64))
        assert not array.size or found.shape == array.shape


def test_triton_learns_of_models_and_errors(server: Any, headers: dict[str, str]) -> None:
    assert server.is_server_live() and server.is_server_ready() and server.is_model_ready("echo", headers=headers)
    assert server.get_model_metadata("echo", headers=headers)["name"] == "echo"
    assert server.get_model_config("echo", headers=headers)["max_batch_size"] == 0
    assert "echo" in {model["name"] for model in server.get_model_repository_index(headers=headers)}
    [counts] = server.get_inference_statistics("echo", headers=headers)["model_stats"]
    assert counts["name"] == "echo"
    given = triton.InferInput("z", [1], "FP32").set_data_from_numpy(np.ones(1, np.float32))
    with pytest.raises(InferenceServerException, match="no input 'z'"):
        server.infer("echo", [given], headers=headers)
    with pytest.raises(InferenceServerException, match="no model named"):
        server.infer("nobody", [given], headers=headers)


@pytest.mark.parametrize("outputs", [True, False])
@pytest.mark.parametrize("binary", [True, False])
def test_kserves_client_gets_its_array_back(url: str, headers: dict[str, str], binary: bool, outputs: bool) -> None:
    array = np.array([[1, 2], [3, 4]], np.float32)

    async def ask() -> Any:
        async with kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2")) as client:
            assert await client.is_server_ready(url) and await client.is_model_ready(url, "echo", headers=headers)
            given = kserve.InferInput("x", [2, 2], "FP32")
            given.set_data_from_numpy(array, binary_data=binary)
            request = kserve.InferRequest("echo", [given], parameters={"binary_data_output": outputs})
            return await client.infer(url, request, headers=headers, model_name="echo")

    assert np.array_equal(asyncio.run(ask()).outputs[0].as_numpy(), array)
