"""POST /v1/chat/completions: OpenAI's chat, streamed and whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import GatewayError
from ..hookspecs import hookimpl
from ..spec import Endpoint
from .answer import Choice, EventEncoder
from .base import Context, Dialect, Prepared, public
from .chat_requests import SCHEMA, prompt_size, read_chat
from .events import AnyEvent, Logprobs, Reasoning, Refusal, Text, ToolCall, Usage, encode_json

DONE = b"[DONE]"


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


class ChatDialect(Dialect):
    terminator = DONE
    request_schema = SCHEMA

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        return read_chat(body)

    def encoder(self, prepared: Prepared, context: Context) -> ChatEncoder:
        return ChatEncoder(prepared, context)


class ChatEncoder(EventEncoder):
    """Events of n choices as chunks, or collected into one object."""

    def __init__(self, prepared: Prepared, context: Context) -> None:
        inputs = prepared.inputs
        super().__init__(
            context,
            stream=prepared.stream,
            choices=prepared.n,
            prompt_size=prompt_size(inputs),
            max_tokens=inputs.get("max_tokens"),
        )
        self._include_usage, self._legacy = prepared.options["include_usage"], prepared.options["legacy"]
        self._prefix = b""

    # ── stream ───────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> bytes:
        """One role chunk for each choice, in order: clients index a list by it."""
        delta = b'{"role":"assistant","content":""}'
        return b"".join(self._chunk(index, delta) for index in range(len(self.choices)))

    def finish(self) -> bytes:
        out = [self.end()]
        out += [self._chunk(index, b"{}", encode_json(self._reason(index))) for index in range(len(self.choices))]
        if self._include_usage:
            usage, _ = self.counts()
            out.append(self._head_bytes() + b'[],"usage":' + encode_json(_usage(usage)) + b"}\n\n")
        out.append(b"data: " + DONE + b"\n\n")
        return b"".join(out)

    def fail(self, error: GatewayError) -> bytes:
        body = {"message": public(error), "type": error.type, "param": error.param, "code": error.code}
        return b"data: " + encode_json({"error": body}) + b"\n\n"

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

    def frame(self, run: int) -> tuple[bytes, bytes]:
        mark = b"\0"
        before, _, after = self._chunk(run, b'{"content":' + mark + b"}").partition(mark)
        return before, after

    def _tool_call(self, event: ToolCall) -> bytes:
        """Id, type and name come once, in a call's first delta: clients append a repeated one."""
        if event.name is not None:
            function = {"name": event.name, "arguments": event.arguments}
            piece: dict[str, Any] = {"index": event.call, "id": event.id, "type": "function", "function": function}
        else:
            piece = {"index": event.call, "function": {"arguments": event.arguments}}
        if not self._legacy:
            return self._chunk(event.choice, encode_json({"tool_calls": [piece]}))
        if event.call == 0:  # the only one that the legacy form knows of
            return self._chunk(event.choice, encode_json({"function_call": piece["function"]}))
        return b""

    def _head_bytes(self) -> bytes:
        """A chunk up to its choices. Fixed with the first one: clients merge on id and created."""
        if not self._prefix:
            start = encode_json(self._identity("chat.completion.chunk"))
            self._prefix = b"data: " + start[:-1] + b',"choices":'
        return self._prefix

    def _chunk(self, index: int, delta: bytes, reason: bytes = b"null", logprobs: bytes = b"null") -> bytes:
        usage = b',"usage":null' if self._include_usage else b""
        return b'%b[{"index":%d,"delta":%b,"logprobs":%b,"finish_reason":%b}]%b}\n\n' % (
            self._head_bytes(),
            index,
            delta,
            logprobs,
            reason,
            usage,
        )

    # ── whole ────────────────────────────────────────────────────────────────────────────────────────────────────

    def whole(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        self.end()
        body = {
            **self._identity("chat.completion"),
            "choices": [self._whole_choice(index, choice) for index, choice in enumerate(self.choices)],
            "usage": _usage(self.counts()[0]),
            **(self.head.extra if self.head else {}),
        }
        return encode_json(body), self.usage_headers()

    def _identity(self, kind: str) -> dict[str, Any]:
        context, head = self.context, self.head
        return {
            "id": (head.id if head else None) or f"chatcmpl-{context.hex_id}",
            "object": kind,
            "created": (head.created if head else None) or context.created,
            "model": context.model,
            "system_fingerprint": head.fingerprint if head else None,
        }

    def _whole_choice(self, index: int, choice: Choice) -> dict[str, Any]:
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
            message["function_call"] = choice.calls[0]["function"]
        elif choice.calls:
            message["tool_calls"] = choice.calls
        found = choice.logprobs or choice.refusal_logprobs
        return {
            "index": index,
            "message": message,
            "logprobs": _logprobs(choice.logprobs, choice.refusal_logprobs) if found else None,
            "finish_reason": self._reason(index),
        }

    def _reason(self, index: int) -> str:
        reason = self.reason(index)
        return "function_call" if self._legacy and reason == "tool_calls" else reason


def _logprobs(content: list[Any], refusal: list[Any]) -> dict[str, Any]:
    return {"content": content or None, "refusal": refusal or None}


def _usage(usage: Usage) -> dict[str, Any]:
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
