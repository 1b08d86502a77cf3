"""The items of a conversation on /v1/responses: as chat messages, and as they are stored and listed."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any

from ...errors import BadRequest, UnknownItem
from ..fields import echoed, missing, wrong_type
from ..openai.chat_request import BEGUN, NOT_IN_TURNS
from .tools import NONE, Tools, arguments_of

ROLES = ("user", "assistant", "system", "developer")
_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "reasoning": "rs",
}
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_CALLS = ("function_call", "custom_tool_call")


def new_id(kind: str) -> str:
    """Return an id for an item of this type."""
    return f"{_PREFIXES.get(kind, 'item')}_{secrets.token_hex(16)}"


class Conversation(list[Any]):
    """The items of earlier responses, followed by the `input` of a request that continues them."""

    def __init__(self, earlier: list[dict[str, Any]], given: str | list[Any] | None) -> None:
        own = [{"role": "user", "content": given}] if isinstance(given, str) else given or []
        super().__init__([*earlier, *own])
        self.earlier = len(earlier)


def check_input(value: Any) -> None:
    """Refuse an `input` that is neither a string nor an array, before anything is put in front of it."""
    if not isinstance(value, str | list):
        raise wrong_type("input", "a string or an array of items", value)


def reference_of(item: Any) -> str | None:
    """Return the id that an item refers to, or None if it is not a reference."""
    if not isinstance(item, dict):
        return None
    kind, identity = item.get("type"), item.get("id")
    is_reference = kind == "item_reference" or (kind is None and "role" not in item)
    return identity if is_reference and isinstance(identity, str) else None


def ids_of(items: Iterable[dict[str, Any]]) -> frozenset[str]:
    """Return the ids of these items that references can use."""
    whole = (item for item in items if item.get("type") != "item_reference")
    return frozenset(item["id"] for item in whole if isinstance(item.get("id"), str))


# ── as chat messages ─────────────────────────────────────────────────────────────────────────────────────────────────


def messages_of(value: str | list[Any], tools: Tools = NONE) -> list[dict[str, Any]]:
    """Return `input` as chat messages, with the model's names for the tools.

    Raises:
        BadRequest: chat has no equivalent for an item or a part; its JSON path is in `param`.
    """
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    messages: list[dict[str, Any]] = []
    thoughts: list[str] = []  # of reasoning items, for the assistant's next message
    thinking: list[tuple[dict[str, Any], list[str]]] = []  # messages with their reasoning
    earlier = value.earlier if isinstance(value, Conversation) else 0  # the client numbers only its own items
    for index, item in enumerate(value):
        where = f"input[{index - earlier}]"
        kind = _kind(item, where)
        if kind == "message":
            messages.append(_message(item, where))
        elif kind in _CALLS:
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": None})
            messages[-1].setdefault("tool_calls", []).append(_call(item, where, tools))
        elif kind in _OUTPUTS:
            content = _content(item.get("output"), f"{where}.output")
            call = _string(item, "call_id", where)
            messages.append({"role": "tool", "tool_call_id": call, "content": content})
        elif kind == "reasoning":
            thoughts.append(_thought(item))
            continue
        elif kind == "item_reference":
            raise _unknown(_string(item, "id", where), f"{where}.id")
        else:
            raise _unsupported(f"{where}.type", f"an item of type {echoed(kind)}")
        if messages[-1]["role"] == "assistant" and any(thoughts):
            if not thinking or thinking[-1][0] is not messages[-1]:
                thinking.append((messages[-1], []))
            thinking[-1][1].extend(thoughts)
        thoughts.clear()
    for message, said in thinking:
        message["reasoning_content"] = "\n".join(filter(None, said))
    return messages


def _kind(item: Any, where: str) -> str:
    if not isinstance(item, dict):
        raise wrong_type(where, "an object", item)
    kind = item.get("type")
    if kind is None and "role" in item:
        return "message"
    if kind is None and "id" in item:
        return "item_reference"
    if not isinstance(kind, str):
        raise missing(f"{where}.type")
    return kind


def _message(item: dict[str, Any], where: str) -> dict[str, Any]:
    role = _string(item, "role", where)
    if role not in ROLES:
        raise BadRequest(f"'{where}.role' must be one of {', '.join(ROLES)}", param=f"{where}.role")
    if name := next((name for name in BEGUN if item.get(name)), None):
        raise _unsupported(f"{where}.{name}", "a message for the answer to continue")
    if name := next((name for name in NOT_IN_TURNS if item.get(name)), None):
        raise _unsupported(f"{where}.{name}", f"'{name}' on a message")
    return {"role": role, "content": _content(item.get("content"), f"{where}.content")}


def _call(item: dict[str, Any], where: str, tools: Tools) -> dict[str, Any]:
    namespace = _string(item, "namespace", where) if item.get("namespace") is not None else None
    name = tools.called(namespace, _string(item, "name", where))
    is_custom = item["type"] == "custom_tool_call"
    arguments = arguments_of(_string(item, "input", where)) if is_custom else _string(item, "arguments", where)
    function = {"name": name, "arguments": arguments}
    return {"id": _string(item, "call_id", where), "type": "function", "function": function}


def _thought(item: dict[str, Any]) -> str:
    """Return the text of a reasoning item, or else its summary. Encrypted content is ignored."""
    parts = item.get("content") or item.get("summary") or []
    texts = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return "".join(text for text in texts if isinstance(text, str))


def _content(value: Any, where: str) -> Any:
    """Return a string, or chat's parts if there are several or other parts than text."""
    if isinstance(value, str):
        return value
    if value is None:
        raise missing(where)
    if not isinstance(value, list):
        raise wrong_type(where, "a string or an array of parts", value)
    parts = [_part(part, f"{where}[{index}]") for index, part in enumerate(value)]
    if len(parts) == 1 and parts[0]["type"] == "text":
        return parts[0]["text"]
    return parts or ""


def _part(part: Any, where: str) -> dict[str, Any]:
    if not isinstance(part, dict):
        raise wrong_type(where, "an object", part)
    kind = part.get("type")
    if kind in ("input_text", "output_text", "text"):
        return {"type": "text", "text": _string(part, "text", where)}
    if kind == "refusal":
        return {"type": "text", "text": _string(part, "refusal", where)}
    if kind == "input_image":
        if part.get("image_url") is None and part.get("file_id") is not None:
            raise _unsupported(f"{where}.file_id", "an image that is a file of another service")
        image = {"url": _string(part, "image_url", where)}
        if part.get("detail") is not None:
            image["detail"] = part["detail"]
        return {"type": "image_url", "image_url": image}
    if kind == "input_file":
        if part.get("file_url") is not None:
            raise _unsupported(f"{where}.file_url", "a file by its URL")
        names = ("file_data", "file_id", "filename")
        return {"type": "file", "file": {name: part[name] for name in names if part.get(name) is not None}}
    if kind == "input_audio":
        return {"type": "input_audio", "input_audio": part.get("input_audio")}
    raise _unsupported(f"{where}.type", f"a part of type {echoed(kind)}")


def _string(fields: dict[str, Any], name: str, where: str) -> str:
    value = fields.get(name)
    if value is None:
        raise missing(f"{where}.{name}")
    if not isinstance(value, str):
        raise wrong_type(f"{where}.{name}", "a string", value)
    return value


def _unknown(identity: str, param: str) -> UnknownItem:
    message = (
        f"Item with id '{identity[:128]}' not found. Items can be referred to while their response is stored, with "
        "the key that requested it; send the item itself, or leave it out."
    )
    return UnknownItem(message, param=param)


def _unsupported(param: str, what: str) -> BadRequest:
    return BadRequest(f"{what} is not supported here", param=param, code="unsupported_value")


# ── as they are kept ─────────────────────────────────────────────────────────────────────────────────────────────────


def listed(value: str | list[Any] | None) -> list[dict[str, Any]]:
    """Return `input` as the API lists it: items with type, id and status, with content as parts.

    Items without an id get a new one.
    """
    if value is None:
        return []
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    return [_listed(item) for item in value if isinstance(item, dict)]


def _listed(item: dict[str, Any]) -> dict[str, Any]:
    given = item.get("type")
    kind = given if isinstance(given, str) else "message" if "role" in item else "item_reference"
    shown = {**item, "type": kind, "id": item.get("id") or new_id(kind)}
    if kind in ("message", *_CALLS, *_OUTPUTS):
        shown["status"] = item.get("status") or "completed"
    if kind == "reasoning":
        shown["summary"] = item.get("summary") or []
    if kind == "message":
        content = item.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if isinstance(parts, list):
            shown["content"] = [_listed_part(part, item.get("role") == "assistant") for part in parts]
    return shown


def _listed_part(part: Any, is_answer: bool) -> Any:
    if not isinstance(part, dict):
        return part
    kind = part.get("type")
    if kind == "input_image":
        return {"detail": "auto", **part}
    if kind not in ("text", "input_text", "output_text"):
        return part
    text = {**part, "type": "output_text" if is_answer else "input_text"}
    return {"annotations": [], "logprobs": [], **text} if is_answer else text
