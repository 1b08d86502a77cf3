"""Answers that obey a grammar, on llama.cpp.

llama.cpp gets the grammar for the turn that begins the answer. The guide takes every token as well, because llama.cpp
drops a grammar that it does not understand without a word, and because a later turn would begin the grammar again. A
later turn has no grammar: where it strays, it ends, and a turn of one token follows to which only those that may come
next are allowed. The answers are as likely as with a grammar.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway_language.structured.guide import Guide

from .turns import Rules

if TYPE_CHECKING:
    from .request import Request


def rules(request: Request, guide: Guide, *, strays: bool) -> Rules:
    """Return the rules of the next turn. `strays`: the last one has chosen a token that may not come next."""
    at, ends = len(request.answer), request.ends
    grammar = "" if strays or at or guide.taken else guide.grammar
    allowed: tuple[int, ...] = ()
    barred: frozenset[int] = frozenset()
    if strays:
        may_end = guide.may_end and at >= request.settings.min_tokens
        chosen = {*guide.allowed(), *(ends if may_end else ())}
        count = guide.count
        allowed, barred = tuple(sorted(chosen)), frozenset()
        if len(chosen) > count // 2:
            allowed, barred = (), frozenset(range(count)) - chosen
        if not chosen:
            guide.stop_here()
    return Rules(request.settings, at, request.limit, ends, allowed, barred, request.unnamed, grammar)


def takes(request: Request, token: int) -> bool:
    """Give a token to the guide, if there is one; return whether it may come next."""
    guide = request.settings.guide
    if guide is None or guide.take(token):
        return True
    if guide.is_over:  # it has failed, or has found that nothing may follow
        request.is_over = True
        return False
    return token in request.ends and guide.may_end and len(request.answer) >= request.settings.min_tokens
