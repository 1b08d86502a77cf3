"""The Open Inference Protocol (v2) as values: tensors become the fields of a predict, its answer becomes tensors.

Source: github.com/kserve/open-inference-protocol, inference_rest.md. A model's JSON schema says what its fields are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from ..errors import BadRequest, InvalidOutput, TooLarge
from ..wording import counted, instead_of, listed
from .base import missing, take, wrong_type
from .events import encode_json
from .oip_binary import pack, size_of, unpack
from .oip_schema import BY_TYPE, OUTPUT, Schema, fields_of, kinds_of, metadata, resolved
from .oip_tensors import (
    FLOATS,
    Binary,
    Tensor,
    as_binary,
    check_rows,
    in_json,
    read_tensor,
    to_tensor,
    wants_binary,
)

VERSION = "1"  # models have one
MOST_SHOWN = 64  # characters of a name that a client made up
UNFIT = "predict's answer does not fit into tensors"
_NOT_RAW = "bytes without JSON do not say what they are; send JSON before them, with `binary_data_size`"


@dataclass(frozen=True, slots=True)
class InferRequest:
    """An inference request that was checked. `outputs` are the names that were asked for, () takes all; of those in
    `binary` the answer has bytes, and of all where nothing was asked for by name and `all_binary`.
    """

    id: str | None
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    binary: frozenset[str] = frozenset()
    all_binary: bool = False


def read(body: dict[str, Any], data: bytes | memoryview = b"") -> InferRequest:
    """An inference request, with the bytes that came behind its JSON.

    Raises:
        BadRequest: a tensor is not what its shape and its datatype say.
        TooLarge: they have too many rows.
    """
    inputs = take(body, "inputs", list)
    if inputs is None:
        raise missing("inputs")
    binary = Binary(data)
    tensors = tuple(read_tensor(f"inputs[{index}]", item, binary) for index, item in enumerate(inputs))
    binary.check_empty()
    check_rows(tensors)
    names = [tensor.name for tensor in tensors]
    if len(set(names)) != len(names):
        raise BadRequest("two inputs have the same name", param="inputs")
    parameters = {**take(body, "parameters", dict, {})}
    all_binary = take(parameters, "binary_data_output", bool, False)
    parameters.pop("binary_data_output", None)
    outputs, as_bytes = [], []
    for index, item in enumerate(take(body, "outputs", list, [])):
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str):
            raise wrong_type(f"outputs[{index}]", "an object with a name", item)
        outputs.append(name)
        if wants_binary(f"outputs[{index}]", take(item, "parameters", dict, {}), all_binary):
            as_bytes.append(name)
    return InferRequest(
        take(body, "id", str), tensors, tuple(outputs), parameters, frozenset(as_bytes), all_binary and not outputs
    )


def read_raw(data: bytes | memoryview, schema: Schema) -> InferRequest:
    """Triton's raw binary request: no JSON, but the bytes of the only tensor that the model takes, or one text.

    Raises:
        BadRequest: the model takes several, or these bytes do not tell the shape.
        TooLarge: they have too many rows.
    """
    needed, tensors = _needed(schema), metadata(schema)
    tensors = [tensor for tensor in tensors if tensor["name"] in needed] or tensors
    if len(tensors) != 1:
        names = listed(tensor["name"] for tensor in tensors)
        raise BadRequest(f"the model takes {names or 'no tensor'}: {_NOT_RAW}", param="inputs")
    name, datatype, shape = (tensors[0][key] for key in ("name", "datatype", "shape"))
    if datatype == "BYTES":
        shape, data = [1] * len(shape), pack("BYTES", [bytes(data)])
    elif shape.count(-1) > 1:
        raise BadRequest(f"the model's '{name}' has more than one length that it leaves open: {_NOT_RAW}", param=name)
    else:
        row = size_of(datatype) * math.prod(size for size in shape if size != -1)
        shape = [len(data) // (row or 1) if size == -1 else size for size in shape]
    found = Tensor(name, datatype, tuple(shape), unpack(name, datatype, math.prod(shape), data))
    check_rows((found,))
    return InferRequest(None, (found,), all_binary=True)


def _needed(schema: Schema) -> frozenset[str]:
    """The names of the fields that must be there; of a field that has two names it is the first."""
    whole = resolved(schema, schema)
    either = whole.get("anyOf")
    for way in (whole, *(either if isinstance(either, list) else ())):
        required = way.get("required") if isinstance(way, Mapping) else None
        if isinstance(required, list) and required:
            return frozenset(name for name in required if isinstance(name, str))
    return frozenset()


def encode_inputs(request: InferRequest, schema: Schema, most: int = 1 << 62) -> bytes:
    """What predict gets, as JSON: an object with a field for each tensor, and for each parameter that it has a field
    for; NaN and infinity in it as Python's own reader takes them.

    A field that is no array takes a tensor of one element. Where predict takes an array, it is the only tensor.

    Raises:
        BadRequest: the model has no such field, or the field holds no such tensor.
        TooLarge: it would be more than `most` bytes.
    """
    whole = bytearray()  # pieces would be left in the memory of whichever thread this is
    for part in _written(request, schema):
        whole += part
        if len(whole) > most:
            raise TooLarge(f"the tensors are more than {counted(most, 'byte')} of JSON", param="inputs")
    return bytes(whole)


def _written(request: InferRequest, schema: Schema) -> Iterator[bytes]:
    if "array" in kinds_of(schema, schema) and "properties" not in schema:
        if len(request.inputs) != 1:
            raise BadRequest(f"the model takes one tensor, not {len(request.inputs)}", param="inputs")
        yield from request.inputs[0].written()
        return
    properties = fields_of(resolved(schema, schema))
    fields: dict[str, Any] = {name: value for name, value in request.parameters.items() if name in properties}
    for index, tensor in enumerate(request.inputs):
        if tensor.name not in properties:
            name = tensor.name[:MOST_SHOWN]
            told = f"the model has no input '{name}'{instead_of(name, properties)}"
            raise BadRequest(told, param=f"inputs[{index}].name")
        fields[tensor.name] = _field(f"inputs[{index}]", tensor, kinds_of(properties[tensor.name], schema))
    if "parameters" in properties and request.parameters:
        fields.setdefault("parameters", request.parameters)
    before = b"{"
    for name, value in fields.items():
        yield before + encode_json(name) + b":"
        if isinstance(value, Tensor):
            yield from value.written()
        else:
            yield encode_json(value)
        before = b","
    yield b"}" if fields else b"{}"


def _field(where: str, tensor: Tensor, kinds: set[str]) -> Tensor:
    """The tensor as its field takes it: as it is, or as its only element."""
    if not kinds or "array" in kinds:
        return tensor
    if kinds.isdisjoint(BY_TYPE):
        raise BadRequest(f"the model's '{tensor.name}' is no tensor but: {listed(kinds)}", param=where)
    if len(tensor.data) != 1:
        raise BadRequest(
            f"the model's '{tensor.name}' is a single value, not a tensor of {len(tensor.data)}", param=f"{where}.shape"
        )
    return replace(tensor, shape=())


def from_predict(body: bytes, content_type: str) -> Any:
    """The value that predict answered with; bytes that are no JSON stay bytes.

    NaN and infinity are read too: binary tensors hold them.

    Raises:
        InvalidOutput: it is no JSON.
    """
    if not content_type.startswith("application/json"):
        return body
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        pass
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidOutput(f"{UNFIT}: {error}") from error


def answer(value: Any, request: InferRequest, model: str, request_id: str) -> tuple[dict[str, Any], bytes]:
    """The response and the bytes behind it: a tensor for each key of a dict, else one.

    Raises:
        BadRequest: an output was asked for that the model did not give.
        InvalidOutput: it holds infinity, which tensors in JSON cannot.
    """
    named = value if isinstance(value, dict) and value else {OUTPUT: value}
    if unknown := [name for name in request.outputs if name not in named]:
        name = unknown[0][:MOST_SHOWN]
        raise BadRequest(f"the model gave no output '{name}'{instead_of(name, named)}", param="outputs")
    outputs, parts = [], []
    for name in request.outputs or named:
        if request.all_binary or name in request.binary:
            tensor, raw = as_binary(name, named[name])
            parts.append(raw)
        else:
            tensor = to_tensor(name, named[name])
            if tensor["datatype"] in FLOATS:
                tensor["data"] = in_json(name, tensor["data"], named[name])
        outputs.append(tensor)
    head = {"model_name": model, "model_version": VERSION, "id": request.id or request_id, "outputs": outputs}
    return head, b"".join(parts)


def config(name: str, platform: str, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> dict[str, Any]:
    """The tensors of a model in the words of Triton's model configuration."""

    def worded(tensors: list[dict[str, Any]]) -> list[dict[str, Any]]:
        kinds = {"BYTES": "STRING"}
        return [
            {
                "name": item["name"],
                "data_type": f"TYPE_{kinds.get(item['datatype'], item['datatype'])}",
                "dims": item["shape"],
            }
            for item in tensors
        ]

    return {
        "name": name,
        "platform": platform,
        "backend": platform,
        "max_batch_size": 0,
        "input": worded(inputs),
        "output": worded(outputs),
    }
