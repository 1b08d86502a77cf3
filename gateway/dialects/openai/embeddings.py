"""POST /v1/embeddings: OpenAI's embeddings, as base64 or floats.

A class may declare in `capabilities` that it accepts prompts of its own token ids (`token_ids`), and that its vectors
may be shortened (`matryoshka`), which is then done here.
"""

from __future__ import annotations

import math
import struct
from base64 import b64encode
from collections.abc import Callable
from io import BytesIO
from typing import Any, NamedTuple

from ...errors import BadRequest, InvalidOutput
from ...hookspecs import hookimpl
from ...spec import Capabilities, Endpoint
from ...wire.decimals import decimals
from ...wire.frames import MAX_PAYLOAD, Vectors
from ...wire.values import Array, Text, is_finite
from ...wording import a_type, counted, listed
from .. import answer_schemas
from ..base import ESTIMATED, Context, Dialect, Encoder, Prepared, Used
from ..events import encode_json, estimate_tokens, unwrap, usage_of
from ..fields import missing, take, take_range, wrong_type
from ..relayed_errors import error_of
from .completion_request import read_tokens

MAX_INPUTS = 2048
MAX_WIDTH = 1 << 16  # numbers in a vector: it is handled in single C calls, which block all other threads
COPIED = 64  # bytes of text are copied in the time that it takes to read one byte of anything else
ROWS = "return a list with a list of numbers for each text of the input"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["input"],
    "properties": {
        "model": {"type": "string", "description": "Optional if only one model serves the route"},
        "input": {
            "type": ["string", "array"],
            "items": {"type": "string"},
            "minItems": 1,
            "maxItems": MAX_INPUTS,
            "description": "Token ids, or lists of them, for models that take them",
        },
        "encoding_format": {"enum": ["float", "base64"], "default": "float"},
        "dimensions": {"type": "integer", "minimum": 1},
    },
    "additionalProperties": True,
    "example": {"input": ["one", "two"]},
}


@hookimpl
def register_endpoints(register: Callable[[Endpoint], None]) -> None:
    register(
        Endpoint(path="/v1/embeddings", method="embeddings", dialect="openai_embeddings", summary="OpenAI embeddings.")
    )


@hookimpl
def register_dialects(register: Callable[[str, Any], None]) -> None:
    register("openai_embeddings", EmbeddingsDialect())


class EmbeddingsDialect(Dialect):
    takes_ids = True
    request_schema = SCHEMA
    response_schema = answer_schemas.EMBEDDINGS

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        inputs = {name: value for name, value in body.items() if value is not None}
        model = take(inputs, "model", str)
        if "input" not in inputs:
            raise missing("input", inputs.keys() - {"model"})
        inputs["input"] = read_input(inputs["input"])
        encoding = inputs.pop("encoding_format", "float")
        if encoding not in ("float", "base64"):
            raise BadRequest("'encoding_format' must be 'float' or 'base64'", param="encoding_format")
        take_range(inputs, "dimensions", 1, None)
        inputs.pop("stream", None)
        form: Vectors = "array" if "dimensions" in inputs else encoding  # vectors may have to be cut short
        return Prepared(model, inputs, options={"base64": encoding == "base64"}, vectors=form)

    def calls(self, prepared: Prepared, capabilities: Capabilities) -> list[dict[str, Any]]:
        is_known = bool(capabilities.methods)  # unknown for a model that was never ready
        if is_known and not capabilities.extra.get("token_ids") and isinstance(prepared.inputs["input"][0], list):
            raise BadRequest(
                "'input' holds token ids, which belong to another model's vocabulary; send strings "
                "(with LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))",
                param="input",
                code="unsupported_value",
            )
        return [prepared.inputs]

    def encoder(self, prepared: Prepared, context: Context) -> EmbeddingsEncoder:
        return EmbeddingsEncoder(prepared, context)


def read_input(value: Any) -> list[str] | list[list[int]]:
    """Return the inputs as a list of texts or of lists of token ids."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise wrong_type("input", "a string or an array of strings", value)
    if not value:
        raise BadRequest("'input' must hold at least one text", param="input")
    if type(value[0]) is int:
        return [read_tokens(value, "input")]
    if len(value) > MAX_INPUTS:
        raise BadRequest(f"'input' may hold at most {MAX_INPUTS} texts", param="input")
    if isinstance(value[0], list):
        return [read_tokens(item, f"input[{index}]") for index, item in enumerate(value)]
    for index, item in enumerate(value):
        if not isinstance(item, str):
            raise wrong_type(f"input[{index}]", "a string", item)
    return value


class Row(NamedTuple):
    """One vector: its numbers as little-endian float32, or as JSON text from the worker."""

    width: int
    data: bytes
    is_text: bool = False


class EmbeddingsEncoder(Encoder):
    """Encodes one answer to /v1/embeddings: a vector for each input. It is never streamed."""

    def __init__(self, prepared: Prepared, context: Context) -> None:
        self._inputs, self._context, self._base64 = prepared.inputs, context, prepared.options["base64"]
        self._rows: list[Row] = []
        self._prompt_tokens: int | None = None

    def work(self, items: list[Any], size: int) -> int:
        return size // COPIED if all(isinstance(item, Text) for item in items) else size

    def feed(self, items: list[Any], call: int = 0) -> bytes:
        for item in items:
            if item is not None:
                self._rows += self._take(unwrap(item))
        return b""

    def _take(self, value: Any) -> list[Row]:
        if not isinstance(value, dict):
            return rows_of(value)
        if value.get("error"):
            raise error_of(value)
        counts = unwrap(value.get("usage"))
        usage = usage_of(counts if isinstance(counts, dict) else value)
        if usage is not None and usage.prompt is not None:
            self._prompt_tokens = usage.prompt
        if "data" in value:
            return rows_of(_in_order(value["data"]), "$.data")
        if "embeddings" in value:
            return rows_of(value["embeddings"], "$.embeddings")
        if "embedding" in value:
            return [_row(value, "$")]
        if usage is not None:
            return []
        keys = listed(value) or "none"
        raise InvalidOutput(
            f"embeddings returned a dict of which no key is known: {keys}; "
            "known are data, embeddings, embedding and usage"
        )

    @property
    def prompt_tokens(self) -> int | None:
        """The prompt tokens, if they were counted."""
        return self._prompt_tokens

    def vectors(self) -> list[bytes]:
        """Return the vectors, one for each input, as little-endian float32.

        Raises:
            InvalidOutput: too few or too many vectors, different lengths, or text instead of numbers.
        """
        rows = self._fitting()
        if any(row.is_text for row in rows):
            raise InvalidOutput("embeddings returned text where vectors belong")
        return [row.data for row in rows]

    def _fitting(self) -> list[Row]:
        """The rows, with as many dimensions as the client asked for."""
        self._check()
        asked, width = self._inputs.get("dimensions"), self._rows[0].width
        if asked is None or asked == width:
            return self._rows
        if asked > width or not self._context.capabilities.extra.get("matryoshka") or self._rows[0].is_text:
            raise BadRequest(
                f"the model gives {counted(width, 'dimension')} and did not change them to {asked}",
                param="dimensions",
                code="unsupported_value",
            )
        return [Row(asked, shortened(row.data, asked)) for row in self._rows]

    def whole(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        render = _base64 if self._base64 else _floats
        whole = BytesIO()  # getvalue() does not copy; copying a large body would block the loop
        # OpenAI's own answers have no id; vLLM's do, and mistralai requires one.
        whole.write(b'{"id":"embd-%b","object":"list","data":[' % self._context.hex_id.encode())
        for index, row in enumerate(self._fitting()):
            between = b"," if index else b""
            whole.write(b'%b{"object":"embedding","index":%d,"embedding":' % (between, index))
            whole.write(row.data if row.is_text else render(row.data))
            whole.write(b"}")
            if whole.tell() > MAX_PAYLOAD:
                told = f"the vectors are more than {counted(MAX_PAYLOAD, 'byte')}"
                raise InvalidOutput(told if self._base64 else f"{told} as text; ask for base64")
        tokens, estimated = self._count()
        usage = encode_json({"prompt_tokens": tokens, "total_tokens": tokens})
        whole.write(b'],"model":%b,"usage":%b}' % (encode_json(self._context.model), usage))
        return whole.getvalue(), [ESTIMATED] if estimated else []

    def _check(self) -> None:
        expected = len(self._inputs["input"])
        if len(self._rows) != expected:
            raise InvalidOutput(
                f"embeddings returned {counted(len(self._rows), 'vector')} for {counted(expected, 'input')}; {ROWS}"
            )
        width = self._rows[0].width
        for index, row in enumerate(self._rows):
            if row.width != width or not width:
                told = f"{counted(row.width, 'number')} in vector {index}, {width} in vector 0"
                raise InvalidOutput(f"embeddings returned vectors of unequal length, or empty ones: {told}")

    def _count(self) -> tuple[int, bool]:
        if self._prompt_tokens is not None:
            return self._prompt_tokens, False
        given = self._inputs["input"]
        if isinstance(given[0], list):
            return sum(map(len, given)), False
        return sum(max(1, estimate_tokens(len(text.encode()))) for text in given), True

    @property
    def has_usage(self) -> bool:
        return True

    def usage(self) -> Used:
        tokens, is_estimated = self._count()
        return Used(tokens, 0, "stop", is_estimated)

    def uncounted(self, inputs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {} if self._prompt_tokens is not None else {"prompt": {"prompt": self._inputs["input"]}}

    def counted(self, numbers: dict[str, int]) -> None:
        self._prompt_tokens = numbers["prompt"]


# ── vectors ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def rows_of(value: Any, where: str = "$") -> list[Row]:
    """Return the vectors of a model as rows. A single vector is one row. `where` is its path.

    Raises:
        InvalidOutput: not vectors, or not finite.
    """
    if isinstance(value, Text):
        return _texts(value)
    if isinstance(value, Array):
        rows = _split(value)
    elif isinstance(value, list):
        flat = bool(value) and isinstance(value[0], int | float)
        rows = [_row(value, where)] if flat else [_row(item, f"{where}[{i}]") for i, item in enumerate(value)]
    else:
        raise InvalidOutput(f"embeddings returned {a_type(value)}, not vectors (at {where}); {ROWS}")
    for index, row in enumerate(rows):
        if not row.is_text and not is_finite(row.data):
            numbers = memoryview(row.data).cast("f")
            place = next(place for place, number in enumerate(numbers) if not math.isfinite(number))
            raise InvalidOutput(f"embeddings returned NaN or infinity (number {place} of vector {index})")
    return rows


def _texts(value: Text) -> list[Row]:
    _check_width(value.width)
    return [Row(value.width, row, True) for row in value.rows]


def _split(array: Array) -> list[Row]:
    _check_width(array.shape[-1] if array.shape else 1)
    if len(array.shape) == 1:
        return [Row(len(array.data) // 4, array.data)]
    if len(array.shape) != 2:
        raise InvalidOutput(f"embeddings returned an array of shape {array.shape}, not (inputs, dimensions)")
    count, width = array.shape
    step = width * 4
    return [Row(width, array.data[index * step : (index + 1) * step]) for index in range(count)]


def _check_width(width: int) -> None:
    """Refuse a vector longer than any embedding model makes.

    Raises:
        InvalidOutput: it is too long.
    """
    if width > MAX_WIDTH:
        raise InvalidOutput(f"embeddings returned a vector of {width} numbers; the limit is {MAX_WIDTH}")


def _in_order(data: Any) -> Any:
    """Return OpenAI's `data`, sorted by `index` if all items have one."""
    if not isinstance(data, list):
        return data
    items = [unwrap(item) for item in data]
    if all(isinstance(item, dict) and type(item.get("index")) is int for item in items):
        items.sort(key=lambda item: item["index"])
    return items


def _row(item: Any, where: str) -> Row:
    item = unwrap(item)
    if isinstance(item, dict):
        item, where = item.get("embedding"), f"{where}.embedding"
    if isinstance(item, Text) and len(item.rows) == 1:
        return _texts(item)[0]
    if isinstance(item, Array) and len(item.shape) == 1:
        _check_width(item.shape[0])
        return Row(item.shape[0], item.data)
    if isinstance(item, list):
        _check_width(len(item))
    if isinstance(item, list) and all(isinstance(number, int | float) for number in item):
        try:
            return Row(len(item), struct.pack(f"<{len(item)}f", *item))
        except (struct.error, OverflowError) as error:
            raise InvalidOutput(f"embeddings returned a number that is no float32: {error} (at {where})") from error
    if isinstance(item, list):
        wrong = next(i for i, number in enumerate(item) if not isinstance(number, int | float))
        raise InvalidOutput(f"embeddings returned {a_type(item[wrong])} where a number belongs (at {where}[{wrong}])")
    raise InvalidOutput(f"embeddings returned {a_type(item)} where a vector belongs (at {where}); {ROWS}")


def shortened(row: bytes, dimensions: int) -> bytes:
    """Return the first dimensions of a vector, scaled to length 1."""
    kept = memoryview(row).cast("f")[:dimensions].tolist()
    length = math.sqrt(math.fsum(value * value for value in kept)) or 1.0
    return struct.pack(f"<{dimensions}f", *(value / length for value in kept))


def _base64(row: bytes) -> bytes:
    return b'"' + b64encode(row) + b'"'


def _floats(row: bytes) -> bytes:
    return encode_json(decimals(memoryview(row).cast("f").tolist()))
