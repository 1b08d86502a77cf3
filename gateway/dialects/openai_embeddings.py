"""POST /v1/embeddings: OpenAI's embeddings, base64 or float.

A class may declare in `capabilities` that it takes prompts of its own token ids (`token_ids`), and that its vectors may
be cut short (`matryoshka`), which is then done here.
"""

from __future__ import annotations

import math
import struct
from base64 import b64encode
from collections.abc import Callable
from typing import Any

from ..errors import BadRequest, InvalidOutput
from ..hookspecs import hookimpl
from ..spec import Capabilities, Endpoint
from ..wire import Array
from ..wording import a_type, counted, listed
from . import answer_schemas
from .base import ESTIMATED, Context, Dialect, Encoder, Prepared, Used, missing, take, take_range, wrong_type
from .completion_requests import read_tokens
from .events import encode_json, estimate_tokens, unwrap, usage_of
from .reported import error_of

MAX_INPUTS = 2048
ROWS = "return a list with a list of numbers for each text of the input"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["input"],
    "properties": {
        "model": {"type": "string", "description": "May be left out where one model serves the route"},
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
        return Prepared(model, inputs, options={"base64": encoding == "base64"})

    def runs(self, prepared: Prepared, capabilities: Capabilities) -> list[dict[str, Any]]:
        is_known = bool(capabilities.methods)  # of a model that never was ready nothing is
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
    """What to embed, always as a list: texts, or lists of token ids."""
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


class EmbeddingsEncoder(Encoder):
    """Rows of float32 as JSON; there is no stream of them."""

    def __init__(self, prepared: Prepared, context: Context) -> None:
        self._inputs, self._context, self._base64 = prepared.inputs, context, prepared.options["base64"]
        self._rows: list[bytes] = []
        self._prompt_tokens: int | None = None

    def feed(self, items: list[Any], run: int = 0) -> bytes:
        for item in items:
            if item is not None:
                self._rows += self._take(unwrap(item))
        return b""

    def _take(self, value: Any) -> list[bytes]:
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
        """The count, when somebody counted."""
        return self._prompt_tokens

    def rows(self) -> list[bytes]:
        """The vectors, one for each input, as little-endian float32.

        Raises:
            InvalidOutput: they are too few or too many, or not all as long.
        """
        self._check()
        asked = self._inputs.get("dimensions")
        if asked is None or asked * 4 == len(self._rows[0]):
            return self._rows
        if asked * 4 > len(self._rows[0]) or not self._context.capabilities.extra.get("matryoshka"):
            raise BadRequest(
                f"the model gives {counted(len(self._rows[0]) // 4, 'dimension')} and did not change them to {asked}",
                param="dimensions",
                code="unsupported_value",
            )
        return [shortened(row, asked) for row in self._rows]

    def whole(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        render = _base64 if self._base64 else _floats
        data = b",".join(
            b'{"object":"embedding","index":%d,"embedding":%b}' % (index, render(row))
            for index, row in enumerate(self.rows())
        )
        tokens, estimated = self._count()
        # OpenAI's own answers have no id; vLLM's do, and mistralai insists on one.
        body = b'{"id":"embd-%b","object":"list","data":[%b],"model":%b,"usage":%b}' % (
            self._context.hex_id.encode(),
            data,
            encode_json(self._context.model),
            encode_json({"prompt_tokens": tokens, "total_tokens": tokens}),
        )
        return body, [ESTIMATED] if estimated else []

    def _check(self) -> None:
        expected = len(self._inputs["input"])
        if len(self._rows) != expected:
            raise InvalidOutput(
                f"embeddings returned {counted(len(self._rows), 'vector')} for {counted(expected, 'input')}; {ROWS}"
            )
        width = len(self._rows[0])
        for index, row in enumerate(self._rows):
            if len(row) != width or not width:
                told = f"{counted(len(row) // 4, 'number')} in vector {index}, {width // 4} in vector 0"
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


def rows_of(value: Any, where: str = "$") -> list[bytes]:
    """Little-endian float32 rows of whatever a model returns as vectors; one vector is a row, too. `where` is its path.

    Raises:
        InvalidOutput: no vectors, or not finite.
    """
    if isinstance(value, Array):
        rows = _split(value)
    elif isinstance(value, list):
        flat = bool(value) and isinstance(value[0], int | float)
        rows = [_row(value, where)] if flat else [_row(item, f"{where}[{i}]") for i, item in enumerate(value)]
    else:
        raise InvalidOutput(f"embeddings returned {a_type(value)}, not vectors (at {where}); {ROWS}")
    # A sum is not finite when one of its terms is not: one pass in C over all of them.
    if not all(math.isfinite(sum(memoryview(row).cast("f"))) for row in rows):
        _refuse_not_finite(rows)
    return rows


def _refuse_not_finite(rows: list[bytes]) -> None:
    for index, row in enumerate(rows):
        for place, number in enumerate(memoryview(row).cast("f")):
            if not math.isfinite(number):
                raise InvalidOutput(f"embeddings returned NaN or infinity (number {place} of vector {index})")


def _split(array: Array) -> list[bytes]:
    if len(array.shape) == 1:
        return [array.data]
    if len(array.shape) != 2:
        raise InvalidOutput(f"embeddings returned an array of shape {array.shape}, not (inputs, dimensions)")
    count, width = array.shape
    return [array.data[index * width * 4 : (index + 1) * width * 4] for index in range(count)]


def _in_order(data: Any) -> Any:
    """OpenAI's `data`, sorted by its `index` where all have one."""
    if not isinstance(data, list):
        return data
    items = [unwrap(item) for item in data]
    if all(isinstance(item, dict) and type(item.get("index")) is int for item in items):
        items.sort(key=lambda item: item["index"])
    return items


def _row(item: Any, where: str) -> bytes:
    item = unwrap(item)
    if isinstance(item, dict):
        item, where = item.get("embedding"), f"{where}.embedding"
    if isinstance(item, Array) and len(item.shape) == 1:
        return item.data
    if isinstance(item, list) and all(isinstance(number, int | float) for number in item):
        try:
            return struct.pack(f"<{len(item)}f", *item)
        except (struct.error, OverflowError) as error:
            raise InvalidOutput(f"embeddings returned a number that is no float32: {error} (at {where})") from error
    if isinstance(item, list):
        wrong = next(i for i, number in enumerate(item) if not isinstance(number, int | float))
        raise InvalidOutput(f"embeddings returned {a_type(item[wrong])} where a number belongs (at {where}[{wrong}])")
    raise InvalidOutput(f"embeddings returned {a_type(item)} where a vector belongs (at {where}); {ROWS}")


def shortened(row: bytes, dimensions: int) -> bytes:
    """The first dimensions of a vector, again of length 1."""
    kept = memoryview(row).cast("f")[:dimensions].tolist()
    length = math.sqrt(math.fsum(value * value for value in kept)) or 1.0
    return struct.pack(f"<{dimensions}f", *(value / length for value in kept))


def _base64(row: bytes) -> bytes:
    return b'"' + b64encode(row) + b'"'


def _floats(row: bytes) -> bytes:
    return ("[" + ",".join([shortest(value) for value in memoryview(row).cast("f")]) + "]").encode()


_F32 = struct.Struct("<f")


def shortest(value: float) -> str:
    """The shortest text that reads back as the same float32: 0.1, not 0.10000000149011612."""
    for digits in (7, 8, 9):
        text = f"{value:.{digits}g}"
        if digits == 9 or _F32.unpack(_F32.pack(float(text)))[0] == value:
            break
    return text if "e" in text or "." in text else text + ".0"
