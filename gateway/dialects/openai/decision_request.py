"""Read a request for decisions: the input, and typed questions about it.

The limits are those of the OpenAI SDK's types (openai 3.54). An unknown field of a question would change what it asks,
so it is refused.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ...errors import BadRequest
from ..fields import MOST_ECHOED, missing, take, wrong_type

MOST_QUESTIONS = 400
FEWEST_OPTIONS, MOST_OPTIONS = 2, 255
ROLES = ("user", "assistant", "system", "developer")
# Items of an input that is no message: calls of tools and what these returned.
TOOL_ITEMS = ("function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output")
ALWAYS = frozenset({"type", "instructions", "name"})
# The list of options of each type of question, and the name of one of them.
OPTIONS = {"predicate": None, "choice": ("choices", "value"), "score": ("levels", "label")}


def read_input(value: Any) -> str | list[dict[str, Any]]:
    """Return the input: a text, or messages and items of tools.

    Raises:
        BadRequest: it is neither.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise wrong_type("input", "a string or an array of messages", value)
    if not value:
        raise BadRequest("'input' must hold at least one message", param="input")
    for index, item in enumerate(value):
        where = f"input[{index}]"
        if not isinstance(item, dict):
            raise wrong_type(where, "an object", item)
        kind = item.get("type", "message")
        if kind == "message":
            if item.get("role") not in ROLES:
                raise BadRequest(f"'{where}.role' must be one of {', '.join(ROLES)}", param=f"{where}.role")
            _read_content(item.get("content"), f"{where}.content")
        elif kind not in TOOL_ITEMS:
            raise BadRequest(
                f"'{where}.type' must be 'message' or one of {', '.join(TOOL_ITEMS)}", param=f"{where}.type"
            )
    return value


def read_questions(value: Any) -> list[dict[str, Any]]:
    """Return the questions.

    Raises:
        BadRequest: there are none or too many, or one is malformed.
    """
    if value is None:
        raise missing("questions")
    if not isinstance(value, list):
        raise wrong_type("questions", "an array", value)
    if not 1 <= len(value) <= MOST_QUESTIONS:
        raise BadRequest(f"'questions' must hold 1 to {MOST_QUESTIONS} questions", param="questions")
    return [_question(item, f"questions[{index}]") for index, item in enumerate(value)]


def texts_of(content: Any) -> list[str]:
    """Return the texts of a message's content, or of instructions."""
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else []
    return [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]


def refuse_others(item: dict[str, Any], known: Collection[str], where: str) -> None:
    """Raise BadRequest if an object has a field that is not known."""
    for name in item:
        if name not in known:
            what = f"'{where}' has an unknown field '{name[:MOST_ECHOED]}' (have: {', '.join(sorted(known))})"
            raise BadRequest(what, param=f"{where}.{name[:MOST_ECHOED]}", code="unsupported_value")


def _question(item: Any, where: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise wrong_type(where, "an object", item)
    question: dict[str, Any] = {name: value for name, value in item.items() if value is not None}
    kind = question.get("type")
    if not isinstance(kind, str) or kind not in OPTIONS:
        raise BadRequest(f"'{where}.type' must be one of {', '.join(OPTIONS)}", param=f"{where}.type")
    options = OPTIONS[kind]
    refuse_others(question, ALWAYS | {options[0]} if options else ALWAYS, where)
    if not isinstance(question.get("name", ""), str):
        raise wrong_type(f"{where}.name", "a string", question["name"])
    _read_content(question.get("instructions"), f"{where}.instructions")
    if options is not None:
        _read_options(question.get(options[0]), options[1], f"{where}.{options[0]}")
    return question


def _read_options(value: Any, key: str, where: str) -> None:
    if not isinstance(value, list):
        raise wrong_type(where, "an array", value) if value is not None else missing(where)
    if not FEWEST_OPTIONS <= len(value) <= MOST_OPTIONS:
        raise BadRequest(f"'{where}' must hold {FEWEST_OPTIONS} to {MOST_OPTIONS} options", param=where)
    seen: set[tuple[type, Any]] = set()
    for index, option in enumerate(value):
        place = f"{where}[{index}]"
        if not isinstance(option, dict):
            raise wrong_type(place, "an object", option)
        refuse_others(option, {key, "description"}, place)
        given = option.get(key)
        if not isinstance(given, str) and not (key == "value" and isinstance(given, bool)):
            raise wrong_type(f"{place}.{key}", "a string or a boolean" if key == "value" else "a string", given)
        take(option, "description", str)
        if (same := (type(given), given)) in seen:  # "true" and true are different
            raise BadRequest(f"'{place}.{key}' occurs twice", param=f"{place}.{key}")
        seen.add(same)


def _read_content(value: Any, where: str) -> None:
    if value is None:
        raise missing(where)
    if isinstance(value, str):
        return
    if not isinstance(value, list) or not all(isinstance(part, dict) and "type" in part for part in value):
        raise wrong_type(where, "a string or an array of content parts", value)
