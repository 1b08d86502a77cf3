"""Become another program, after giving up what it must not have.

    python -I -S sandbox_start.py COMMAND…

Run as a script, by the gateway's own Python and without its site-packages, so that nothing that a model brought runs
before it is confined: neither a variable nor a file of an environment that was built for it. What the program shall
find in its environment comes under names that mean nothing to anybody (`SET`), and begins to count with it. The rest is
said by variables, too; see `gateway/confinement.py`, which writes them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gateway.worker import sandbox

SET, WRITABLE = "GW_SET_", "GW_WRITABLE_"  # as in gateway/confinement.py
CANNOT = 125  # the exit status when it cannot be confined


def main(command: list[str]) -> None:
    ours = {name: os.environ.pop(name) for name in tuple(os.environ) if name.startswith("GW_")}
    theirs = {name.removeprefix(SET): value for name, value in ours.items() if name.startswith(SET)}
    parent, memory = int(ours["GW_PARENT_PID"]), ours.get("GW_MEMORY")
    gate = int(ours["GW_GATE"]) if "GW_GATE" in ours else None
    if gate is not None:
        os.set_inheritable(gate, False)
    sandbox.tie_to_parent(parent)
    sandbox.limit_accidents(int(memory) if memory else None)
    if ours["GW_SANDBOX"] == "strict":
        places = [Path(place) for name, place in ours.items() if name.startswith(WRITABLE)]
        try:
            sandbox.confine(places, network="GW_NETWORK" in ours, terminal="GW_TERMINAL" in theirs)
        except sandbox.Unconfined as error:
            refuse(str(error), theirs)
    elif "GW_TRACING" not in ours:
        sandbox.lay_down_tracing()
    wait_at(gate)
    sandbox.tie_to_parent(parent)  # again: it does not outlive a change of credentials
    if ours["GW_SANDBOX"] == "strict" and "GW_NETWORK" in ours:
        sandbox.hand_over()
    os.chdir(ours["GW_CWD"])
    os.execve(command[0], command, theirs)


def wait_at(gate: int | None) -> None:
    """Let the gateway take hold of what it knows us by, before anything of the model runs, and could hide from it."""
    if gate is not None:
        os.write(gate, b".")
        os.read(gate, 1)  # the end of it


def refuse(error: str, theirs: dict[str, str]) -> None:
    """A worker says it over its channel, in our own Python and with nothing of the model's; others by their status."""
    refusal = f'sandbox = "strict" cannot be had: {error}; "basic" is what this machine can do'
    if "GW_FD" in theirs:
        told = {name: value for name, value in theirs.items() if name.startswith("GW_")} | {"GW_REFUSAL": refusal}
        os.execve(sys.executable, [sys.executable, "-P", "-m", "gateway.worker"], {**os.environ, **told})
    print(refusal, file=sys.stderr, flush=True)
    os._exit(CANNOT)


if __name__ == "__main__":
    main(sys.argv[1:])
