"""Sides in turns: all that have a kind are started, ours first, and asked one after the other, round by round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from ..processes import Server
from ..report import Row
from .asking import Question, first_answer
from .sides import Side

Seen = TypeVar("Seen")
Turns = list[tuple[Seen, Seen]]  # ours and theirs, of each round


@contextmanager
def serving(question: Question, sides: Sequence[Side]) -> Iterator[list[tuple[Side, Server]]]:
    """The sides that have what is asked, each with its server, which has given the right answer once."""
    with ExitStack() as stack:
        served = []
        for side in sides:
            if question.kind in side.paths:
                server = stack.enter_context(side.serve(question.kind))
                first_answer(side.name, server, side.paths[question.kind], side.asked(question))
                served.append((side, server))
        yield served


def in_turns(
    served: Sequence[tuple[Side, Server]], rounds: int, seen: Callable[[Side, Server], Seen]
) -> dict[str, Turns[Seen]]:
    """What was seen of ours and of each peer, by the peer's name."""
    found: dict[str, Turns[Seen]] = {side.name: [] for side, _ in served[1:]}
    for _ in range(rounds):
        own, *others = [seen(side, server) for side, server in served]
        for (side, _), theirs in zip(served[1:], others, strict=True):
            found[side.name].append((own, theirs))
    return found


def compared(told: str, peer: str, turns: Turns[Seen], figure: Callable[[Seen], float]) -> Row:
    """One figure of ours and of a peer: medians, and the median of the rounds' ratios."""
    pairs = [(figure(own), figure(theirs)) for own, theirs in turns]
    own, theirs = (statistics.median(values) for values in zip(*pairs, strict=True))
    return Row(told, _short(own), statistics.median(a / b for a, b in pairs), f"{peer}, {_short(theirs)}")


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
