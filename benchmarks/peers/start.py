"""From the start of the command to the first answer, and what all processes compute until then."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..processes import cpu_of_all
from ..report import Row
from .answers import is_echo
from .asking import Question, first_answer
from .rounds import Turns, compared
from .sides import Side
from .unary import SMALL

_QUESTION = Question("one", SMALL, is_echo)


@dataclass(frozen=True, slots=True)
class Start:
    wall: float
    cpu: float


def measure(sides: Sequence[Side], quick: bool) -> list[Row]:
    own, *others = [side for side in sides if _QUESTION.kind in side.paths]
    turns: dict[str, Turns[Start]] = {side.name: [] for side in others}
    for _ in range(3 if quick else 9):
        ours = _start(own)
        for side in others:
            turns[side.name].append((ours, _start(side)))
    rows = []
    for peer, pairs in turns.items():
        rows.append(compared("start to the first answer, s", peer, pairs, lambda each: each.wall))
        rows.append(compared("  CPU until then, all processes, s", peer, pairs, lambda each: each.cpu))
    return rows


def _start(side: Side) -> Start:
    began = time.perf_counter()
    with side.serve(_QUESTION.kind) as server:
        first_answer(side.name, server, side.paths[_QUESTION.kind], _QUESTION)
        return Start(time.perf_counter() - began, cpu_of_all(server.pid))
