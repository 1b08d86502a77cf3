"""POST /v1/chat/completions: OpenAI's chat completions, streamed and whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...hookspecs import hookimpl
from ...spec import Endpoint
from .. import answer_schemas
from ..answer import Choice
from ..base import Context, Dialect, Prepared
from ..events import AnyEvent, Logprobs, Reasoning, Refusal, Text, ToolCall, encode_json
from .chat_request import SCHEMA, read_chat
from .chunks import ChunkEncoder, ChunkEnding


@hookimpl
def register_endpoints(register: Callable[[Endpoint], None]) -> None:
    register(
        Endpoint(
            path="/v1/chat/completions",
            method="chat_completions",
            dialect="openai_chat",
            summary="OpenAI chat completions.",
        )
    )


@hookimpl
def register_dialects(register: Callable[[str, Any], None]) -> None:
    register("openai_chat", ChatDialect())


NO_LOGPROBS: dict[str, Any] = {"content": [], "refusal": None}  # for an answer without content


class ChatDialect(Dialect):
    protocol, ending = "chat", ChunkEnding
    request_schema = SCHEMA
    response_schema = answer_schemas.CHAT
    event_schema = answer_schemas.CHAT_EVENT

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        return read_chat(body)

    def encoder(self, prepared: Prepared, context: Context) -> ChatEncoder:
        return ChatEncoder(prepared, context)


class ChatEncoder(ChunkEncoder):
    """Encodes the answers of n choices."""

    whole_kind, chunk_kind, id_prefix = "chat.completion", "chat.completion.chunk", "chatcmpl-"

    def __init__(self, prepared: Prepared, context: Context) -> None:
        super().__init__(prepared, context, choices=prepared.n, prompt_size=prepared.options["prompt_size"])
        self._legacy = prepared.options["legacy"]
        self._scored = prepared.inputs.get("logprobs") is True

    # ── stream ───────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> bytes:
        """Return one role chunk for each choice, in order: clients use the index of a list."""
        delta = b'{"role":"assistant","content":""}'
        logprobs = encode_json(NO_LOGPROBS) if self._scored else b"null"
        indexes = range(len(self.choices))
        return b"".join(self._chunk(index, delta, logprobs=logprobs, is_role=True) for index in indexes)

    def last(self, index: int) -> bytes:
        return self._chunk(index, b"{}", encode_json(self._reason(index)))

    def encode(self, event: AnyEvent) -> bytes:
        if isinstance(event, Text):
            return self._chunk(event.choice, encode_json({"content": event.text}))
        if isinstance(event, Reasoning):
            return self._chunk(event.choice, encode_json({"reasoning_content": event.text}))
        if isinstance(event, Refusal):
            return self._chunk(event.choice, encode_json({"refusal": event.text}))
        if isinstance(event, ToolCall):
            return self._tool_call(event)
        if isinstance(event, Logprobs):
            found = _logprobs(event.content, event.refusal)
            return self._chunk(event.choice, b"{}", logprobs=encode_json(found))
        return b""

    def frame(self, choice: int) -> tuple[bytes, bytes]:
        mark = b"\0"
        before, _, after = self._chunk(choice, b'{"content":' + mark + b"}").partition(mark)
        return before, after

    def _tool_call(self, event: ToolCall) -> bytes:
        """Return a delta of a tool call. Only the first has id, type and name, because clients append repeated ones."""
        if event.name is not None:
            function = {"name": event.name, "arguments": event.arguments}
            piece: dict[str, Any] = {"index": event.call, "id": event.id, "type": "function", "function": function}
        else:
            piece = {"index": event.call, "function": {"arguments": event.arguments}}
        if not self._legacy:
            return self._chunk(event.choice, encode_json({"tool_calls": [piece]}))
        if event.call == 0:  # the legacy form has only one call
            return self._chunk(event.choice, encode_json({"function_call": piece["function"]}))
        return b""

    def _chunk(
        self, index: int, delta: bytes, reason: bytes = b"null", logprobs: bytes = b"null", *, is_role: bool = False
    ) -> bytes:
        choice = b'{"index":%d,"delta":%b,"logprobs":%b,"finish_reason":%b}' % (index, delta, logprobs, reason)
        return self.chunk(choice, is_role=is_role)

    # ── whole ────────────────────────────────────────────────────────────────────────────────────────────────────

    def whole_choice(self, index: int, choice: Choice) -> dict[str, Any]:
        content = "".join(choice.content)
        silent = not content and (choice.calls or choice.refusal)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if silent else content,
            "refusal": "".join(choice.refusal) or None,
        }
        if choice.reasoning:
            message["reasoning_content"] = "".join(choice.reasoning)
        if choice.calls and self._legacy:
            message["function_call"] = choice.calls[0].function
        elif choice.calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": call.function} for call in choice.calls
            ]
        found: dict[str, Any] | None = None
        if choice.logprobs or choice.refusal_logprobs:
            found = _logprobs(choice.logprobs, choice.refusal_logprobs)
        elif self._scored and not content and not silent:
            found = NO_LOGPROBS
        return {
            "index": index,
            "message": message,
            "logprobs": found,
            "finish_reason": self._reason(index),
        }

    def _reason(self, index: int) -> str:
        reason = self.reason(index)
        return "function_call" if self._legacy and reason == "tool_calls" else reason


def _logprobs(content: list[Any], refusal: list[Any]) -> dict[str, Any]:
    return {"content": content or None, "refusal": refusal or None}
