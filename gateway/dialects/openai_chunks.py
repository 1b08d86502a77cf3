"""What OpenAI's chat and completions have in common: one identity, choices in chunks, a usage chunk, [DONE]."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from ..errors import GatewayError
from .answer import Choice, EventEncoder, Run
from .base import Context, Prepared, public
from .event_stream import DONE
from .events import Usage, encode_json
from .raw import Ending, fields_of


class ChunkEnding(Ending):
    """[DONE], or a finish reason for each choice."""

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
    """Events as chunks, or collected into one object. A dialect writes the choices of both."""

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

    # ── what a dialect says ──────────────────────────────────────────────────────────────────────────────────────

    def last(self, index: int) -> bytes:
        """The chunk that says why a choice ended."""
        raise NotImplementedError

    def whole_choice(self, index: int, choice: Choice) -> dict[str, Any]:
        raise NotImplementedError

    # ── stream ───────────────────────────────────────────────────────────────────────────────────────────────────

    def chunk(self, choice: bytes, *, is_role: bool = False) -> bytes:
        """The event around the JSON of one choice; the role comes before what is counted already."""
        usage = b',"usage":null' if self.ends_with_usage else b""
        if self._tells_usage and not is_role and all(run.usage is not None for run in self.runs):
            counts, is_estimated = self.counts()
            usage = usage if is_estimated else b',"usage":' + encode_json(usage_object(counts))
        return b"%b[%b]%b}\n\n" % (self._head_bytes(), choice, usage)

    def _frame(self, run: Run) -> tuple[bytes, bytes] | None:
        return None if self._tells_usage else super()._frame(run)  # what stands around a text is then never the same

    def finish(self) -> bytes:
        out = [self.end()]
        out += [self.last(index) for index in range(len(self.choices))]
        if self.ends_with_usage:
            usage, _ = self.counts()
            out.append(self._head_bytes() + b'[],"usage":' + encode_json(usage_object(usage)) + b"}\n\n")
        out.append(b"data: " + DONE + b"\n\n")
        return b"".join(out)

    def fail(self, error: GatewayError) -> bytes:
        body = {"message": public(error), "type": error.type, "param": error.param, "code": error.code}
        return b"data: " + encode_json({"error": body}) + b"\n\n"

    def _head_bytes(self) -> bytes:
        """A chunk up to its choices. Fixed with the first one: clients merge on id and created."""
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
