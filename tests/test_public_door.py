"""What comes with the gateway goes through the door that strangers use.

Of what dialects and runners share, all that ours import can be imported from `gateway` or `gateway.errors` too. Plugins
have a test of their own, for everything that they import.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from types import ModuleType

import pytest
from test_import_directions import imports_of, modules, room

import gateway
from gateway import errors

# What a dialect or a runner is made of. A module of a dialect's own family is its own affair.
SHARED = (
    *("spec", "errors", "hookspecs", "runners.replica", "devices.device"),
    *(f"dialects.{name}" for name in ("base", "events", "fields", "answer", "single_value", "raw")),
)
FAMILIES = ("openai", "anthropic", "responses", "scoring", "plain_json")


def ours() -> list[str]:
    """Our dialects, the runner of processes, and the formats of directories."""
    dialects = [name for name in modules() if name.startswith(tuple(f"dialects.{family}" for family in FAMILIES))]
    return [*dialects, "runners.process", "directories.truss", "directories.python"]


def is_public(module: str, name: str) -> bool:
    """Whether a stranger can import it: from `gateway`, or from a public module that defines it."""
    value = getattr(importlib.import_module(f"gateway.{module}"), name)
    public = [getattr(gateway, each) for each in gateway.__all__]
    if any(value is each for each in public):
        return True
    shown = (errors, *(each for each in public if isinstance(each, ModuleType)))
    return any(each.__name__ == f"gateway.{module}" and name in defined_in(each) for each in shown)


def defined_in(module: ModuleType) -> set[str]:
    found = set()
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def test_ours_import_no_name_of_what_is_shared_that_a_stranger_cannot() -> None:
    wrong = []
    for name in ours():
        for line, imported, _ in imports_of(modules()[name]):
            module, _, item = imported.partition("gateway.")[2].rpartition(".")
            if module in SHARED and not is_public(module, item):
                wrong.append(f"{name}:{line} imports {module}.{item}")
    assert wrong == []


def test_the_rule_looks_at_something() -> None:
    assert len(ours()) > 25
    shared = [each for name in ours() for _, each, _ in imports_of(modules()[name]) if "dialects.base" in each]
    assert len(shared) > 30


@pytest.mark.parametrize("name", ["EventEncoder", "Prepared", "Endpoint", "hookimpl", "LoadError", "fields", "values"])
def test_a_name_of_ours_that_is_no_longer_public_is_missed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "__all__", [each for each in gateway.__all__ if each != name])
    with pytest.raises(AssertionError):
        test_ours_import_no_name_of_what_is_shared_that_a_stranger_cannot()


def test_every_room_that_is_shared_exists() -> None:
    assert {room(name) for name in SHARED} <= {room(name) for name in modules()}
