"""An engine without a gateway, in a process of its own, run a round at a time so that rounds can alternate.

python -m benchmarks.bare engine|llamacpp|embeddings TOKENS|TEXTS

A line of stdin is a round: how many clients or texts at a time; a line of stdout says what it took.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from .processes import ROOT


class Bare:
    """The other end: `seconds, cpu = bare(16)`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, number: int) -> tuple[float, float]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the bare engine ended with {self._process.wait()}; its last words are above")
        return json.loads(line)


@contextlib.contextmanager
def bare(kind: str, size: int) -> Iterator[Bare]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.bare", kind, str(size)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        started = Bare(process)
        started.answer()
        yield started
    finally:
        process.kill()
        process.wait()


def _engine(tokens: int) -> Callable[[int], object]:
    from . import bare_engine

    bare_engine.TOKENS = tokens
    run, _ = bare_engine.ours(ROOT / "models" / "smollm2")
    run(2)
    return run


def _llamacpp(tokens: int) -> Callable[[int], object]:
    from . import bare_engine, bare_llamacpp

    bare_engine.TOKENS = tokens
    run = bare_llamacpp.library(ROOT / "models" / "smollm2")
    run(2)
    return run


def _embeddings(count: int) -> Callable[[int], object]:
    from . import bare_embeddings

    run, _ = bare_embeddings.library(ROOT / "models" / "minilm")
    sentences = bare_embeddings.texts(count)
    run(sentences[:32], 8)
    return lambda size: run(sentences, size)


def main() -> None:
    kind, size = sys.argv[1:]
    sys.path.insert(0, str(ROOT / "plugins"))
    out, sys.stdout = sys.stdout, sys.stderr
    run = {"engine": _engine, "llamacpp": _llamacpp, "embeddings": _embeddings}[kind](int(size))
    print(json.dumps("ready"), file=out, flush=True)
    for line in sys.stdin:
        began, cpu = time.perf_counter(), time.process_time()
        run(int(line))
        print(json.dumps([time.perf_counter() - began, time.process_time() - cpu]), file=out, flush=True)


if __name__ == "__main__":
    main()
