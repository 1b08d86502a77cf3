"""Read a request for /v1/responses, and convert it to chat for a Model that supports only chat.

    instructions                        a leading system message
    input: str, message items           messages; one text part is a string, several parts stay parts
    function_call, …_output, reasoning  tool_calls and reasoning_content of an assistant message, tool messages
    tools, tool_choice                  see tools.py
    text.format, text.verbosity         response_format, verbosity
    max_output_tokens                   max_completion_tokens and max_tokens
    reasoning.effort                    reasoning_effort; other fields of `reasoning` stay there
    include, top_logprobs               logprobs, top_logprobs

All other fields reach the Model unchanged. Fields without an equivalent are refused, never dropped silently.
"""

from __future__ import annotations

from typing import Any

from ...errors import BadRequest
from ..fields import echoed, missing, put, take, take_range, wrong_type
from ..openai.chat_request import MAX_TOP_LOGPROBS, check_response_format, check_sampling, check_tools
from .items import check_input, messages_of
from .tools import Tools

LOGPROBS = "message.output_text.logprobs"  # a value in `include`
_FLAG, _TEXT, _NUMBER, _WHOLE = {"type": "boolean"}, {"type": "string"}, {"type": "number"}, {"type": "integer"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["input"],
    "properties": {
        "model": {**_TEXT, "description": "Optional if only one model serves the route"},
        "input": {"type": ["string", "array"], "items": {"type": "object"}},
        "instructions": _TEXT,
        "previous_response_id": _TEXT,
        "store": {**_FLAG, "default": True},
        "stream": {**_FLAG, "default": False},
        "max_output_tokens": {**_WHOLE, "minimum": 1},
        "temperature": _NUMBER,
        "top_p": _NUMBER,
        "top_logprobs": {**_WHOLE, "minimum": 0, "maximum": MAX_TOP_LOGPROBS},
        "include": {"type": "array", "items": _TEXT},
        "reasoning": {"type": "object", "properties": {"effort": _TEXT}},
        "text": {"type": "object", "properties": {"format": {"type": "object"}, "verbosity": _TEXT}},
        "tools": {"type": "array", "items": {"type": "object"}},
        "tool_choice": {"type": ["string", "object"]},
        "parallel_tool_calls": _FLAG,
        "metadata": {"type": "object"},
    },
    "additionalProperties": True,
    "example": {"input": "Say hello."},
}

COUNT_SCHEMA: dict[str, Any] = {**SCHEMA, "required": [], "properties": {**SCHEMA["properties"]}}
for _name in ("store", "stream", "max_output_tokens", "metadata"):
    del COUNT_SCHEMA["properties"][_name]

# Fields that chat lacks or names differently. All others are the same in chat.
_OURS = frozenset(
    "input instructions previous_response_id conversation background include max_output_tokens max_tool_calls "
    "reasoning text tools tool_choice top_logprobs truncation store stream_options prompt n".split()
)
_SCHEMA = ("name", "description", "schema", "strict")
_REASONING = ("effort", "summary", "generate_summary")  # chat renames the first and lacks the others


def check(body: dict[str, Any]) -> None:
    """Check the fields of any Model's request that the answer repeats.

    Raises:
        BadRequest: with the JSON path of the error in `param`.
    """
    if take(body, "background", bool, False):
        raise unsupported("background", "'background': true")
    for name in ("conversation", "prompt"):
        if body.get(name) is not None:
            raise unsupported(name, f"'{name}'")
    if take(body, "n", int, 1) != 1:
        raise unsupported("n", "more than one answer")
    value = body.get("input")
    if value is None:
        raise missing("input")
    check_input(value)
    if value == []:
        raise BadRequest("'input' must hold at least one item", param="input")
    for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty"):
        take(body, name, float)
    for name, kind in (("metadata", dict), ("parallel_tool_calls", bool), ("store", bool), ("stream_options", dict)):
        take(body, name, kind)
    for name in ("previous_response_id", "user", "safety_identifier", "prompt_cache_key", "truncation"):
        take(body, name, str)
    take_range(body, "max_output_tokens", 1, None)
    take_range(body, "max_tool_calls", 0, None)
    take_range(body, "top_logprobs", 0, MAX_TOP_LOGPROBS)
    take(body, "include", list)
    text, reasoning = take(body, "text", dict, {}), take(body, "reasoning", dict, {})
    for where, fields, name in (("text", text, "verbosity"), ("reasoning", reasoning, "effort")):
        if not isinstance(fields.get(name), str | None):
            raise wrong_type(f"{where}.{name}", "a string", fields[name])
    if not isinstance(text.get("format"), dict | None):
        raise wrong_type("text.format", "an object", text["format"])
    for index, tool in enumerate(take(body, "tools", list, [])):
        if not isinstance(tool, dict):
            raise wrong_type(f"tools[{index}]", "an object", tool)
    choice = body.get("tool_choice")
    if choice == "any":  # Mistral's name
        choice = body["tool_choice"] = "required"
    if not isinstance(choice, str | dict | None):
        raise wrong_type("tool_choice", "a string or an object", choice)


def to_chat(body: dict[str, Any], tools: Tools) -> dict[str, Any]:
    """Return a checked request in chat's format.

    Raises:
        BadRequest: chat has no equivalent for an item or a part.
    """
    if "messages" in body:
        raise BadRequest(
            "'messages' is a field of chat completions; send 'input'", param="messages", code="unsupported_value"
        )
    chat = {name: value for name, value in body.items() if name not in _OURS}
    messages = messages_of(body["input"], tools)
    if instructions := take(body, "instructions", str):
        messages.insert(0, {"role": "system", "content": instructions})
    chat["messages"] = messages
    if (limit := body.get("max_output_tokens")) is not None:
        put(chat, "max_tokens", limit, "max_output_tokens")
        put(chat, "max_completion_tokens", limit, "max_output_tokens")
    reasoning = body.get("reasoning", {})
    if (effort := reasoning.get("effort")) is not None:
        put(chat, "reasoning_effort", effort, "reasoning.effort")
    if more := {name: value for name, value in reasoning.items() if name not in _REASONING and value is not None}:
        chat["reasoning"] = more
    top = body.get("top_logprobs")
    if top or LOGPROBS in body.get("include", []):
        put(chat, "logprobs", True, "top_logprobs")
        if top is not None:
            chat["top_logprobs"] = top
    _text(body.get("text", {}), chat)
    if nested := tools.nested:
        chat["tools"] = nested
    if tools.choice is not None and (nested or tools.choice not in ("auto", "none")):
        chat["tool_choice"] = tools.choice
    check_sampling(chat)
    check_tools(chat)
    return chat


def unsupported(param: str, what: str) -> BadRequest:
    return BadRequest(f"{what} is not supported here", param=param, code="unsupported_value")


def _text(text: dict[str, Any], chat: dict[str, Any]) -> None:
    for name, value in text.items():
        if name not in ("format", "verbosity") and value is not None:
            raise unsupported(f"text.{name[:64]}", f"'text.{name[:64]}'")
    if text.get("verbosity") is not None:
        chat["verbosity"] = text["verbosity"]
    wanted = text.get("format") or {"type": "text"}
    kind = wanted.get("type")
    if kind == "json_schema":
        if not isinstance(wanted.get("schema"), dict):
            raise missing("text.format.schema")
        schema = {name: wanted[name] for name in _SCHEMA if wanted.get(name) is not None}
        put(chat, "response_format", {"type": kind, "json_schema": schema}, "text.format")
    elif kind == "json_object":
        put(chat, "response_format", {"type": kind}, "text.format")
    elif kind != "text":
        raise unsupported("text.format.type", f"a text.format of type {echoed(kind)}")
    check_response_format(take(chat, "response_format", dict))
