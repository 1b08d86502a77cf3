"""The operating system's side of a worker: its environment, its log, its signals, its end.

Knows nothing of frames. What is ended here is the whole process group, and what left it: a server of a model that went
on would hold its port and its GPU, and answer for code that is gone.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from pathlib import Path

from .. import confinement, inherited
from ..peers import take_no_files
from ..replica import Launch, LoadError
from ..scratch import Scratch
from .log import LineReader
from .output import Output
from .reaper import MARK, Network, born, hold_network, is_of, is_ours, network_of, strays

CHILDREN_GRACE = 0.5  # seconds for what a worker started to end after it, as trackers of shared memory do
LOOK_AGAIN = 0.01  # seconds between two looks whether they have gone
OF_TERMINALS = ("TERM", "COLORTERM", "NO_COLOR", "INPUTRC", "PYTHONBREAKPOINT")  # what debuggers look at
LAST_LINES = 0.5  # seconds to wait for the end of the log: a process that hid from us may hold it open for ever


class Child:
    """One process, started once and ended once."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self.log = LineReader(launch.on_log, launch.secrets.values())
        self._process: asyncio.subprocess.Process | None = None
        self._born = ""  # when the process began: its number may be another's once it is waited for
        self._output: Output | None = None  # none of one that has the terminal
        self._draining: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._network: int | None = None  # an open file of that of a strict worker, by which its processes are known
        self._noting: asyncio.Task[None] | None = None
        self._scratch: Scratch | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def spawn(self) -> socket.socket:
        """Start it; what comes back is our end of its channel.

        Raises:
            LoadError: there is no such interpreter or directory, or no more processes.
            ConfigError: there is no place for its temporary files.
        """
        ours, theirs = socket.socketpair()
        take_no_files(ours)
        gate, its_gate = socket.socketpair() if self._launch.spec.sandbox == "strict" else (None, None)
        passed = [end for end in (theirs, its_gate) if end is not None]
        # A terminal is handed on as it is, and not its session, from which its input could be forged.
        has_terminal = self._launch.terminal and os.isatty(2)
        try:
            self._output = None if has_terminal else Output()
            self._scratch = Scratch()
            # From the loop's thread only: PDEATHSIG fires when the *thread* that spawned the child ends. A session of
            # its own keeps the terminal's Ctrl-C away, so that the gateway can drain, and makes one group to kill.
            begun = self._start(*(end.fileno() for end in passed))
            self._process = await asyncio.create_subprocess_exec(
                *begun.command,
                pass_fds=[end.fileno() for end in passed],
                start_new_session=True,
                stdin=None if self._launch.terminal else asyncio.subprocess.DEVNULL,
                stdout=2 if self._output is None else self._output.theirs,
                stderr=asyncio.subprocess.STDOUT,
                cwd=confinement.PLACE,
                env=begun.environment,
            )
        except BaseException as error:
            ours.close()
            if gate is not None:
                gate.close()
            if self._output is not None:
                self._output.close()
            if isinstance(error, (OSError, ValueError)):  # the latter of a variable that the system does not take
                raise LoadError(f"the worker process could not be started: {error}") from error
            raise
        finally:
            for end in passed:
                end.close()
        self._born = born(self._process.pid)
        self._launch.guard(self._process.pid, self._mark)
        if self._output is not None:
            self._draining = asyncio.create_task(self._drain(self._output))
        if gate is not None:
            self._noting = asyncio.create_task(self._note_network(self._process.pid, gate))
            self._noting.add_done_callback(lambda _: gate.close())  # also of one that was cancelled before it began
        return ours

    async def _drain(self, output: Output) -> None:
        with output:
            await self.log.drain(await output.stream())

    async def _note_network(self, pid: int, gate: socket.socket) -> None:
        """Take hold of it once it is the worker's own. Nothing of the model runs before the gate is closed."""
        gate.setblocking(False)
        await asyncio.get_running_loop().sock_recv(gate, 1)  # nothing, when it could not be confined, or has ended
        self._network = hold_network(pid)
        if self._network is not None:
            self._launch.guard(pid, self._mark)

    @property
    def _mark(self) -> str:
        """What the worker's processes inherit and no others have: the name of its temporary directory."""
        return self._scratch.name if self._scratch is not None else ""

    @property
    def _tmp(self) -> str:
        return self._scratch.path if self._scratch is not None else ""

    @property
    def _python(self) -> str:
        return self._launch.spec.python or sys.executable

    def _start(self, fd: int, gate: int | None = None) -> confinement.Start:
        """What is executed: our own Python gives up what no worker needs, and becomes the model's.

        Until then nothing of the model counts, or what that starts could be there without having given up anything.
        """
        spec = self._launch.spec
        whose = [spec.name, *([str(self._launch.index)] if spec.replicas > 1 else [])]
        command = [self._program, "-P", "-X", "faulthandler", "-m", "gateway.worker", *whose]
        for place in (self._program, spec.root):
            os.stat(place)  # what is not there is said by its name
        return confinement.start(
            command,
            self._environment(fd),
            cwd=spec.root,
            sandbox=spec.sandbox,
            writable=self._writable(),
            tracing=spec.sandbox == "basic",
            memory=spec.memory_limit,
            gate=gate,
        )

    @property
    def _program(self) -> str:
        """Its interpreter by a path that means the same everywhere."""
        return os.path.abspath(shutil.which(self._python) or self._python)

    def _environment(self, fd: int) -> dict[str, str]:
        own = inherited.of_workers()
        if not self._launch.spec.own_code:  # whatever else its libraries start with -c or -m
            own["PYTHONSAFEPATH"] = "1"
        return {
            **own,
            **place_of(self._python, own.get("PATH", os.defpath)),
            "TMPDIR": self._tmp,
            **self._launch.spec.environment,
            **self._launch.environment,
            "PYTHONUNBUFFERED": "1",
            MARK: self._mark,
            "GW_FD": str(fd),
            "GW_PARENT_PID": str(os.getpid()),
            **self._terminal(),
        }

    def _terminal(self) -> dict[str, str]:
        if not self._launch.terminal:
            return {}
        found = {name: os.environ[name] for name in OF_TERMINALS if name in os.environ}
        return {**found, "GW_TERMINAL": self._launch.terminal}

    def _writable(self) -> list[Path]:
        """Where a confined one may write."""
        spec = self._launch.spec
        places = [Path(self._tmp)]
        if spec.data_dir is not None:
            data, root = spec.data_dir.resolve(), spec.root.resolve()
            if root in data.parents:  # the model's own config.yaml named it, which cannot open all files that way
                places.append(data)
        return places

    async def wait(self) -> str:
        """How it ended."""
        if self._process is None:
            return "the worker process was never started"
        return exit_reason(await self._process.wait())

    async def end(self, grace: float) -> None:
        """Ask it to go, and after `grace` seconds make it. Nothing that it started is left when this returns.

        Begun once, it goes on though a caller gives up; another call may only shorten the grace to nothing.
        """
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(grace))
        elif not grace and self._process is not None and self.is_running:
            _signal_group(self._process.pid, signal.SIGKILL)
        await asyncio.shield(self._ending)

    async def _end(self, grace: float) -> None:
        process = self._process
        if self._noting is not None:
            self._noting.cancel()
        if process is not None:
            if process.returncode is None and grace:
                _signal_group(process.pid, signal.SIGTERM)
                try:
                    async with asyncio.timeout(grace):
                        await process.wait()
                except TimeoutError:
                    pass
            if process.returncode is None:
                process.kill()
                await process.wait()
            # What it started may have outlived it.
            await _end_rest(process.pid, self._born, self._mark, network_of(self._network))
            if self._network is not None:
                os.close(self._network)
            self._launch.unguard(process.pid)
        if self._draining is not None:
            await asyncio.wait([self._draining], timeout=LAST_LINES)
            self._draining.cancel()
        if self._scratch is not None:
            self._scratch.give_up()


def place_of(python: str, path: str) -> dict[str, str]:
    """`PATH` with the programs of this interpreter's environment before all others, and `VIRTUAL_ENV` if it is one.

    A link is not followed: that is how a virtual environment is told from the Python it was made of.
    """
    found = Path(shutil.which(python, path=path) or python).absolute()
    programs = str(found.parent)
    places = [programs, *(place for place in path.split(os.pathsep) if place != programs)]
    environment = found.parent.parent
    venv = {"VIRTUAL_ENV": str(environment)} if (environment / "pyvenv.cfg").is_file() else {}
    return {"PATH": os.pathsep.join(places), **venv}


EXITED = "code of the model, or of a library, ended its process"
CRASHED = "compiled code of a library crashed; what was printed last shows where"
HINTS = {
    "SIGKILL": "out of memory, or killed by hand",
    "SIGABRT": "compiled code of a library gave up; it may have printed why",
    **dict.fromkeys(("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL"), CRASHED),
}


def exit_reason(code: int) -> str:
    """What an exit status tells people. That of a worker that was told to end is shown to nobody."""
    if code >= 0:
        return f"the worker exited with status {code} ({EXITED})"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = HINTS.get(name)
    return f"the worker was ended by {name}" + (f" ({hint})" if hint else "")


async def _end_rest(pid: int, begun: str, mark: str, network: Network | None) -> None:
    """End what is left of a worker that is gone: of the group that it led, and those that left it.

    The worker is waited for by then, and its number free for others: a group that another process leads is not ours.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + CHILDREN_GRACE
    left = await asyncio.to_thread(strays, mark, network, but=pid)
    are_strays = bool(left)
    is_left = _signal_own_group(pid, begun, signal.SIGTERM)
    for stray in left:
        _signal(stray, signal.SIGTERM)
    while (is_left or left) and clock() < deadline:
        await asyncio.sleep(LOOK_AGAIN)
        is_left = _signal_own_group(pid, begun, 0)
        left = [stray for stray in left if is_of(stray, mark, network)]
    if is_left:
        _signal_own_group(pid, begun, signal.SIGKILL)
    # One that forks while it is looked for has a child that nobody has seen.
    deadline = clock() + CHILDREN_GRACE
    while are_strays and (left := await asyncio.to_thread(strays, mark, network, but=pid)) and clock() < deadline:
        for stray in left:
            _signal(stray, signal.SIGKILL)
        await asyncio.sleep(LOOK_AGAIN)


def _signal_own_group(pid: int, begun: str, number: int) -> bool:
    if not is_ours(pid, begun):
        return False
    _take_away(pid)
    return _signal_group(pid, number)


def _take_away(group: int) -> None:
    """What has ended of it is our child without its worker, see `adopted.py`, and would look as if it were there."""
    try:
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def _signal_group(pid: int, number: int) -> bool:
    """Whether there was anybody to send it to."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
