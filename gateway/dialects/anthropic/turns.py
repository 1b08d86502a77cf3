"""Convert the turns of an Anthropic request to messages of OpenAI's chat.

Tool results become messages of their own, before the rest of their turn; images in them go into the user message that
follows. A single text block is a string, several blocks are parts. Thinking becomes `reasoning_content`.
"""

from __future__ import annotations

from typing import Any

from ...errors import BadRequest
from ..events import encode_json
from ..fields import missing, take, wrong_type
from ..openai.chat_request import BEGUN, NOT_IN_TURNS

Json = dict[str, Any]
Blocks = list[tuple[Json, str]]  # each with its JSON path

ROLES = ("user", "assistant", "system")


def turns(body: Json) -> list[tuple[str, str | Blocks, str]]:
    """Return the role, content and JSON path of each message.

    Raises:
        BadRequest: the messages do not have Anthropic's format.
    """
    messages = take(body, "messages", list)
    if messages is None:
        raise missing("messages")
    if not messages:
        raise BadRequest("'messages' must hold at least one message", param="messages")
    found: list[tuple[str, str | Blocks, str]] = []
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict):
            raise wrong_type(where, "an object", message)
        role, content = message.get("role"), message.get("content")
        if role is None:
            raise missing(f"{where}.role")
        if role not in ROLES:
            raise BadRequest(f"'{where}.role' must be 'user' or 'assistant'", param=f"{where}.role")
        if content is None:
            raise missing(f"{where}.content")
        if name := next((name for name in BEGUN if message.get(name)), None):
            what = f"'{where}.{name}' is not supported: the last turn of the assistant is continued anyway"
            raise BadRequest(what, param=f"{where}.{name}", code="unsupported_value")
        if name := next((name for name in NOT_IN_TURNS if message.get(name)), None):
            raise unsupported(f"{where}.{name}", "a field that is not a content block")
        found.append((role, content if isinstance(content, str) else _blocks(content, f"{where}.content"), where))
    return found


def _blocks(content: Any, where: str) -> Blocks:
    if not isinstance(content, list):
        raise wrong_type(where, "a string or an array of blocks", content)
    found: Blocks = []
    for index, block in enumerate(content):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            raise wrong_type(f"{where}[{index}]", "an object with a type", block)
        found.append((block, f"{where}[{index}]"))
    return found


def system_text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, list):
        raise wrong_type("system", "a string or an array of text blocks", value)
    texts = []
    for block, where in _blocks(value, "system"):
        if block["type"] != "text":
            raise unsupported(f"{where}.type", f"a block of type '{block['type'][:64]}' in the system prompt")
        texts.append(read_string(block, "text", where))
    return "\n".join(texts)


def chat_messages(role: str, content: str | Blocks, where: str) -> list[Json]:
    """Convert one turn.

    Raises:
        BadRequest: a block has no equivalent.
    """
    return _assistant(content, where) if role == "assistant" else _user(role, content, where)


def _user(role: str, content: str | Blocks, where: str) -> list[Json]:
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    results: list[Json] = []
    parts: list[Json] = []
    for block, path in content:
        if block["type"] == "tool_result":
            result, rest = _tool_result(block, path)
            results.append(result)
            parts += rest
        else:
            parts += _parts(block, path)
    if results and not parts:
        return results
    return [*results, {"role": role, "content": _content(parts)}]


def _tool_result(block: Json, where: str) -> tuple[Json, list[Json]]:
    """Return the tool's message, and the parts of its result other than text."""
    content = block.get("content")
    parts: list[Json] = []
    if content is not None and not isinstance(content, str):
        for inner, path in _blocks(content, f"{where}.content"):
            parts += _parts(inner, path)
        content = "\n".join(part["text"] for part in parts if part["type"] == "text")
    message: Json = {"role": "tool", "tool_call_id": read_string(block, "tool_use_id", where), "content": content or ""}
    if take_from(block, "is_error", bool, where, False):
        message["is_error"] = True
    return message, [part for part in parts if part["type"] != "text"]


def _assistant(content: str | Blocks, where: str) -> list[Json]:
    if isinstance(content, str):
        return [{"role": "assistant", "content": content}]
    parts: list[Json] = []
    thinking: list[str] = []
    calls: list[Json] = []
    for block, path in content:
        kind = block["type"]
        if kind == "text":
            parts += _parts(block, path)
        elif kind == "thinking":
            thinking.append(read_string(block, "thinking", path))
        elif kind == "tool_use":
            given = take_from(block, "input", dict, path, {})
            function = {"name": read_string(block, "name", path), "arguments": encode_json(given).decode()}
            calls.append({"id": read_string(block, "id", path), "type": "function", "function": function})
        elif kind != "redacted_thinking":  # only its author can read that
            raise unsupported(f"{path}.type", f"a block of type '{kind[:64]}' in an assistant turn")
    message: Json = {"role": "assistant", "content": _content(parts) if parts or not calls else None}
    if thinking:
        message["reasoning_content"] = "".join(thinking)
    if calls:
        message["tool_calls"] = calls
    return [message]


def _content(parts: list[Json]) -> Any:
    if not parts:
        return ""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _parts(block: Json, where: str) -> list[Json]:
    """Convert a block of a user turn, or one inside a tool result or a document."""
    kind = block["type"]
    if kind == "text":
        return [{"type": "text", "text": read_string(block, "text", where)}]
    if kind == "image":
        return [{"type": "image_url", "image_url": {"url": _url(block, where, kind)}}]
    if kind != "document":
        raise unsupported(f"{where}.type", f"a block of type '{kind[:64]}'")
    source = take_from(block, "source", dict, where)
    path = f"{where}.source"
    title, context = (take_from(block, name, str, where, "") for name in ("title", "context"))
    about = "".join(f"{name}: {text}\n" for name, text in (("Title", title), ("Context", context)) if text)
    inner = source.get("content")
    if source.get("type") == "text" or (source.get("type") == "content" and isinstance(inner, str)):
        text = read_string(source, "data" if source["type"] == "text" else "content", path)
        return [{"type": "text", "text": f"{about}\n{text}" if about else text}]
    if source.get("type") == "content":
        parts = [part for nested, at in _blocks(inner, f"{path}.content") for part in _inner(nested, at)]
    elif source.get("type") == "base64":
        about = f"Context: {context}\n" if context else ""  # the title is the file name
        parts = [{"type": "file", "file": {"filename": title or "document", "file_data": _url(block, where, kind)}}]
    else:
        raise unsupported(f"{path}.type", "a document that the gateway would have to fetch")
    return [{"type": "text", "text": about}, *parts] if about else parts


def _inner(block: Json, where: str) -> list[Json]:
    """Convert a block inside a document, which cannot nest further."""
    if block["type"] not in ("text", "image"):
        raise unsupported(f"{where}.type", f"a block of type '{block['type'][:64]}' in a document")
    return _parts(block, where)


def _url(block: Json, where: str, what: str) -> str:
    source = take_from(block, "source", dict, where)
    path = f"{where}.source"
    if source.get("type") == "base64":
        return f"data:{read_string(source, 'media_type', path)};base64,{read_string(source, 'data', path)}"
    if source.get("type") == "url":
        return read_string(source, "url", path)
    raise unsupported(f"{path}.type", f"the {what} source '{str(source.get('type'))[:64]}'")


# ── fields ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def take_from(value: Json, name: str, kind: type, where: str, default: Any = None) -> Any:
    """Return a field of an object in the request. It is required if it has no default."""
    path = f"{where}.{name}"
    found = take({path: value.get(name)}, path, kind, default)
    if found is None:
        raise missing(path)
    return found


def read_string(value: Json, name: str, where: str) -> str:
    found = value.get(name)
    if isinstance(found, str):  # avoids building the path, as there may be many blocks
        return found
    return str(take_from(value, name, str, where))


def unsupported(param: str, what: str) -> BadRequest:
    return BadRequest(f"'{param}': {what} is not supported", param=param, code="unsupported_value")
