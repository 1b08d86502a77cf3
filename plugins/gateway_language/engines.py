"""What a language model expects of an engine, which generates tokens from tokens and knows no text."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from .sampling import Record, Sampling


class EngineFailed(RuntimeError):
    """The engine failed, not necessarily because of this request."""


class Engine(Protocol):
    length: int  # the maximum tokens of one request, prompt and answer

    @property
    def is_alive(self) -> bool: ...

    def generate(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        stop_ids: frozenset[int],
        settings: Sampling,
        record: Record | None = None,
        priority: int = 0,
    ) -> AsyncIterator[list[int]]:
        """Yield the answer's tokens as they are generated; the last one may be one of `stop_ids`. Fills `record`.

        Closing the iterator ends the request. Raises `EngineFailed`.
        """
        ...

    def stop(self) -> None:
        """Stop for good; running requests fail."""
        ...
