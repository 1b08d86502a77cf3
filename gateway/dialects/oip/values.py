"""The values of the Open Inference Protocol (v2): tensors become fields of predict, its result becomes tensors.

Source: github.com/kserve/open-inference-protocol, inference_rest.md. A model's JSON schema defines its fields.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec.structs

from ... import json_costs
from ...errors import BadRequest, InvalidOutput, TooLarge
from ...wire.frames import MAX_PAYLOAD
from ...wording import counted, instead_of, listed
from .. import model_json
from ..events import encode_json
from ..fields import missing, take, wrong_type
from .binary import pack, size_of, unpack
from .schema import BY_TYPE, OUTPUT, Schema, Takes, metadata, resolved
from .tensors import FLOATS, PIECE, Binary, Tensor, as_binary, check_rows, in_json, read_tensor, to_tensor, wants_binary

VERSION = "1"  # models have one version
MAX_VALUES = 1 << 24  # values in an answer: they are parsed in one C call, in half a second
MOST = MAX_VALUES * (json_costs.COMMA + json_costs.POINT)  # what so many numbers cost
MOST_SHOWN = 64  # characters of a client's name that are shown
UNFIT = "predict's answer does not fit into tensors"
_NOT_RAW = "bytes without JSON do not declare their tensors; send JSON before them, with `binary_data_size`"


class InferRequest(msgspec.Struct, frozen=True):
    """A checked inference request.

    `outputs` are the requested names; () means all. Outputs named in `binary` are sent as bytes, and so are all outputs
    if no names were requested and `all_binary` is set.
    """

    id: str | None
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...] = ()
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)
    binary: frozenset[str] = frozenset()
    all_binary: bool = False


def read(body: dict[str, Any], data: bytes | memoryview = b"") -> InferRequest:
    """Return the inference request in a body and the bytes after its JSON.

    Raises:
        BadRequest: a tensor does not match its shape or datatype.
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
    seen: set[str] = set()
    for index, item in enumerate(take(body, "outputs", list, [])):
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str):
            raise wrong_type(f"outputs[{index}]", "an object with a name", item)
        if name in seen:
            told = f"the output '{name[:MOST_SHOWN]}' is requested twice; request it once"
            raise BadRequest(told, param=f"outputs[{index}].name")
        seen.add(name)
        outputs.append(name)
        if wants_binary(f"outputs[{index}]", take(item, "parameters", dict, {}), all_binary):
            as_bytes.append(name)
    return InferRequest(
        take(body, "id", str), tensors, tuple(outputs), parameters, frozenset(as_bytes), all_binary and not outputs
    )


def read_raw(data: bytes | memoryview, schema: Schema) -> InferRequest:
    """Read Triton's raw binary request: no JSON, only the bytes of the model's one tensor, or one text.

    Raises:
        BadRequest: the model takes several tensors, or the shape is unknown.
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
        raise BadRequest(f"the model's '{name}' has more than one open length: {_NOT_RAW}", param=name)
    else:
        row = size_of(datatype) * math.prod(size for size in shape if size != -1)
        shape = [len(data) // (row or 1) if size == -1 else size for size in shape]
    found = Tensor(name, datatype, tuple(shape), unpack(name, datatype, math.prod(shape), data))
    check_rows((found,))
    return InferRequest(None, (found,), all_binary=True)


def _needed(schema: Schema) -> frozenset[str]:
    """Return the names of required fields. If a field has two names, return the first."""
    whole = resolved(schema, schema)
    either = whole.get("anyOf")
    for way in (whole, *(either if isinstance(either, list) else ())):
        required = way.get("required") if isinstance(way, Mapping) else None
        if isinstance(required, list) and required:
            return frozenset(name for name in required if isinstance(name, str))
    return frozenset()


def encode_inputs(request: InferRequest, takes: Takes, most: int = 1 << 62) -> bytes:
    """Return the input of predict as JSON: an object with a field for each tensor, and for each known parameter.

    NaN and infinity are written as Python's JSON reader accepts them. A field that is not an array takes a tensor of
    one element. If predict takes an array, the request must have one tensor.

    Raises:
        BadRequest: the model has no such field, or the field cannot take the tensor.
        TooLarge: it would be more than `most` bytes.
    """
    whole = bytearray()  # a list of pieces would leave memory with the thread that runs this
    for part in _written(request, takes):
        whole += part
        if len(whole) > most:
            raise TooLarge(f"the tensors are more than {counted(most, 'byte')} of JSON", param="inputs")
    return bytes(whole)


def _written(request: InferRequest, takes: Takes) -> Iterator[bytes]:
    if takes.is_array:
        if len(request.inputs) != 1:
            raise BadRequest(f"the model takes one tensor, not {len(request.inputs)}", param="inputs")
        yield from request.inputs[0].written()
        return
    properties = takes.fields
    fields: dict[str, Any] = {name: value for name, value in request.parameters.items() if name in properties}
    for index, tensor in enumerate(request.inputs):
        if tensor.name not in properties:
            name = tensor.name[:MOST_SHOWN]
            told = f"the model has no input '{name}'{instead_of(name, properties)}"
            raise BadRequest(told, param=f"inputs[{index}].name")
        fields[tensor.name] = _field(f"inputs[{index}]", tensor, takes.kinds(tensor.name))
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
    """Return the tensor as its field takes it: unchanged, or as a single element."""
    if not kinds or "array" in kinds:
        return tensor
    if kinds.isdisjoint(BY_TYPE):
        raise BadRequest(f"the model's '{tensor.name}' is not a tensor but: {listed(kinds)}", param=where)
    if len(tensor.data) != 1:
        raise BadRequest(
            f"the model's '{tensor.name}' is a single value, not a tensor of {len(tensor.data)}", param=f"{where}.shape"
        )
    return msgspec.structs.replace(tensor, shape=())


def from_predict(body: bytes, content_type: str) -> Any:
    """Return the value in predict's answer. Bytes that are not JSON stay bytes.

    NaN and infinity are accepted: binary tensors can hold them.

    Raises:
        InvalidOutput: it is not JSON, or has so many values that parsing would block the gateway.
    """
    if not content_type.startswith("application/json"):
        return body
    if len(body) > MAX_VALUES and body.count(b",") > MAX_VALUES:
        raise InvalidOutput(f"predict's answer has more than {counted(MAX_VALUES, 'value')}; return fewer, or bytes")
    try:
        return model_json.read(body, MOST)
    except (msgspec.DecodeError, RecursionError):
        pass
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidOutput(f"{UNFIT}: {error}") from error


def answer(value: Any, request: InferRequest, model: str, request_id: str) -> tuple[bytes, bytes]:
    """Return the JSON of the response and the bytes after it: a tensor for each key of a dict, or else one.

    Raises:
        BadRequest: a requested output is missing.
        InvalidOutput: it contains infinity, which tensors in JSON cannot, or is too large for an answer.
    """
    named = value if isinstance(value, dict) and value else {OUTPUT: value}
    if unknown := [name for name in request.outputs if name not in named]:
        name = unknown[0][:MOST_SHOWN]
        raise BadRequest(f"the model returned no output '{name}'{instead_of(name, named)}", param="outputs")
    head = {"model_name": model, "model_version": VERSION, "id": request.id or request_id}
    shown, raw = bytearray(encode_json(head)[:-1] + b',"outputs":['), bytearray()
    for index, name in enumerate(request.outputs or named):
        shown += b"," if index else b""
        if request.all_binary or name in request.binary:
            tensor, data = as_binary(name, named[name])
            shown += encode_json(tensor)
            raw += data
            _check_size(shown, raw)
            continue
        tensor = to_tensor(name, named[name])
        for start in range(0, len(elements := tensor.pop("data")), PIECE) or (0,):
            piece = elements[start : start + PIECE]
            if tensor["datatype"] in FLOATS:
                piece = in_json(name, piece, named[name])
            written = encode_json(piece)[1:-1]
            shown += b"," + written if start else encode_json(tensor)[:-1] + b',"data":[' + written
            _check_size(shown, raw)
        shown += b"]}"
    shown += b"]}"
    return bytes(shown), bytes(raw)


def _check_size(shown: bytearray, raw: bytearray) -> None:
    """Refuse an answer, while it is made, that is larger than a worker's may be.

    Raises:
        InvalidOutput: it is larger.
    """
    if len(shown) + len(raw) > MAX_PAYLOAD:
        raise InvalidOutput(f"predict's answer is more than {counted(MAX_PAYLOAD, 'byte')} of tensors")


def config(name: str, platform: str, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the tensors of a model in the format of Triton's model configuration."""

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
