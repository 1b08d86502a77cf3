"""The response object of /v1/responses. Every key is present; values that do not apply are null."""

from __future__ import annotations

from typing import Any

from ..events import Usage

# Request fields repeated in the answer, with their defaults.
_SHOWN: dict[str, Any] = {
    "previous_response_id": None,
    "instructions": None,
    "truncation": "disabled",
    "parallel_tool_calls": True,
    "top_p": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "top_logprobs": 0,
    "temperature": 1,
    "user": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "safety_identifier": None,
    "prompt_cache_key": None,
}
_TOOL = ("type", "name", "description", "parameters", "strict")
_SCHEMA = ("type", "name", "description", "schema", "strict")


def shown(body: dict[str, Any]) -> dict[str, Any]:
    """Return the part of the object that repeats the request."""
    reasoning, text = body.get("reasoning", {}), body.get("text", {})
    given = {name: value for name, value in text.items() if value is not None}
    return {
        **{name: body.get(name, default) for name, default in _SHOWN.items()},
        "tools": [_tool(tool) for tool in body.get("tools", [])],
        "tool_choice": _choice(body.get("tool_choice", "auto")),
        "text": {**given, "format": _format(text.get("format"))},
        "reasoning": {"effort": None, "summary": None, **reasoning},
        "background": False,
        "service_tier": "default",
    }


def _choice(choice: Any) -> Any:
    return {"mode": "auto", **choice} if isinstance(choice, dict) and choice.get("type") == "allowed_tools" else choice


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    return {**dict.fromkeys(_TOOL), **tool} if tool.get("type") == "function" else tool


def _format(value: dict[str, Any] | None) -> dict[str, Any]:
    if value is None or value.get("type") != "json_schema":
        return value or {"type": "text"}
    return {**dict.fromkeys(_SCHEMA), **value, "strict": bool(value.get("strict"))}


def usage_object(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total,
    }


def filled_usage(given: Any, counts: Usage) -> dict[str, Any]:
    """Return the usage of a response that the model made itself, with missing fields filled in."""
    filled = usage_object(counts)
    if isinstance(given, dict):
        for name, value in given.items():
            if isinstance(value, dict) and isinstance(filled.get(name), dict):
                filled[name] = {**filled[name], **value}
            elif value is not None:
                filled[name] = value
    return filled
