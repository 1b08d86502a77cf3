"""POST /v1/messages: Anthropic's Messages, streamed and whole."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ...errors import GatewayError
from ...hookspecs import hookimpl
from ...spec import Capabilities, Endpoint
from .. import answer_schemas
from ..answer import EventEncoder
from ..base import Context, Dialect, Prepared
from ..events import AnyEvent, encode_json, fields_of
from ..fields import missing, take, take_range
from ..openai.chat_request import prompt_size
from ..raw import Ending
from .blocks import Blocks, event
from .errors import described
from .request import SCHEMA, continued, size, to_chat
from .turns import turns
from .values import MessageValues

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
PING = event("ping")


@hookimpl
def register_endpoints(register: Callable[[Endpoint], None]) -> None:
    register(
        Endpoint(
            path="/v1/messages",
            method="messages",
            dialect="anthropic_messages",
            summary="Anthropic messages.",
            derived_from="chat_completions",
        )
    )


@hookimpl
def register_dialects(register: Callable[[str, Any], None]) -> None:
    register("anthropic_messages", MessagesDialect())


class MessageEnding(Ending):
    """The end of a stream: `message_stop`, or the stop reason before it."""

    hint = re.compile(rb'message_stop|"stop_reason"\s*:\s*"|"error"')
    closing = event("message_stop")
    has_pings = True

    def read(self, name: str, data: bytes) -> None:
        value = fields_of(data)
        kind, delta = value.get("type", name), value.get("delta")
        if kind == "message_stop":
            self.close()
        elif isinstance(delta, dict) and delta.get("stop_reason"):
            self.is_whole = True


class MessagesDialect(Dialect):
    protocol, ending = "messages", MessageEnding
    ping = PING
    request_schema = SCHEMA
    response_schema = answer_schemas.MESSAGE
    event_schema = answer_schemas.MESSAGE_EVENT

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        inputs = {name: value for name, value in body.items() if value is not None}
        model = take(inputs, "model", str)
        if take_range(inputs, "max_tokens", 1, None) is None:
            raise missing("max_tokens")
        stream = take(inputs, "stream", bool, False)
        if method != "messages":
            chat = to_chat(inputs)
            hides = inputs.get("thinking", {}).get("display") == "omitted"
            return Prepared(model, chat, stream, options={"own": False, "prompt": prompt_size(chat), "hides": hides})
        turns(inputs)
        texts = size(inputs.get("system")) + size(inputs.get("messages"))
        return Prepared(model, inputs, stream, options={"own": True, "prompt": texts})

    def calls(self, prepared: Prepared, capabilities: Capabilities) -> list[dict[str, Any]]:
        return [prepared.inputs if prepared.options["own"] else continued(prepared.inputs, capabilities)]

    def encoder(self, prepared: Prepared, context: Context) -> MessageEncoder:
        return MessageEncoder(prepared, context)


class MessageEncoder(EventEncoder):
    """Encodes events as a message, streamed as blocks or as a whole."""

    reads_arguments = True

    def __init__(self, prepared: Prepared, context: Context) -> None:
        super().__init__(
            context,
            stream=prepared.stream,
            prompt_size=prepared.options["prompt"],
            max_tokens=prepared.inputs["max_tokens"],
        )
        self._blocks = Blocks(hides=prepared.options.get("hides", False))
        self.choices = [self._blocks]
        self._own = MessageValues() if prepared.options["own"] else None
        if self._own is not None:
            self.outputs[0].normalizer = self._own

    # ── stream ───────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> bytes:
        usage = {**self._usage(), "output_tokens": 0}
        return event("message_start", message=self._message([], None, None, usage)) + PING

    def encode(self, event: AnyEvent) -> bytes:
        return self._blocks.tell()

    def frame(self, choice: int) -> tuple[bytes, bytes] | None:
        index = self._blocks.open_text
        if index is None or not self.stream:
            return None
        mark = "\0"
        piece = event("content_block_delta", index=index, delta={"type": "text_delta", "text": mark})
        before, _, after = piece.partition(encode_json(mark))
        return before, after

    def finish(self) -> bytes:
        out = self.end()
        self._blocks.close()
        out += self._blocks.tell()
        reason, sequence = self._stop()
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        return out + event("message_delta", delta=delta, usage=self._usage()) + event("message_stop")

    def fail(self, error: GatewayError) -> bytes:
        return event("error", error=described(error))

    # ── whole ────────────────────────────────────────────────────────────────────────────────────────────────────

    def whole(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        self.end()
        self._blocks.close()
        message = self._message(self._blocks.whole(), *self._stop(), self._usage())
        return encode_json(message), self.usage_headers()

    def _message(
        self, content: list[dict[str, Any]], reason: str | None, sequence: str | None, usage: dict[str, Any]
    ) -> dict[str, Any]:
        own = self._own
        return {
            "id": (own.id if own else None) or f"msg_{self.context.hex_id}",
            "type": "message",
            "role": "assistant",
            "model": self.context.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": usage,
            **(own.extra if own else {}),
        }

    def _stop(self) -> tuple[str, str | None]:
        """Return the stop reason and the stop sequence."""
        blocks = self._blocks
        if self._own is not None and self._own.stop_reason is not None:
            return self._own.stop_reason, blocks.stop_sequence
        reason = self.reason()
        if reason == "stop" and blocks.stop_sequence is not None:
            return "stop_sequence", blocks.stop_sequence
        if reason == "tool_calls" and not blocks.calls:  # clients would look for the call
            reason = "stop"
        if reason == "stop" and blocks.refusal:
            reason = "content_filter"
        return STOP_REASONS[reason], None

    def _usage(self) -> dict[str, Any]:
        """Return the counts so far. `input_tokens` excludes cached tokens."""
        counts, _ = self.counts()
        usage: dict[str, Any] = {"input_tokens": counts.prompt, "output_tokens": counts.completion}
        if counts.cached:
            usage["input_tokens"] = max(0, (counts.prompt or 0) - counts.cached)
            usage["cache_read_input_tokens"] = counts.cached
        if counts.reasoning:
            usage["output_tokens_details"] = {"thinking_tokens": counts.reasoning}
        return {**(self._own.usage if self._own else {}), **usage}
