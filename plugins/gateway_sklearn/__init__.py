"""Serve a scikit-learn model saved with skops: rows in, predictions out.

The hooks are here, and import the other modules when they are called. `SklearnModel` in `model` answers predict.
`columns` finds out what an estimator reads, `words` describes it, `rows` converts requests to it, and `complaints`
explains refusals. Pickles (.joblib, .pkl) run code when they are opened: only the operator can allow one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway import ConfigError, Format, ModelSpec, Problem, describe, has_code, hookimpl, peek_config, peek_weights

TARGET = "gateway_sklearn.model:SklearnModel"
FORMAT = Format(
    files="*.skops; *.joblib and *.pkl where gateway.toml allows them",
    routes=("predict", "/v2/models/{id}/infer", "/v1/decisions"),
    needs=("sklearn", "skops"),
    install="pip install 'model-gateway[sklearn]'",
)


@hookimpl
def register_formats(register: Callable[[str, Format], None]) -> None:
    register("sklearn", FORMAT)


@hookimpl
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    from .model_file import check_file, left_out

    # Not read from the class's options, which config.yaml may set too: these belong to the operator.
    trust = {
        "allow_pickle": bool(overrides.get("allow_pickle")),
        "trusted_types": list((overrides.get("options") or {}).get("trusted_types", ())),
    }
    if not _is_ours(path, trust["allow_pickle"]):
        return None
    if place := peek_weights(path):
        check_file(place, path, trust)
    spec = describe(
        path,
        target=TARGET,
        format="sklearn",
        overrides=overrides,
        # A fitted estimator is only read, so calls may share it. Its Python holds the GIL, so more than a few slots
        # gain nothing. With four, the next call is ready when one ends, and a large table does not block small ones.
        slots=4,
        needs=FORMAT.needs,
        install=FORMAT.install,
    )
    return replace(spec, config={**spec.config, **trust}, notes=(*spec.notes, *left_out(path, trust["allow_pickle"])))


@hookimpl
def check_model(spec: ModelSpec) -> Iterator[Problem]:
    """Report types in a skops file that must be trusted, and objects that cannot predict. Creates no object."""
    from .model_file import check_file
    from .opening import check_types
    from .skops_objects import useless

    if spec.target != TARGET or (place := peek_weights(spec.root)) is None:
        return
    try:
        file = check_file(place, spec.root, spec.config)
        if file.suffix != ".skops":
            return
        if reason := useless(file):  # then trusting its types would not help
            yield Problem(where=str(spec.root), what=reason, code="unloadable", model=spec.name)
            return
        check_types(file, spec.config)
    except ConfigError as error:
        yield Problem(where=str(spec.root), what=str(error), code="untrusted_types", model=spec.name)


def _is_ours(path: Path, allow_pickle: bool) -> bool:
    from .model_file import model_file

    config = peek_config(path)
    if "framework" in config:  # overrides detection
        return bool(config["framework"] == "sklearn")
    if has_code(path):
        return False
    place = peek_weights(path)
    return place is not None and model_file(place, path, allow_pickle) is not None
