"""Find methods that no route calls, but whose names are close to one that a route does call.

Values only. Which class has the methods, and what is reported, is decided elsewhere.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping

# The names that other servers and libraries use. In a class with a served method, such methods may be helpers.
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
# The same for a class that serves something, if nothing in its file calls the method: then it is not a helper. Names
# that Python or a library calls by itself, such as `__call__` and `run`, are left out.
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
ANY = "*"  # among the names that a file calls: it also makes calls that its text does not reveal
CALLED = ("predict", "preprocess", "postprocess", "websocket", "is_healthy", "load", "unload", "setup_environment")
# Said of a class without any method that a request calls, and the advice if no method name is close to one.
NONE = "a model needs one of the methods predict, chat_completions, embeddings, … (all of them are in docs/models.md)"
SMALLEST = "the smallest one is `def predict(self, inputs): return inputs`"
CLOSE = 0.8  # 0 to 1: `predcit` is above, `prediction` just below, `preprocess` and `postprocess` are 0.76 alike


def near(
    names: Iterable[str], known: Collection[str], have: Collection[str], called: Collection[str] = ()
) -> Iterator[tuple[str, str]]:
    """Yield the methods of a class that nothing calls, each with the name that was probably meant.

    If the class has a method that is served (`have`), methods `called` by its own file are not reported, nor are names
    of other servers when `ANY` is among `called`.
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
    """Return the method that was probably meant to be `__init__`; "" if there is none. `takes`: more than self, by
    method.

    A name that Python itself knows is reported only if it takes an argument, since Python would pass none. If `ANY` is
    among `called`, plain `init` and `_init` are not reported: a library may call them.
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
    """Return whether a method of that name may have been meant for the gateway. Private methods are not checked."""
    return not name.startswith("_") or name in ELSEWHERE


def _nearest(name: str, known: Collection[str]) -> str:
    """Return the known name that equals `name` or is close to it; "" if there is none."""
    low = name.lower()
    if low in known:
        return low
    if swapped := swap(low, known):  # `laod` is 0.75 of `load`
        return swapped
    return next(iter(difflib.get_close_matches(low, known, n=1, cutoff=CLOSE)), "")


def same_letters(name: str, known: Collection[str]) -> str:
    """Return the known name that differs only in case or by two swapped letters; "" if there is none.

    For names as short as `json` this is more reliable than a similarity ratio.
    """
    low = name.lower()
    return next((each for each in known if each.lower() == low), "") or (swap(low, known) if len(low) > 2 else "")


def swap(name: str, known: Collection[str]) -> str:
    """Return the known name that results from swapping two adjacent letters; "" if there is none."""
    swaps = (f"{name[:at]}{name[at + 1]}{name[at]}{name[at + 2 :]}" for at in range(len(name) - 1))
    return next((swapped for swapped in swaps if swapped in known), "")
