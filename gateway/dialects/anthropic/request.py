"""Convert an Anthropic request to OpenAI's chat, for models that answer it with `chat_completions`.

Features that only Anthropic's servers have are refused, hints to these servers are dropped, and unknown fields are
passed to the model unchanged.
"""

from __future__ import annotations

from typing import Any

from ...errors import BadRequest
from ...spec import Capabilities
from ..fields import missing, put, take, wrong_type
from ..openai.chat_request import MAX_STOP, MAX_STOP_LENGTH, check_sampling, check_tools
from .errors import THREAD
from .turns import Json, chat_messages, read_string, system_text, take_from, turns, unsupported

CHOICES = {"auto": "auto", "any": "required", "none": "none"}
OUTPUT = ("effort", "format", "task_budget")  # the last is a hint, and is dropped
TRANSLATED = frozenset(
    "system messages stop_sequences tools tool_choice thinking output_config output_format metadata".split()
)
# Hints to Anthropic's servers, and fields of chat that a message request does not have; see `_refuse_chats`.
DROPPED = frozenset(
    "betas billing_policy cache_control container context_management diagnostics fallback_credit_token fallbacks "
    "inference_geo mcp_servers service_tier speed user_profile_id workspace_id "
    "n max_completion_tokens stream_options stop functions function_call".split()
)
CHATS = {
    "stop": "stop_sequences",
    "max_completion_tokens": "max_tokens",
    "functions": "tools",
    "function_call": "tool_choice",
}

_TEXT, _OBJECT = {"type": "string"}, {"type": "object"}
_BLOCKS = {"type": ["string", "array"], "items": {"type": "object", "required": ["type"]}}
_PROMPT: Json = {
    "model": {**_TEXT, "description": "Optional if only one model serves the route"},
    "messages": {
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "required": ["role", "content"],
            "properties": {"role": {"enum": ["user", "assistant", "system"]}, "content": _BLOCKS},
        },
    },
    "system": _BLOCKS,
    "tools": {"type": "array", "items": {"type": "object", "required": ["name", "input_schema"]}},
    "tool_choice": _OBJECT,
    "thinking": _OBJECT,
}
EXAMPLE: Json = {"messages": [{"role": "user", "content": "Say hello."}]}
SCHEMA: Json = {
    "type": "object",
    "required": ["messages", "max_tokens"],
    "properties": {
        **_PROMPT,
        "max_tokens": {"type": "integer", "minimum": 1},
        "stream": {"type": "boolean", "default": False},
        "stop_sequences": {"type": "array", "items": _TEXT, "maxItems": MAX_STOP},
        "temperature": {"type": "number"},
        "top_p": {"type": "number"},
        "top_k": {"type": "integer"},
        "output_config": _OBJECT,
        "output_format": {**_OBJECT, "description": "The older name of output_config.format"},
        "metadata": _OBJECT,
    },
    "additionalProperties": True,
    "example": {"max_tokens": 100, **EXAMPLE},
}
COUNT_SCHEMA: Json = {
    "type": "object",
    "required": ["messages"],
    "properties": _PROMPT,
    "additionalProperties": True,
    "example": EXAMPLE,
}


def to_chat(body: Json) -> Json:
    """Return the checked request in chat's format. `body` has no nulls on its first level.

    Raises:
        BadRequest: it is not a message request, or uses a feature without an equivalent.
    """
    messages: list[Json] = []
    if text := system_text(body.get("system")):
        messages.append({"role": "system", "content": text})
    for turn in turns(body):
        messages += chat_messages(*turn)
    known = TRANSLATED | DROPPED
    chat: Json = {"messages": messages, **{name: value for name, value in body.items() if name not in known}}
    if stops := _stops(body):
        chat["stop"] = stops
    if take(body, "mcp_servers", list):
        raise unsupported("mcp_servers", "an MCP server that the gateway would have to call")
    if "compaction" in body:
        raise unsupported("compaction", "a summary instead of an answer")
    if "thread" in body:  # the SDK's tool runner starts with one, and continues without it after this error
        held = "a conversation stored by the server is not supported; send all of its messages"
        raise BadRequest(f"'thread': {held}", param="thread", code=THREAD)
    if tools := take(body, "tools", list):
        chat["tools"] = [_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools)]
    if choice := take(body, "tool_choice", dict):
        chat["tool_choice"] = _tool_choice(choice)
        if take(choice, "disable_parallel_tool_use", bool):
            chat["parallel_tool_calls"] = False
    _hints(body, chat)
    _refuse_chats(body)
    take(body, "top_k", int)
    check_sampling(chat)
    check_tools(chat)
    return chat


def continued(chat: Json, capabilities: Capabilities) -> Json:
    """Apply Anthropic's rule that the answer continues a last turn of the assistant, with chat's field for it.

    Raises:
        BadRequest: that turn ends with white space, which Anthropic refuses too.
    """
    last = chat["messages"][-1]
    if not capabilities.prefill or last["role"] != "assistant":
        return chat
    content = last["content"]
    text = content[-1].get("text", "") if isinstance(content, list) and content else content
    if isinstance(text, str) and text != text.rstrip():
        what = "messages: final assistant content cannot end with trailing whitespace"
        raise BadRequest(what, param="messages")
    return {**chat, "continue_final_message": True}


def _refuse_chats(body: Json) -> None:
    """Refuse chat's fields that would change the answer and have other names in a message request."""
    if take(body, "n", int, 1) != 1:
        raise unsupported("n", "more than one answer")
    for name in ("logprobs", "top_logprobs"):
        if body.get(name):
            raise unsupported(name, "a log probability for each token")
    for name, ours in CHATS.items():
        if body.get(name) and body[name] != body.get(ours):
            what = f"'{name}' is a field of chat completions; send '{ours}'"
            raise BadRequest(what, param=name, code="unsupported_value")


def _stops(body: Json) -> list[str]:
    stops: list[Any] = take(body, "stop_sequences", list, [])
    if len(stops) > MAX_STOP:
        raise BadRequest(f"'stop_sequences' may have at most {MAX_STOP} entries", param="stop_sequences")
    for index, stop in enumerate(stops):
        where = f"stop_sequences[{index}]"
        if not isinstance(stop, str):
            raise wrong_type(where, "a string", stop)
        if len(stop) > MAX_STOP_LENGTH:
            raise BadRequest(f"'{where}' is longer than {MAX_STOP_LENGTH} characters", param=where)
    return stops


def _tool(tool: Any, where: str) -> Json:
    if not isinstance(tool, dict):
        raise wrong_type(where, "an object", tool)
    kind = tool.get("type")
    if kind not in (None, "custom"):
        raise unsupported(f"{where}.type", f"the tool type '{str(kind)[:64]}', which only Anthropic's models support,")
    function: Json = {"name": read_string(tool, "name", where)}
    if description := take_from(tool, "description", str, where, ""):
        function["description"] = description
    function["parameters"] = take_from(tool, "input_schema", dict, where)
    if examples := take_from(tool, "input_examples", list, where, []):
        function["parameters"] = {**function["parameters"], "examples": examples}  # JSON Schema's keyword
    if (callers := take_from(tool, "allowed_callers", list, where, [])) and "direct" not in callers:
        raise unsupported(f"{where}.allowed_callers", "a tool that only code on Anthropic's servers may call")
    if take_from(tool, "strict", bool, where, False):
        function["strict"] = True
    return {"type": "function", "function": function}


def _tool_choice(choice: Json) -> Any:
    kind = choice.get("type")
    if kind is None:
        raise missing("tool_choice.type")
    if kind == "tool":
        return {"type": "function", "function": {"name": read_string(choice, "name", "tool_choice")}}
    if not isinstance(kind, str) or kind not in CHOICES:
        raise BadRequest("'tool_choice.type' must be 'auto', 'any', 'tool' or 'none'", param="tool_choice.type")
    return CHOICES[kind]


def _hints(body: Json, chat: Json) -> None:
    """Convert thinking to an effort and the switch of chat templates, and convert the output format and the user."""
    output = take(body, "output_config", dict, {})
    if unknown := next((name for name, said in output.items() if name not in OUTPUT and said is not None), None):
        raise unsupported(f"output_config.{unknown[:64]}", "a field other than " + ", ".join(OUTPUT))
    if effort := take_from(output, "effort", str, "output_config", ""):
        put(chat, "reasoning_effort", effort, "output_config.effort")
    if thinking := take(body, "thinking", dict):
        kind = read_string(thinking, "type", "thinking")
        if kind == "enabled":
            chat.setdefault("reasoning_effort", "medium")
        options = take(body, "chat_template_kwargs", dict, {})
        chat["chat_template_kwargs"] = {"enable_thinking": kind != "disabled", **options}
    form, older = take_from(output, "format", dict, "output_config", {}), take(body, "output_format", dict, {})
    if form and older and form != older:
        what = "'output_format' and 'output_config.format' have different values; send 'output_config.format'"
        raise BadRequest(what, param="output_format")
    for where, said in (("output_config.format", form), ("output_format", older)):
        if said:
            put(chat, "response_format", _form(said, where), where)
    if user := take_from(take(body, "metadata", dict, {}), "user_id", str, "metadata", ""):
        chat["user"] = user


def _form(form: Json, where: str) -> Json:
    if (kind := read_string(form, "type", where)) != "json_schema":
        raise unsupported(f"{where}.type", f"the form '{kind[:64]}'")
    schema = take_from(form, "schema", dict, where)
    return {"type": kind, "json_schema": {"name": "output", "schema": schema, "strict": True}}


def size(value: Any) -> int:
    """Return the UTF-8 bytes of the text in a part of a request."""
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, list):
        return sum(map(size, value))
    if isinstance(value, dict):
        return sum(size(value.get(name)) for name in ("text", "thinking", "content"))
    return 0
