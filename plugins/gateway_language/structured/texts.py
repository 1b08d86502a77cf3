"""Regular expressions and grammars of a request in the dialect of llguidance.

vLLM's grammars are Lark or GBNF, llama.cpp's are GBNF; llguidance has a converter for those. What the converter reads
otherwise than llama.cpp is written in another way first.
"""

from __future__ import annotations

import re

from gateway import BadRequest

# The parts of a GBNF grammar: a text, a class of characters, a comment, and the dot, which there matches a line break.
PARTS = re.compile(r'"(?:[^"\\\n]|\\.)*"|\[(?:[^\]\\\n]|\\.)*\]|#[^\n]*|\.')
NUMBERED = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.)", re.DOTALL)
ANY = r"[^\x00]"


def of_regex(pattern: str) -> str:
    from llguidance import regex_to_lark

    return "/" + str(regex_to_lark(pattern, "")).replace("\n", r"\n") + "/"


def of_grammar(text: str, where: str) -> str:
    """Return a grammar in Lark. Raises `BadRequest` for GBNF with a mistake."""
    from llguidance.gbnf_to_lark import gbnf_to_lark, is_lark_syntax

    if text.lstrip().startswith("%llguidance") or is_lark_syntax(text):
        return text
    try:
        return str(gbnf_to_lark(PARTS.sub(lambda found: _plain(found[0]), text)))
    except RecursionError as error:
        raise BadRequest(f"{where} is too deeply nested", param=where) from error
    except Exception as error:  # the converter raises Exception itself
        raise BadRequest(f"{where} is not a grammar: {str(error)[:300]}", param=where) from error


def _plain(part: str) -> str:
    """Return a part of a grammar with characters instead of their numbers; control characters keep an escape."""
    if part == ".":
        return ANY
    return part if part.startswith("#") else NUMBERED.sub(_character, part)


def _character(found: re.Match[str]) -> str:
    digits = found[1] or found[2] or found[3]
    if digits is None:
        return found[0]
    number = int(digits, 16)
    if number > 0x10FFFF or 0xD800 <= number < 0xE000:
        return found[0]
    char = chr(number)
    return char if char.isalnum() or number > 0x9F else found[0]
