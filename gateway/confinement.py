"""How a program is started that gives up things first: its command line and its environment.

What it gives up is laid down by `worker/sandbox_start.py`, which then becomes the program. Until then nothing of the
model counts: neither its variables nor its directory, which the loader of shared libraries might look into.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from . import inherited
from .runners.reaper import MARK

PLACE = "/"  # where it begins
PROGRAM = Path(__file__).with_name("worker") / "sandbox_start.py"
SET = "GW_SET_"  # before the names of variables that shall count later
WRITABLE = "GW_WRITABLE_"  # before numbers: any character that could stand between paths may be part of one


class Start(NamedTuple):
    """What goes to exec; the working directory is `PLACE`."""

    command: list[str]
    environment: dict[str, str]


def start(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    cwd: Path,
    sandbox: Literal["basic", "strict"],
    writable: Iterable[Path] = (),
    network: bool = False,
    tracing: bool = False,
    memory: int | None = None,
    gate: int | None = None,
) -> Start:
    """`command` in `cwd` with this environment, confined as `sandbox` says.

    `writable` and `network` are for a strict one: where it may write, and whether it keeps the network. `tracing` is
    for another: whether root keeps what reads the memory of other processes. `memory` are the bytes that it may
    allocate. At `gate`, one end of a socket, a strict one says that it is confined, and goes on when the other end is
    closed.
    """
    said = {
        "GW_SANDBOX": sandbox,
        "GW_CWD": str(cwd),
        "GW_PARENT_PID": str(os.getpid()),
    }
    said |= {f"{WRITABLE}{number}": str(place) for number, place in enumerate(writable)}
    if network:
        said["GW_NETWORK"] = "1"
    if tracing:
        said["GW_TRACING"] = "1"
    if memory is not None:
        said["GW_MEMORY"] = str(memory)
    if gate is not None:
        said["GW_GATE"] = str(gate)
    if MARK in environment:
        said[MARK] = environment[MARK]
    theirs = {SET + name: value for name, value in environment.items()}
    return Start([sys.executable, "-I", "-S", str(PROGRAM), *command], {**inherited.of_workers(), **theirs, **said})
