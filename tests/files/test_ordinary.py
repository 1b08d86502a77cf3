"""Files that may come from anywhere: what is no ordinary file, or too large, is an error and no wait."""

from __future__ import annotations

import ast
import asyncio
import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway import peek_json
from gateway.access import keys
from gateway.access.permits import KeyRing
from gateway.errors import ConfigError
from gateway.files import ordinary
from gateway.hosting.secrets import SecretSources
from gateway.settings.load import load_settings
from gateway.spec import ModelSpec

ROOT = Path(__file__).parents[2]
# Modules that open files themselves, and what those are.
OPENED_ELSEWHERE = {
    "devices/device.py": "/sys",
    "devices/visibility.py": "/proc and /sys",
    "files/downloads.py": "files that it has written itself, in the worker's process or a build's",
    "files/locks.py": "/proc, and lock files of ours",
    "http/metrics/models.py": "/proc",
    "http/routes/pages.py": "files of this package",
    "system/adopted_processes.py": "/proc",
    "system/separate_process.py": "/proc",
    "system/process_family.py": "/proc",
    "system/frozen_workers.py": "/proc",
    "system/socket_peers.py": "/proc",
    "system/pipes.py": "an end of a pipe of ours",
    "system/processes.py": "/proc",
    "system/reaper.py": "/proc",
}

# What plugins open themselves, and what that is.
OPENED_BY_PLUGINS = {
    "gateway_checkpoints/library.py: (_library() / kind / f'modeling_{kind}.py').read_text('utf-8')": "the library's",
    "gateway_keras/model.py: archive.open('model.weights.h5')": "inside a file that was checked",
    "gateway_language/memory.py: (group / 'memory.current').read_text()": "/sys",
    "gateway_language/memory.py: (group / 'memory.max').read_text()": "/sys",
    "gateway_language/memory.py: Path('/proc/meminfo').read_text()": "/proc",
}


def test_of_an_ordinary_file_there_is_the_content(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"x" * 10)
    (tmp_path / "link").symlink_to(file)
    assert ordinary.content(file, 10) == ordinary.content(tmp_path / "link") == b"x" * 10
    with pytest.raises(OSError, match="more than 9 bytes"):
        ordinary.content(file, 9)


def test_pipes_devices_and_directories_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "directory").mkdir()
    for name in ("pipe", "endless", "directory"):
        with pytest.raises(OSError, match="not a regular file"):
            ordinary.content(tmp_path / name)


def test_what_looks_like_an_ordinary_file_and_neither_reads_nor_ends_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As some of /proc."""
    os.mkfifo(tmp_path / "a")
    writer = os.open(tmp_path / "a", os.O_RDWR)
    monkeypatch.setattr("stat.S_ISREG", lambda mode: True)
    for read in (ordinary.content, begin_of_it, all_of_it):
        with pytest.raises(OSError, match="not a regular file"):
            read(tmp_path / "a")
    os.close(writer)


def begin_of_it(path: Path) -> bytes:
    with ordinary.opened(path) as file:
        return file.read(100)


def all_of_it(path: Path) -> bytes:
    with ordinary.opened(path) as file:
        return file.read()


def test_nothing_is_an_empty_file() -> None:
    assert ordinary.content(Path(os.devnull)) == b""


def test_json_that_is_none_is_an_error_that_plugins_expect(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    for text in ("[" * 100_000, "{", "\xff"):
        file.write_text(text, "latin-1")
        with pytest.raises(ValueError):
            peek_json(file)
    file.write_text('{"a": 1}')
    assert peek_json(file) == {"a": 1}


def test_json_of_very_many_values_is_refused_before_it_is_read(tmp_path: Path) -> None:
    for text in (b"[" + b"[]," * 10 + b"[]]", b'{"a":' * 11 + b"1" + b"}" * 11, b"[0" + b",0" * 11 + b"]"):
        with pytest.raises(ValueError, match="more than 10 values"):
            ordinary.parse_json(text, most=10)
        assert ordinary.parse_json(text, most=30)
    (tmp_path / "a.json").write_bytes(b"[" + b"[]," * ordinary.MOST_VALUES + b"[]]")
    with pytest.raises(ValueError, match="more than 1000000 values"):
        peek_json(tmp_path / "a.json")


# ── what a running gateway reads again ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def leased() -> Iterator[Callable[[Path], None]]:
    """A function that takes a lease on a file: whoever opens it is held up until it is given back."""
    held: list[int] = []

    def lease(file: Path) -> None:
        held.append(os.open(file, os.O_RDWR))
        fcntl.fcntl(held[-1], fcntl.F_SETSIG, 0)
        fcntl.fcntl(held[-1], fcntl.F_SETLEASE, fcntl.F_WRLCK)

    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # by which its holder is asked to give it back
    yield lease
    for each in held:
        os.close(each)
    signal.signal(signal.SIGIO, before)


@pytest.mark.timeout(20)  # a lease that is waited for takes 45 seconds
def test_no_pipe_and_no_lease_in_the_place_of_the_keys_holds_up_the_gateway(
    tmp_path: Path, leased: Callable[[Path], None]
) -> None:
    file = tmp_path / "keys.toml"
    key, _ = keys.create("alice")
    keys.write(file, [key])
    ring = KeyRing(None, file)
    leased(file)
    assert "temporarily unavailable" in asyncio.run(ring.reload()) and ring.in_force == [key.id]
    file.unlink()
    os.mkfifo(file, 0o600)
    assert "not a regular file" in asyncio.run(ring.reload()) and ring.in_force == [key.id]


@pytest.mark.timeout(20)
def test_no_pipe_and_no_lease_in_the_place_of_a_secret_holds_up_the_gateway_or_takes_it_away(
    tmp_path: Path, leased: Callable[[Path], None]
) -> None:
    file = tmp_path / "token"
    file.write_text("a-secret")
    sources = SecretSources(lambda: load_settings(flags={"gateway.secrets_dir": str(tmp_path)}, environ={}))
    spec = ModelSpec(name="m", target="", root=tmp_path, secrets=("token",))
    assert sources.for_model(spec) == {"token": "a-secret"}
    leased(file)
    assert sources.for_model(spec) == {"token": "a-secret"}
    file.unlink()
    os.mkfifo(file)
    assert sources.for_model(spec) == {}


@pytest.mark.timeout(20)
def test_no_pipe_and_no_lease_in_the_place_of_the_settings_holds_up_the_gateway(
    tmp_path: Path, leased: Callable[[Path], None]
) -> None:
    file = tmp_path / "gateway.toml"
    os.mkfifo(file)
    with pytest.raises(ConfigError, match="not a regular file"):
        load_settings(file, environ={})
    file.unlink()
    file.write_text("")
    leased(file)
    with pytest.raises(ConfigError, match="temporarily unavailable"):
        load_settings(file, environ={})


def test_every_module_of_the_gateway_that_opens_files_of_others_does_it_here() -> None:
    """Commands read before anything is served, and workers are processes of their own."""
    found = set()
    for file in sorted((ROOT / "gateway").rglob("*.py")):
        name = str(file.relative_to(ROOT / "gateway"))
        if name.startswith(("worker/", "cli/")) or name in ("files/ordinary.py", "testing.py"):
            continue
        if any(map(_opens, ast.walk(ast.parse(file.read_text())))):
            found.add(name)
    assert found == set(OPENED_ELSEWHERE)


def test_every_plugin_that_opens_files_of_models_does_it_here() -> None:
    found = set()
    for file in sorted((ROOT / "plugins").rglob("*.py")):
        name = file.relative_to(ROOT / "plugins")
        found |= {f"{name}: {ast.unparse(node)}" for node in ast.walk(ast.parse(file.read_text())) if _opens(node)}
    assert found == set(OPENED_BY_PLUGINS)


def test_what_a_library_would_open_is_no_pipe_and_no_device(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "below" / "link").symlink_to(tmp_path / "file")
    (tmp_path / "nothing").symlink_to(tmp_path / "absent")
    ordinary.check_ordinary(tmp_path)
    ordinary.check_ordinary(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ConfigError, match="pipe: is not a regular file"):
            ordinary.check_ordinary(place)
    (tmp_path / "pipe").unlink()
    (tmp_path / "below" / "endless").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="endless: is not a regular file"):
        ordinary.check_ordinary(tmp_path)


def test_a_hidden_one_is_none_either(tmp_path: Path) -> None:
    """A link leads to it, or a library that looks for all files with an ending."""
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "link").symlink_to(".hidden")
    for name in (".hidden/pipe", ".pipe"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(ConfigError, match="pipe: is not a regular file"):
            ordinary.check_ordinary(tmp_path)
        (tmp_path / name).unlink()
    ordinary.check_ordinary(tmp_path)


def test_what_is_hidden_has_no_name_in_a_file(tmp_path: Path) -> None:
    for name in (".m", "a/.m", ".m/a", ".m.safetensors", "a\\.m"):
        with pytest.raises(ConfigError, match="which is hidden: rename it"):
            ordinary.named_file(tmp_path, name, "modules.json")
    for name in (".", "./a", "", "a/./b", "a.b"):
        assert ordinary.named_file(tmp_path, name, "modules.json") == tmp_path / name


@pytest.mark.parametrize("kept", ordinary.KEPT)
def test_a_folder_beside_the_cache_gives_nothing_of_it_by_a_link(
    kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a mount location of another model is one."""
    monkeypatch.setenv("GATEWAY_CACHE_DIR", str(tmp_path / "cache"))
    place, beside = tmp_path / "cache" / kept / "0", tmp_path / "beside"
    place.mkdir(parents=True)
    beside.mkdir()
    (place / "m.gguf").touch()
    (place / "same.gguf").symlink_to("m.gguf")
    ordinary.check_ordinary(place)  # its own
    for target in (place / "m.gguf", place, tmp_path / "cache"):
        (beside / "link").symlink_to(target)
        with pytest.raises(ConfigError, match="is a link into the gateway's own cache"):
            ordinary.check_ordinary(beside)
        (beside / "link").unlink()
    (beside / "link").symlink_to(tmp_path / "absent")
    ordinary.check_ordinary(beside)


def _opens(node: ast.AST) -> bool:
    """Whether it is a call that opens a file: `open`, those of `Path` that read, and its `open` with a mode."""
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Attribute):
        has_mode = bool(node.args) and isinstance(node.args[0], ast.Constant | ast.IfExp)
        return node.func.attr in ("read_text", "read_bytes") or (node.func.attr == "open" and has_mode)
    return isinstance(node.func, ast.Name) and node.func.id == "open"
