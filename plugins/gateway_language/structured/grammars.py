"""Write the grammar of a whole answer, in the Lark dialect of llguidance: thoughts, tool calls and the answer itself.

answer only                     start: answer
the prompt has begun a thought  start: thought answer
a thought was asked for         start: (open thought)? answer
calls or an answer              start: (call+ | answer)
text with calls                 start: (text call)* free
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..answer import CLOSE, OPEN
from ..tools import Parser

# Between the parts of JSON: nothing, a blank, or line breaks with an indentation. A weak model may prefer blanks to an
# end, so there are not many.
SPACED = r"( |\n{1,2}[ \t]{0,20})?"
# Each character has one spelling, so that a key cannot be repeated in another one and evade its schema.
ESCAPES = '"\\bfnrt'

# llama.cpp has an older llguidance, which would refuse the whole grammar for this option.
UNKNOWN_TO_LLAMA = f'"json_allowed_escapes": {json.dumps(ESCAPES)}, '
NAME = "NAME"  # stands for the name of a function, which may look like a tag

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """A function that may be called, with the schema of its arguments."""

    name: str
    arguments: Json


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls of an answer. `must`: there is at least one, and nothing else; `single`: at most one."""

    family: type[Parser]
    offered: Sequence[Call]
    must: bool
    single: bool


@dataclass(frozen=True, slots=True)
class Thoughts:
    """A thought before the answer. `is_open`: the prompt has begun it. `at_once`: it is closed first of all."""

    is_open: bool
    at_once: bool = False


def of_schema(schema: Json, *, spaced: bool = True) -> str:
    options: Json = {"json_allowed_escapes": ESCAPES}
    options |= {"whitespace_pattern": SPACED} if spaced else {"whitespace_flexible": False}
    options |= schema.get("x-guidance", {})  # only ours: a client's is refused
    return "%json " + json.dumps({**schema, "x-guidance": options}, ensure_ascii=False)


def for_llama(grammar: str, ends: Collection[int]) -> str:
    """Return a grammar that we have written for llama.cpp, with the special tokens that may end the answer.

    Without them llama.cpp would allow one such token, not necessarily one that ends this answer. Inside a client's text
    the option that is removed would have other quotes.
    """
    begin, rest = grammar.replace(UNKNOWN_TO_LLAMA, "").removeprefix("start: ").split("\n", 1)
    last = f" ({' | '.join(f'<[{token}]>' for token in sorted(ends))})" if ends else ""
    return f"%llguidance {{}}\nstart: ({begin}){last}\n{rest}"


def of_choice(texts: Sequence[str]) -> str:
    return " | ".join(_quoted(text) for text in texts)


class Writer:
    """Writes grammars. `special` are the tags that are single tokens without text, by their texts."""

    def __init__(self, special: Mapping[str, int]) -> None:
        self._special = special
        self._split = re.compile("|".join(map(re.escape, special))) if special else None

    def whole(self, answer: str | None, thoughts: Thoughts | None, calls: Calls | None) -> str:
        """Return the grammar. `answer` is the right side of a rule; None: only calls, or text with calls."""
        rules: list[str] = []
        if answer is not None:
            rules.append(f"answer: {answer}")
        if calls is None:
            body = "answer"
        else:
            body, more = self._calls(calls, answer is not None)
            rules += more
        before = "" if thoughts is None else self._thoughts(thoughts, rules)
        return "\n".join([f"start: {before}{body}", *rules]) + "\n"

    def text(self, text: str) -> str:
        """Return the atoms of a fixed text."""
        if self._split is None:
            return _quoted(text)
        atoms, at = [], 0
        for found in self._split.finditer(text):
            atoms += [_quoted(text[at : found.start()])] if found.start() > at else []
            atoms.append(f"<[{self._special[found[0]]}]>")
            at = found.end()
        atoms += [_quoted(text[at:])] if at < len(text) or not text else []
        return " ".join(atoms)

    def _thoughts(self, thoughts: Thoughts, rules: list[str]) -> str:
        if thoughts.is_open and thoughts.at_once:
            return self.text(f"\n{CLOSE}\n\n") + " "
        rules += [f"thought: {self._up_to(CLOSE, 'said', rules)} BLANKS", r"BLANKS: /[ \n]{0,4}/"]
        return "thought " if thoughts.is_open else f"({self.text(OPEN)} thought)? "

    def _up_to(self, tag: str, name: str, rules: list[str]) -> str:
        """Return the atoms of any text and the tag after it."""
        if tag in self._special:
            rules.append(f"{name.upper()}: /(?s:.*)/")
            return f"{name.upper()} {self.text(tag)}"
        rules.append(f"{name}[suffix={_quoted(tag)}]: /(?s:.*)/")
        return name

    def _calls(self, calls: Calls, has_answer: bool) -> tuple[str, list[str]]:
        family, rules = calls.family, []
        rules += [f"args{index}: {of_schema(one.arguments)}" for index, one in enumerate(calls.offered)]
        if calls.must or has_answer:
            rules.append(f"first: {self._alternatives(calls, '')}")
            more = ""
            if not calls.single:
                rules.append(f"next: {self._alternatives(calls, family.begins)}")
                more = f" ({self.text(family.between)} next)*"
            made = f"first{more}" + (f" {self.text(family.after)}" if family.after else "")
            return (made if calls.must else f"({made} | answer)"), rules
        begun = family.begins or family.tags[0]
        rules.append(
            f"call: {self._alternatives(calls, begun)}" + (f" {self.text(family.after)}" if family.after else "")
        )
        before = self._up_to(family.tags[0], "text", rules)
        rest = begun.removeprefix(family.tags[0])
        before += f" {self.text(rest)}" if rest else ""
        rules.append("FREE: /(?s:.*)/ & ~/(?s:.*)" + _regex(family.tags[0]) + "(?s:.*)/")
        one = f"{before} call"
        return (f"({one} | FREE)" if calls.single else f"({one})* FREE"), rules

    def _alternatives(self, calls: Calls, without: str) -> str:
        family = calls.family
        before, _, after = family.forced(NAME).removeprefix(without).partition(f'"{NAME}"')
        return " | ".join(
            f"{self.text(before)} {_quoted(json.dumps(one.name))} {self.text(after)} / ?/ args{index} "
            + self.text(family.closes)
            for index, one in enumerate(calls.offered)
        )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _regex(text: str) -> str:
    return re.sub(r"([][.^$*+?(){}|\\/])", r"\\\1", text)
