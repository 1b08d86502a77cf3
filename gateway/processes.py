"""What the kernel says of workers and of what they have started: the memory they hold, and how long they run.

From outside, for a worker can be read by nobody, and one that computes or stands still answers late. Linux only.
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
    memory: int  # resident bytes of it and of all that it has started; what they share counts for each
    uptime: float  # seconds since it began


class _Process(NamedTuple):
    parent: int
    group: int
    began: int  # clock ticks since the machine did
    pages: int


def usage_of(pids: Iterable[int]) -> dict[int, Usage]:
    """Of each process that is there. What it has started is known by its parent, orphans by their group."""
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
            # After the name, which may hold anything: state, parent, group, …; 22 is when it began, 24 its pages.
            fields = (PROC / name / "stat").read_bytes().rpartition(b")")[2].split()
            yield int(name), _Process(int(fields[1]), int(fields[2]), int(fields[19]), int(fields[21]))
        except (OSError, IndexError, ValueError):  # it has ended
            continue
