"""What somebody meant who asks for a path that is not there: a base URL that ends elsewhere, or a slip of the pen."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..hosted import HostedModel
    from ..hub import Hub, Sees

V1, MODELS = "/v1", "/models/"
ELSEWHERE = ("/v2", "/v3", "/api", "/openai")  # how base URLs of other servers end
PREDICTS = ("/predict", "/v1/predict", "/v1/models/predict", "/models/predict", "/api/predict")
OF_ONE = ("/predict", "/status", "/ping")  # what a model has beside the routes of its methods
CLOSE, SHORT = 0.94, 0.8  # of 1: a letter or two of a path, or of a word


def advice(path: str, known: Collection[str], hub: Hub, sees: Sees) -> str:
    """A clause to put behind "unknown URL": what is near, or how the model is called that the path names, or all."""
    if found := meant(path, known):
        return found
    if model := named(path, hub.seen(sees)):
        return f"; model '{model.name}' is called by {call_of(hub, model)}"
    return f"; GET {V1}/models lists the models and their routes"


def named(path: str, models: Iterable[HostedModel]) -> HostedModel | None:
    """That with the longest of the names that the path has as a whole part."""
    parts = f"/{path.strip('/')}/".replace(":", "/")
    return max(
        (model for model in models if f"/{model.name}/" in parts), key=lambda model: len(model.name), default=None
    )


def call_of(hub: Hub, model: HostedModel) -> str:
    """The request that calls the model, by the first of its routes; predict where none is known yet."""
    predict = f"{V1}{MODELS}{model.name}:predict"
    route = next(iter(hub.routes(model)), predict)
    return f"POST {route if route == predict else f'{MODELS}{model.name}{route}'}"


def meant(path: str, known: Collection[str]) -> str:
    """The clause for a path that is nearly one of ours; empty when none is. `known` are the shared paths of routes."""
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
