"""Files that belong to another file next to them: they are not models of their own, and are not listed as such."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path

from .file_headers import begin_of
from .kinds import FAISS, LLAMA2_C, NCNN, NCNN_BINARY, PICKLE


@dataclass(frozen=True, slots=True)
class Companions:
    """The companions of a file with one of the suffixes `ends` and content `holds`. In `parts`, `{}` is its stem."""

    ends: str
    parts: str
    holds: bytes = b""


COMPANIONS = (
    Companions(".faiss .ann .annoy .usearch .hnsw", "{}.pkl {}.pickle {}.json {}.meta {}.npy"),
    Companions(".index", "{}.pkl {}.pickle {}.json {}.meta {}.npy", FAISS),
    Companions(".bin", "tokenizer.bin tok[0-9]*.bin", LLAMA2_C),
    Companions(".bin", "{}.vec", rb"\A\xba\x16\x4f\x2f"),  # of fastText
    Companions(".param", "{}.bin", NCNN),
    Companions(".param.bin", "{}.bin", NCNN_BINARY),
    Companions(".ncnn.param", "{}.pnnx.param {}.pnnx.bin", NCNN),
    Companions(".xml", "{}.bin", rb"<net\s"),
    Companions("-symbol.json", "{}-????.params"),
    Companions(".json", "group*-shard*of*.bin {}.weights.bin weights.bin", rb'"modelTopology"'),
    Companions(".caffemodel", "{}.prototxt"),
    Companions(".tnnmodel", "{}.tnnproto"),
    Companions(".onnx", "{}.onnx.data {}.onnx_data* {}.data"),
    Companions(".model.wv.vectors.npy", "{}.model {}.model.*.npy"),
    Companions(".model.dv.vectors.npy", "{}.model {}.model.syn1neg.npy"),
    Companions(".kv", "{}.kv.*.npy", PICKLE),
    Companions(".wv", "{}.wv.*.npy"),
    Companions(".mnn", "{}.mnn.weight {}.mnn.json embeddings_bf16.bin embeddings_int?.bin"),
    Companions(".cbm", "{}.json"),
    Companions(".pt .pth", "{}.pnnx.param {}.pnnx.bin"),
)
# Files that a training needs to resume: of Trainer and accelerate, and the optimizer of FSDP, in its own directory.
STATE = re.compile(
    r"(optimizer|scheduler|scaler|sampler|dl_state_dict)(_\d+)?\.(pt|bin)"
    r"|rng_state(_\d+)?\.pth|random_states_\d+\.pkl|training_args\.bin"
)
OPTIMIZER = re.compile(r"optimizer(_\d+)?")
ENDS = tuple({end for row in COMPANIONS for end in row.ends.split()})


def training_files(path: Path, names: Collection[str]) -> frozenset[str]:
    """Return the files that are state of a training rather than weights."""
    kept = (*names,) if OPTIMIZER.fullmatch(path.name) else ()
    shards = (name for name in kept if name == ".metadata" or name.endswith(".distcp"))
    return frozenset((*filter(STATE.fullmatch, names), *shards))


def companions(path: Path, names: Collection[str]) -> frozenset[str]:
    """Return the files that belong to other files among them, or are state of their training."""
    low = {name.lower(): name for name in sorted(names)}
    ordered = sorted(low)
    mains = [name for name in ordered if name.endswith(ENDS)]
    found: set[str] = set()
    for row in COMPANIONS:
        ends = sorted(row.ends.split(), key=len, reverse=True)
        stemless = {part for each in row.parts.split() if "{}" not in each for part in _called(each, "", ordered)}
        for main in mains:
            if (end := next((end for end in ends if main.endswith(end)), None)) is None:
                continue
            stem, patterns = main[: -len(end)], (each for each in row.parts.split() if "{}" in each)
            parts = {part for pattern in patterns for part in _called(pattern, stem, ordered)} - {main}
            others = stemless - found
            if (parts or others - {main}) and _holds(path / low[main], row.holds):
                found |= parts | (others - {main})
    return frozenset(low[name] for name in found) | training_files(path, names)


def _holds(file: Path, what: bytes) -> bool:
    return not what or re.search(what, begin_of(file)) is not None


def _called(pattern: str, stem: str, ordered: Sequence[str]) -> Iterator[str]:
    """Yield the names that match the pattern, which begins with letters, from a sorted list that may be very long."""
    start = re.split(r"[*?\[]", pattern)[0].replace("{}", stem)
    wanted = pattern.replace("{}", escape(stem))
    for at in range(bisect_left(ordered, start), len(ordered)):
        if not ordered[at].startswith(start):
            return
        if fnmatchcase(ordered[at], wanted):
            yield ordered[at]
