"""Shared parts of OpenAI's chat and completions: one id, choices in chunks, a usage chunk, [DONE]."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from ...errors import GatewayError
from ..answer import CallOutput, Choice, EventEncoder
from ..base import Context, Prepared, error_body
from ..event_stream import DONE
from ..events import Usage, encode_json, fields_of
from ..raw import Ending


class ChunkEnding(Ending):
    """The end of a stream: [DONE], or a finish reason for each choice."""

    hint = re.compile(rb'"finish_reason"\s*:\s*"|"error"')
    closing = b"data: " + DONE + b"\n\n"

    def __init__(self, choices: int = 1) -> None:
        super().__init__(choices)
        self._finished: set[Any] = set()

    def read(self, name: str, data: bytes) -> None:
        if data.strip() == DONE:
            self.close()
            return
        choices = fields_of(data).get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and choice.get("finish_reason"):
                self._finished.add(str(choice.get("index")))
        self.is_whole = len(self._finished) >= self._choices


class ChunkEncoder(EventEncoder):
    """Encodes events as chunks, or collects them in one object. A dialect writes the choices of both."""

    whole_kind: ClassVar[str]  # "chat.completion"
    chunk_kind: ClassVar[str]
    id_prefix: ClassVar[str]

    def __init__(self, prepared: Prepared, context: Context, *, choices: int, prompt_size: int) -> None:
        super().__init__(
            context,
            stream=prepared.stream,
            choices=choices,
            prompt_size=prompt_size,
            max_tokens=prepared.inputs.get("max_tokens"),
        )
        self.ends_with_usage: bool = prepared.options["include_usage"]
        self._tells_usage: bool = prepared.options["continuous_usage"]
        self._head = b""

    # ── methods that a dialect defines ───────────────────────────────────────────────────────────────────────────────

    def last(self, index: int) -> bytes:
        """Return the chunk with the finish reason of a choice."""
        raise NotImplementedError

    def whole_choice(self, index: int, choice: Choice) -> dict[str, Any]:
        raise NotImplementedError

    # ── stream ───────────────────────────────────────────────────────────────────────────────────────────────────

    def chunk(self, choice: bytes, *, is_role: bool = False) -> bytes:
        """Return the event around the JSON of one choice. The role chunk has no usage: it precedes all output."""
        usage = b',"usage":null' if self.ends_with_usage else b""
        if self._tells_usage and not is_role:
            usage = self._usage_so_far() or usage
        return b"%b[%b]%b}\n\n" % (self._head_bytes(), choice, usage)

    def _usage_so_far(self) -> bytes:
        """Return the field with the counts that the model has reported; b"" if an estimate would be among them.

        An estimate reads the whole text, which must not be done for each piece of it.
        """
        if not all(output.usage is not None and output.usage.completion is not None for output in self.outputs):
            return b""
        counts, is_estimated = self.counts()
        return b"" if is_estimated else b',"usage":' + encode_json(usage_object(counts))

    def _frame(self, output: CallOutput) -> tuple[bytes, bytes] | None:
        return None if self._tells_usage else super()._frame(output)  # then the usage around a text differs every time

    def finish(self) -> bytes:
        out = [self.end()]
        out += [self.last(index) for index in range(len(self.choices))]
        if self.ends_with_usage:
            usage, _ = self.counts()
            out.append(self._head_bytes() + b'[],"usage":' + encode_json(usage_object(usage)) + b"}\n\n")
        out.append(b"data: " + DONE + b"\n\n")
        return b"".join(out)

    def fail(self, error: GatewayError) -> bytes:
        return b"data: " + encode_json(error_body(error)) + b"\n\n"

    def _head_bytes(self) -> bytes:
        """Return the start of a chunk, up to its choices. It never changes: clients merge by id and created."""
        if not self._head:
            start = encode_json(self._identity(self.chunk_kind))
            self._head = b"data: " + start[:-1] + b',"choices":'
        return self._head

    # ── whole ────────────────────────────────────────────────────────────────────────────────────────────────────

    def whole(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        self.end()
        body = {
            **self._identity(self.whole_kind),
            "choices": [self.whole_choice(index, choice) for index, choice in enumerate(self.choices)],
            "usage": usage_object(self.counts()[0]),
            **(self.head.extra if self.head else {}),
        }
        return encode_json(body), self.usage_headers()

    def _identity(self, kind: str) -> dict[str, Any]:
        context, head = self.context, self.head
        return {
            "id": (head.id if head else None) or f"{self.id_prefix}{context.hex_id}",
            "object": kind,
            "created": (head.created if head else None) or context.created,
            "model": context.model,
            "system_fingerprint": head.fingerprint if head else None,
        }


def usage_object(usage: Usage) -> dict[str, Any]:
    value: dict[str, Any] = {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.total,
    }
    if usage.cached:
        value["prompt_tokens_details"] = {"cached_tokens": usage.cached}
    if usage.reasoning:
        value["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning}
    return value
