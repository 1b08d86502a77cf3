"""Read and check what a request asks of a language model. Nothing is ignored: unsupported values are refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway_fields import unsupported

from gateway import BadRequest

from .fields import check_message

MAX_TOP = 20  # alternatives per token, OpenAI's limit

# Keys that mark a message as the beginning of the answer: for Mistral and DeepSeek, for Qwen and Moonshot.
BEGUN = ("prefix", "partial")
# Names that clients use for thoughts of the assistant: texts, and the blocks of OpenRouter and LiteLLM.
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
THOUGHT_BLOCKS = ("reasoning_details", "thinking_blocks")

# Supported integers and their minimum.
LEAST: Mapping[str, int] = {"min_tokens": 0, "repeat_last_n": -1}

# Supported numbers of sampling and their range. Defaults come from generation_config.json.
RANGES: Mapping[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "repetition_penalty": (0.01, 10),
    "typical_p": (0, 1),
}


# ── tools ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Tools:
    """Functions that the model may call. If `forced` is not empty, it must call one of those."""

    offered: list[dict[str, Any]]
    names: tuple[str, ...]
    forced: tuple[str, ...] = ()
    single: bool = False  # at most one call


def read_tools(inputs: Mapping[str, Any], *, can_call: bool) -> Tools | None:
    """Return the tools; None if nothing may be called: then the model does not see them."""
    tools, choice = inputs.get("tools") or [], inputs.get("tool_choice") or "auto"
    if choice == "none" or (choice == "auto" and not tools):
        return None
    if not can_call:
        name = "tools" if tools else "tool_choice"
        raise unsupported(f"this model does not support {name}", name)
    names = tuple(_function_name(tool, index) for index, tool in enumerate(tools))
    forced: tuple[str, ...] = ()
    if choice == "required":
        forced = names
    elif isinstance(choice, dict) and choice.get("type") == "function":
        function = choice.get("function")
        forced = (function.get("name") if isinstance(function, dict) else None,)
    elif choice != "auto":
        what = "tool_choice must be auto, none, required, or a function"
        raise unsupported(what, "tool_choice")
    if choice != "auto" and (not forced or not set(forced) <= set(names)):
        have = ", ".join(names) or "none"
        raise BadRequest(f"tool_choice asks for a function that is not among tools (have: {have})", param="tool_choice")
    return Tools(tools, names, forced, single=isinstance(choice, dict) or inputs.get("parallel_tool_calls") is False)


def _function_name(tool: Any, index: int) -> str:
    where = f"tools[{index}]"
    if not isinstance(tool, dict) or tool.get("type") != "function":
        raise unsupported(f"{where}: this model calls functions only", f"{where}.type")
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        raise BadRequest(f"{where} has no function with a name", param=f"{where}.function.name")
    return name


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_message(message: Mapping[str, Any], index: int, *, can_call: bool) -> dict[str, Any]:
    """Return a message as templates expect it: one string, no developer role, no null; call arguments as objects."""
    where = f"messages[{index}]"
    read = check_message(message, where)
    read["content"] = _content(message.get("content"), where)
    if refusal := read_text(read, "refusal", where):
        read["content"] = "\n".join(filter(None, [read["content"], refusal]))
    if (role := message.get("role")) in ("developer", "function"):
        read["role"] = "system" if role == "developer" else "tool"
    if thought := _thought(read, where):
        read["reasoning_content"] = thought
    if tool := read_text(read, "tool_name", where):
        read.setdefault("name", tool)
    for name in BEGUN:
        read.pop(name, None)
    legacy = read.pop("function_call", None)
    calls = message.get("tool_calls") or ([{"type": "function", "function": legacy}] if legacy else [])
    read.pop("tool_calls", None)
    if calls:
        if not can_call:
            raise unsupported("this model does not support tools", f"{where}.tool_calls")
        if not isinstance(calls, list):
            raise BadRequest(f"{where}.tool_calls must be a list", param=f"{where}.tool_calls", code="invalid_type")
        read["tool_calls"] = [_call(call, f"{where}.tool_calls[{at}]") for at, call in enumerate(calls)]
    return read


def read_begun(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the last message marks itself as the beginning of the answer."""
    is_begun = False
    for index, message in enumerate(messages):
        for name in BEGUN:
            if not read_flag(message, name):
                continue
            if index < len(messages) - 1 or message.get("role") != "assistant":
                where = f"messages[{index}].{name}"
                raise BadRequest(f"{where}: only a last message of the assistant can be continued", param=where)
            is_begun = True
    return is_begun


def _content(content: Any, where: str) -> str:
    if not isinstance(content, list):
        return content or ""
    for part in content:
        if part.get("type") not in ("text", "refusal"):
            raise unsupported(f"this model reads text only, not {part.get('type')}", f"{where}.content")
    return "".join(part.get(part["type"]) or "" for part in content)


def _thought(message: Mapping[str, Any], where: str) -> str:
    """Return the assistant's thought, by any of its names. Blocks repeat such a text, or replace it."""
    found = [(name, text) for name in THOUGHTS if (text := read_text(message, name, where))]
    if other := next((name for name, text in found if text != found[0][1]), None):
        what = f"{where}: {found[0][0]} and {other} have different values; send one of them"
        raise BadRequest(what, param=f"{where}.{other}")
    if found:
        return found[0][1]
    for name in THOUGHT_BLOCKS:
        blocks = message.get(name) or []
        if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
            raise BadRequest(f"{where}.{name} must be a list of blocks", param=f"{where}.{name}", code="invalid_type")
        texts = [block.get(key) for block in blocks for key in ("text", "summary", "thinking")]  # one key per block
        if thought := "".join(text for text in texts if isinstance(text, str)):
            return thought
    return ""


def _call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadRequest(f"{where} must be a call of a function with a name", param=where, code="invalid_type")
    arguments = function.get("arguments")
    try:
        parsed = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:  # written by a model, which may be shown its own output
        parsed = arguments
    arguments = parsed if isinstance(parsed, dict) else arguments or {}
    return {**call, "function": {**function, "arguments": arguments}}


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_text(message: Mapping[str, Any], name: str, where: str) -> str:
    text = message.get(name)
    if not isinstance(text, str | None):
        raise BadRequest(f"{where}.{name} must be a string", param=f"{where}.{name}", code="invalid_type")
    return text or ""


def read_texts(inputs: Mapping[str, Any], name: str) -> list[str]:
    given = inputs.get(name) or []
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadRequest(f"{name} must be a string or a list of strings", param=name, code="invalid_type")
    return [text for text in texts if text]


def read_sampling(inputs: Mapping[str, Any], vocabulary: int) -> dict[str, Any]:
    """Return the fields of `Sampling` that the request sets."""
    values: dict[str, Any] = {name: _number(inputs, name) for name in RANGES if inputs.get(name) is not None}
    if (top_k := inputs.get("top_k")) is not None:
        if type(top_k) is not int or top_k < -1:
            raise BadRequest("top_k must be a whole number; 0 or -1 means all tokens", param="top_k")
        values["top_k"] = max(top_k, 0)
    if (seed := inputs.get("seed")) is not None:
        if type(seed) is not int:
            raise BadRequest("seed must be a whole number", param="seed", code="invalid_type")
        values["seed"] = None if seed == -1 else seed  # -1 means none in vLLM and llama.cpp
    if bias := inputs.get("logit_bias"):
        values["logit_bias"] = _bias(bias, vocabulary)
    values |= {name: read_whole(inputs, name, least) for name, least in LEAST.items() if inputs.get(name) is not None}
    if (allowed := inputs.get("allowed_token_ids")) is not None:
        values["allowed"] = _tokens(allowed, "allowed_token_ids", vocabulary)
        if not allowed:
            raise BadRequest("allowed_token_ids must hold at least one token", param="allowed_token_ids")
    if (count := _logprobs(inputs)) is not None:
        values["logprobs"] = min(count, vocabulary)
    return values


def read_stop_ids(inputs: Mapping[str, Any], own: frozenset[int]) -> frozenset[int]:
    """Return the tokens that end the answer; `own` are the model's."""
    own = frozenset() if read_flag(inputs, "ignore_eos") else own
    return own | frozenset(_tokens(inputs.get("stop_token_ids") or [], "stop_token_ids"))


def read_flag(inputs: Mapping[str, Any], name: str, default: bool = False) -> bool:
    value = inputs.get(name)
    if not isinstance(value, bool | None):
        raise BadRequest(f"{name} must be true or false", param=name, code="invalid_type")
    return default if value is None else value


def read_whole(inputs: Mapping[str, Any], name: str, least: int) -> int:
    value = inputs[name]
    if type(value) is not int or not least <= value < 2**63:
        raise BadRequest(f"{name} must be a whole number of at least {least}", param=name)
    return value


def read_limit(inputs: Mapping[str, Any], least: int) -> int | None:
    """Return the maximum tokens of the answer, if the request sets it."""
    wanted = inputs.get("max_completion_tokens", inputs.get("max_tokens"))
    if wanted is not None and (type(wanted) is not int or wanted < least):
        raise BadRequest(f"max_tokens must be a whole number of at least {least}", param="max_tokens")
    return wanted


def read_tells_usage(inputs: Mapping[str, Any]) -> bool:
    """Return whether the counts so far are requested with each piece of a stream; the route has checked the options."""
    options = inputs.get("stream_options") if inputs.get("stream") else None
    return isinstance(options, dict) and all(map(options.get, ("include_usage", "continuous_usage_stats")))


def truncated(prompt: list[int], inputs: Mapping[str, Any], room: int) -> list[int]:
    """Return the prompt, truncated as requested; `room` is what fits into the context besides the answer."""
    side = inputs.get("truncation_side")
    if side not in (None, "left", "right"):
        raise BadRequest("truncation_side must be left or right", param="truncation_side")
    if inputs.get("truncate_prompt_tokens") is None:
        return prompt
    most = read_whole(inputs, "truncate_prompt_tokens", -1)
    if most == 0:
        raise BadRequest("truncate_prompt_tokens must be at least 1, or -1", param="truncate_prompt_tokens")
    most = max(room, 1) if most == -1 else most
    return prompt[:most] if side == "right" else prompt[-most:]


def _tokens(value: Any, name: str, vocabulary: int = 2**63) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(token) is int for token in value):
        raise BadRequest(f"{name} must be a list of token ids", param=name, code="invalid_type")
    if not all(0 <= token < vocabulary for token in value):
        raise BadRequest(f"{name}: the model knows tokens 0 to {vocabulary - 1} only", param=name)
    return tuple(value)


def _number(inputs: Mapping[str, Any], name: str) -> float:
    value, (low, high) = inputs[name], RANGES[name]
    if type(value) not in (int, float) or not low <= value <= high:
        raise BadRequest(f"{name} must be a number from {low} to {high}", param=name)
    return value


def _bias(bias: Any, vocabulary: int) -> tuple[tuple[int, float], ...]:
    try:
        pairs = tuple((int(token), float(value)) for token, value in bias.items())
    except (AttributeError, TypeError, ValueError):
        pairs = ((-1, 0.0),)
    if not all(0 <= token < vocabulary and -100 <= value <= 100 for token, value in pairs):
        what = f"logit_bias must map token ids, which are 0 to {vocabulary - 1}, to numbers from -100 to 100"
        raise BadRequest(what, param="logit_bias")
    return pairs


def _logprobs(inputs: Mapping[str, Any]) -> int | None:
    """Return the number of alternatives: chat has a flag and `top_logprobs`, completions have a number."""
    wanted = inputs.get("logprobs")
    if wanted is None or wanted is False:
        return None
    name, count = ("top_logprobs", inputs.get("top_logprobs") or 0) if wanted is True else ("logprobs", wanted)
    if type(count) is not int or not 0 <= count <= MAX_TOP:
        raise BadRequest(f"{name} must be a whole number from 0 to {MAX_TOP}", param=name)
    return count
