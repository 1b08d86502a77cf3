"""Answers that are one value, such as scores or token ids: take the value, read its numbers, count tokens."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

from ..errors import InvalidOutput
from ..telemetry.counts import whole_number
from ..wire.decimals import PIECE, decimals
from ..wire.values import Array
from ..wording import a_type, listed
from .base import ESTIMATED, Context, Encoder, Prepared, Used
from .events import encode_json, estimate_tokens, unwrap, usage_of
from .output_paths import Odd, at
from .relayed_errors import error_of

# Texts of a request with a score or a class for each; the same limit as Cohere's. Each becomes an object in the answer.
MAX_TEXTS = 10_000


class ValueEncoder(Encoder):
    """The value of a method that returns one, or of a generator that yields one. It is not streamed.

    A dialect defines in `answer` how the value becomes the body. `texts` are used to estimate the prompt tokens.
    """

    method: ClassVar[str]  # the method's name, for error messages

    def __init__(self, prepared: Prepared, context: Context) -> None:
        self.inputs, self.options, self.context = prepared.inputs, prepared.options, context
        self._value: Any = None
        self._prompt_tokens: int | None = None

    def answer(self, value: Any) -> dict[str, Any]:
        """Return the body of the answer.

        Raises:
            InvalidOutput: the method may not return this value.
        """
        raise NotImplementedError

    def texts(self) -> Sequence[str]:
        return ()

    def feed(self, items: list[Any], call: int = 0) -> bytes:
        for item in items:
            value = unwrap(item)
            if value is None:
                continue
            if isinstance(value, dict) and isinstance(value.get("error"), str | dict):
                raise error_of(value)
            if self._value is not None:
                raise InvalidOutput(f"{self.method} gave several values; collect them into one")
            self._value = value
            self._prompt_tokens = _given(value) if self._prompt_tokens is None else self._prompt_tokens
        return b""

    def whole(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        if self._value is None:
            raise InvalidOutput(f"{self.method} returned nothing")
        try:
            body = encode_json(self.answer(self._value))
        except Odd as error:
            raise error.within(self._value) from None
        estimated = self._prompt_tokens is None and bool(self.texts())
        return body, [ESTIMATED] if estimated else []

    @property
    def prompt_tokens(self) -> int:
        """The model's count, or else an estimate."""
        if self._prompt_tokens is not None:
            return self._prompt_tokens
        # A text that occurs many times is encoded once: score repeats its first text for each of the others.
        return sum(times * max(1, estimate_tokens(len(text.encode()))) for text, times in Counter(self.texts()).items())

    def openai_usage(self) -> dict[str, int]:
        tokens = self.prompt_tokens
        return {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}

    @property
    def has_usage(self) -> bool:
        return bool(self.texts())

    def usage(self) -> Used | None:
        return Used(self.prompt_tokens, 0, "stop", self._prompt_tokens is None) if self.texts() else None

    def uncounted(self, inputs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        texts = self.texts() if self._prompt_tokens is None else ()
        return {"prompt": {"prompt": list(texts)}} if texts else {}

    def counted(self, numbers: dict[str, int]) -> None:
        self._prompt_tokens = numbers["prompt"]

    def invalid(self, value: Any, expected: str) -> InvalidOutput:
        return InvalidOutput(f"{self.method} returned {what(value)}{at(value, self._value)}, not {expected}")


def _given(value: Any) -> int | None:
    """Return the prompt tokens in a dict, in any of its dialect's forms."""
    if not isinstance(value, dict):
        return None
    for counts in (unwrap(value.get("usage")), value):
        if isinstance(counts, dict):
            usage = usage_of(counts)
            if usage is not None and usage.prompt is not None:
                return usage.prompt
            if (total := whole_number(counts.get("total_tokens"))) is not None:
                return total
    return None


def floats(value: Any) -> list[float] | None:
    """Return the finite numbers of a list or a one-dimensional array, or None for anything else.

    A float32 becomes the float with the same shortest text, so that 0.9 is written as 0.9.

    Raises:
        Odd: NaN or infinity.
    """
    if isinstance(value, Array):
        if sum(size != 1 for size in value.shape) > 1:  # (n, 1) is a column of n
            return None
        found: list[float] = []
        for start in range(0, len(value.data), 4 * PIECE):
            numbers = memoryview(value.data[start : start + 4 * PIECE]).cast("f").tolist()
            finite(*numbers)
            found += decimals(numbers)
        return found
    if not isinstance(value, list) or not all(is_number(item) for item in value):
        return None
    finite(*value)
    return [float(item) for item in value]


def rows(value: Any) -> list[Any] | None:
    """Return the items of a list, or the rows of a two-dimensional array, or None for anything else."""
    if isinstance(value, list):
        return [unwrap(item) for item in value]
    if isinstance(value, Array) and len(value.shape) == 2:
        count, width = value.shape
        step = width * 4
        return [Array((width,), value.data[index * step : (index + 1) * step]) for index in range(count)]
    return None


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def finite(*numbers: float) -> None:
    """Raise Odd for a number that JSON cannot represent."""
    for number in numbers:
        try:
            good = math.isfinite(number)
        except OverflowError:
            good = False
        if not good:
            raise Odd("the model returned NaN, infinity, or a number beyond 64 bits", number)


def what(value: Any) -> str:
    if isinstance(value, dict):
        return f"a dict with {listed(value) or 'no keys'}"
    return a_type(value)
