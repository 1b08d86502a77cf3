"""What somebody meant who asks for a path that is not there: a base URL that ends elsewhere, or a slip of the pen."""

from __future__ import annotations

import difflib
from collections.abc import Collection

V1, MODELS = "/v1", "/models/"
ELSEWHERE = ("/v2", "/v3", "/api", "/openai")  # how base URLs of other servers end
PREDICTS = ("/predict", "/v1/predict", "/v1/models/predict", "/models/predict")
OF_ONE = ("/predict", "/status", "/ping")  # what a model has beside the routes of its methods
CLOSE, SHORT = 0.94, 0.8  # of 1: a letter or two of a path, or of a word


def meant(path: str, known: Collection[str]) -> str:
    """A clause to put behind "unknown URL"; empty when nothing is near. `known` are the shared paths of routes."""
    for other in sorted(known, key=len, reverse=True):
        short = other.removeprefix(V1)
        if short == other or not path.endswith(short):
            continue
        base = path[: len(path) - len(short)]  # nothing, or that of one model
        if base.endswith(f"{V1}{V1}"):
            return f"; it is {base[: -len(V1)]}{short}: this client adds {V1} to its base URL by itself"
        if not base or (base.startswith(MODELS) and base != MODELS and not base.endswith(V1)):
            return f"; it is {base}{V1}{short}: the base URL of this client has to end with {V1}"
        if base in ELSEWHERE or base in known:
            return f"; it is {other}: the base URL of this client has to end with {V1}"
    if path in PREDICTS:
        return f"; it is {V1}{MODELS}NAME:predict, with a name that GET {V1}/models lists"
    base, rest = _of_one(path)
    ours = known if not base or rest.startswith(f"{V1}/") else OF_ONE
    close = difflib.get_close_matches(rest, ours, n=1, cutoff=CLOSE if ours is known else SHORT)
    return f"; did you mean {base}{close[0]}?" if close and close[0] != rest else ""


def _of_one(path: str) -> tuple[str, str]:
    """The base URL of one model and what is behind it; of another path, nothing and all of it."""
    if not path.startswith(MODELS):
        return "", path
    name, found, rest = path[len(MODELS) :].partition(f"{V1}/")
    if not found:
        name, _, rest = name.rpartition("/")
        return (f"{MODELS}{name}", f"/{rest}") if name else ("", path)
    return f"{MODELS}{name}", f"{V1}/{rest}"
