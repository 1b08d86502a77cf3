"""Convert the tools of a request on /v1/responses to chat, and map the model's calls back.

    function         the same, nested
    namespace        its functions, called NAMESPACE__NAME; their calls come back with name and namespace
    custom           a function with one string, `input`; its calls come back as custom_tool_call
    any other type   is run by OpenAI's servers, or supported by OpenAI's models only: left out and listed in
                     `left_out`; refused if the request forces it

Clients offer the tools of the model that they were made for, and do not use them in most turns: Codex sends
`web_search` with every request. So a tool that cannot be offered is an error only if it must be called.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ... import json_costs
from ...errors import BadRequest
from ...wording import counted, listed
from ..fields import echoed, missing, take, wrong_type

CHOICES = ("none", "auto", "required")
FREE = {
    "type": "object",
    "properties": {"input": {"type": "string", "description": "The whole input of the tool, as free text."}},
    "required": ["input"],
    "additionalProperties": False,
}
_FUNCTION = ("name", "description", "parameters", "strict")
_PLAIN = re.compile(r"[^A-Za-z0-9_.:-]").sub  # removes what a header cannot have
_BEGUN = re.compile(r'\s*\{\s*"input"\s*:\s*"').match
_SHOWN = 64  # maximum characters of a client's value in the header
# The name of a namespace is part of the name of each member. Both are as long as OpenAI allows for a function.
MAX_NAME = 128
MAX_MEMBERS = 1 << 15  # of all namespaces of a request
_CUT = 12  # characters at the end of a cut JSON string that may not be text yet: two escapes \uXXXX


@dataclass(frozen=True, slots=True)
class Tool:
    """One function as the model gets it. `name` and `namespace` are the client's."""

    name: str
    namespace: str | None
    is_custom: bool
    function: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools that a request offers. Keys of `offered` are the model's names."""

    offered: dict[str, Tool] = field(default_factory=dict)
    names: dict[tuple[str | None, str], str] = field(default_factory=dict)  # the model's names by namespace and name
    choice: Any = None  # chat's tool_choice
    allowed: frozenset[str] | None = None  # names in `offered`; None: all
    left_out: tuple[str, ...] = ()
    shown: tuple[dict[str, Any], ...] = ()  # as the client sent them, without those in `left_out`

    @property
    def nested(self) -> list[dict[str, Any]]:
        """Chat's `tools`."""
        return [
            {"type": "function", "function": tool.function}
            for name, tool in self.offered.items()
            if self.allowed is None or name in self.allowed
        ]

    def called(self, namespace: str | None, name: str) -> str:
        """Return the model's name for a client's function, even if it is no longer offered."""
        return self.names.get((namespace, name)) or _joined(namespace, name)


NONE = Tools()


def read_tools(body: dict[str, Any]) -> Tools:
    """Return the tools of a checked request, and which of them the model may or must call.

    Raises:
        BadRequest: a tool is incomplete, or the choice forces one that does not exist.
    """
    offered: dict[str, Tool] = {}
    names: dict[tuple[str | None, str], str] = {}
    tried: dict[str, int] = {}  # how often a name was taken, so that a lookup does not repeat the search
    left_out: list[str] = []
    shown: list[dict[str, Any]] = []
    members = 0
    for index, tool in enumerate(body.get("tools", [])):
        where, kind = f"tools[{index}]", tool.get("type")
        if not isinstance(kind, str):
            raise missing(f"{where}.type") if kind is None else wrong_type(f"{where}.type", "a string", kind)
        if kind == "namespace":
            members += _check_namespace(tool, where, members)
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
                # a function of another namespace; two functions with one name are left to the model
                tried[joined] = count = tried.get(joined, 0) + 1
                name = f"{joined}_{count}" if count > 1 else f"{joined}_"
            names.setdefault((one.namespace, one.name), name)
            offered[name] = Tool(one.name, one.namespace, one.is_custom, {**one.function, "name": name})
    choice, allowed = _choice(body.get("tool_choice"), offered, left_out)
    return Tools(offered, names, choice, allowed, tuple(dict.fromkeys(left_out)), tuple(shown))


def _check_namespace(tool: dict[str, Any], where: str, before: int) -> int:
    """Check the name and the members of a namespace, and return their number. `before` are those of earlier ones."""
    _name(tool, where)
    members = take({f"{where}.tools": tool.get("tools")}, f"{where}.tools", list, [])
    if before + len(members) > MAX_MEMBERS:
        what = f"'{where}.tools': all namespaces together may have at most {counted(MAX_MEMBERS, 'tool')}"
        raise BadRequest(what, param=f"{where}.tools", code="invalid_value")
    return len(members)


def _name(tool: dict[str, Any], where: str) -> str:
    name = tool.get("name")
    if not isinstance(name, str):
        raise missing(f"{where}.name")
    if len(name) > MAX_NAME:
        what = f"'{where}.name' has {counted(len(name), 'character')}; at most {MAX_NAME} are allowed"
        raise BadRequest(what, param=f"{where}.name", code="string_above_max_length")
    return name


def _members(tool: dict[str, Any], where: str, left_out: list[str]) -> list[Tool]:
    namespace, found = tool["name"], []
    for index, member in enumerate(tool.get("tools") or []):
        at = f"{where}.tools[{index}]"
        if not isinstance(member, dict):
            raise wrong_type(at, "an object", member)
        if member.get("type") in ("function", "custom"):
            found.append(_tool(member, at, namespace, left_out))
        else:
            left_out.append(_plain(f"{namespace}.{_word(member.get('type'))}"))
    return found


def _tool(tool: dict[str, Any], where: str, namespace: str | None, left_out: list[str]) -> Tool:
    name = _name(tool, where)
    if tool["type"] == "function":
        given = {key: tool[key] for key in _FUNCTION if tool.get(key) is not None}
        return Tool(name, namespace, False, given)
    form = tool.get("format") or {"type": "text"}
    if not isinstance(form, dict):
        raise wrong_type(f"{where}.format", "an object", form)
    description = f"{tool.get('description') or ''}\n\nThe text is given as the string 'input'.".strip()
    if form.get("type") != "text":  # it cannot be enforced, but the model can be told
        left_out.append(_plain(f"{name}.format"))
        rule = f"It must follow this {form.get('syntax') or form.get('type')}:\n{form.get('definition') or ''}"
        description = f"{description} {rule}"
    return Tool(name, namespace, True, {"name": name, "description": description, "parameters": FREE})


def _joined(namespace: str | None, name: str) -> str:
    if namespace is None:
        return name
    return f"{namespace}{name}" if namespace.endswith("__") else f"{namespace}__{name}"


def _plain(word: str) -> str:
    """Return the part of a client's word that a header can have. Cut first: the word may be as long as the request."""
    return _PLAIN("", word[: 2 * MAX_NAME])[:_SHOWN] or "unknown"


def _word(value: Any) -> str:
    return value if isinstance(value, str) else echoed(value)


# ── which of them ────────────────────────────────────────────────────────────────────────────────────────────────────


def _choice(choice: Any, offered: dict[str, Tool], left_out: list[str]) -> tuple[Any, frozenset[str] | None]:
    """Return chat's `tool_choice`, and the names of the allowed tools, None for all."""
    if isinstance(choice, dict):
        kind = choice.get("type")
        if kind == "allowed_tools":
            return _allowed(choice, offered, left_out)
        return {"type": "function", "function": {"name": _known(choice, "tool_choice", _by_name(offered))}}, None
    choice = "required" if choice == "any" else choice
    if choice not in (None, *CHOICES):
        raise BadRequest(f"'tool_choice' must be one of {', '.join(CHOICES)}, or an object", param="tool_choice")
    if choice == "required" and left_out and not offered:
        raise _unsupported("tool_choice", f"a call of a tool of type {echoed(left_out[0])}")
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
            left_out.append(_plain(_word(tool.get("type"))))
    allowed |= {name for name, one in offered.items() if one.namespace in namespaces}
    if mode == "required" and not allowed and tools:
        raise _unsupported("tool_choice.tools", f"a call of a tool of type {echoed(tools[0].get('type'))}")
    return mode, frozenset(allowed)


def _by_name(offered: dict[str, Tool]) -> dict[tuple[str, bool, str | None], str]:
    """Return the model's names by the client's names, with and without the namespace; the first wins."""
    found: dict[tuple[str, bool, str | None], str] = {}
    for known, tool in offered.items():
        for namespace in (None, tool.namespace):
            found.setdefault((tool.name, tool.is_custom, namespace), known)
    return found


def _known(choice: dict[str, Any], where: str, known: dict[tuple[str, bool, str | None], str]) -> str:
    """Return the model's name for the tool in a choice."""
    kind, name, namespace = choice.get("type"), choice.get("name"), choice.get("namespace")
    if kind not in ("function", "custom"):
        raise _unsupported(f"{where}.type", f"a call of a tool of type {echoed(kind)}")
    if not isinstance(name, str):
        raise missing(f"{where}.name")
    if not isinstance(namespace, str | None):
        raise wrong_type(f"{where}.namespace", "a string", namespace)
    if (found := known.get((name, kind == "custom", namespace))) is not None:
        return found
    have = listed({name for name, _, _ in known}) or "there are none"
    raise BadRequest(f"'{where}.name' is not one of the tools: {have}", param=f"{where}.name")


def _unsupported(param: str, what: str) -> BadRequest:
    return BadRequest(f"{what} is not supported here", param=param, code="unsupported_value")


# ── calls of custom tools ────────────────────────────────────────────────────────────────────────────────────────────


def arguments_of(text: str) -> str:
    """Return the input of a custom tool as arguments of the function that represents it."""
    return msgspec.json.encode({"input": text}).decode()


def input_of(arguments: str) -> str:
    """Return the input in a model's arguments, also if they are cut off. Anything else is the input as a whole.

    So is what would take too long to read: an input is one text.
    """
    try:
        value = json_costs.read(arguments)
    except json_costs.TooDear:
        return arguments
    except (msgspec.DecodeError, RecursionError):
        return _begun(arguments)
    if isinstance(value, dict):
        value = value.get("input", arguments if value else "")
    return value if isinstance(value, str) else arguments


def _begun(arguments: str) -> str:
    """Return the available part of the input."""
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
