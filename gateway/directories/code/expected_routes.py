"""Determine from its source what a model will serve before it is loaded. Nothing is imported."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from ...files import ordinary
from ...spec import Endpoint, ModelSpec
from ...wording import traceback_of
from .batch_methods import answers
from .inherited_methods import with_inherited
from .source import ClassInfo, SourceError, read_class
from .targets import module_file

log = logging.getLogger("gateway.discovery")


def source_of(spec: ModelSpec) -> tuple[Path, str] | None:
    """Return the file and the name of the model's class; None if only an import would reveal the file."""
    module, _, name = spec.target.rpartition(":")
    if module.endswith(".py"):
        return Path(module), name
    own = spec.root.joinpath(*module.split(".")).with_suffix(".py")
    if own.is_file():
        return own, name
    path = module_file(module)
    return (path, name) if path else None


def routes_of(spec: ModelSpec, endpoints: Iterable[Endpoint]) -> list[str]:
    """Return the paths for which the model's class has methods, according to its source; the load may find others."""
    source = source_of(spec)
    try:
        found = read_class(*source) if source else None
    except SourceError:
        found = None
    if found is None:
        return []
    if source and not spec.own_code:  # a plugin's class, whose base is often a plugin's too
        found = with_inherited(found, source[0])
    predict = [f"/v1/models/{spec.name}:predict"] if answers(found, "predict") else []
    known = tuple(endpoints)
    answered = {endpoint.path for endpoint in known if _answers(found, spec, endpoint)}
    return predict + [endpoint.path for endpoint in known if {endpoint.path, endpoint.beside} & answered]


def _answers(found: ClassInfo, spec: ModelSpec, endpoint: Endpoint) -> bool:
    if answers(found, endpoint.method):
        return True
    derived_from = endpoint.derived_from
    return derived_from is not None and endpoint.method in spec.derive and answers(found, derived_from)


class ExpectedRoutes:
    """The routes of models that have not been loaded yet, read once for each state of their directory."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._endpoints = tuple(endpoints)
        self._known: dict[str, tuple[ModelSpec, list[str]]] = {}

    def read(self, specs: Iterable[ModelSpec]) -> None:
        """Compute the routes of these models before the event loop asks. Reads and parses files: call it off-loop."""
        for spec in specs:
            self.routes(spec)

    def routes(self, spec: ModelSpec) -> list[str]:
        known = self._known.get(spec.name)
        if known is None or known[0] is not spec:
            known = self._known[spec.name] = spec, self._routes_of(spec)
        return known[1]

    def _routes_of(self, spec: ModelSpec) -> list[str]:
        try:
            with ordinary.within(spec.root, spec.allow_links):
                return routes_of(spec, self._endpoints)
        except Exception as error:  # of one model, whatever its target and its files are
            what = "cannot determine what %s will serve before it is loaded"
            log.error(what, spec.name, exc_info=traceback_of(error))
            return []
