"""POST /v1/chat/completions: OpenAI's chat, streamed and whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import BadRequest, GatewayError
from ..hookspecs import hookimpl
from ..spec import Endpoint
from .base import Context, Prepared, missing, take, take_range, wrong_type
from .events import (
    AnyEvent,
    Failed,
    Finish,
    Head,
    Logprobs,
    Normalizer,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    Usage,
    encode_json,
    estimate_tokens,
)

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
MAX_N, MAX_STOP, MAX_STOP_LENGTH, MAX_BIAS, MAX_TOOLS, MAX_TOP_LOGPROBS = 16, 16, 256, 1024, 128, 20
NUMBERS = ("temperature", "top_p", "frequency_penalty", "presence_penalty")
DONE = b"data: [DONE]\n\n"


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


class ChatDialect:
    ping = b": ping\n\n"

    def read(self, body: dict[str, Any]) -> Prepared:
        inputs = {name: value for name, value in body.items() if value is not None}
        model = take(inputs, "model", str)
        check_messages(inputs)
        stream = take(inputs, "stream", bool, False)
        n = take_range(inputs, "n", 1, MAX_N, 1)
        check_sampling(inputs)
        legacy = check_tools(inputs)
        options = take(inputs, "stream_options", dict, {}) if stream else {}
        include_usage = take(options, "include_usage", bool, False)
        return Prepared(model, inputs, stream, n, {"include_usage": include_usage, "legacy": legacy})

    def encoder(self, prepared: Prepared, context: Context) -> ChatEncoder:
        return ChatEncoder(prepared, context)


# ── the request ──────────────────────────────────────────────────────────────────────────────────────────────────────


def check_messages(inputs: dict[str, Any]) -> None:
    messages = inputs.get("messages")
    if messages is None:
        raise missing("messages")
    if not isinstance(messages, list):
        raise wrong_type("messages", "an array", messages)
    if not messages:
        raise BadRequest("'messages' must hold at least one message", param="messages")
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict):
            raise wrong_type(where, "an object", message)
        role = message.get("role")
        if role is None:
            raise missing(f"{where}.role")
        if not isinstance(role, str):
            raise wrong_type(f"{where}.role", "a string", role)
        if role not in ROLES:
            raise BadRequest(f"'{where}.role' must be one of {', '.join(sorted(ROLES))}", param=f"{where}.role")
        content = message.get("content")
        if content is None or isinstance(content, str):
            continue
        if not isinstance(content, list):
            raise wrong_type(f"{where}.content", "a string or an array of parts", content)
        for position, part in enumerate(content):
            if not isinstance(part, dict) or not isinstance(part.get("type"), str):
                raise wrong_type(f"{where}.content[{position}]", "an object with a type", part)


def check_sampling(inputs: dict[str, Any]) -> None:
    """Numbers, bounds, and the two spellings of the token limit made one."""
    for name in NUMBERS:
        take(inputs, name, float)
    take(inputs, "seed", int)
    old, new = take_range(inputs, "max_tokens", 1, None), take_range(inputs, "max_completion_tokens", 1, None)
    if (limit := new if new is not None else old) is not None:
        inputs["max_tokens"] = inputs["max_completion_tokens"] = limit
    if (stop := inputs.get("stop")) is not None:
        inputs["stop"] = read_stop(stop)
    bias = take(inputs, "logit_bias", dict, {})
    if len(bias) > MAX_BIAS:
        raise BadRequest(f"'logit_bias' may have at most {MAX_BIAS} entries", param="logit_bias")
    for token, value in bias.items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise wrong_type(f"logit_bias.{token}", "a number", value)
    wants_logprobs = take(inputs, "logprobs", bool, False)
    if take_range(inputs, "top_logprobs", 0, MAX_TOP_LOGPROBS) is not None and not wants_logprobs:
        raise BadRequest("'top_logprobs' needs 'logprobs': true", param="top_logprobs")
    response_format = take(inputs, "response_format", dict)
    if response_format is not None and not isinstance(response_format.get("type"), str):
        raise missing("response_format.type")


def read_stop(value: Any) -> list[str]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list):
        raise wrong_type("stop", "a string or an array of strings", value)
    if len(stops) > MAX_STOP:
        raise BadRequest(f"'stop' may have at most {MAX_STOP} entries", param="stop")
    for index, stop in enumerate(stops):
        if not isinstance(stop, str):
            raise wrong_type(f"stop[{index}]", "a string", stop)
        if len(stop) > MAX_STOP_LENGTH:
            raise BadRequest(f"'stop[{index}]' is longer than {MAX_STOP_LENGTH} characters", param=f"stop[{index}]")
    return [stop for stop in stops if stop]


def check_tools(inputs: dict[str, Any]) -> bool:
    """Check tools; the legacy `functions` become tools. True when the client spoke of functions."""
    functions = take(inputs, "functions", list)
    if functions is not None:
        inputs["tools"] = [{"type": "function", "function": function} for function in functions]
        del inputs["functions"]
    call = inputs.pop("function_call", None)
    if isinstance(call, str):
        inputs["tool_choice"] = call
    elif isinstance(call, dict):
        inputs["tool_choice"] = {"type": "function", "function": {"name": call.get("name")}}
    tools = take(inputs, "tools", list, [])
    if len(tools) > MAX_TOOLS:
        raise BadRequest(f"'tools' may have at most {MAX_TOOLS} entries", param="tools")
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise wrong_type(f"tools[{index}]", "an object", tool)
        if tool.get("type") == "function":
            function = tool.get("function")
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                raise missing(f"tools[{index}].function.name")
    choice = inputs.get("tool_choice")
    if choice is not None and not isinstance(choice, str | dict):
        raise wrong_type("tool_choice", "a string or an object", choice)
    take(inputs, "parallel_tool_calls", bool)
    return functions is not None


def prompt_size(inputs: dict[str, Any]) -> int:
    """UTF-8 bytes of the text in a request's messages."""
    size = 0
    for message in inputs.get("messages", []):
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"text": content}]
        size += sum(len(part["text"].encode()) for part in parts if isinstance(part.get("text"), str))
    return size


# ── the answer ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Choice:
    """What is known of one choice so far."""

    __slots__ = ("calls", "content", "finish", "has_text", "logprobs", "reasoning", "refusal")

    def __init__(self) -> None:
        self.content: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.calls: list[dict[str, Any]] = []
        self.logprobs: list[Any] = []
        self.finish: str | None = None
        self.has_text = False


class ChatEncoder:
    """Events of n choices as chunks, or collected into one object."""

    def __init__(self, prepared: Prepared, context: Context) -> None:
        self._inputs, self._context, self._stream = prepared.inputs, context, prepared.stream
        self._include_usage, self._legacy = prepared.options["include_usage"], prepared.options["legacy"]
        self._choices = [Choice() for _ in range(prepared.n)]
        self._n = prepared.n
        self._normalizers: dict[int, Normalizer] = {}
        self._usage: list[Usage] = []
        self._head: Head | None = None
        self._bytes = 0  # of content, for the estimate
        self._frames: dict[int, tuple[bytes, bytes]] = {}  # choice → what stands around a piece of text
        self._prefix = b""

    @property
    def is_raw(self) -> bool:
        return any(normalizer.is_raw for normalizer in self._normalizers.values())

    # ── stream ───────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> bytes:
        """One role chunk for each choice, in order: clients index a list by it."""
        delta = b'{"role":"assistant","content":""}'
        return b"".join(self._chunk(index, delta) for index in range(self._n))

    def feed(self, items: list[Any], run: int = 0) -> bytes:
        normalizer = self._normalizers.get(run)
        if normalizer is None:
            normalizer = self._normalizers[run] = Normalizer(run, self._n if run == 0 else 1)
            self._frames[run] = self._frame(run)
        before, after = self._frames[run]
        streaming, choice = self._stream, self._choices[run]
        out: list[bytes] = []
        for item in items:
            if type(item) is str and choice.has_text and item and not normalizer.is_raw:
                # the one hot case: a further piece of text
                if streaming:
                    packed = encode_json(item)
                    self._bytes += len(packed)
                    out += (before, packed, after)
                else:
                    choice.content.append(item)
                continue
            for event in normalizer.feed(item):
                out.append(self._event(event))
        return b"".join(out)

    def finish(self) -> bytes:
        out = [self._event(event) for normalizer in self._normalizers.values() for event in normalizer.end()]
        for index, choice in enumerate(self._choices):
            reason = encode_json(self._reason(choice))
            out.append(self._chunk(index, b"{}", reason))
        if self._include_usage:
            usage, _ = self._counts()
            out.append(self._head_bytes() + b'[],"usage":' + encode_json(_usage(usage)) + b"}\n\n")
        out.append(DONE)
        return b"".join(out)

    def fail(self, error: GatewayError) -> bytes:
        body = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
        return b"data: " + encode_json({"error": body}) + b"\n\n"

    def _head_bytes(self) -> bytes:
        """A chunk up to its choices. Fixed with the first one: clients merge on id and created."""
        if not self._prefix:
            context, head = self._context, self._head
            start = {
                "id": (head.id if head else None) or f"chatcmpl-{context.hex_id}",
                "object": "chat.completion.chunk",
                "created": (head.created if head else None) or context.created,
                "model": context.model,
                "system_fingerprint": head.fingerprint if head else None,
            }
            self._prefix = b"data: " + encode_json(start)[:-1] + b',"choices":'
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

    def _frame(self, index: int) -> tuple[bytes, bytes]:
        mark = b"\0"
        before, _, after = self._chunk(index, b'{"content":' + mark + b"}").partition(mark)
        return before, after

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _event(self, event: AnyEvent) -> bytes:
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Usage):
            self._usage.append(event)
            return b""
        if isinstance(event, Head):
            if self._head is None:
                self._head = event
            return b""
        if event.choice >= len(self._choices):
            self._choices += [Choice() for _ in range(event.choice + 1 - len(self._choices))]
        choice = self._choices[event.choice]
        delta = self._apply(choice, event)
        if not self._stream or delta is None:
            return b""
        if isinstance(event, Logprobs):
            return self._chunk(event.choice, b"{}", logprobs=encode_json({"content": event.content, "refusal": None}))
        return self._chunk(event.choice, encode_json(delta))

    def _apply(self, choice: Choice, event: AnyEvent) -> dict[str, Any] | None:
        """Keep what a whole answer needs; the delta of a streamed one."""
        if isinstance(event, Text):
            choice.has_text = True
            if self._stream:
                self._bytes += len(event.text)
            else:
                choice.content.append(event.text)
            return {"content": event.text}
        if isinstance(event, Reasoning):
            choice.reasoning.append(event.text)
            return {"reasoning_content": event.text}
        if isinstance(event, Refusal):
            choice.refusal.append(event.text)
            return {"refusal": event.text}
        if isinstance(event, ToolCall):
            return self._tool_call(choice, event)
        if isinstance(event, Logprobs):
            choice.logprobs += event.content
            return {}
        if isinstance(event, Finish):
            choice.finish = event.reason
        return None

    def _tool_call(self, choice: Choice, event: ToolCall) -> dict[str, Any]:
        while len(choice.calls) <= event.call:
            choice.calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        call = choice.calls[event.call]
        call["id"] = event.id or call["id"]
        call["function"]["name"] = event.name or call["function"]["name"]
        call["function"]["arguments"] += event.arguments
        function = {"arguments": event.arguments}
        if event.name is not None:
            function = {"name": event.name, "arguments": event.arguments}
        if self._legacy:
            return {"function_call": function}
        first = {"id": event.id, "type": "function"} if event.name is not None else {}
        return {"tool_calls": [{"index": event.call, **first, "function": function}]}

    # ── whole ────────────────────────────────────────────────────────────────────────────────────────────────────

    def whole(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        for normalizer in self._normalizers.values():
            for event in normalizer.end():
                self._event(event)
        context, head = self._context, self._head
        usage, estimated = self._counts()
        body = {
            "id": (head.id if head else None) or f"chatcmpl-{context.hex_id}",
            "object": "chat.completion",
            "created": (head.created if head else None) or context.created,
            "model": context.model,
            "system_fingerprint": head.fingerprint if head else None,
            "choices": [self._whole_choice(index, choice) for index, choice in enumerate(self._choices)],
            "usage": _usage(usage),
            **(head.extra if head else {}),
        }
        return encode_json(body), [(b"x-gateway-usage", b"estimated")] if estimated else []

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
        logprobs = {"content": choice.logprobs, "refusal": None} if choice.logprobs else None
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": self._reason(choice)}

    def _reason(self, choice: Choice) -> str:
        """The model's word, else what its output shows."""
        if choice.calls and choice.finish in (None, "stop", "tool_calls"):
            return "function_call" if self._legacy else "tool_calls"
        if choice.finish is not None:
            return choice.finish
        limit = self._inputs.get("max_tokens")
        if limit is not None and self._usage and self._n == 1 and self._usage[-1].completion >= limit:
            return "length"
        return "stop"

    def _counts(self) -> tuple[Usage, bool]:
        """The model's counts (of n runs the prompt once, the completions summed), or an estimate from bytes."""
        if self._usage:
            last = self._usage[-1]
            if len(self._normalizers) > 1:
                completion = sum(usage.completion for usage in self._usage)
                return Usage(last.prompt, completion, last.prompt + completion, last.cached), False
            return last, False
        size = self._bytes + sum(
            len(text.encode("utf-8", "replace"))
            for choice in self._choices
            for text in (*choice.content, *choice.reasoning, *choice.refusal)
        )
        size += sum(len(call["function"]["arguments"]) for choice in self._choices for call in choice.calls)
        prompt, completion = estimate_tokens(prompt_size(self._inputs)), estimate_tokens(size)
        return Usage(max(prompt, 1), completion, max(prompt, 1) + completion), True

    def usage(self) -> tuple[int, int, str]:
        counts, _ = self._counts()
        return counts.prompt, counts.completion, self._reason(self._choices[0])


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
