"""Start and end a worker process: its environment, its log, its signals.

Knows nothing of frames. Ending a worker ends its whole process group and the processes that left it. Otherwise a server
of the model would keep its port and GPU, and answer with code that is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from ..files.scratch import Scratch
from ..system import confinement, inherited_environment
from ..system.background import beside, patiently
from ..system.begun import Begun
from ..system.pipes import Output
from ..system.reaper import (
    KILLING,
    LOOK_AGAIN,
    MARK,
    Network,
    born,
    hold_network,
    is_of,
    is_ours,
    network_of,
    signal_strays,
)
from ..system.socket_peers import take_no_files
from ..telemetry.model_output import LineReader
from ..telemetry.redaction import apart
from .keeper import Keeper
from .replica import Launch, LoadError

CHILDREN_GRACE = 0.5  # seconds for children of a worker to end after it, such as trackers of shared memory
SEARCH = 10.0  # seconds for one search for processes of a worker; tens of thousands are searched in a second
OF_TERMINALS = ("TERM", "COLORTERM", "NO_COLOR", "INPUTRC", "PYTHONBREAKPOINT")  # used by debuggers
LAST_LINES = 0.5  # seconds to wait for the end of the log: a hidden process may hold it open forever


class Child:
    """One process, started once and ended once."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self.log = LineReader(launch.on_log)
        self._process: asyncio.subprocess.Process | None = None
        self._born = ""  # start time of the process, because its pid may be reused
        self._output: Output | None = None  # None if the process has the terminal
        self._draining: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._network: int | None = None  # an open network namespace of a strict worker, to find its processes
        self._noting: asyncio.Task[None] | None = None
        self._keeper: Keeper | None = None  # of a strict worker
        self._scratch: Scratch | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def hide(self, secrets: Mapping[str, str]) -> None:
        """Hide the values in the log from now on; what config.yaml itself says is no secret of anybody else's."""
        self.log.hide(*apart(secrets, self._launch.spec.config.get("secrets")))

    def _hide_all(self) -> None:
        self._launch.hide_others()
        self.hide(self._launch.secrets)

    async def spawn(self, begun: Begun) -> socket.socket:
        """Start the process, with the page `begun`. Returns our end of its channel.

        Raises:
            LoadError: the interpreter or directory does not exist, or the process limit is reached.
            ConfigError: there is no place for its temporary files.
        """
        await asyncio.to_thread(self._hide_all)  # before the process can print any
        ours, theirs = socket.socketpair()
        take_no_files(ours)
        gate, its_gate = socket.socketpair() if self._launch.spec.sandbox == "strict" else (None, None)
        self._keeper = Keeper() if gate is not None else None
        its_keeper = self._keeper.theirs if self._keeper is not None else None
        passed = [end for end in (theirs, its_gate, its_keeper) if end is not None]
        descriptors = [begun.descriptor, *(end.fileno() for end in passed)]
        # The terminal is passed on, but not its session, from which input could be forged.
        has_terminal = self._launch.terminal and os.isatty(2)
        try:
            self._output = None if has_terminal else Output()
            self._scratch = Scratch()
            # On the event loop's thread only: PDEATHSIG fires when the *thread* that spawned the child ends. The new
            # session keeps Ctrl-C of the terminal away, so that the gateway can drain, and makes one group to kill.
            start = self._start(*descriptors)
            self._process = await asyncio.create_subprocess_exec(
                *start.command,
                pass_fds=descriptors,
                start_new_session=True,
                stdin=None if self._launch.terminal else asyncio.subprocess.DEVNULL,
                stdout=2 if self._output is None else self._output.theirs,
                stderr=asyncio.subprocess.STDOUT,
                cwd=confinement.PLACE,
                env=start.environment,
            )
        except BaseException as error:
            ours.close()
            if gate is not None:
                gate.close()
            if self._keeper is not None:
                self._keeper.close()
            if self._output is not None:
                self._output.close()
            if isinstance(error, (OSError, ValueError)):  # ValueError: an invalid environment variable
                raise LoadError(f"the worker process could not be started: {error}") from error
            raise
        finally:
            for end in passed:
                end.close()
        self._born = born(self._process.pid)
        self._launch.guard(self._process.pid, self._mark)
        if self._keeper is not None:
            self._keeper.watch(self._on_keeper_lost)
        if self._output is not None:
            self._draining = asyncio.create_task(self._drain(self._output))
        if gate is not None:
            self._noting = asyncio.create_task(self._note_network(self._process.pid, gate))
            self._noting.add_done_callback(lambda _: gate.close())  # also if it is cancelled before it starts
        return ours

    async def _drain(self, output: Output) -> None:
        with output:
            await self.log.drain(await output.stream())

    async def _note_network(self, pid: int, gate: socket.socket) -> None:
        """Open the worker's network namespace once it has its own. No model code runs before the gate is closed."""
        gate.setblocking(False)
        await asyncio.get_running_loop().sock_recv(gate, 1)  # empty if the confinement failed or it has ended
        self._network = hold_network(pid)
        if self._network is not None:
            self._launch.guard(pid, self._mark)

    def _on_keeper_lost(self) -> None:
        """End the worker too: of what it starts, not all would be found without its keeper."""
        if self._process is not None and self.is_running and self._ending is None:
            self._launch.on_log("ERROR gateway: the process was killed that ends what this model starts; it ends too")
            _kill(self._process.pid, self._born)

    @property
    def _mark(self) -> str:
        """A unique mark that the worker's processes inherit: the name of its temporary directory."""
        return self._scratch.name if self._scratch is not None else ""

    @property
    def _tmp(self) -> str:
        return self._scratch.path if self._scratch is not None else ""

    @property
    def _python(self) -> str:
        return self._launch.spec.python or sys.executable

    def _start(self, begun: int, fd: int, gate: int | None = None, keeper: int | None = None) -> confinement.Start:
        """Return what to execute: our own Python, which gives up privileges and then becomes the model's Python.

        Until then nothing of the model takes effect, or code of the model could run with these privileges.
        """
        spec = self._launch.spec
        whose = [spec.name, *([str(self._launch.index)] if spec.replicas > 1 else [])]
        command = [self._program, "-P", "-X", "faulthandler", "-m", "gateway.worker", *whose]
        for place in (self._program, spec.root):
            os.stat(place)  # raises an error with the name of the missing one
        return confinement.start(
            command,
            self._environment(begun, fd),
            cwd=spec.root,
            sandbox=spec.sandbox,
            writable=self._writable(),
            tracing=spec.sandbox == "basic",
            memory=spec.memory_limit,
            nice=spec.nice,
            gate=gate,
            keeper=keeper,
        )

    @property
    def _program(self) -> str:
        """An absolute path of the interpreter, valid in every directory."""
        return os.path.abspath(shutil.which(self._python) or self._python)

    def _environment(self, begun: int, fd: int) -> dict[str, str]:
        own = inherited_environment.of_workers()
        marked = {MARK: self._mark}  # first, where it is searched, and last, so that nothing replaces it
        if not self._launch.spec.own_code:  # also for Python processes that its libraries start with -c or -m
            own["PYTHONSAFEPATH"] = "1"
        return {
            **marked,
            **own,
            **place_of(self._python, own.get("PATH", os.defpath)),
            "TMPDIR": self._tmp,
            **self._launch.spec.environment,
            **self._launch.environment,
            "PYTHONUNBUFFERED": "1",
            **marked,
            "GW_FD": str(fd),
            "GW_BEGUN": str(begun),
            "GW_PARENT_PID": str(os.getpid()),
            **self._terminal(),
        }

    def _terminal(self) -> dict[str, str]:
        if not self._launch.terminal:
            return {}
        found = {name: os.environ[name] for name in OF_TERMINALS if name in os.environ}
        return {**found, "GW_TERMINAL": self._launch.terminal}

    def _writable(self) -> list[Path]:
        """Return the directories that a confined worker may write to."""
        spec = self._launch.spec
        places = [Path(self._tmp)]
        if spec.data_dir is not None:
            data, root = spec.data_dir.resolve(), spec.root.resolve()
            if root in data.parents:  # it comes from the model's config.yaml, which must not open other directories
                places.append(data)
        return places

    async def wait(self) -> str:
        """Wait for the end of the process. Returns how it ended."""
        if self._process is None:
            return "the worker process was never started"
        return exit_reason(await self._process.wait())

    async def end(self, grace: float) -> None:
        """Send SIGTERM, and SIGKILL after `grace` seconds. Returns when nothing that the process started is left.

        Once begun, it continues even if the caller is cancelled. A second call can only cut the grace to zero.
        """
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(grace))
        elif not grace and self._process is not None and self.is_running:
            await beside(partial(_signal_group, self._process.pid, self._born, signal.SIGKILL))
        await asyncio.shield(self._ending)

    async def _end(self, grace: float) -> None:
        process = self._process
        if self._noting is not None:
            self._noting.cancel()
        if process is not None:
            if process.returncode is None and grace:
                try:
                    async with asyncio.timeout(grace):
                        await beside(partial(_signal_group, process.pid, self._born, signal.SIGTERM))
                        await process.wait()
                except TimeoutError:
                    pass
            if process.returncode is None:
                await beside(partial(_kill, process.pid, self._born))
                await process.wait()
            # Its children may have outlived it.
            network = network_of(self._network)
            if await _end_rest(process.pid, self._born, self._mark, network, self._keeper):
                self._launch.unguard(process.pid)
            else:  # the reaper tries again at the end of the gateway
                self._launch.on_log("WARNING gateway: processes that this model started could not be ended")
            if self._network is not None:
                os.close(self._network)
            if self._keeper is not None:
                self._keeper.close()
        if self._draining is not None:
            await asyncio.wait([self._draining], timeout=LAST_LINES)
            self._draining.cancel()
        if self._scratch is not None:
            self._scratch.give_up()


def place_of(python: str, path: str) -> dict[str, str]:
    """Return `PATH` with the interpreter's directory first, and `VIRTUAL_ENV` if it is in a virtual environment.

    Links are not followed, because only the link's location distinguishes a virtual environment from its base Python.
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
    "SIGABRT": "compiled code of a library aborted; it may have printed why",
    **dict.fromkeys(("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL"), CRASHED),
}


def exit_reason(code: int) -> str:
    """Return an exit status in words. Not used for workers that were told to exit."""
    if code >= 0:
        return f"the worker exited with status {code} ({EXITED})"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = HINTS.get(name)
    return f"the worker was ended by {name}" + (f" ({hint})" if hint else "")


async def _end_rest(
    pid: int, begun: str, mark: str, network: Network | None = None, keeper: Keeper | None = None
) -> bool:
    """End what is left of a worker that is gone: its process group, and processes that left the group.

    The worker has been reaped, so its pid may be reused: a group with another leader is not ours. Those that are found
    can end by themselves first. Then a keeper kills all, found or not; without one, those that are found. Returns
    whether everything has ended.
    """
    clock = asyncio.get_running_loop().time
    strays = partial(signal_strays, mark=mark, network=network, since=begun)
    try:
        left = await _search(partial(strays, signal.SIGTERM, but=pid))
        is_left = await beside(partial(_signal_rest, pid, begun, signal.SIGTERM))
        deadline = clock() + CHILDREN_GRACE
        while (is_left or left) and clock() < deadline:
            await asyncio.sleep(LOOK_AGAIN)
            is_left = await beside(partial(_signal_rest, pid, begun, 0))
            left = left and await _search(partial(_still, left, mark, network))
        if keeper is not None and await keeper.end(KILLING):
            return True
        # Kill first and look at the clock then: a search may take longer than any limit. Repeat, because a process that
        # forks during a search has a child that was not found.
        await beside(partial(_signal_rest, pid, begun, signal.SIGKILL))
        deadline = clock() + KILLING
        while await _search(partial(strays, signal.SIGKILL)):
            if clock() >= deadline:
                return False
            await asyncio.sleep(LOOK_AGAIN)
    except TimeoutError:
        await beside(partial(_signal_rest, pid, begun, signal.SIGKILL))
        return keeper is not None and await keeper.end(KILLING)
    return True


async def _search(work: Callable[[], list[int]]) -> list[int]:
    """Search beside the loop. Raises TimeoutError: a process may be such that the kernel reads it forever."""
    try:
        async with asyncio.timeout(SEARCH):
            return await patiently(work)
    except RuntimeError as error:  # no more threads
        raise TimeoutError from error


def _still(found: list[int], mark: str, network: Network | None) -> list[int]:
    return [pid for pid in found if is_of(pid, mark, network)]


def _kill(pid: int, begun: str) -> None:
    if born(pid) == begun:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _signal_rest(pid: int, begun: str, number: int) -> bool:
    """Do as `_signal_group` does, once the leader has been reaped."""
    if is_ours(pid, begun):
        _take_away(pid)
    return _signal_group(pid, begun, number)


def _take_away(group: int) -> None:
    """Reap ended members of the group, which are our children now (`adopted_processes.py`) and would look alive."""
    try:
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _signal_group(pid: int, begun: str, number: int) -> bool:
    """Send a signal to the group of the worker that started then. Returns whether there was a process to send it to."""
    if not is_ours(pid, begun):
        return False
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
