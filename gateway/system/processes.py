"""Memory and uptime of workers and their descendants, from the kernel.

Measured from outside, because a worker hides itself from other processes and answers late while it computes or hangs.
Linux only.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")


class Usage(NamedTuple):
    memory: int  # resident bytes of it and its descendants; shared pages count for each
    uptime: float  # seconds since it started


class _Process(NamedTuple):
    parent: int
    group: int
    began: int  # clock ticks since boot
    pages: int


def usage_of(pids: Iterable[int]) -> dict[int, Usage]:
    """Return the usage of each process that exists. Descendants are found by parent, orphans by group."""
    wanted = list(pids)
    known = dict(_all()) if wanted else {}
    below: dict[int, list[int]] = {}
    for pid, process in known.items():
        below.setdefault(process.parent, []).append(pid)
        if process.group != pid:
            below.setdefault(process.group, []).append(pid)
    return {pid: _usage(pid, known, below) for pid in wanted if pid in known}


def _usage(first: int, known: dict[int, _Process], below: dict[int, list[int]]) -> Usage:
    found, left = {first}, [first]
    while left:
        fresh = set(below.get(left.pop(), ())) - found
        found |= fresh
        left += fresh
    memory = sum(known[pid].pages for pid in found) * resource.getpagesize()
    began = known[first].began / os.sysconf("SC_CLK_TCK")
    return Usage(memory, max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began))


def _all() -> Iterable[tuple[int, _Process]]:
    try:
        names = [name for name in os.listdir(PROC) if name.isdigit()]
    except OSError:  # no /proc
        return
    for name in names:
        try:
            # The fields after the name, which may contain anything: state, parent, group, …; 22 is the start time, 24
            # the pages.
            fields = (PROC / name / "stat").read_bytes().rpartition(b")")[2].split()
            yield int(name), _Process(int(fields[1]), int(fields[2]), int(fields[19]), int(fields[21]))
        except (OSError, IndexError, ValueError):  # it has ended
            continue
