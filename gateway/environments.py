"""A virtual environment of its own for a model that asks for one: built once by uv, kept by what is in it.

`[models.NAME] env = "isolated"`. The key is a hash of the requirements, the Python and our channel library, so two
models with the same requirements share one, and a changed file makes another. The worker's own code reaches it by path;
of our dependencies it gets msgspec and uvloop. A truss finds there what Truss's image offers without asking, too, in
versions that its requirements allow. Building is asked for again after a failure, never half used. What the lines mean
is in `local_requirements.py`, what the key is made of in `environment_keys.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from . import __version__, confinement, contents, environment_keys, inherited
from .beside import patiently
from .build_lines import Lines
from .cache import ELSEWHERE, advice_on, cache_dir, make
from .clearing import clear_put_away, put_away
from .errors import ConfigError
from .local_projects import tidied
from .local_requirements import is_of_an_index, place_of, requirements_of
from .runners.log import LineReader
from .runners.output import Output
from .spec import ModelSpec
from .wording import counted

T = TypeVar("T")
CHANNEL = ("msgspec>=0.19,<0.23", "uvloop>=0.19; platform_system != 'Windows'")  # what a worker needs to talk to us
TRUSS_IMAGE = ("fastapi", "httpx", "msgpack", "numpy", "pip", "prometheus_client", "pydantic>=2", "pyyaml", "starlette")
COMPLETE = ".complete"  # a file beside it, where no build writes, made last: or it is rubbish of one that was killed
TAIL = 12  # lines of a failed build that its model's reason shows


def _wanted(spec: ModelSpec) -> list[str]:
    return [*CHANNEL, *(TRUSS_IMAGE if spec.format == "truss" else ()), *requirements_of(spec)]


def key_of(spec: ModelSpec, variables: Mapping[str, str] | None = None, cache: Path | None = None) -> str:
    """What the model's environment is known by. `variables` are those that the operator has set for it."""
    return environment_keys.key_of(spec.root, _wanted(spec), place_of(spec), variables or {}, cache or cache_dir())


async def ensure(
    spec: ModelSpec,
    on_log: Callable[[str], None],
    root: Path | None = None,
    *,
    variables: Mapping[str, str] | None = None,
) -> Path:
    """The Python of the model's environment, built now if it is not there.

    A build runs what the requirements bring. It sees `variables`, which the operator has set for the model, and of the
    gateway's own what `inherited` names. That of a strict model is confined as its worker is, but for the network.

    Raises:
        ConfigError: uv is missing, or the build failed; the text ends with the resolver's last lines; or what is
            wrong with its place.
    """
    cache = root or cache_dir()
    key = await patiently(partial(key_of, spec, variables, cache))  # it may read wheels
    directory = cache / "envs" / key
    python, complete = directory / "bin" / "python", directory.with_suffix(COMPLETE)
    if complete.is_file() and directory.is_dir():
        return python
    uv = find_uv()
    make(directory.parent)
    with _told(directory), await patiently(partial(_Lock, directory.with_suffix(".lock"))):
        if complete.is_file() and directory.is_dir():  # somebody else was quicker
            return python
        build = _Build(spec, directory, {**inherited.of_builds(), **(variables or {})}, on_log)
        await patiently(partial(_check_contents, spec))
        complete.unlink(missing_ok=True)
        build.clear()
        on_log(f"building an environment with {counted(len(requirements_of(spec)), 'requirement')}")
        listed = directory.with_suffix(".txt")
        try:
            lines, in_place = await _finished(partial(build.prepare, _wanted(spec), cache.resolve()))
            listed.write_text("\n".join(lines) + "\n")
            await build.run([uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(directory)])
            # What uv has built of a directory it takes for the same until its pyproject.toml changes.
            again = () if all(map(is_of_an_index, _wanted(spec))) else ("--reinstall",)
            given_up = threading.Event()
            async with _entered(tidied(in_place, given_up), given_up):
                await build.run([uv, "pip", "install", *again, "--python", str(python), "-r", str(listed)])
            complete.touch()
        except BaseException:
            put_away(directory)  # it may be what has filled the disk
            raise
        finally:
            build.end()
        on_log("the environment is ready")
    return python


@contextlib.contextmanager
def _told(place: Path) -> Iterator[None]:
    """Raises `ConfigError` for what cannot be written there, as on a full disk."""
    try:
        yield
    except OSError as error:
        advice = advice_on(error) or ELSEWHERE
        raise ConfigError(f"nothing can be built in {place.parent}: {error.strerror or error}; {advice}") from error


def import_path(root: Path | None = None) -> Path:
    """A directory that holds our package and nothing else of the environment that we are installed in.

    Raises:
        ConfigError: it cannot be made.
    """
    package = Path(__file__).resolve().parent
    # A directory for each of us: two gateways of other versions may share a cache.
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
    """The programs that fill one directory, one after the other."""

    def __init__(
        self, spec: ModelSpec, directory: Path, environment: dict[str, str], on_log: Callable[[str], None]
    ) -> None:
        self._spec, self._directory, self._on_log = spec, directory, on_log
        self._rest = directory.with_suffix(".build")  # what is thrown away at the end
        self._lines = Lines(spec.root.resolve(), place_of(spec), environment, self._rest)
        self._environment = {**environment, "NO_COLOR": "1", "UV_NO_PROGRESS": "1", "GIT_TERMINAL_PROMPT": "0"}
        self._environment["TMPDIR"] = str(self._rest)
        if spec.sandbox == "strict":
            # uv's own cache is everybody's: what a build script leaves there would be installed for other models.
            self._environment |= {"UV_CACHE_DIR": str(self._rest / "cache"), "UV_LINK_MODE": "copy"}

    def clear(self) -> None:
        """Begin with nothing."""
        clear_put_away(self._directory.parent)
        for place in (self._directory, self._rest):
            put_away(place)
            place.mkdir(mode=0o700)

    def prepare(self, wanted: Sequence[str], aside: Path) -> tuple[list[str], dict[Path, bool]]:
        """The lines for uv, and what will be built where it lies."""
        return self._lines.rewritten(wanted, aside), self._lines.in_place(wanted)

    def end(self) -> None:
        put_away(self._rest)

    async def run(self, command: list[str]) -> None:
        """Raises `ConfigError` with the last lines when it fails."""
        begun = confinement.start(
            command,
            self._environment,
            cwd=self._spec.root,
            sandbox=self._spec.sandbox,
            writable=[self._directory, self._rest],
            network=True,
        )
        copies = str(self._lines.copies)  # of which nobody has heard
        printed = LineReader(lambda line: self._on_log(line.replace(copies, "")))
        with Output() as output:
            process = await asyncio.create_subprocess_exec(
                *begun.command,
                cwd=confinement.PLACE,
                env=begun.environment,
                start_new_session=True,  # no terminal to ask anybody, and one group to end
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output.theirs,
                stderr=asyncio.subprocess.STDOUT,
            )
            try:
                await printed.drain(await output.stream())
                code = await process.wait()
            except BaseException:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
                raise
        if code != 0:
            raise ConfigError(
                "its environment could not be built:\n" + "\n".join([*printed.tail][-TAIL:]).replace(copies, "")
            )


def _check_contents(spec: ModelSpec) -> None:
    """As its worker does, which begins after the scripts of a build that may be among the files."""
    if not spec.allow_links:
        contents.check_links(spec.root)
    contents.verify(spec.root, but=spec.data_dir)


def find_uv() -> str:
    """The program that builds environments. Raises `ConfigError` with the pip line when there is none."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        raise ConfigError("an isolated environment is built by uv; run: pip install 'model-gateway[isolated]'")
    return found


@contextlib.asynccontextmanager
async def _entered(context: contextlib.AbstractContextManager[None], given_up: threading.Event) -> AsyncIterator[None]:
    """Held for the block. It may wait, on a thread, until it is `given_up`; then it is left behind as it was."""
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
    """What runs on a thread cannot be stopped: whoever gives up waits, so that nobody else begins meanwhile.

    `giving_up` may tell it, `given_up` comes after it.
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
    """An exclusive lock between processes, held in a `with` block; constructing it waits."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        self._file.close()
