"""A virtual environment of its own for a model that asks for one: built once by uv, kept by what is in it.

`[models.NAME] env = "isolated"`. The key is a hash of the requirements, the Python and our channel library, so two
models with the same requirements share one, and a changed file makes another. The worker's own code reaches it by path;
of our dependencies it gets msgspec and uvloop. A truss finds there what Truss's image offers without asking, too, in
versions that its requirements allow. Building is asked for again after a failure, never half used.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import signal
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import confinement, inherited, ordinary
from .cache import cache_dir
from .clearing import clear_away
from .errors import ConfigError
from .fingerprints import fingerprint
from .runners.log import LineReader
from .spec import ModelSpec

CHANNEL = ("msgspec>=0.19,<0.23", "uvloop>=0.19; platform_system != 'Windows'")  # what a worker needs to talk to us
TRUSS_IMAGE = ("fastapi", "httpx", "msgpack", "numpy", "pip", "prometheus_client", "pydantic>=2", "pyyaml", "starlette")
ENCODINGS = (  # those with longer marks first, for one begins as another does
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
COMPLETE = ".complete"  # written last: without it the environment is rubbish of a build that was killed
ARCHIVE = re.compile(r"\.(whl|zip|tgz|tbz|tlz|txz|tar(\.\w+)?)$", re.IGNORECASE)  # a file, though it could be a name
INCLUDED = re.compile(r"^\s*(-r|--requirement|-c|--constraint)(?:\s*=\s*|\s*)(?!\w+://)([^\s=].*)")
TAIL = 12  # lines of a failed build that its model's reason shows


def requirements_of(spec: ModelSpec) -> list[str]:
    """The lines of the model's requirements, from config.yaml or the file it names.

    Raises:
        ConfigError: the file is not there, or of a kind that has no lines.
    """
    config = spec.config
    if name := config.get("requirements_file"):
        path = spec.root / str(name)
        if not path.is_file():
            raise ConfigError(f"{path}: requirements_file does not exist")
        if path.name in ("pyproject.toml", "uv.lock"):
            return [str(line) for line in _pyproject_dependencies(path.with_name("pyproject.toml"))]
        return lines_of(path)
    return [str(line) for line in config.get("requirements") or []]


def lines_of(path: Path) -> list[str]:
    """The lines of a file of requirements, in the encoding that it begins with, as pip reads it.

    Raises:
        ConfigError: it is in another one, or cannot be read.
    """
    try:
        raw = ordinary.content(path)
        encoding = next((name for mark, name in ENCODINGS if raw.startswith(mark)), "utf-8")
        return raw.decode(encoding).splitlines()
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: it is not UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def place_of(spec: ModelSpec) -> Path:
    """Where the files lie that the model's lines include: beside the file that has the lines."""
    return (spec.root / str(spec.config.get("requirements_file") or "requirements.txt")).resolve().parent


def _wanted(spec: ModelSpec) -> list[str]:
    """All lines. Files that they include are named whole: uv looks for them beside the file that includes them."""
    place = place_of(spec)
    lines = [INCLUDED.sub(lambda found: f"{found[1]} {place / found[2]}", line) for line in requirements_of(spec)]
    return [*CHANNEL, *(TRUSS_IMAGE if spec.format == "truss" else ()), *lines]


def key_of(spec: ModelSpec, variables: Mapping[str, str] | None = None) -> str:
    """What the environment is known by: two that are built of other files, or from elsewhere, are not the same.

    `variables` are those that the operator has set for the model.
    """
    asked = {**inherited.of_installers(), **(variables or {})}
    settings = [f"{name}={value}" for name, value in sorted(asked.items())]
    wanted, uv = _wanted(spec), _settings_of_uv(spec.root)
    parts = [sys.executable, platform.python_version(), *settings, *map(repr, uv), *wanted]
    # Settings may name places too, such as one with wheels; a relative one is in the model's directory.
    words = [word for value in asked.values() for word in re.split(r"[\s,]+", value) if not os.path.isabs(word)]
    found = list(_contents([f"-f {word}" for word in (*words, *_texts(uv)) if word], [spec.root]))
    if found or not all(map(_is_of_an_index, wanted)):
        parts.append(str(spec.root.resolve()))  # what a path leads to is this model's alone, and -e goes on reading it
        parts += [*found, *_contents(wanted, [spec.root])]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _is_of_an_index(line: str) -> bool:
    """A line that means the same whoever has it: a name, maybe with versions. What else it may be, uv knows."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        wanted = Requirement(line.partition(" #")[0].strip())
        return wanted.url is None and not ARCHIVE.search(wanted.name)
    except InvalidRequirement:
        return not line.partition("#")[0].strip()


def _settings_of_uv(root: Path) -> list[Any]:
    """Those of the model's directory, where uv is started: they may name other indexes, and places with wheels."""
    found: list[Any] = []
    for name in ("uv.toml", "pyproject.toml"):
        try:
            text = ordinary.content(root / name).decode("utf-8-sig", "replace")
        except OSError:
            continue
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            found.append(text)  # uv will tell
            continue
        if name == "uv.toml":
            found.append(table)
        elif isinstance(tool := table.get("tool"), dict) and "uv" in tool:
            found.append(tool["uv"])
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _contents(lines: Sequence[str], places: Sequence[Path], above: frozenset[Path] = frozenset()) -> Iterator[str]:
    """The sums of the files that requirements name by a path, which say nothing of what is in them.

    In a file that others include, uv takes `-r` and `-c` from its `places`' last, and what it builds from the first.
    """
    for line in lines:
        text = line.partition(" #")[0].strip()
        option = re.match(r"(-r|--requirement|-c|--constraint|-e|--editable|-f|--find-links)[ =]?\s*", text)
        named = text[option.end() :] if option else text.partition("@")[2] or text
        named = re.sub(r"^file:(//)?", "", named.partition(";")[0].partition("#")[0].strip())
        named = re.sub(r"\[[^\]]*\]$", "", named)
        is_path = option or "/" in named or named.startswith(".") or "file:" in text or ARCHIVE.search(named)
        if not named or not is_path:
            continue
        for path in dict.fromkeys(place / named for place in places):
            if not os.path.exists(path):
                continue
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                below = file.relative_to(path).parts
                if file.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in below):
                    yield f"{file.relative_to(path)} {fingerprint(file)}"
            if option and path.is_file() and path not in above:
                included = ordinary.content(path).decode(errors="replace").splitlines()
                yield from _contents(included, [places[0], path.parent], above | {path})


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
        ConfigError: uv is missing, or the build failed; the text ends with the resolver's last lines.
    """
    key = await asyncio.to_thread(key_of, spec, variables)  # it may read wheels, and others' calls go on meanwhile
    directory = (root or cache_dir()) / "envs" / key
    python = directory / "bin" / "python"
    if (directory / COMPLETE).is_file():
        return python
    uv = find_uv()
    directory.parent.mkdir(parents=True, exist_ok=True)
    with await asyncio.to_thread(_Lock, directory.with_suffix(".lock")):
        if (directory / COMPLETE).is_file():  # somebody else was quicker
            return python
        build = _Build(spec, directory, {**inherited.of_builds(), **(variables or {})}, on_log)
        build.clear()
        on_log(f"building an environment with {len(requirements_of(spec))} requirements")
        listed = directory.with_suffix(".txt")
        listed.write_text("\n".join(_wanted(spec)) + "\n")
        try:
            await build.run([uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(directory)])
            # Relative paths in a requirements file are relative to the model.
            # What uv has built of a directory it takes for the same until its pyproject.toml changes.
            again = () if all(map(_is_of_an_index, _wanted(spec))) else ("--reinstall",)
            await build.run([uv, "pip", "install", *again, "--python", str(python), "-r", str(listed)])
        finally:
            build.end()
        (directory / COMPLETE).touch()
        on_log("the environment is ready")
    return python


def import_path(root: Path | None = None) -> Path:
    """A directory that holds our package and nothing else of the environment that we are installed in."""
    package = Path(__file__).resolve().parent
    # a directory for each of us: two gateways of other versions may share a cache
    directory = (root or cache_dir()) / "worker" / hashlib.sha256(str(package).encode()).hexdigest()[:16]
    directory.mkdir(parents=True, exist_ok=True)
    link = directory / "gateway"
    if not link.is_symlink() or link.resolve() != package:
        fresh = directory / f".gateway-{os.getpid()}"
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
        self._environment = {**environment, "NO_COLOR": "1", "UV_NO_PROGRESS": "1", "GIT_TERMINAL_PROMPT": "0"}
        self._environment["TMPDIR"] = str(self._rest)
        if spec.sandbox == "strict":
            # uv's own cache is everybody's: what a build script leaves there would be installed for other models.
            self._environment |= {"UV_CACHE_DIR": str(self._rest / "cache"), "UV_LINK_MODE": "copy"}

    def clear(self) -> None:
        """Begin with nothing."""
        for place in (self._directory, self._rest):
            clear_away(place)
            place.mkdir(mode=0o700)

    def end(self) -> None:
        clear_away(self._rest)

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
        process = await asyncio.create_subprocess_exec(
            *begun.command,
            cwd=confinement.PLACE,
            env=begun.environment,
            start_new_session=True,  # no terminal to ask anybody, and one group to end
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed = LineReader(self._on_log)
        assert process.stdout is not None
        try:
            await printed.drain(process.stdout)
            code = await process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            raise
        if code != 0:
            raise ConfigError("its environment could not be built:\n" + "\n".join([*printed.tail][-TAIL:]))


def find_uv() -> str:
    """The program that builds environments. Raises `ConfigError` with the pip line when there is none."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        raise ConfigError("an isolated environment is built by uv; run: pip install 'model-gateway[isolated]'")
    return found


def _pyproject_dependencies(path: Path) -> list[Any]:
    try:
        return list(tomllib.loads(ordinary.content(path).decode("utf-8-sig"))["project"].get("dependencies", []))
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path}: no [project] dependencies: {error}") from error


class _Lock:
    """An exclusive lock between processes, held in a `with` block; constructing it waits."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        self._file.close()
