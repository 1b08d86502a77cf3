"""POST /v1/responses: OpenAI's Responses, from a Model's own `responses` or from its `chat_completions`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from ..errors import GatewayError, InvalidOutput
from ..hookspecs import hookimpl
from ..spec import Endpoint
from .answer import EventEncoder, Run
from .base import Context, Dialect, Prepared, public, take
from .chat_requests import prompt_size
from .events import (
    AnyEvent,
    ChoiceEvent,
    Finish,
    Logprobs,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    Usage,
    checked,
    encode_json,
    unwrap,
    usage_of,
)
from .responses_object import filled_usage, shown, usage_object
from .responses_output import Output, framed
from .responses_requests import SCHEMA, check, to_chat

INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}  # finish reason → why
_REASONS = {why: reason for reason, why in INCOMPLETE.items()}
ENDED = ("completed", "incomplete", "failed")


@hookimpl
def register_endpoints(register: Callable[[Endpoint], None]) -> None:
    register(
        Endpoint(
            path="/v1/responses",
            method="responses",
            derived_from="chat_completions",
            dialect="openai_responses",
            summary="OpenAI responses.",
        )
    )


@hookimpl
def register_dialects(register: Callable[[str, Any], None]) -> None:
    register("openai_responses", ResponsesDialect())


class ResponsesDialect(Dialect):
    request_schema = SCHEMA
    keeps = True

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        inputs = {name: value for name, value in body.items() if value is not None}
        model = take(inputs, "model", str)
        stream = take(inputs, "stream", bool, False)
        check(inputs)
        options: dict[str, Any] = {"body": inputs}
        if method == "responses":
            options["prompt_size"] = sum(len(text.encode()) for text in _texts(inputs))
            return Prepared(model, inputs, stream, options=options)
        chat = to_chat(inputs)
        options["prompt_size"] = prompt_size(chat)
        return Prepared(model, chat, stream, options=options)

    def encoder(self, prepared: Prepared, context: Context) -> ResponsesEncoder:
        return ResponsesEncoder(prepared, context)


def _texts(inputs: dict[str, Any]) -> list[str]:
    """The texts of a request, whatever its items are."""
    todo: list[Any] = [inputs.get("instructions"), inputs["input"]]
    texts: list[str] = []
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, list):
            todo += value
        elif isinstance(value, dict):
            todo += (value.get(name) for name in ("content", "text", "output", "arguments"))
    return texts


class Made(msgspec.Struct):
    """A whole response object that the Model made itself."""

    fields: dict[str, Any]


class ResponsesEncoder(EventEncoder):
    def __init__(self, prepared: Prepared, context: Context) -> None:
        body = prepared.options["body"]
        super().__init__(
            context,
            stream=prepared.stream,
            prompt_size=prepared.options["prompt_size"],
            max_tokens=body.get("max_output_tokens"),
        )
        self._shown = shown(body)
        self._store = take(body, "store", bool, True)
        self._output = Output(prepared.stream)
        self._made: dict[str, Any] = {}  # what the Model's own response object says
        self._id = f"resp_{context.hex_id}"
        self._started = False
        self._completed_at = 0
        self._last: bytes | None = None  # the events before the very last one, when all values have come

    # ── values ───────────────────────────────────────────────────────────────────────────────────────────────────

    def events(self, item: Any, run: Run) -> list[Any]:
        value = unwrap(item)
        if isinstance(value, dict) and value.get("object") == "response":
            return [Made(value)]
        found = super().events(item, run)
        if any(isinstance(event, Logprobs) for event in found):
            # they stand in the same event as their text, so they come before it
            found.sort(key=lambda event: not isinstance(event, Logprobs))
        return found

    def take(self, event: AnyEvent | Made, run: Run) -> bytes:
        return self._adopt(event.fields, run) if isinstance(event, Made) else super().take(event, run)

    def _put(self, event: ChoiceEvent) -> bytes:
        """Whole answers have the items of streams, so these are made in both cases."""
        self.choices[0].apply(event)
        return self._output.take(event)

    def _adopt(self, made: dict[str, Any], run: Run) -> bytes:
        output = made.get("output")
        if not isinstance(output, list | None) or self._made or not self._output.is_empty:
            raise InvalidOutput("the model returned a whole response that is not one, or behind a part of another")
        self._made = {name: unwrap(value) for name, value in checked(made, "its response").items() if value is not None}
        if not self._started and isinstance(made.get("id"), str) and made["id"]:
            self._id = made["id"]
        if isinstance(usage := self._made.get("usage"), dict):
            run.usage = usage_of(usage)
        choice, out = self.choices[0], []
        for number, given in enumerate(output or []):
            item = unwrap(given)
            if not isinstance(item, dict) or not isinstance(item.get("type"), str):
                raise InvalidOutput("the model returned a response with an output item that is no dict with a type")
            out.append(self._output.add(item))
            for event in _said(self._output.items[-1], number):
                choice.apply(event)
        details = self._made.get("incomplete_details")
        why = details.get("reason") if isinstance(details, dict) else None
        if self._made.get("status") == "incomplete":
            choice.apply(Finish(0, _REASONS.get(why or "", "length")))
        return b"".join(out)

    # ── stream ───────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> bytes:
        self._started = True
        response = {**self._object("in_progress"), "output": []}
        names = ("response.created", "response.in_progress")
        return b"".join(framed(name, number, {"response": response}) for number, name in enumerate(names))

    def finish(self) -> bytes:
        out, status = self._close(), self._status()
        return out + self._output.event(f"response.{status}", response=self._object(status))

    def fail(self, error: GatewayError) -> bytes:
        """An item that is not done is left where it is: a client must not run half a tool call."""
        self._store = False
        problem = {"code": "server_error", "message": public(error)}
        return self._output.event("response.failed", response={**self._object("failed"), "error": problem})

    # ── whole, and kept ──────────────────────────────────────────────────────────────────────────────────────────

    def whole(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        self._close()
        return encode_json(self._object(self._status())), self.usage_headers()

    def record(self) -> dict[str, Any] | None:
        self._close()
        status = self._status()
        return self._object(status) if self._store and status != "failed" else None

    def not_kept(self) -> None:
        self._store = False

    def _close(self) -> bytes:
        """What is left when all values have come; an answer has one item at least."""
        if self._last is None:
            out = self.end()
            if self._output.is_empty and not self._made:
                out += self._output.take(Text(0, ""))
            self._last = out + self._output.end("incomplete" if self.reason() in INCOMPLETE else "completed")
            self._completed_at = int(time.time())
        return self._last

    def _status(self) -> str:
        made = self._made.get("status")
        if made in ENDED:
            return str(made)
        return "incomplete" if self.reason() in INCOMPLETE else "completed"

    def _object(self, status: str) -> dict[str, Any]:
        over = status in ENDED
        counts = self.counts()[0] if over else Usage(None, None)
        value: dict[str, Any] = {
            "id": self._id,
            "object": "response",
            "created_at": self.context.created,
            "completed_at": self._completed_at if status == "completed" else None,
            "status": status,
            "incomplete_details": {"reason": INCOMPLETE[self.reason()]} if status == "incomplete" else None,
            "model": self.context.model,
            "output": list(self._output.items),
            "error": None,
            "usage": usage_object(counts) if over else None,
            "store": self._store and status != "failed",
            **self._shown,
        }
        if self._made and over:
            mine = ("id", "model", "output", "usage", "store", "status", "previous_response_id")
            value |= {name: item for name, item in self._made.items() if name not in mine}
            value["usage"] = filled_usage(self._made.get("usage"), counts)
        return value


def _said(item: dict[str, Any], number: int) -> list[ChoiceEvent]:
    """What a complete item says, as events: for counting only."""
    if item["type"] == "function_call":
        return [ToolCall(0, number, item["call_id"], str(item.get("name")), item["arguments"])]
    parts = item.get("content") if item["type"] in ("message", "reasoning") else None
    events: list[ChoiceEvent] = []
    for part in parts or []:
        if part.get("type") == "output_text":
            events.append(Text(0, part["text"]))
        elif part.get("type") == "reasoning_text":
            events.append(Reasoning(0, part["text"]))
        elif part.get("type") == "refusal":
            events.append(Refusal(0, part["refusal"]))
    return events
