"""Names of methods that no route calls and that are nearly those of one that a route does call.

Values only: who the methods belong to, and what is said of them, is left to others.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator

# What other servers and libraries call it. Where the class has a method that is served, these may be helpers.
ELSEWHERE = {
    "__call__": "predict",
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
CALLED = ("predict", "preprocess", "postprocess", "websocket", "is_healthy", "load", "unload", "setup_environment")
# Of a class that has none of those that a request calls, and what to do where no name of its own is near one.
NONE = "a model needs one of the methods predict, chat_completions, embeddings, … (all of them are in docs/models.md)"
SMALLEST = "the smallest one is `def predict(self, inputs): return inputs`"
CLOSE = 0.8  # of 1: `predcit` is, `prediction` is not quite, `preprocess` and `postprocess` are 0.76 alike


def near(names: Iterable[str], known: Collection[str], have: Collection[str]) -> Iterator[tuple[str, str]]:
    """Of the methods of a class, those that nothing calls, with what they may have been meant to be."""
    for name in names:
        if name in known:
            continue
        meant = _nearest(name, known) or ("" if have else ELSEWHERE.get(_nearest(name, ELSEWHERE), ""))
        if meant in known:
            yield name, meant


def is_asked_about(name: str) -> bool:
    """Whether a method of that name may have been meant for us: what is private is its author's own."""
    return not name.startswith("_") or name in ELSEWHERE


def _nearest(name: str, known: Collection[str]) -> str:
    """The one that it is, or is nearly; empty without one."""
    low = name.lower()
    if low in known:
        return low
    for at in range(len(low) - 1):  # `laod` is 0.75 of `load`
        if (swapped := f"{low[:at]}{low[at + 1]}{low[at]}{low[at + 2 :]}") in known:
            return swapped
    return next(iter(difflib.get_close_matches(low, known, n=1, cutoff=CLOSE)), "")
