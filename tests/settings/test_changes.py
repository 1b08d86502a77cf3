"""What changed in the settings, told without their secrets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gateway.settings.changes import changes
from gateway.settings.schema import GatewaySettings, ModelSettings


def test_each_setting_is_told_with_its_value_before_and_after() -> None:
    before = GatewaySettings(models=(Path("a"),))
    after = replace(
        before, models=(Path("b"),), max_connections=5, limits=replace(before.limits, slots=4), aliases={"x": "y\nz"}
    )
    assert changes(before, after, "gateway.").split("; ") == [
        'gateway.models from ["a"] to ["b"]',
        'gateway.aliases from {} to {"x": "y\\nz"}',
        "gateway.max_connections from none to 5",
        f"gateway.limits.slots from {before.limits.slots} to 4",
    ]
    assert changes(before, before, "gateway.") == ""


def test_neither_keys_nor_values_of_an_environment_are_told() -> None:
    before = GatewaySettings(api_key="first secret")
    assert changes(before, replace(before, api_key="second secret"), "gateway.") == "gateway.api_key has changed"
    was = ModelSettings(environment={"A": "secret", "B": "secret", "C": "secret"})
    now = replace(was, environment={"A": "secret", "B": "other secret", "D": "secret"})
    assert changes(was, now, "models.m.") == "models.m.environment: added D, removed C, changed B"
    assert changes(ModelSettings(), now, "models.m.") == "models.m.environment: added A+B+D"
