"""Read what an ONNX file says about its graph, without its weights and without a library.

The numbers of the fields are those of onnx.proto3. Subgraphs and functions are searched as well: they have operators,
and weights in other files, as the graph has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from gateway_tensors.types import Dim, Type, Value

from gateway import opened

from .protobuf import BYTES, Field, Reader, signed

# TensorProto.DataType, with NumPy's names where there are any, and the bits of an element.
ELEMENTS = {
    1: ("float32", 32),
    2: ("uint8", 8),
    3: ("int8", 8),
    4: ("uint16", 16),
    5: ("int16", 16),
    6: ("int32", 32),
    7: ("int64", 64),
    8: ("string", 0),
    9: ("bool", 8),
    10: ("float16", 16),
    11: ("float64", 64),
    12: ("uint32", 32),
    13: ("uint64", 64),
    14: ("complex64", 64),
    15: ("complex128", 128),
    16: ("bfloat16", 16),
    17: ("float8e4m3fn", 8),
    18: ("float8e4m3fnuz", 8),
    19: ("float8e5m2", 8),
    20: ("float8e5m2fnuz", 8),
    21: ("uint4", 4),
    22: ("int4", 4),
    23: ("float4e2m1", 4),
    24: ("float8e8m0", 8),
    25: ("uint2", 2),
    26: ("int2", 2),
    27: ("float6e2m3", 6),
    28: ("float6e3m2", 6),
}
KINDS = {1: "tensor", 4: "sequence", 5: "map", 7: "opaque", 8: "sparse tensor", 9: "optional"}  # TypeProto
EXTERNAL = 1  # TensorProto.DataLocation
DEFAULT_DOMAINS = ("", "ai.onnx")  # two names of one
MOST_ELEMENTS = 1 << 128  # beyond these no tensor is counted: products of very many lengths take long
SMALL = 64  # elements of an initializer that a request may override


@dataclass(frozen=True, slots=True)
class External:
    """The part of another file that is a tensor. `need` is its size by its type and shape, if that is known."""

    tensor: str
    location: str
    offset: str = "0"
    length: str | None = None
    need: int | None = None


@dataclass(slots=True)
class Header:
    ir: int = 0
    opsets: dict[str, int] = field(default_factory=dict)  # by domain
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    operators: set[tuple[str, str]] = field(default_factory=set)  # with their domains
    functions: set[tuple[str, str]] = field(default_factory=set)  # operators that the file defines itself
    external: list[External] = field(default_factory=list)
    constants: dict[str, int] = field(default_factory=dict)  # elements of the graph's initializers
    nodes: int = 0


def read_header(file: Path) -> Header:
    """Return the header of a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not an ONNX model, or not a whole one.
    """
    with opened(file) as found:
        size = file.stat().st_size
        header = _Search(Reader(found, size)).model(size)
    if not header.nodes and not header.outputs:
        raise ValueError("it has no graph")
    if not header.ir or not header.opsets:
        raise ValueError("it does not say its version, or those of its operators")
    named = header.constants
    # Before version 4, initializers had to be among the inputs, and are constants all the same.
    header.inputs = [
        Value(each.name, each.type, each.name in named)
        for each in header.inputs
        if each.name not in named or (header.ir >= 4 and named[each.name] <= SMALL)
    ]
    return header


class _Search:
    def __init__(self, reader: Reader) -> None:
        self._reader, self._found = reader, Header()

    def model(self, size: int) -> Header:
        found = self._found
        for each in self._reader.fields(size):
            match each.number:
                case 1:
                    found.ir = signed(each.value)
                case 7 if each.kind == BYTES:
                    self._graph(each.value, is_main=True)
                case 8 if each.kind == BYTES:
                    domain, version = self._opset(each.value)
                    found.opsets["" if domain in DEFAULT_DOMAINS else domain] = version
                case 25 if each.kind == BYTES:
                    self._function(each.value)
        return found

    def _opset(self, size: int) -> tuple[str, int]:
        domain, version = "", 0
        for each in self._reader.fields(size):
            if each.number == 1:
                domain = self._reader.text(each)
            elif each.number == 2:
                version = signed(each.value)
        return domain, version

    def _graph(self, size: int, *, is_main: bool = False) -> None:
        found = self._found
        for each in self._reader.fields(size):
            if each.kind != BYTES:
                continue
            match each.number:
                case 1:
                    self._node(each.value)
                case 5:
                    name, elements = self._tensor(each.value)
                    if is_main:
                        found.constants[name] = elements
                case 11 if is_main:
                    found.inputs.append(self._value(each.value))
                case 12 if is_main:
                    found.outputs.append(self._value(each.value))
                case 15:
                    self._sparse(each.value)

    def _function(self, size: int) -> None:
        name = domain = ""
        for each in self._reader.fields(size):
            match each.number:
                case 1:
                    name = self._reader.text(each)
                case 10:
                    domain = self._reader.text(each)
                case 7 if each.kind == BYTES:
                    self._node(each.value)
                case 11 if each.kind == BYTES:  # the value of an attribute that a call does not give
                    self._attribute(each.value)
        self._found.functions.add((domain, name))

    def _node(self, size: int) -> None:
        operator = domain = ""
        for each in self._reader.fields(size):
            match each.number:
                case 4:
                    operator = self._reader.text(each)
                case 7:
                    domain = self._reader.text(each)
                case 5 if each.kind == BYTES:
                    self._attribute(each.value)
        self._found.operators.add(("" if domain in DEFAULT_DOMAINS else domain, operator))
        self._found.nodes += 1

    def _attribute(self, size: int) -> None:
        for each in self._reader.fields(size):
            if each.kind != BYTES:
                continue
            match each.number:
                case 5 | 10:
                    self._tensor(each.value)
                case 6 | 11:
                    self._graph(each.value)
                case 22 | 23:
                    self._sparse(each.value)

    def _sparse(self, size: int) -> None:
        for each in self._reader.fields(size):
            if each.number in (1, 2) and each.kind == BYTES:
                self._tensor(each.value)

    def _tensor(self, size: int) -> tuple[str, int]:
        """Return the name of a tensor and the number of its elements."""
        dims: list[int] = []
        entries: dict[str, str] = {}
        name, element, location = "", 0, 0
        for each in self._reader.fields(size):
            match each.number:
                case 1:
                    dims += self._reader.numbers(each)
                case 2:
                    element = each.value
                case 8:
                    name = self._reader.text(each)
                case 13 if each.kind == BYTES:
                    entries.update([self._entry(each.value)])
                case 14:
                    location = each.value
        count = 1
        for length in dims:
            if length < 0:
                raise ValueError(f"the tensor {name} has a negative length")
            count = min(count * length, MOST_ELEMENTS)
        if location == EXTERNAL or entries:
            bits = ELEMENTS.get(element, ("", 0))[1]
            need = (count * bits + 7) // 8 if bits else None
            told = entries.get("location", ""), entries.get("offset", "0"), entries.get("length")
            self._found.external.append(External(name, *told, need))
        return name, count

    def _entry(self, size: int) -> tuple[str, str]:
        key = value = ""
        for each in self._reader.fields(size):
            if each.number == 1:
                key = self._reader.text(each)
            elif each.number == 2:
                value = self._reader.text(each)
        return key, value

    def _value(self, size: int) -> Value:
        name, kind = "", Type()
        for each in self._reader.fields(size):
            if each.number == 1:
                name = self._reader.text(each)
            elif each.number == 2 and each.kind == BYTES:
                kind = self._type(each.value)
        return Value(name, kind)

    def _type(self, size: int) -> Type:
        found = Type()
        for each in self._reader.fields(size):
            if each.number in KINDS and each.kind == BYTES:
                found = self._described(KINDS[each.number], each)
        return found

    def _described(self, kind: str, of: Field) -> Type:
        element, dims, inner = "", None, None
        for each in self._reader.fields(of.value):
            if kind in ("tensor", "sparse tensor"):
                if each.number == 1:
                    element = ELEMENTS.get(each.value, (f"type {each.value}", 0))[0]
                elif each.number == 2 and each.kind == BYTES:
                    dims = self._shape(each.value)
            elif kind == "map" and each.number == 1:
                element = ELEMENTS.get(each.value, ("", 0))[0]
            elif each.kind == BYTES and (each.number == 1 or kind == "map"):
                inner = self._type(each.value)
        return Type(kind, element, dims, inner)

    def _shape(self, size: int) -> tuple[Dim, ...]:
        dims: list[Dim] = []
        for each in self._reader.fields(size):
            if each.number == 1 and each.kind == BYTES:
                dims.append(self._dim(each.value))
        return tuple(dims)

    def _dim(self, size: int) -> Dim:
        found: Dim = None
        for each in self._reader.fields(size):
            if each.number == 1:
                found = signed(each.value) if signed(each.value) >= 0 else None  # some exporters write -1
            elif each.number == 2:
                found = self._reader.text(each) or None
        return found
