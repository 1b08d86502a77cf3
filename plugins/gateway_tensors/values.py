"""Convert the JSON of a request to what the runtime takes, and its results to what JSON has.

The runtime itself takes texts and None where numbers belong, and wraps numbers that are too large. Here they are
refused, with the place where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gateway import BadRequest

from .types import Dim, Type, Value, shown

IGNORED = ("model", "id")  # fields of every predict
LONGEST = 60  # characters of a value in a message
EXACT = 2**53  # the first number behind which floats are not exact
DEEPEST = 32  # lists in lists
WANTED = {"b": "true or false", "O": "a text", "i": "a whole number", "u": "a whole number", "f": "a number"}
SMALLEST = {"int32": -(2**31), "int64": -(2**63)}


class Inputs:
    """Reads requests for a graph. `divides` says that it has a division, see `_least`."""

    def __init__(self, values: Sequence[Value], *, divides: bool = False) -> None:
        self.values = {each.name: each for each in values}
        self._required = [each.name for each in values if not each.has_default and each.type.kind != "optional"]
        self._readers: dict[str, Callable[[Any, dict[str, int]], Any]] = {
            each.name: _reader(each.name, each.type, divides) for each in values
        }

    def read(self, body: Any) -> dict[str, Any]:
        """Return the arrays by input.

        Raises:
            BadRequest: an input is missing, unknown, or of another type or shape.
        """
        if not isinstance(body, Mapping):
            raise BadRequest(f"send an object with the inputs of the model: {self._names()}")
        feed, lengths = {}, dict[str, int]()
        for name, value in body.items():
            if (reader := self._readers.get(name)) is None:
                if name in IGNORED:
                    continue
                what = f"the model has no input {short(name)} (have: {self._names()})"
                raise BadRequest(what, param=str(name)[:LONGEST], code="unsupported_value")
            if value is not None:
                feed[name] = reader(value, lengths)
        for name in self._required:
            if name not in feed:
                raise BadRequest(f"the input {name} is missing: it is a {self.values[name].type}", param=name)
        return feed

    def _names(self) -> str:
        return ", ".join(f"{each.name}: {each.type}" for each in list(self.values.values())[:20]) or "none"


def _reader(name: str, kind: Type, divides: bool) -> Callable[[Any, dict[str, int]], Any]:
    """Return a function from JSON, and the lengths that are known by name, to what the runtime takes."""
    if kind.kind == "tensor":
        return _Tensor(name, kind, divides)
    assert kind.inner is not None
    inner = _reader(name, kind.inner, divides)
    if kind.kind == "optional":
        return inner

    def sequence(value: Any, lengths: dict[str, int]) -> Any:
        if not isinstance(value, list):
            raise BadRequest(f"{name} has to be a list, each of it a {kind.inner}; it is {short(value)}", param=name)
        return [inner(each, {}) for each in value]  # each has its own lengths

    return sequence


class _Tensor:
    def __init__(self, name: str, kind: Type, divides: bool) -> None:
        import numpy

        self._name, self._type, self._dims = name, kind, kind.dims
        is_text = kind.element == "string"
        self._dtype = numpy.dtype(object if is_text else kind.element)
        self._kind = self._dtype.kind
        whole = numpy.iinfo(self._dtype) if self._kind in "iu" else None
        self._range = None if whole is None else (_least(kind.element, divides, int(whole.min)), int(whole.max))

    def __call__(self, value: Any, lengths: dict[str, int]) -> Any:
        array = self._array(value)
        if self._dims is not None:
            if array.size == 0 and array.ndim < len(self._dims):  # of no rows, nested lists do not show the length
                rest = (dim if isinstance(dim, int) else lengths.get(dim or "", 0) for dim in self._dims[array.ndim :])
                array = array.reshape((*array.shape, *rest))
            self._check_shape(array.shape, self._dims, lengths)
        return array

    def _check_shape(self, shape: tuple[int, ...], dims: tuple[Dim, ...], lengths: dict[str, int]) -> None:
        if len(shape) != len(dims):
            raise self._wrong_shape(shape)
        for length, dim in zip(shape, dims, strict=True):
            if isinstance(dim, str):  # the runtime does not compare the lengths of one name
                if lengths.setdefault(dim, length) != length:
                    what = f"{dim} is {length} here, but {lengths[dim]} in an input before it or in a length before it"
                    raise self._wrong_shape(shape, what)
            elif dim is not None and dim != length:
                raise self._wrong_shape(shape)

    def _wrong_shape(self, shape: tuple[int, ...], why: str = "") -> BadRequest:
        what = f"{self._name} has the shape {shown(shape)}, but the model takes {shown(self._dims or ())}"
        return BadRequest(f"{what}{': ' + why if why else ''}", param=self._name)

    def _array(self, value: Any) -> Any:
        import numpy

        if self._kind == "O":
            return self._texts(value)
        try:
            found = value if isinstance(value, numpy.ndarray) else numpy.array(value)
        except (ValueError, OverflowError, RecursionError) as error:
            raise self._wrong(value, "is a list of lists of unequal lengths") from error
        kind = found.dtype.kind
        if found.size == 0 and kind in "fO":  # an empty list has no type
            return numpy.empty(found.shape, self._dtype)
        if kind == self._kind == "b":
            return found
        if self._kind == "b" or kind not in "biuf":
            return self._one_by_one(value, found)
        if self._kind == "f":
            return self._floats(value, found)
        return self._whole(value, found)

    def _floats(self, value: Any, found: Any) -> Any:
        import numpy

        with numpy.errstate(over="ignore"):
            array = numpy.ascontiguousarray(found, self._dtype)
        if not numpy.isfinite(array).all() and (numpy.isinf(array) & ~numpy.isinf(found)).any():
            raise self._wrong(value, f"has a number that is too large for {self._type.element}")
        return array.reshape(found.shape)

    def _whole(self, value: Any, found: Any) -> Any:
        import numpy

        least, most = self._range or (0, 0)
        if found.dtype.kind == "f":
            if found.size and numpy.abs(found).max() >= EXACT:  # of several large numbers NumPy makes floats, inexactly
                return self._one_by_one(value, found)
            whole = found == numpy.floor(found)  # false for NaN
            if not (whole & (found >= least) & (found <= most)).all():
                return self._one_by_one(value, found)
        elif found.size and not least <= int(found.min()) <= int(found.max()) <= most:
            return self._one_by_one(value, found)
        return numpy.ascontiguousarray(found, self._dtype).reshape(found.shape)

    def _one_by_one(self, value: Any, found: Any) -> Any:
        """Convert an array of any objects; this is slow, and for errors and null."""
        import numpy

        if not isinstance(value, numpy.ndarray):  # NumPy has made texts or floats of all, if there are some
            found = numpy.array(value, dtype=object)
        cells = [self._cell(each, place, value) for place, each in enumerate(found.ravel().tolist())]
        if self._kind == "f":
            return self._floats(value, numpy.array(cells, numpy.float64).reshape(found.shape))
        return numpy.array(cells, self._dtype).reshape(found.shape)

    def _cell(self, cell: Any, place: int, value: Any) -> Any:
        if self._kind == "f" and (cell is None or isinstance(cell, (int, float))):
            try:
                return float("nan") if cell is None else float(cell)  # as in the Open Inference Protocol
            except OverflowError as error:
                raise self._wrong(value, f"has a number that is too large for {self._type.element}") from error
        if self._range is not None and isinstance(cell, (int, float)):
            least, most = self._range
            if cell != cell or cell in (float("inf"), float("-inf")) or int(cell) != cell:
                raise self._refused(cell, place, value)
            if not least <= cell <= most:
                what = f"has {short(cell)}, and {self._type.element} is from {least} to {most}"
                raise self._wrong(value, what)
            return int(cell)
        if self._kind == "b" and isinstance(cell, bool):
            return cell
        raise self._refused(cell, place, value)

    def _texts(self, value: Any) -> Any:
        import numpy

        if isinstance(value, numpy.ndarray):
            value = value.tolist()
        try:
            found = numpy.array(value, dtype=object)
        except (ValueError, RecursionError) as error:
            raise self._wrong(value, "is a list of lists of unequal lengths") from error
        for place, each in enumerate(found.ravel().tolist()):
            if not isinstance(each, str):
                raise self._refused(each, place, value)
            try:
                each.encode()
            except UnicodeEncodeError as error:
                raise self._wrong(value, f"has a text with half a character: {short(each)}") from error
        return found

    def _refused(self, cell: Any, place: int, value: Any) -> BadRequest:
        if isinstance(cell, list):
            return self._wrong(value, "is a list of lists of unequal lengths")
        where = _path(value, place)
        wanted = WANTED[self._kind]
        return BadRequest(f"{self._name}{where} has to be {wanted}; it is {short(cell)}", param=self._name)

    def _wrong(self, value: Any, why: str) -> BadRequest:
        return BadRequest(f"{self._name} {why}: it has to be a {self._type}", param=self._name)


def _least(element: str, divides: bool, least: int) -> int:
    """Return the smallest number that a graph takes.

    onnxruntime 1.32 may end the process for the smallest number of a type, so a graph with a division does not take it.
    """
    return least + 1 if divides and SMALLEST.get(element) == least else least


def _path(value: Any, place: int) -> str:
    """Return where a cell is in lists of lists, by its number among all cells."""
    shape, inner = [], value
    while isinstance(inner, list) and inner and len(shape) < DEEPEST:
        shape.append(len(inner))
        inner = inner[0]
    steps = []
    for length in reversed(shape):
        place, step = divmod(place, length)
        steps.append(f"[{step}]")
    return "".join(reversed(steps))


def short(value: Any) -> str:
    """Return a value as a message shows it: JSON's words, and not all of a long one."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and abs(value) >= 10**LONGEST:
        return "a number with very many digits"
    text = ascii(value) if isinstance(value, str) else str(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def outputs(names: Iterable[str], found: Iterable[Any]) -> dict[str, Any]:
    """Return the results by name. Arrays of numbers stay arrays, which the gateway writes as nested lists."""
    return {name: plain(value) for name, value in zip(names, found, strict=True)}


def plain(value: Any) -> Any:
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, dict):  # of a ZipMap: classes, which may be numbers, and their probabilities
        return {str(key): plain(each) for key, each in value.items()}
    if getattr(getattr(value, "dtype", None), "kind", "") in ("O", "U"):
        return value.tolist()
    return value
