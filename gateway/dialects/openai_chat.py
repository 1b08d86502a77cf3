"""POST /v1/chat/completions: OpenAI's chat, streamed and whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..errors import GatewayError, InvalidOutput
from ..hookspecs import hookimpl
from ..spec import Endpoint
from .base import Context, Dialect, Encoder, Prepared, public
from .chat_requests import SCHEMA, prompt_size, read_chat
from .events import (
    AnyEvent,
    Failed,
    Finish,
    Head,
    Logprobs,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    Usage,
    encode_json,
    estimate_tokens,
)
from .outputs import Normalizer

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


class Choice:
    """One choice so far."""

    __slots__ = ("answered", "calls", "content", "finish", "logprobs", "reasoning", "refusal", "refusal_logprobs")

    def __init__(self) -> None:
        self.content: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.calls: list[dict[str, Any]] = []
        self.logprobs: list[Any] = []
        self.refusal_logprobs: list[Any] = []
        self.finish: str | None = None
        self.answered = False  # the model said something about it

    @property
    def size(self) -> int:
        """UTF-8 bytes of all that the model wrote."""
        pieces = (*self.content, *self.reasoning, *self.refusal)
        arguments = (call["function"]["arguments"] for call in self.calls)
        return sum(len(text.encode()) for text in (*pieces, *arguments))


class Run:
    """One call of the Model's method: it answers one choice, or all of them."""

    __slots__ = ("frame", "normalizer", "usage")

    def __init__(self, choice: int, width: int) -> None:
        self.normalizer = Normalizer(choice, width)
        self.usage: Usage | None = None
        self.frame: tuple[bytes, bytes] | None = None  # what stands around a further piece of its text


class ChatEncoder(Encoder):
    """Events of n choices as chunks, or collected into one object."""

    def __init__(self, prepared: Prepared, context: Context) -> None:
        self._inputs, self._context, self._stream = prepared.inputs, context, prepared.stream
        self._include_usage, self._legacy = prepared.options["include_usage"], prepared.options["legacy"]
        self._choices = [Choice() for _ in range(prepared.n)]
        width = prepared.n // context.runs
        self._runs = [Run(run, width) for run in range(context.runs)]
        self._head: Head | None = None
        self._prefix = b""

    # ── stream ───────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> bytes:
        """One role chunk for each choice, in order: clients index a list by it."""
        delta = b'{"role":"assistant","content":""}'
        return b"".join(self._chunk(index, delta) for index in range(len(self._choices)))

    def feed(self, items: list[Any], run: int = 0) -> bytes:
        current = self._runs[run]
        frame, streaming, content = current.frame, self._stream, self._choices[run].content
        out: list[bytes] = []
        try:
            for item in items:
                if frame is not None and type(item) is str:
                    # the one hot case: a further piece of text
                    if item:
                        content.append(item)
                        if streaming:
                            out += (frame[0], encode_json(item), frame[1])
                    continue
                for event in current.normalizer.feed(item):
                    out.append(self._event(event, current))
                frame = current.frame = self._frame(run) if current.normalizer.is_plain else None
        except GatewayError as error:
            if not (streaming and out):
                raise
            self.failure = error  # what came before it goes out first
        return b"".join(out)

    def finish(self) -> bytes:
        out = [*self._end(), *(self._last_chunk(index, choice) for index, choice in enumerate(self._choices))]
        if self._include_usage:
            usage, _ = self._counts()
            out.append(self._head_bytes() + b'[],"usage":' + encode_json(_usage(usage)) + b"}\n\n")
        out.append(b"data: " + DONE + b"\n\n")
        return b"".join(out)

    def fail(self, error: GatewayError) -> bytes:
        body = {"message": public(error), "type": error.type, "param": error.param, "code": error.code}
        return b"data: " + encode_json({"error": body}) + b"\n\n"

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

    def _frame(self, index: int) -> tuple[bytes, bytes]:
        mark = b"\0"
        before, _, after = self._chunk(index, b'{"content":' + mark + b"}").partition(mark)
        return before, after

    def _last_chunk(self, index: int, choice: Choice) -> bytes:
        return self._chunk(index, b"{}", encode_json(self._reason(index, choice)))

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _event(self, event: AnyEvent, run: Run) -> bytes:
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Usage):
            run.usage = event
            return b""
        if isinstance(event, Head):
            if self._head is None:
                self._head = event
            return b""
        choice = self._choices[event.choice]
        choice.answered = True
        if isinstance(event, Logprobs):
            choice.logprobs += event.content
            choice.refusal_logprobs += event.refusal
            found = _logprobs(event.content, event.refusal)
            return self._chunk(event.choice, b"{}", logprobs=encode_json(found)) if self._stream else b""
        delta = self._apply(choice, event)
        return self._chunk(event.choice, encode_json(delta)) if self._stream and delta is not None else b""

    def _apply(self, choice: Choice, event: AnyEvent) -> dict[str, Any] | None:
        """Keep what the whole answer needs; return the delta of a streamed one."""
        if isinstance(event, Text):
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
        if isinstance(event, Finish):
            choice.finish = event.reason
        return None

    def _tool_call(self, choice: Choice, event: ToolCall) -> dict[str, Any] | None:
        if event.name is not None:
            function = {"name": event.name, "arguments": event.arguments}
            choice.calls.append({"id": event.id, "type": "function", "function": dict(function)})
            piece: dict[str, Any] = {"index": event.call, "id": event.id, "type": "function", "function": function}
        else:
            choice.calls[event.call]["function"]["arguments"] += event.arguments
            piece = {"index": event.call, "function": {"arguments": event.arguments}}
        if self._legacy:  # which knows of one call only
            return {"function_call": piece["function"]} if event.call == 0 else None
        return {"tool_calls": [piece]}

    def _end(self) -> Iterable[bytes]:
        """The events that only the end of the values brings.

        Raises:
            GatewayError: the answer is not complete.
        """
        if self.failure is not None:
            raise self.failure
        out = [self._event(event, run) for run in self._runs for event in run.normalizer.end()]
        for index, choice in enumerate(self._choices):
            for number, call in enumerate(choice.calls):
                if not call["function"]["arguments"]:  # clients parse them as JSON
                    out.append(self._event(ToolCall(index, number, None, None, "{}"), self._runs[0]))
        answered = sum(choice.answered for choice in self._choices)
        if len(self._runs) < len(self._choices) != answered:
            raise InvalidOutput(f"the model answered {answered} of {len(self._choices)} choices")
        return out

    # ── whole ────────────────────────────────────────────────────────────────────────────────────────────────────

    def whole(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        self._end()
        usage, estimated = self._counts()
        body = {
            **self._identity("chat.completion"),
            "choices": [self._whole_choice(index, choice) for index, choice in enumerate(self._choices)],
            "usage": _usage(usage),
            **(self._head.extra if self._head else {}),
        }
        return encode_json(body), [(b"x-gateway-usage", b"estimated")] if estimated else []

    def _identity(self, kind: str) -> dict[str, Any]:
        context, head = self._context, self._head
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
            "finish_reason": self._reason(index, choice),
        }

    # ── what the model may leave out ─────────────────────────────────────────────────────────────────────────────

    def _reason(self, index: int, choice: Choice) -> str:
        """The model's word, else what its output shows."""
        if choice.calls and choice.finish in (None, "stop", "tool_calls"):
            return "function_call" if self._legacy else "tool_calls"
        if choice.finish is not None:
            return choice.finish
        limit = self._inputs.get("max_tokens")
        usage = self._runs[index].usage if len(self._runs) == len(self._choices) else None
        if limit is not None and usage is not None and (usage.completion or 0) >= limit:
            return "length"
        return "stop"

    def _counts(self) -> tuple[Usage, bool]:
        """The model's counts, of several runs the prompt once and the completions summed; estimates for the rest."""
        usages = [run.usage for run in self._runs if run.usage is not None]
        counted = [usage.completion for usage in usages if usage.completion is not None]
        prompt = next((usage.prompt for usage in usages if usage.prompt is not None), None)
        estimated = prompt is None or len(counted) < len(self._runs)
        if prompt is None:
            prompt = max(1, estimate_tokens(prompt_size(self._inputs)))
        completion = sum(counted)
        if len(counted) < len(self._runs):
            completion = estimate_tokens(sum(choice.size for choice in self._choices))
        total = usages[0].total if len(self._runs) == 1 and usages and not estimated else None
        cached = usages[0].cached if usages else 0
        reasoning = sum(usage.reasoning for usage in usages)
        return Usage(prompt, completion, total or prompt + completion, cached, reasoning), estimated

    def usage(self) -> tuple[int, int, str]:
        counts, _ = self._counts()
        return counts.prompt or 0, counts.completion or 0, self._reason(0, self._choices[0])


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
