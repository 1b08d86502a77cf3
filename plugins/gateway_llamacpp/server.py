"""Open llama.cpp's server in this process, without its HTTP.

xllamacpp starts an HTTP server beside the functions that are used here. It gets a Unix socket with a random key, and
the socket is removed before anybody could connect. While it loads, nothing else of this process runs.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway import ConfigError, opened

LARGE = 2**30  # bytes above which a file is read ahead: a slow disk must not stop the worker's heartbeats for minutes
PIECE = 2**24  # bytes read at a time
PATIENCE = 1.0  # seconds for the last lines of a load that failed
CAUSE = "error loading model"
LONGEST_PATH = 100  # bytes of the path of a Unix socket: 107 on Linux
TOLD = re.compile(r"\berror\b|\bfailed\b|unknown|unable|invalid|cannot", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a server: how many texts it computes at a time, and tokens in its cache and in one step."""

    slots: int
    cells: int
    batch: int  # fewer than slots would end the process
    pooling: int | None = None  # how llama.cpp makes one vector, or a rating, of the tokens; None for text


def open_server(file: Path, shape: Shape, threads: int, adapters: Sequence[tuple[Path, float]] = ()) -> Any:
    """Return an `xllamacpp.Server`. Raises `ConfigError` with llama.cpp's own words if it cannot load the file."""
    import xllamacpp

    os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # it would run a debugger when it ends the process
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_parallel, params.n_ctx, params.kv_unified = shape.slots, shape.cells, True
    params.n_batch = params.n_ubatch = shape.batch
    if shape.pooling is not None:
        params.embedding, params.pooling_type = True, xllamacpp.llama_pooling_type(shape.pooling)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.fit_params = False  # it would change the sizes
    params.warmup = False
    params.cache_ram_mib, params.cache_idle_slots = 0, False  # slots keep their tokens; 8 GB of old prompts beside them
    params.use_jinja, params.chat_template = False, "chatml"  # ours renders the file's: this one need not understand it
    params.ui = params.endpoint_slots = params.endpoint_props = False
    params.endpoint_metrics = True  # or `handle_metrics`, below, would answer at once
    params.sse_ping_interval = -1  # xllamacpp takes a ping for a message, and cuts it
    params.n_threads_http, params.api_keys = 1, [secrets.token_hex(16)]
    params.verbosity = 1  # warnings and errors
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(path), scale) for path, scale in adapters]
    read_ahead(file)
    with _socket() as address, _told() as lines:
        params.hostnames = [str(address)]
        try:
            server = xllamacpp.Server(params)
        except RuntimeError as error:
            why = _why(lines) or str(error)
            raise ConfigError(f"llama.cpp cannot load {file.name}: {why}") from error
    # It answers when its loop runs. A server whose loop has not begun forgets that it was ended, and never ends.
    server.handle_metrics()
    return server


def _why(lines: Callable[[], list[str]]) -> str:
    """Return the line that says why a load failed. llama.cpp writes it on a thread, perhaps a moment later."""
    until = time.monotonic() + PATIENCE
    while True:
        said = [line.strip() for line in lines() if TOLD.search(line)]
        if found := next((line for line in said if CAUSE in line), None):
            return found
        if time.monotonic() > until:
            return said[0] if said else ""
        time.sleep(0.01)


def read_ahead(file: Path) -> None:
    """Read a large file into the page cache, without the GIL, and say how far it is."""
    if (size := file.stat().st_size) < LARGE:
        return
    print(f"reading {file.name}, {size / 1e9:,.1f} GB", flush=True)
    buffer, done, told = bytearray(PIECE), 0, 0
    with opened(file) as source:
        while count := source.readinto(buffer):
            done += count
            if 10 * done // size > told:
                told = 10 * done // size
                print(f"reading {file.name}: {10 * told} %", flush=True)


@contextmanager
def _socket() -> Iterator[Path]:
    """Yield an address for the HTTP server, in a folder that is removed afterwards: nobody can connect."""
    base = tempfile.gettempdir()
    base = base if len(base) < LONGEST_PATH - 30 else "/tmp"
    with tempfile.TemporaryDirectory(prefix="llama-", dir=base) as folder:
        yield Path(folder, "http.sock")


@contextmanager
def _told() -> Iterator[Any]:
    """Yield a function that returns the lines written to the standard error so far; they are written there at the end.

    llama.cpp says only there why it cannot load a file.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        real = os.dup(2)
        os.dup2(kept.fileno(), 2)

        def lines() -> list[str]:
            size = os.fstat(kept.fileno()).st_size
            return os.pread(kept.fileno(), min(size, PIECE), 0).decode("utf-8", "replace").splitlines()

        try:
            yield lines
        finally:
            os.dup2(real, 2)
            os.close(real)
            with suppress(OSError):
                for line in lines():
                    print(line, file=sys.stderr)
                sys.stderr.flush()
