"""What somebody meant who asks for a path that is not there: a base URL with one /v1 too few, or one too many."""

from __future__ import annotations

from collections.abc import Collection

V1, MODELS = "/v1", "/models/"


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
    return ""
