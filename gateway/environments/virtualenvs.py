"""Build a virtual environment for a model that requests its own: once, with uv, identified by its content.

`[models.NAME] env = "isolated"`. The key is a hash of the requirements, the Python and our channel library, so models
with the same requirements share one, and a changed file leads to a new one. The worker's own code is added by path; of
our dependencies only msgspec and uvloop are installed. A Truss also gets the packages of Truss's image, in versions
that its requirements allow. A failed build is retried, never used. `local_requirements.py` interprets the lines,
`identity.py` computes the key.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

from .. import __version__
from ..errors import ConfigError
from ..files import integrity, locks, ordinary
from ..files.cache import ELSEWHERE, advice_on, cache_dir, make
from ..files.clearing import clear_put_away, put_away
from ..spec import ModelSpec
from ..system import confinement, inherited_environment
from ..system.background import beside, patiently
from ..system.pipes import Output
from ..telemetry.model_output import LineReader
from ..wording import counted
from . import identity
from .build_lines import Lines
from .identity import Asked
from .local_projects import tidied
from .local_requirements import is_of_an_index, place_of, requirements_of

T = TypeVar("T")
CHANNEL = ("msgspec>=0.19,<0.23", "uvloop>=0.19; platform_system != 'Windows'")  # for a worker to talk to us
TRUSS_IMAGE = ("fastapi", "httpx", "msgpack", "numpy", "pip", "prometheus_client", "pydantic>=2", "pyyaml", "starlette")
COMPLETE = ".complete"  # a file next to it that no build can write, created last
TAIL = 12  # lines of a failed build in the model's reason


def _of_ours(spec: ModelSpec) -> list[str]:
    return [*CHANNEL, *(TRUSS_IMAGE if spec.format == "truss" else ())]


def asked(spec: ModelSpec, variables: Mapping[str, str] | None = None, cache: Path | None = None) -> Asked:
    """Return what the model's environment is built from. `variables` are set by the operator for the model.

    Raises:
        ConfigError: a file cannot be read, or a link to it leads out of the model directory, which is not allowed.
    """
    with ordinary.within(spec.root, spec.allow_links):
        wanted = [*_of_ours(spec), *requirements_of(spec)]
        return identity.asked(spec.root, wanted, place_of(spec), variables or {}, cache or cache_dir())


async def ensure(
    spec: ModelSpec,
    on_log: Callable[[str], None],
    root: Path | None = None,
    *,
    variables: Mapping[str, str] | None = None,
) -> Path:
    """Return the Python of the model's environment; build it if it does not exist.

    A build runs code of the requirements. It gets `variables`, which the operator has set for the model, and few of the
    gateway's own variables, see `inherited_environment`. The build of a strict model is confined like its worker,
    except for the network.

    Raises:
        ConfigError: uv is missing, the build failed (with the last lines of its output), or its directory cannot be
            used.
    """
    cache = root or cache_dir()
    found = await patiently(partial(asked, spec, variables, cache))  # it may hash wheels
    directory = cache / "envs" / found.key
    python, complete = directory / "bin" / "python", directory.with_suffix(COMPLETE)
    if complete.is_file() and directory.is_dir():
        return python
    uv = find_uv()
    make(directory.parent)
    loop = asyncio.get_running_loop()

    def tell(text: str) -> None:  # from a thread
        loop.call_soon_threadsafe(on_log, text)

    with _told(directory), await patiently(partial(_Lock, directory.with_suffix(".lock"), tell)):
        if complete.is_file() and directory.is_dir():  # another process has built it
            return python
        build = _Build(spec, found, directory, {**inherited_environment.of_builds(), **(variables or {})}, on_log)
        await patiently(partial(_check_contents, spec))
        complete.unlink(missing_ok=True)
        build.clear()
        on_log(f"building an environment with {counted(len(found.lines) - len(_of_ours(spec)), 'requirement')}")
        listed = directory.with_suffix(".txt")
        try:
            lines, in_place = await _finished(partial(build.prepare, cache.resolve()))
            listed.write_text("\n".join(lines) + "\n")
            await build.run(
                [uv, "venv", *build.settled, "--quiet", "--allow-existing", "--python", sys.executable, str(directory)]
            )
            # uv does not rebuild a directory until its pyproject.toml changes.
            again = () if all(map(is_of_an_index, found.lines)) else ("--reinstall",)
            given_up = threading.Event()
            async with _entered(tidied(in_place, given_up, tell), given_up):
                await build.run(
                    [uv, "pip", "install", *build.settled, *again, "--python", str(python), "-r", str(listed)]
                )
            complete.touch()
        except BaseException:
            put_away(directory)  # it may have filled the disk
            raise
        finally:
            build.end()
        on_log("the environment is ready")
    return python


@contextlib.contextmanager
def _told(place: Path) -> Iterator[None]:
    """Raise `ConfigError` if the directory cannot be written to, for example on a full disk."""
    try:
        yield
    except OSError as error:
        advice = advice_on(error) or ELSEWHERE
        raise ConfigError(f"nothing can be built in {place.parent}: {error.strerror or error}; {advice}") from error


def import_path(root: Path | None = None) -> Path:
    """Return a directory that contains our package and nothing else of the environment we are installed in.

    Raises:
        ConfigError: it cannot be created.
    """
    package = Path(__file__).resolve().parents[1]
    # One directory per installation: gateways of different versions may share a cache.
    whose = f"{__version__}-{hashlib.sha256(str(package).encode()).hexdigest()[:16]}"
    directory = (root or cache_dir()) / "worker" / whose
    make(directory)
    link = directory / "gateway"
    if not link.is_symlink() or link.resolve() != package:
        fresh = directory / f".gateway-{os.getpid()}"
        with _told(directory):
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(package)
            fresh.replace(link)
    return directory


class _Build:
    """The commands that fill one directory, one after the other."""

    def __init__(
        self, spec: ModelSpec, asked: Asked, directory: Path, environment: dict[str, str], on_log: Callable[[str], None]
    ) -> None:
        self._spec, self._asked, self._directory, self._on_log = spec, asked, directory, on_log
        self._rest = directory.with_suffix(".build")  # deleted at the end
        self._settings = self._rest / "settings"
        self.settled = ("--project", str(self._settings))  # uv looks for settings there, but is started elsewhere
        self._lines = Lines(asked, spec.root.resolve(), place_of(spec), environment, self._rest)
        self._environment = {**environment, "NO_COLOR": "1", "UV_NO_PROGRESS": "1", "GIT_TERMINAL_PROMPT": "0"}
        self._environment["TMPDIR"] = str(self._rest)
        if "UV_CONFIG_FILE" in environment:
            self._environment["UV_CONFIG_FILE"] = str(self._settings / "uv.toml")
        if spec.sandbox == "strict":
            # uv's own cache is shared: files that a build script leaves there would be installed for other models.
            self._environment |= {"UV_CACHE_DIR": str(self._rest / "cache"), "UV_LINK_MODE": "copy"}

    def clear(self) -> None:
        """Start with empty directories."""
        clear_put_away(self._directory.parent)
        for place in (self._directory, self._rest):
            put_away(place)
            place.mkdir(mode=0o700)

    def prepare(self, aside: Path) -> tuple[list[str], dict[Path, bool]]:
        """Return the lines for uv, and the projects that are built in place and need tidying.

        Raises `ConfigError` for a file that cannot be read, or has changed since it was read.
        """
        self._settings.mkdir()
        self._asked.settings.write(self._settings)
        with ordinary.within(self._spec.root, self._spec.allow_links):
            lines = self._lines.rewritten(aside)
        # The build of a strict model can only write to its environment.
        return lines, {} if self._spec.sandbox == "strict" else self._lines.in_place()

    def end(self) -> None:
        put_away(self._rest)

    async def run(self, command: list[str]) -> None:
        """Run a command. Raises `ConfigError` with the last lines of output if it fails."""
        begun = confinement.start(
            command,
            self._environment,
            cwd=self._spec.root,
            sandbox=self._spec.sandbox,
            writable=[self._directory, self._rest],
            network=True,
        )
        copies = str(self._lines.copies)  # a path unknown to the user, removed from messages
        printed = LineReader(lambda line: self._on_log(line.replace(copies, "")))
        with Output() as output:
            process = await asyncio.create_subprocess_exec(
                *begun.command,
                cwd=confinement.PLACE,
                env=begun.environment,
                start_new_session=True,  # no terminal to prompt on, and one process group to kill
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output.theirs,
                stderr=asyncio.subprocess.STDOUT,
            )
            try:
                await printed.drain(await output.stream())
                code = await process.wait()
            except BaseException:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    await beside(partial(os.killpg, process.pid, signal.SIGKILL))
                await process.wait()
                raise
        if code != 0:
            raise ConfigError(
                "its environment could not be built:\n" + "\n".join([*printed.tail][-TAIL:]).replace(copies, "")
            )


def _check_contents(spec: ModelSpec) -> None:
    """Check the files as the worker does: a worker only starts after build scripts, which may be among the files."""
    if not spec.allow_links:
        integrity.check_links(spec.root, has_code=spec.own_code)
    integrity.verify(spec.root, but=spec.data_dir)


def find_uv() -> str:
    """Return the path of uv. Raises `ConfigError` with the pip command if it is not installed."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        raise ConfigError("isolated environments require uv; run: pip install 'model-gateway[isolated]'")
    return found


@contextlib.asynccontextmanager
async def _entered(context: contextlib.AbstractContextManager[None], given_up: threading.Event) -> AsyncIterator[None]:
    """Hold a context for the block. Entering may wait on a thread, until `given_up` is set; then it is left again."""
    await _finished(context.__enter__, given_up.set, lambda: context.__exit__(None, None, None))
    try:
        yield
    finally:
        context.__exit__(None, None, None)


async def _finished(
    work: Callable[[], T],
    giving_up: Callable[[], object] = lambda: None,
    given_up: Callable[[], object] = lambda: None,
) -> T:
    """Run work on a thread, which cannot be stopped: on cancellation, wait for its end, so that no other work starts.

    `giving_up` may tell it to end early, `given_up` is called after its end.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        giving_up()
        await asyncio.wait([task])
        given_up()
        raise


class _Lock:
    """An exclusive lock between processes, held in a `with` block; the constructor waits for it."""

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        self._file = os.fdopen(locks.opened(path), "w")  # it closes itself if the wait was cancelled
        locks.take(self._file.fileno(), path, tell=tell, why="the environment cannot be built")

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        self._file.close()
