"""Read a chat completions request: checks, and the inputs of the Model's method.

Nulls count as absent, both spellings of the token limit are set, `stop` becomes a list, legacy functions become tools.
All other fields reach the Model unchanged.
"""

from __future__ import annotations

from typing import Any

from ...errors import BadRequest
from ..base import Prepared
from ..events import encode_json
from ..fields import missing, take, take_range, wrong_type

BEGUN = ("prefix", "partial")  # fields for a message to continue: of Mistral and DeepSeek; of Qwen and Moonshot
# Keys of a message for which other routes have blocks or items, or no equivalent.
NOT_IN_TURNS = ("images", "audio", "tools", "tool_calls", "function_call", "reasoning_content", "reasoning")
ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
# Roles that must have a content, even null. A message of the assistant may consist of calls or a thought only.
SPEAKS = frozenset({"system", "developer", "user", "tool"})
MOST_NAMED = 5  # keys listed in the error for a message without content
MAX_N, MAX_STOP, MAX_STOP_LENGTH, MAX_BIAS, MAX_TOP_LOGPROBS = 16, 16, 256, 1024, 20
NUMBERS = ("temperature", "top_p", "frequency_penalty", "presence_penalty")

_NUMBER, _WHOLE, _FLAG, _TEXT = {"type": "number"}, {"type": "integer"}, {"type": "boolean"}, {"type": "string"}
STREAM_OPTIONS = {"type": "object", "properties": {"include_usage": _FLAG, "continuous_usage_stats": _FLAG}}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["messages"],
    "properties": {
        "model": {**_TEXT, "description": "Optional if only one model serves the route"},
        "messages": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["role"],
                "properties": {
                    "role": {"enum": sorted(ROLES)},
                    "content": {"type": ["string", "array", "null"], "items": {"type": "object"}},
                },
            },
        },
        "stream": {**_FLAG, "default": False},
        "stream_options": STREAM_OPTIONS,
        "n": {**_WHOLE, "minimum": 1, "maximum": MAX_N, "default": 1},
        "max_tokens": {**_WHOLE, "minimum": 1},
        "max_completion_tokens": {**_WHOLE, "minimum": 1},
        **dict.fromkeys(NUMBERS, _NUMBER),
        "stop": {"type": ["string", "array"], "items": _TEXT, "maxItems": MAX_STOP},
        "seed": _WHOLE,
        "logprobs": _FLAG,
        "top_logprobs": {**_WHOLE, "minimum": 0, "maximum": MAX_TOP_LOGPROBS},
        "logit_bias": {"type": "object", "additionalProperties": _NUMBER, "maxProperties": MAX_BIAS},
        "tools": {"type": "array", "items": {"type": "object"}},
        "tool_choice": {"type": ["string", "object"]},
        "parallel_tool_calls": _FLAG,
        "response_format": {"type": "object", "properties": {"type": _TEXT}},
    },
    "additionalProperties": True,
    "example": {"messages": [{"role": "user", "content": "Say hello."}]},
}


def read_chat(body: dict[str, Any]) -> Prepared:
    """Return the checked request.

    Raises:
        BadRequest: with the JSON path of the error in `param`.
    """
    inputs = {name: value for name, value in body.items() if value is not None}
    model = take(inputs, "model", str)
    check_messages(inputs)
    stream = take(inputs, "stream", bool, False)
    n = take_range(inputs, "n", 1, MAX_N, 1)
    check_sampling(inputs)
    check_logprobs(inputs)
    check_response_format(take(inputs, "response_format", dict))
    options: dict[str, Any] = {**usage_options(inputs, stream), "legacy": check_tools(inputs)}
    options["prompt_size"] = prompt_size(inputs)  # here, because reading a large request does not block the event loop
    return Prepared(model, inputs, stream, n, options)


def usage_options(inputs: dict[str, Any], stream: bool) -> dict[str, bool]:
    """Return whether a stream ends with its usage, and whether each chunk has it: vLLM's option, needing the first."""
    options = take(inputs, "stream_options", dict, {}) if stream else {}
    if not options:
        return {"include_usage": False, "continuous_usage": False}
    for name in ("include_usage", "continuous_usage_stats"):
        if not isinstance(value := options.get(name), bool | None):
            raise wrong_type(f"stream_options.{name}", "a boolean", value)
    ends = bool(options.get("include_usage"))
    return {"include_usage": ends, "continuous_usage": ends and bool(options.get("continuous_usage_stats"))}


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
        if role in SPEAKS and "content" not in message:
            raise missing(f"{where}.content", [name[:64] for name in message if name != "role"][:MOST_NAMED])
        content = message.get("content")
        if content is None or isinstance(content, str):
            continue
        if not isinstance(content, list):
            raise wrong_type(f"{where}.content", "a string or an array of parts", content)
        for position, part in enumerate(content):
            if not isinstance(part, dict) or not isinstance(part.get("type"), str):
                raise wrong_type(f"{where}.content[{position}]", "an object with a type", part)


def check_continued(inputs: dict[str, Any]) -> bool:
    """Whether the last message is to be continued instead of starting a new one, as the request or the message says."""
    last = inputs["messages"][-1]
    goes_on = bool(take(inputs, "continue_final_message", bool, False)) or any(last.get(name) is True for name in BEGUN)
    if goes_on and take(inputs, "add_generation_prompt", bool, False):
        what = "'continue_final_message' and 'add_generation_prompt' exclude each other; send one of them"
        raise BadRequest(what, param="add_generation_prompt")
    return goes_on


def check_sampling(inputs: dict[str, Any], least_tokens: int = 1) -> None:
    """Check numbers and bounds, and set both spellings of the token limit."""
    for name in NUMBERS:
        take(inputs, name, float)
    take(inputs, "seed", int)
    old, new = (take_range(inputs, name, least_tokens, None) for name in ("max_tokens", "max_completion_tokens"))
    if (limit := new if new is not None else old) is not None:
        inputs["max_tokens"] = inputs["max_completion_tokens"] = limit
    if "stop" in inputs:
        stops = read_stop(inputs.pop("stop"))
        if stops:
            inputs["stop"] = stops
    bias = take(inputs, "logit_bias", dict, {})
    if len(bias) > MAX_BIAS:
        raise BadRequest(f"'logit_bias' may have at most {MAX_BIAS} entries", param="logit_bias")
    for token, value in bias.items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise wrong_type(f"logit_bias.{token[:64]}", "a number", value)


def check_logprobs(inputs: dict[str, Any]) -> None:
    wants_logprobs = take(inputs, "logprobs", bool, False)
    if take_range(inputs, "top_logprobs", 0, MAX_TOP_LOGPROBS) and not wants_logprobs:
        raise BadRequest("'top_logprobs' needs 'logprobs': true", param="top_logprobs")


def check_response_format(value: dict[str, Any] | None) -> None:
    if value is None:
        return
    kind = value.get("type")
    if kind is None:
        raise missing("response_format.type")
    if not isinstance(kind, str):
        raise wrong_type("response_format.type", "a string", kind)
    if kind == "json_schema":
        schema = value.get("json_schema")
        if schema is None:
            raise missing("response_format.json_schema")
        if not isinstance(schema, dict):
            raise wrong_type("response_format.json_schema", "an object", schema)


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


# ── tools ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_tools(inputs: dict[str, Any]) -> bool:
    """Check tools and convert legacy `functions` to tools. Return True if the client used functions."""
    functions = take(inputs, "functions", list)
    call = inputs.pop("function_call", None)
    if functions is not None:
        del inputs["functions"]
        if "tools" in inputs:
            raise BadRequest("'functions' is the old name of 'tools'; send one of them", param="functions")
        for index, function in enumerate(functions):
            _check_function(function, f"functions[{index}]")
        inputs["tools"] = [{"type": "function", "function": function} for function in functions]
    if call is not None:
        inputs["tool_choice"] = _tool_choice(call)
    tools = take(inputs, "tools", list, [])
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise wrong_type(f"tools[{index}]", "an object", tool)
        if tool.get("type") == "function" and functions is None:
            _check_function(tool.get("function"), f"tools[{index}].function")
    choice = inputs.get("tool_choice")
    if choice == "any":  # Mistral's name
        choice = inputs["tool_choice"] = "required"
    if choice is not None and not isinstance(choice, str | dict):
        raise wrong_type("tool_choice", "a string or an object", choice)
    take(inputs, "parallel_tool_calls", bool)
    return functions is not None


def _check_function(function: Any, where: str) -> None:
    if function is None:
        raise missing(where)
    if not isinstance(function, dict):
        raise wrong_type(where, "an object", function)
    name = function.get("name")
    if name is None:
        raise missing(f"{where}.name")
    if not isinstance(name, str):
        raise wrong_type(f"{where}.name", "a string", name)


def _tool_choice(call: Any) -> Any:
    """Return the legacy `function_call` as a `tool_choice`."""
    if isinstance(call, str):
        return call
    if not isinstance(call, dict):
        raise wrong_type("function_call", "a string or an object", call)
    if not isinstance(call.get("name"), str):
        raise missing("function_call.name")
    return {"type": "function", "function": {"name": call["name"]}}


def prompt_size(inputs: dict[str, Any]) -> int:
    """Return the UTF-8 bytes of the text in a request's messages, and of its tools and calls as JSON."""
    size = len(encode_json(inputs["tools"])) if inputs.get("tools") else 0
    for message in inputs.get("messages", []):
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"text": content}]
        size += sum(len(part["text"].encode()) for part in parts if isinstance(part.get("text"), str))
        if calls := message.get("tool_calls"):
            size += len(encode_json(calls))
    return size
