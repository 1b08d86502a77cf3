"""The tools of a request on /v1/responses in chat's words, and whose call a call of the model is.

    function         the same, nested
    namespace        its functions, called NAMESPACE__NAME; their calls come back with name and namespace
    custom           a function with one string, `input`; its calls come back as custom_tool_call
    any other type   is run by OpenAI's servers, or known to OpenAI's models only: left out, and said so in `left_out`;
                     refused where the request forces it

Clients offer what the model they were made for has, and ask nothing of it in most turns: Codex sends `web_search` with
every request. So what cannot be offered is no error until it must be called.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..errors import BadRequest
from ..wording import listed
from .base import missing, take, wrong_type

CHOICES = ("none", "auto", "required")
FREE = {
    "type": "object",
    "properties": {"input": {"type": "string", "description": "The whole input of the tool, as free text."}},
    "required": ["input"],
    "additionalProperties": False,
}
_FUNCTION = ("name", "description", "parameters", "strict")
_PLAIN = re.compile(r"[^A-Za-z0-9_.:-]").sub  # what goes into a header
_BEGUN = re.compile(r'\s*\{\s*"input"\s*:\s*"').match
_SHOWN = 64  # characters of a client's word in it
_CUT = 12  # characters that a piece of JSON may end with and be no text yet: two escapes \uXXXX


@dataclass(frozen=True, slots=True)
class Tool:
    """One function as the model knows it; `name` and `namespace` are the client's."""

    name: str
    namespace: str | None
    is_custom: bool
    function: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tools:
    """What a request offers. `offered` has the model's names."""

    offered: dict[str, Tool] = field(default_factory=dict)
    names: dict[tuple[str | None, str], str] = field(default_factory=dict)  # of those, by namespace and name
    choice: Any = None  # chat's tool_choice
    allowed: frozenset[str] | None = None  # of `offered`; None: all
    left_out: tuple[str, ...] = ()
    shown: tuple[dict[str, Any], ...] = ()  # as the client wrote them, without those that are left out

    @property
    def nested(self) -> list[dict[str, Any]]:
        """Chat's `tools`."""
        return [
            {"type": "function", "function": tool.function}
            for name, tool in self.offered.items()
            if self.allowed is None or name in self.allowed
        ]

    def called(self, namespace: str | None, name: str) -> str:
        """The model's name for a function of the client's; one that is not offered any more has one too."""
        return self.names.get((namespace, name)) or _joined(namespace, name)


NONE = Tools()


def read_tools(body: dict[str, Any]) -> Tools:
    """The tools of a checked request, and which of them the model may or must call.

    Raises:
        BadRequest: a tool is incomplete, or the choice forces one that there is not.
    """
    offered: dict[str, Tool] = {}
    names: dict[tuple[str | None, str], str] = {}
    tried: dict[str, int] = {}  # how often a name was taken: nobody tries those again, however many are the same
    left_out: list[str] = []
    shown: list[dict[str, Any]] = []
    for index, tool in enumerate(body.get("tools", [])):
        where, kind = f"tools[{index}]", tool.get("type")
        if not isinstance(kind, str):
            raise missing(f"{where}.type") if kind is None else wrong_type(f"{where}.type", "a string", kind)
        if kind == "namespace":
            found = _members(tool, where, left_out)
        elif kind in ("function", "custom"):
            found = [_tool(tool, where, None, left_out)]
        else:
            left_out.append(_plain(kind))
            continue
        shown.append(tool)
        for one in found:
            name = joined = _joined(one.namespace, one.name)
            while name in offered and (one.namespace is not None or offered[name].namespace is not None):
                # of another namespace; two functions of one name are the model's to tell apart
                tried[joined] = count = tried.get(joined, 0) + 1
                name = f"{joined}_{count}" if count > 1 else f"{joined}_"
            names.setdefault((one.namespace, one.name), name)
            offered[name] = Tool(one.name, one.namespace, one.is_custom, {**one.function, "name": name})
    choice, allowed = _choice(body.get("tool_choice"), offered, left_out)
    return Tools(offered, names, choice, allowed, tuple(dict.fromkeys(left_out)), tuple(shown))


def _members(tool: dict[str, Any], where: str, left_out: list[str]) -> list[Tool]:
    namespace = tool.get("name")
    if not isinstance(namespace, str):
        raise missing(f"{where}.name")
    members = take({f"{where}.tools": tool.get("tools")}, f"{where}.tools", list, [])
    found = []
    for index, member in enumerate(members):
        at = f"{where}.tools[{index}]"
        if not isinstance(member, dict):
            raise wrong_type(at, "an object", member)
        if member.get("type") in ("function", "custom"):
            found.append(_tool(member, at, namespace, left_out))
        else:
            left_out.append(_plain(f"{namespace}.{member.get('type')}"))
    return found


def _tool(tool: dict[str, Any], where: str, namespace: str | None, left_out: list[str]) -> Tool:
    name = tool.get("name")
    if not isinstance(name, str):
        raise missing(f"{where}.name")
    if tool["type"] == "function":
        given = {key: tool[key] for key in _FUNCTION if tool.get(key) is not None}
        return Tool(name, namespace, False, given)
    form = tool.get("format") or {"type": "text"}
    if not isinstance(form, dict):
        raise wrong_type(f"{where}.format", "an object", form)
    description = f"{tool.get('description') or ''}\n\nThe text is given as the string 'input'.".strip()
    if form.get("type") != "text":  # nothing holds the model to it, but it can be told
        left_out.append(_plain(f"{name}.format"))
        rule = f"It must follow this {form.get('syntax') or form.get('type')}:\n{form.get('definition') or ''}"
        description = f"{description} {rule}"
    return Tool(name, namespace, True, {"name": name, "description": description, "parameters": FREE})


def _joined(namespace: str | None, name: str) -> str:
    if namespace is None:
        return name
    return f"{namespace}{name}" if namespace.endswith("__") else f"{namespace}__{name}"


def _plain(word: str) -> str:
    return _PLAIN("", word)[:_SHOWN] or "unknown"


# ── which of them ────────────────────────────────────────────────────────────────────────────────────────────────────


def _choice(choice: Any, offered: dict[str, Tool], left_out: list[str]) -> tuple[Any, frozenset[str] | None]:
    """Chat's `tool_choice`, and the names of the tools that are allowed, None for all."""
    if isinstance(choice, dict):
        kind = choice.get("type")
        if kind == "allowed_tools":
            return _allowed(choice, offered, left_out)
        return {"type": "function", "function": {"name": _known(choice, "tool_choice", _by_name(offered))}}, None
    choice = "required" if choice == "any" else choice
    if choice not in (None, *CHOICES):
        raise BadRequest(f"'tool_choice' must be one of {', '.join(CHOICES)}, or an object", param="tool_choice")
    if choice == "required" and left_out and not offered:
        raise _unsupported("tool_choice", f"a call of a tool of type {left_out[0]!r}")
    return choice, None


def _allowed(choice: dict[str, Any], offered: dict[str, Tool], left_out: list[str]) -> tuple[str, frozenset[str]]:
    mode, tools = choice.get("mode") or "auto", choice.get("tools")
    if mode not in CHOICES:
        raise BadRequest(f"'tool_choice.mode' must be one of {', '.join(CHOICES)}", param="tool_choice.mode")
    if not isinstance(tools, list):
        raise wrong_type("tool_choice.tools", "an array", tools)
    known = _by_name(offered)
    allowed: set[str] = set()
    namespaces: set[Any] = set()
    for index, tool in enumerate(tools):
        where = f"tool_choice.tools[{index}]"
        if not isinstance(tool, dict):
            raise wrong_type(where, "an object", tool)
        if tool.get("type") == "namespace":
            if not isinstance(tool.get("name"), str):
                raise missing(f"{where}.name")
            namespaces.add(tool["name"])
        elif tool.get("type") in ("function", "custom"):
            allowed.add(_known(tool, where, known))
        else:
            left_out.append(_plain(str(tool.get("type"))))
    allowed |= {name for name, one in offered.items() if one.namespace in namespaces}
    if mode == "required" and not allowed and tools:
        raise _unsupported("tool_choice.tools", f"a call of a tool of type {tools[0].get('type')!r}")
    return mode, frozenset(allowed)


def _by_name(offered: dict[str, Tool]) -> dict[tuple[str, bool, str | None], str]:
    """The model's names by those of the client: with the namespace, and the first without one."""
    found: dict[tuple[str, bool, str | None], str] = {}
    for known, tool in offered.items():
        for namespace in (None, tool.namespace):
            found.setdefault((tool.name, tool.is_custom, namespace), known)
    return found


def _known(choice: dict[str, Any], where: str, known: dict[tuple[str, bool, str | None], str]) -> str:
    """The model's name for the tool that a choice names."""
    kind, name, namespace = choice.get("type"), choice.get("name"), choice.get("namespace")
    if kind not in ("function", "custom"):
        raise _unsupported(f"{where}.type", f"a call of a tool of type {kind!r}")
    if not isinstance(name, str):
        raise missing(f"{where}.name")
    if not isinstance(namespace, str | None):
        raise wrong_type(f"{where}.namespace", "a string", namespace)
    if (found := known.get((name, kind == "custom", namespace))) is not None:
        return found
    have = listed({name for name, _, _ in known}) or "there are none"
    raise BadRequest(f"'{where}.name' is none of the tools: {have}", param=f"{where}.name")


def _unsupported(param: str, what: str) -> BadRequest:
    return BadRequest(f"{what} is not supported here", param=param, code="unsupported_value")


# ── calls of custom tools ────────────────────────────────────────────────────────────────────────────────────────────


def arguments_of(text: str) -> str:
    """The input of a custom tool as the arguments of the function that stands for it."""
    return msgspec.json.encode({"input": text}).decode()


def input_of(arguments: str) -> str:
    """The input in what a model wrote as arguments, also where it broke off; what is no such object is all input."""
    try:
        value = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return _begun(arguments)
    if isinstance(value, dict):
        value = value.get("input", arguments if value else "")
    return value if isinstance(value, str) else arguments


def _begun(arguments: str) -> str:
    """As much of the input as is there."""
    if '{"input":"'.startswith("".join(arguments.split())):
        return ""
    if (begun := _BEGUN(arguments)) is None:
        return arguments
    for cut in range(_CUT):
        try:
            return str(msgspec.json.decode(f'"{arguments[begun.end() : len(arguments) - cut]}"'))
        except msgspec.DecodeError:
            continue
    return arguments
