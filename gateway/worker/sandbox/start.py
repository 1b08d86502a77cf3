"""Give up privileges, then become another program.

    python -I -S start.py COMMAND…

The gateway's own Python runs this as a script, without site-packages. So no code that a model brought runs before the
process is confined, through a variable or through a file of its virtual environment. Variables for the program have a
prefix (`SET`) that hides them until then. The parameters are variables too; `gateway/system/confinement.py` sets them.

Every worker waits for it, so it imports as little as it can.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.abspath(f"{os.path.realpath(__file__)}/../../../.."))

from gateway.worker.sandbox import confine

SET, WRITABLE = "GW_SET_", "GW_WRITABLE_"  # as in gateway/system/confinement.py
CANNOT = 125  # exit status if it cannot be confined


def main(command: list[str]) -> None:
    ours = {name: os.environ.pop(name) for name in tuple(os.environ) if name.startswith("GW_")}
    theirs = {name.removeprefix(SET): value for name, value in ours.items() if name.startswith(SET)}
    parent, memory = int(ours["GW_PARENT_PID"]), ours.get("GW_MEMORY")
    gate = int(ours["GW_GATE"]) if "GW_GATE" in ours else None
    if gate is not None:
        os.set_inheritable(gate, False)
    confine.tie_to_parent(parent)
    if "GW_KEEPER" in ours:
        be_kept(parent, int(ours["GW_KEEPER"]), theirs)
    confine.limit_accidents(int(memory) if memory else None)
    os.nice(int(ours.get("GW_NICE", 0)))
    if ours["GW_SANDBOX"] == "strict":
        places = [place for name, place in ours.items() if name.startswith(WRITABLE)]
        try:
            confine.confine(places, network="GW_NETWORK" in ours, terminal="GW_TERMINAL" in theirs)
        except confine.Unconfined as error:
            refuse(str(error), theirs)
    elif "GW_TRACING" not in ours:
        confine.lay_down_tracing()
    wait_at(gate)
    confine.tie_to_parent(parent)  # again: a change of credentials resets it
    if ours["GW_SANDBOX"] == "strict" and "GW_NETWORK" in ours:
        confine.hand_over()
    os.chdir(ours["GW_CWD"])
    os.execve(command[0], command, theirs)


def be_kept(parent: int, channel: int, theirs: dict[str, str]) -> None:
    """Start the keeper, before limits that are meant for the model: it is not the first that the kernel kills."""
    from gateway.worker.sandbox import keeper

    confine.forgo_privileges()
    try:
        keeper.begin(parent, channel)
    except confine.Unconfined as error:
        refuse(str(error), theirs)


def wait_at(gate: int | None) -> None:
    """Let the gateway open our network namespace before any code of the model runs, which could hide it."""
    if gate is not None:
        os.write(gate, b".")
        os.read(gate, 1)  # the end of it


def refuse(error: str, theirs: dict[str, str]) -> None:
    """Report that the process cannot be confined.

    A worker reports it over its channel, in our own Python without anything of the model. Other programs print it and
    exit with status CANNOT.
    """
    refusal = f'sandbox = "strict" is not available: {error}; this machine supports "basic"'
    if "GW_FD" in theirs:
        told = {name: value for name, value in theirs.items() if name.startswith("GW_")} | {"GW_REFUSAL": refusal}
        os.execve(sys.executable, [sys.executable, "-P", "-m", "gateway.worker"], {**os.environ, **told})
    print(refusal, file=sys.stderr, flush=True)
    os._exit(CANNOT)


if __name__ == "__main__":
    main(sys.argv[1:])
