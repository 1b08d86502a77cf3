"""Suggest what was meant by an unknown path: another base URL, or a spelling mistake."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..hosting.catalog import Catalog, Sees
    from ..hosting.model import HostedModel

V1, MODELS = "/v1", "/models/"
ELSEWHERE = ("/v2", "/v3", "/api", "/openai")  # endings of base URLs of other servers
PREDICTS = ("/predict", "/v1/predict", "/v1/models/predict", "/models/predict", "/api/predict")
OF_ONE = ("/predict", "/status", "/ping")  # routes that every model has
CLOSE, SHORT = 0.94, 0.8  # similarity from 0 to 1: one or two letters of a path, or of a word


def advice(path: str, known: Collection[str], catalog: Catalog, sees: Sees) -> str:
    """Return a clause for "unknown URL": a similar path, how to call the model in it, or where models are listed."""
    if found := meant(path, known):
        return found
    if model := named(path, catalog.seen(sees)):
        return f"; model '{model.name}' is called with {call_of(catalog, model)}"
    return f"; GET {V1}/models lists the models and their routes"


def named(path: str, models: Iterable[HostedModel]) -> HostedModel | None:
    """Return the model whose name is part of the path; of several, the one with the longest name."""
    parts = f"/{path.strip('/')}/".replace(":", "/")
    return max(
        (model for model in models if f"/{model.name}/" in parts), key=lambda model: len(model.name), default=None
    )


def call_of(catalog: Catalog, model: HostedModel) -> str:
    """Return the request that calls the model, by its first route, or by predict if no route is known yet."""
    predict = f"{V1}{MODELS}{model.name}:predict"
    route = next(iter(catalog.routes(model)), predict)
    return f"POST {route if route == predict else f'{MODELS}{model.name}{route}'}"


def meant(path: str, known: Collection[str]) -> str:
    """Return a clause for a path similar to a known one, or "". `known` are the shared paths of routes."""
    for other in sorted(known, key=len, reverse=True):
        short = other.removeprefix(V1)
        if short == other or not path.endswith(short):
            continue
        base = path[: len(path) - len(short)]  # empty, or the base URL of one model
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
    """Split a path into the base URL of a model and the rest. For other paths the base is ""."""
    if not path.startswith(MODELS):
        return "", path
    name, found, rest = path[len(MODELS) :].partition(f"{V1}/")
    if not found:
        name, _, rest = name.rpartition("/")
        return (f"{MODELS}{name}", f"/{rest}") if name else ("", path)
    return f"{MODELS}{name}", f"{V1}/{rest}"
