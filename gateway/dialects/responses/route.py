"""POST /v1/responses: OpenAI's Responses, answered by a Model's own `responses` or by its `chat_completions`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from ...errors import BadRequest, GatewayError, InvalidOutput
from ...hookspecs import hookimpl
from ...spec import Endpoint
from .. import answer_schemas
from ..answer import CallOutput, EventEncoder
from ..base import Context, Dialect, Prepared, client_message
from ..event_stream import DONE
from ..events import (
    AnyEvent,
    ChoiceEvent,
    Finish,
    Logprobs,
    Text,
    Usage,
    checked,
    encode_json,
    fields_of,
    unwrap,
    usage_of,
)
from ..fields import take
from ..openai.chat_request import prompt_size
from ..raw import Ending
from .object import filled_usage, shown, usage_object
from .output import Output, framed
from .request import SCHEMA, check, to_chat
from .tools import NONE, read_tools
from .values import Given, Made, ResponseValues, said

INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}  # finish reason → its reason
_REASONS = {why: reason for reason, why in INCOMPLETE.items()}
ENDED = ("completed", "incomplete", "failed")
FAILED = "response.failed"
LAST = ("response.completed", "response.incomplete", FAILED)


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


class ResponseEnding(Ending):
    """The end of a stream: the event with the whole response, or [DONE], which some servers send."""

    hint = re.compile(rb"response\.(?:completed|incomplete|failed)|\"error\"")

    def read(self, name: str, data: bytes) -> None:
        kind = fields_of(data).get("type", name)
        if data.strip() == DONE or kind in LAST:
            self.close(failed=kind == FAILED)


class ResponsesDialect(Dialect):
    protocol, ending = "responses", ResponseEnding
    request_schema = SCHEMA
    response_schema = answer_schemas.RESPONSE
    event_schema = answer_schemas.RESPONSE_EVENT
    keeps = True

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        inputs = {name: value for name, value in body.items() if value is not None}
        model = take(inputs, "model", str)
        stream = take(inputs, "stream", bool, False)
        check(inputs)
        options: dict[str, Any] = {
            "own": method == "responses",
            "max_tokens": inputs.get("max_output_tokens"),
            "store": take(inputs, "store", bool, True),
        }
        if options["own"]:
            options["prompt_size"] = sum(len(text.encode()) for text in _texts(inputs))
            options["shown"] = shown(inputs)
            return Prepared(model, inputs, stream, options=options)
        tools = options["tools"] = read_tools(inputs)
        chat = to_chat(inputs, tools)
        seen = {**inputs, "tools": list(tools.shown)} if tools.left_out else inputs
        options["shown"] = shown(seen)  # here, because this is not done on the event loop
        options["prompt_size"] = prompt_size(chat)
        return Prepared(model, chat, stream, options=options, left_out=tools.left_out)

    def encoder(self, prepared: Prepared, context: Context) -> ResponsesEncoder:
        return ResponsesEncoder(prepared, context)


def _as_chat(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return a request in a form that `count_tokens` accepts."""
    try:
        return to_chat(inputs, read_tools(inputs))
    except BadRequest:
        return {"prompt": "\n".join(_texts(inputs))}


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts of a request, or of a part of it, for items of any kind."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict):
        for name in ("instructions", "input", "content", "text", "output", "arguments"):
            yield from _texts(value.get(name))


class ResponsesEncoder(EventEncoder):
    reads_arguments = True

    def __init__(self, prepared: Prepared, context: Context) -> None:
        super().__init__(
            context,
            stream=prepared.stream,
            prompt_size=prepared.options["prompt_size"],
            max_tokens=prepared.options["max_tokens"],
        )
        self._shown = prepared.options["shown"]
        self._store = prepared.options["store"]
        self._output = Output(prepared.stream, prepared.options.get("tools", NONE))
        self._made: dict[str, Any] = {}  # fields of the Model's own response object
        self._is_whole = False  # that object has listed its items
        self._own = prepared.options["own"]
        if self._own:
            self.outputs[0].normalizer = ResponseValues()
        self._id = f"resp_{context.hex_id}"
        self._started = False
        self._completed_at = 0
        self._last: bytes | None = None  # the events before the last one, once all values have arrived

    # ── values ───────────────────────────────────────────────────────────────────────────────────────────────────

    def events(self, item: Any, output: CallOutput) -> list[Any]:
        found = super().events(item, output)
        return _beside(found) if any(isinstance(event, Logprobs) for event in found) else found

    def take(self, event: AnyEvent | Made | Given, output: CallOutput) -> bytes:
        if isinstance(event, Made):
            return self._adopt(event, output)
        if isinstance(event, Given):
            return self._output.end() + self._give(event.item)
        return super().take(event, output)

    def _put(self, event: ChoiceEvent) -> bytes:
        """Apply an event. Whole answers have the same items as streams, so items are made in both cases."""
        self.choices[0].apply(event)
        return self._output.take(event)

    def _adopt(self, made: Made, output: CallOutput) -> bytes:
        """Use the fields of the Model's own response object in place of ours."""
        if made.items is not None and not self._output.is_empty:
            raise InvalidOutput("the model returned a whole response after a part of one")
        fields = {name: unwrap(value) for name, value in made.fields.items() if value is not None}
        encode_json(checked(fields, "its response"))  # otherwise the event of the failure could not be written either
        self._made |= fields
        if not self._started and isinstance(given := fields.get("id"), str) and given:
            self._id = given
        if isinstance(usage := fields.get("usage"), dict):
            output.usage = usage_of(usage)
        if fields.get("status") == "incomplete":
            details = fields.get("incomplete_details")
            why = details.get("reason") if isinstance(details, dict) else None
            self.choices[0].apply(Finish(0, _REASONS.get(why, "length") if isinstance(why, str) else "length"))
        self._is_whole = self._is_whole or made.items is not None
        return b"".join([self._give(item) for item in made.items or []])

    def _give(self, item: dict[str, Any]) -> bytes:
        out = self._output.add(checked(item, "an output item"))
        for event in said(self._output.items[-1], len(self.choices[0].calls)):
            self.choices[0].apply(event)
        return out

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
        """Return the last event. Unfinished items stay open: a client must not run half a tool call."""
        self._store = False
        problem = {"code": "server_error", "message": client_message(error)}
        return self._output.event("response.failed", response={**self._object("failed"), "error": problem})

    # ── counted ──────────────────────────────────────────────────────────────────────────────────────────────────

    def uncounted(self, inputs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return super().uncounted([_as_chat(each) if each else each for each in inputs] if self._own else inputs)

    # ── whole, and stored ────────────────────────────────────────────────────────────────────────────────────────────

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
        """Return the remaining events after the last value. An answer has at least one item."""
        if self._last is None:
            out = self.end()
            if self._output.is_empty and not self._is_whole:
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


def _beside(events: list[Any]) -> list[Any]:
    """Put log probabilities, which follow their text, before it: both belong to the same event here."""
    found: list[Any] = []
    text: int | None = None  # index of the last text
    for event in events:
        if isinstance(event, Logprobs) and text is not None:
            found.insert(text, event)
            text += 1
            continue
        if isinstance(event, Text):
            text = len(found)
        found.append(event)
    return found
