"""Build the command line and environment for a program that gives up privileges before it starts.

`worker/sandbox/start.py` gives them up and then becomes the program. Until then, nothing of the model takes effect:
neither its variables nor its directory, which the dynamic linker might search.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from . import inherited_environment
from .reaper import MARK

PLACE = "/"  # initial working directory
PROGRAM = Path(__file__).parents[1] / "worker/sandbox/start.py"
SET = "GW_SET_"  # prefix for variables that are set for the program only
WRITABLE = "GW_WRITABLE_"  # prefix before numbers; paths cannot be joined, because they may contain any separator


class Start(NamedTuple):
    """The arguments for exec; the working directory is `PLACE`."""

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
    nice: int = 0,
    gate: int | None = None,
    keeper: int | None = None,
) -> Start:
    """Return how to start `command` in `cwd` with this environment, confined according to `sandbox`.

    `writable` and `network` apply to "strict": where it may write, and whether it keeps the network. `tracing` applies
    to "basic": whether root keeps the capability to read the memory of other processes. `memory` is the limit of
    allocated bytes, `nice` is added to the nice value of this process. `gate` is one end of a socket: a strict program
    reports on it that it is confined, and continues when the other end is closed. `keeper` is one of a socket for its
    keeper, see `worker/sandbox/keeper.py`.
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
    if nice:
        said["GW_NICE"] = str(nice)
    if gate is not None:
        said["GW_GATE"] = str(gate)
    if keeper is not None:
        said["GW_KEEPER"] = str(keeper)
    marked = {MARK: environment[MARK]} if MARK in environment else {}  # first, because it is searched there
    theirs = {SET + name: value for name, value in environment.items()}
    return Start(
        [sys.executable, "-I", "-S", str(PROGRAM), *command],
        {**marked, **inherited_environment.of_workers(), **theirs, **said},
    )
