"""Which files of a model's directory may change what it does, and which directories have none of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from .contents import DEEPEST
from .reloading import entries_of

if TYPE_CHECKING:
    from .spec import ModelSpec

UNREAD = ("__pycache__", "node_modules")  # directories in which no code of a model changes; and those with a dot
CODE = (".py", ".pyx", ".pyd", ".yaml", ".yml", ".json", ".toml", ".txt", ".jinja")
# What trainings write and models read when they load. Logs and databases, which a model may write to, are not here.
WEIGHTS = tuple(
    ".safetensors .gguf .bin .pt .pth .ckpt .onnx .ort .tflite .h5 .hdf5 .keras .pb .msgpack .pdparams .weights"
    " .pkl .pickle .joblib .skops .npy .npz .ubj .cbm .model .csv .parquet .dat .data .faiss .index .engine .plan"
    " .trt".split()
)
MOST = 20_000  # files of a model that are looked at, and a directory more: what is known of each is kept


class Stat(NamedTuple):
    """What a write or a move changes of a file."""

    inode: int
    size: int  # bytes
    modified: int  # nanoseconds


class Found(NamedTuple):
    """A file as a look found it. `changed` is when the system saw that last, in seconds since 1970: no program can set
    it, as copies set the time of their source."""

    stat: Stat
    changed: float


def data_of(spec: ModelSpec) -> str:
    """The directory that a model writes to, as what stands behind its root; "" for one that is all of the root."""
    return str(spec.data_dir).removeprefix(str(spec.root)) if spec.data_dir else ""


def inner(place: str) -> list[os.DirEntry[str]]:
    """The directories in one in which files of a model may change."""
    directories = (entry for entry in entries_of(place) if entry.is_dir(follow_symlinks=False))
    return [entry for entry in directories if not entry.name.startswith(".") and entry.name not in UNREAD]


def files_of(spec: ModelSpec, kinds: tuple[str, ...] = ("",)) -> Mapping[str, Found]:
    """Its files by path, those whose names end so; but for what it writes to, and what is hidden."""
    found: dict[str, Found] = {}
    waiting = [(str(spec.root), 0)]
    while waiting and len(found) < MOST:
        place, depth = waiting.pop()
        if depth < DEEPEST:
            waiting += [(each.path, depth + 1) for each in inner(place) if each.path != str(spec.data_dir)]
        for entry in entries_of(place):
            if not entry.name.endswith(kinds) or entry.name.startswith(".") or entry.is_dir(follow_symlinks=False):
                continue
            with contextlib.suppress(OSError):  # it is gone by now
                known = entry.stat()
                stat = Stat(known.st_ino, known.st_size, known.st_mtime_ns)
                found[entry.path] = Found(stat, known.st_ctime_ns / 1e9)
    return found


def stats_of(spec: ModelSpec, kinds: tuple[str, ...]) -> dict[str, Stat]:
    """What tells its files of these kinds from other ones, by path."""
    return {path: found.stat for path, found in files_of(spec, kinds).items()}
