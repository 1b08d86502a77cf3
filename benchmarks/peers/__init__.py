"""Peers: requests/s, latency and CPU beside mosec, LitServe, Truss's server and Triton, over the same classes.

Every round asks the gateway, then each peer; a ratio is taken within a round, so that a slow minute hits all sides. The
CPU time is that of all processes of a side. A peer whose environment is not there is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..report import Failed, LeftOut, Row


def run(quick: bool) -> list[Row]:
    # Imported here, for the peers' own servers import this package where the gateway and its client are not.
    from . import first_chunk, neighbours, start, unary
    from .sides import ELSEWHERE, TITLES, ours, peers

    found, missing = peers()
    lines = {name: f"make bench-peers PEERS={name}" for name in missing if name not in ELSEWHERE}
    if not found:
        raise LeftOut(f"no peer has an environment; run: {lines['mosec']} (or truss, litserve, triton)")
    sides = [ours(), *found]
    parts: list[Callable[[], list[Row]]] = [partial(unary.measure, each, sides, quick) for each in unary.SCENARIOS]
    parts += [partial(measured.measure, sides, quick) for measured in (neighbours, first_chunk, start)]
    rows, failures = [], []
    for part in parts:
        try:
            rows += part()
        except RuntimeError as error:  # a wrong answer is no result; the other scenarios have theirs
            failures.append(str(error))
    rows += [Row(f"{TITLES[name]} is left out", f"run: {line}") for name, line in lines.items()]
    if failures:
        raise Failed("; ".join(failures), rows)
    return rows
