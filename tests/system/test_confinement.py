"""A confined program is started with what it is told, in an order in which it is found again."""

from __future__ import annotations

from pathlib import Path

from gateway.system import confinement
from gateway.system.reaper import MARK


def test_the_mark_is_the_first_variable() -> None:
    """It is searched at the beginning of an environment, before what a model's settings may make large."""
    begun = confinement.start(["x"], {"A": "1", MARK: "gateway-replica-1"}, cwd=Path("/"), sandbox="basic")
    assert next(iter(begun.environment.items())) == (MARK, "gateway-replica-1")
    assert begun.environment["GW_SET_A"] == "1"
