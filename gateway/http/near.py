"""What somebody meant who asks for a path that is not there: a base URL that ends elsewhere, or a slip of the pen."""

from __future__ import annotations

import difflib
from collections.abc import Collection

V1, MODELS = "/v1", "/models/"
ELSEWHERE = ("/v2", "/v3", "/api", "/openai")  # how base URLs of other servers end
PREDICTS = ("/predict", "/v1/predict", "/v1/models/predict", "/models/predict")
CLOSE = 0.94  # of 1: a letter or two of a path


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
    close = difflib.get_close_matches(path, known, n=1, cutoff=CLOSE) if path not in known else ()
    return f"; did you mean {close[0]}?" if close else ""
