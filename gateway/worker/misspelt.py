"""A method that no route calls, and whose name is nearly that of one that a route does call."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection, Iterator
from typing import Any

# What other servers and libraries call it. Where the class has a method that is served, these may be helpers.
ELSEWHERE = {
    "chat": "chat_completions",
    "complete": "completions",
    "embed": "embeddings",
    "encode": "embeddings",
    "forward": "predict",
    "generate": "predict",
    "infer": "predict",
    "inference": "predict",
    "invoke": "predict",
    "run": "predict",
    "transcribe": "audio_transcriptions",
}
CALLED = ("predict", "preprocess", "postprocess", "websocket", "is_healthy", "load", "setup_environment")
CLOSE = 0.8  # of 1: `predcit` is, `prediction` is not quite, `preprocess` and `postprocess` are 0.76 alike


def hint(model: Any, endpoint_methods: Collection[str], have: Collection[str]) -> str:
    """A sentence that names it, with a space before; empty when there is none. `have` are those that are served."""
    return "".join(
        f" It has `{name}`, which nothing calls: did you mean `{meant}`?"
        for name, meant in _near(model, {*endpoint_methods, *CALLED}, have)
    )


def _near(model: Any, known: Collection[str], have: Collection[str]) -> Iterator[tuple[str, str]]:
    for name in _own_methods(type(model)):
        if name in known:
            continue
        close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=CLOSE)
        meant = close[0] if close else None if have else ELSEWHERE.get(name)
        if meant in known and not hasattr(model, str(meant)):
            yield name, str(meant)


def _own_methods(cls: type) -> list[str]:
    """Of the class and of its bases that are in the same file: a library's may be called as it likes."""
    found: dict[str, None] = {}
    for base in cls.__mro__:
        if base.__module__ == cls.__module__ and base is not object:
            found.update({name: None for name, value in vars(base).items() if inspect.isroutine(value)})
    return [name for name in found if not name.startswith("_")]
