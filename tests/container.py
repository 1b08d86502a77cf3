"""Programs started as in a container: as its first process, with a read-only root, a volume, and a user of its own.

Where this machine has no namespaces for that, a program gets what there is: it is a subreaper, as a first process is.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import sys
from pathlib import Path

USER = 10001
PR_SET_CHILD_SUBREAPER = 36
NAMESPACES = ["unshare", *(["--user", "--map-root-user"] * (os.getuid() != 0)), "--mount", "--pid", "--fork"]
# $0 is the volume; what the system itself needs stays as it is.
BOX = f"""
mount --bind "$0" "$0"
awk '{{print $5}}' /proc/self/mountinfo | while read -r place; do
    case $place in
        /proc|/proc/*|/dev|/dev/*|/sys|/sys/*|"$0") ;;
        *) mount -o remount,bind,ro "$place" ;;
    esac
done 2> /dev/null
exec unshare --user --map-user={USER} --map-group={USER} -- "$@"
"""


@functools.cache
def is_possible() -> bool:
    command = [*NAMESPACES, "--mount-proc", "unshare", "--user", f"--map-user={USER}", "true"]
    return sys.platform == "linux" and subprocess.run(command, capture_output=True).returncode == 0


def start(volume: Path, *command: str, env: dict[str, str], cwd: Path) -> subprocess.Popen[str]:
    """What it prints is in its `stdout`; its own end ends all of it."""
    boxed = [*NAMESPACES, "--mount-proc", "--kill-child", "sh", "-c", BOX, str(volume)]
    return subprocess.Popen(
        [*(boxed if is_possible() else []), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd,
        env=env,
        preexec_fn=None if is_possible() else _adopt,
    )


def first_process(started: subprocess.Popen[str]) -> int:
    """Its number as we see it."""
    return children(started.pid)[0][0] if is_possible() else started.pid


def children(pid: int) -> list[tuple[int, str]]:
    """The children of a process, each with its state."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid:
            found.append((int(entry.name), state))
    return found


def _adopt() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
