"""List the files in a model's directory that may affect the model, and skip directories that cannot contain any."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from ..files.integrity import DEEPEST

if TYPE_CHECKING:
    from ..spec import ModelSpec

UNREAD = ("__pycache__", "node_modules")  # no code of a model is here, or in hidden directories
CODE = (".py", ".pyx", ".pyd", ".yaml", ".yml", ".json", ".toml", ".txt", ".jinja")
# Files that trainings write and models read when they load. Logs and databases are left out: a model may write them.
WEIGHTS = tuple(
    ".safetensors .gguf .bin .pt .pth .ckpt .onnx .ort .tflite .h5 .hdf5 .keras .pb .msgpack .pdparams .weights"
    " .pkl .pickle .joblib .skops .npy .npz .ubj .cbm .model .csv .parquet .dat .data .faiss .index .engine .plan"
    " .trt".split()
)
MOST = 20_000  # files, and directories, per model: a record is kept of each


class Stat(NamedTuple):
    """The properties of a file that a write or a move changes."""

    inode: int
    size: int  # bytes
    modified: int  # nanoseconds


class Found(NamedTuple):
    """A file as it was found.

    `changed` is the time of the last change that the system recorded (ctime), in seconds since 1970. Programs cannot
    set it, while a copy sets the modification time of its source.
    """

    stat: Stat
    changed: float


def data_of(spec: ModelSpec) -> str:
    """Return the data directory as the part of its path after the root; "" if there is none or it is the root."""
    return str(spec.data_dir).removeprefix(str(spec.root)) if spec.data_dir else ""


def inner(place: str) -> list[os.DirEntry[str]]:
    """Return the subdirectories in which files of a model may change."""
    directories = (entry for entry in entries_of(place) if entry.is_dir(follow_symlinks=False))
    return [entry for entry in directories if not entry.name.startswith(".") and entry.name not in UNREAD]


def files_of(spec: ModelSpec, kinds: tuple[str, ...] = ("",)) -> Mapping[str, Found]:
    """Return the model's files by path, if their names end in `kinds`, without its data and hidden files."""
    found: dict[str, Found] = {}
    waiting = [(str(spec.root), 0)]
    while waiting and len(found) < MOST:
        place, depth = waiting.pop()
        if depth < DEEPEST:
            waiting += [(each.path, depth + 1) for each in inner(place) if each.path != str(spec.data_dir)]
        for entry in entries_of(place):
            if not entry.name.endswith(kinds) or entry.name.startswith(".") or entry.is_dir(follow_symlinks=False):
                continue
            with contextlib.suppress(OSError):  # deleted in the meantime
                known = entry.stat()
                stat = Stat(known.st_ino, known.st_size, known.st_mtime_ns)
                found[entry.path] = Found(stat, known.st_ctime_ns / 1e9)
    return found


def stats_of(spec: ModelSpec, kinds: tuple[str, ...]) -> dict[str, Stat]:
    """Return the properties that reveal a change in the model's files of these kinds, by path."""
    return {path: found.stat for path, found in files_of(spec, kinds).items()}


def entries_of(place: str) -> list[os.DirEntry[str]]:
    """Return the entries of a directory; none if it cannot be read."""
    try:
        with os.scandir(place) as entries:
            return list(entries)
    except OSError:
        return []
