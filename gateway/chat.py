"""Helpers for authors of chat models: flatten message parts to text, and split cumulative texts into pieces.

    from gateway.chat import deltas, flatten

The functions are pure and light. Models import them in the worker; the gateway itself does not use them.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterable, Mapping
from typing import Any, overload

from .errors import BadRequest

UNFINISHED = "\ufffd"  # what a decoder writes for a character whose bytes are not complete yet
_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}


def flatten(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages with every `content` as a string: text parts are joined, null becomes "". Other fields stay.

    Raises:
        BadRequest: a part is not text, such as an image.
    """
    return [
        {**message, "content": _text(message.get("content"), f"messages[{index}].content")}
        for index, message in enumerate(messages)
    ]


def _text(content: Any, where: str) -> str:
    if not isinstance(content, list):
        return content or ""
    texts = []
    for index, part in enumerate(content):
        kind = part.get("type")
        text = part.get(_TEXTS.get(kind, ""))
        if not isinstance(text, str):
            what = f"this model reads text only, not {kind}"
            raise BadRequest(what, param=f"{where}[{index}]", code="unsupported_value")
        texts.append(text)
    return "".join(texts)


@overload
def deltas(items: AsyncIterable[Any]) -> AsyncIterator[Any]: ...
@overload
def deltas(items: Iterable[Any]) -> Generator[Any, None, Any]: ...
def deltas(items: AsyncIterable[Any] | Iterable[Any]) -> Any:
    """Yield only the new text of each item, for pipelines whose items each hold the whole text so far.

    Items that are not strings pass through unchanged, and so does the return value of a generator. An incomplete
    character is held back until it is complete.

    Raises:
        ValueError: during iteration, if a text does not begin with the text before it.
    """
    return _later(items) if isinstance(items, AsyncIterable) else _now(items)


def _now(items: Iterable[Any]) -> Generator[Any, None, Any]:
    growing, iterator = _Growing(), iter(items)
    try:
        while True:
            try:
                item = next(iterator)
            except StopIteration as end:
                if rest := growing.rest():
                    yield rest
                return end.value
            if piece := growing.push(item):
                yield piece
    finally:
        if isinstance(iterator, Generator):
            iterator.close()


async def _later(items: AsyncIterable[Any]) -> AsyncIterator[Any]:
    growing, iterator = _Growing(), aiter(items)
    try:
        async for item in iterator:
            if piece := growing.push(item):
                yield piece
        if rest := growing.rest():
            yield rest
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()


class _Growing:
    """A text that grows. `_sent` is the part already yielded."""

    def __init__(self) -> None:
        self._sent = self._whole = ""

    def push(self, item: Any) -> Any:
        if not isinstance(item, str):
            return item
        if not item.startswith(self._sent):
            raise ValueError("the text does not begin with the text before it, so it is not cumulative")
        self._whole = item
        done = item.rstrip(UNFINISHED)
        piece, self._sent = done[len(self._sent) :], done
        return piece

    def rest(self) -> str:
        return self._whole[len(self._sent) :]
