"""What a request asks of the form of its answer: from its fields and tools to a guide."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from gateway_fields import unsupported

from gateway import BadRequest

from ..requests import Tools
from ..tools import Llama, Parser
from . import texts
from .constraint import Constraint, read_constraint
from .grammars import Call, Calls, Thoughts, Writer, for_llama, of_choice, of_schema
from .guide import Guide, Guides
from .schemas import Schema

# Fields that exclude tokens, or begin the answer: together with a form, no token might be left.
EXCLUDING = ("bad_words", "allowed_token_ids", "echo")
ANY = {"type": "object"}


class Form:
    """The form of an answer. `answer` is what a client asked for; calls of `tools` may come before or instead of it.

    Raises `BadRequest` for a schema that is too large, and for what cannot be combined.
    """

    def __init__(self, answer: Constraint | None, tools: Tools | None, family: type[Parser] | None) -> None:
        self.where = answer.where if answer is not None else "tools"
        self._answer, self._family = answer, family
        self._schema = Schema(answer.value, answer.where) if answer is not None and answer.kind == "json" else None
        self._tools = tools
        self._strict: list[Schema] = []
        self._calls = None if tools is None or family is None else self._read_calls(tools, family)

    @property
    def is_best_effort(self) -> bool:
        """Return whether nothing was promised: a function must be called, and its arguments need not be right."""
        return self._answer is None and not self._strict

    def guide(
        self, guides: Guides, special: Mapping[str, int], thoughts: Thoughts | None, ends: Collection[int] = ()
    ) -> Guide:
        """Compile it, which may take some tenths of a second. `ends` are special tokens that may end the answer.

        Raises:
            BadRequest: a part of it cannot be enforced, or no answer fulfils it.
        """
        strict = [*self._strict, *([self._schema] if self._schema is not None else ())]
        for schema in strict:
            schema.refuse_gaps()
        writer, answer = Writer(special), self._answer
        users = texts.of_grammar(answer.value, self.where) if answer is not None and answer.kind == "grammar" else None
        if users is not None and thoughts is None and self._calls is None:
            return guides.make(users, self.where)
        written = writer.whole(self._body(), thoughts, self._calls)
        if users is not None:
            parts = [{"name": "whole", "lark_grammar": written}, {"name": "answer", "lark_grammar": users}]
            return guides.make(json.dumps({"grammars": parts}), self.where)
        try:
            for schema in strict:
                guides.make(f"start: {of_schema(schema.value)}", schema.where)  # or only its absence would be found
            return guides.make(written, self.where, shown=for_llama(written, ends))
        except BadRequest:
            for schema in strict:
                guides.check(schema)
            raise

    def _body(self) -> str | None:
        answer = self._answer
        if answer is None:
            return None
        if self._schema is not None:
            return of_schema(self._schema.value, spaced=answer.spaced)
        if answer.kind == "choice":
            return of_choice(answer.value)
        return texts.of_regex(answer.value) if answer.kind == "regex" else "@answer"

    def _read_calls(self, tools: Tools, family: type[Parser]) -> Calls | None:
        must = bool(tools.forced)
        is_strict = any(_is_strict(tool) for tool in tools.offered)
        if not must and not is_strict and self._answer is None:
            return None
        if not must and family is Llama:  # its calls have no tag: they could not be told from an answer in JSON
            name = "tools[].function.strict" if self._answer is None else self.where
            what = f"{name} needs tool_choice required, none or a function: calls of this model have no mark"
            raise unsupported(what, name)
        names = set(tools.forced) if must else set(tools.names)
        offered = [
            Call(name, self._arguments(tool["function"], f"tools[{index}].function.parameters"))
            for index, (name, tool) in enumerate(zip(tools.names, tools.offered, strict=True))
            if name in names
        ]
        return Calls(family, offered, must=must, single=tools.single)

    def _arguments(self, function: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Return the schema of the arguments: all of it if it is strict, otherwise as much as can be enforced."""
        given = function.get("parameters")
        if not isinstance(given, dict):
            return ANY
        given = given if "type" in given or "$ref" in given else {**given, **ANY}
        if function.get("strict") is True:
            schema = Schema(given, where)
            self._strict.append(schema)
            return schema.value
        try:
            schema = Schema(given, where)
        except BadRequest:
            return ANY
        return {**schema.value, "x-guidance": {"lenient": True, "coerce_one_of": True}}


def read_form(inputs: Mapping[str, Any], tools: Tools | None, family: type[Parser] | None) -> Form | None:
    """Return the form that a request asks for; None if any answer will do.

    Raises:
        BadRequest: it cannot be combined with other fields, or a field is wrong.
    """
    answer = read_constraint(inputs)
    if answer is None and (tools is None or not (tools.forced or any(map(_is_strict, tools.offered)))):
        return None
    form = Form(answer, tools, family)
    if excluding := [name for name in EXCLUDING if inputs.get(name)]:
        raise unsupported(f"{form.where} cannot be combined with {excluding[0]}: send one of them", excluding[0])
    return form


def _is_strict(tool: Mapping[str, Any]) -> bool:
    function = tool.get("function")
    return isinstance(function, dict) and function.get("strict") is True
