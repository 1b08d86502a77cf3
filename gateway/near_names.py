"""Names of methods that no route calls and that are nearly those of one that a route does call.

Values only: who the methods belong to, and what is said of them, is left to others.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping

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
# The same of a class that serves something, where nothing of its file calls the method: no helper then. What Python or
# a library calls by itself, such as `__call__` and `run`, is not asked about.
BESIDE = {
    "chat": "chat_completions",
    "complete": "completions",
    "embed": "embeddings",
    "encode": "embeddings",
    "generate": "completions",
    "initialise": "load",
    "initialize": "load",
    "load_model": "load",
    "setup": "load",
    "transcribe": "audio_transcriptions",
}
ANY = "*"  # among the names that a file calls: more than can be told from its text
CALLED = ("predict", "preprocess", "postprocess", "websocket", "is_healthy", "load", "unload", "setup_environment")
# Of a class that has none of those that a request calls, and what to do where no name of its own is near one.
NONE = "a model needs one of the methods predict, chat_completions, embeddings, … (all of them are in docs/models.md)"
SMALLEST = "the smallest one is `def predict(self, inputs): return inputs`"
CLOSE = 0.8  # of 1: `predcit` is, `prediction` is not quite, `preprocess` and `postprocess` are 0.76 alike


def near(
    names: Iterable[str], known: Collection[str], have: Collection[str], called: Collection[str] = ()
) -> Iterator[tuple[str, str]]:
    """Of the methods of a class, those that nothing calls, with what they may have been meant to be.

    Those that are `called` by its own file are no slips beside a method that serves; nor is one of another server's
    name when `ANY` is among them.
    """
    for name in names:
        if name in known or (have and name in called):
            continue
        meant = _nearest(name, known)
        if not meant and not have:
            meant = ELSEWHERE.get(_nearest(name, ELSEWHERE), "")
        elif not meant and ANY not in called:
            meant = BESIDE.get(name, "")
        if meant in known:
            yield name, meant


def near_init(takes: Mapping[str, bool], called: Collection[str]) -> str:
    """The method that was meant to be `__init__`; empty without one. `takes` says which take more than self.

    Those that Python knows by that name are no slips unless they do: it calls none with an argument. A plain `init` and
    `_init` are what a library may call, when `ANY` is among those `called`.
    """
    if "__init__" in takes:
        return ""
    for name, more in takes.items():
        bare = name.strip("_")
        if name in called:
            continue
        if bare.lower() == "init":
            if (more or name != bare) and (ANY not in called or name[:2] == "__" or name[-1] == "_"):
                return name
        elif name[0] == name[-1] == "_" and _nearest(bare, ("init",)) and (more or not hasattr(int, name)):
            return name
    return ""


def is_asked_about(name: str) -> bool:
    """Whether a method of that name may have been meant for us: what is private is its author's own."""
    return not name.startswith("_") or name in ELSEWHERE


def _nearest(name: str, known: Collection[str]) -> str:
    """The one that it is, or is nearly; empty without one."""
    low = name.lower()
    if low in known:
        return low
    if swapped := swap(low, known):  # `laod` is 0.75 of `load`
        return swapped
    return next(iter(difflib.get_close_matches(low, known, n=1, cutoff=CLOSE)), "")


def same_letters(name: str, known: Collection[str]) -> str:
    """The one that it is but for capitals, or for two letters that are swapped; empty without one.

    Of names as short as `json`, that says more than how much of them is alike.
    """
    low = name.lower()
    return next((each for each in known if each.lower() == low), "") or (swap(low, known) if len(low) > 2 else "")


def swap(name: str, known: Collection[str]) -> str:
    """The one that it is with two letters beside one another swapped; empty without one."""
    swaps = (f"{name[:at]}{name[at + 1]}{name[at]}{name[at + 2 :]}" for at in range(len(name) - 1))
    return next((swapped for swapped in swaps if swapped in known), "")
