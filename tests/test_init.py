from __future__ import annotations

import subprocess
import sys

import pytest

import gateway

HEAVY = "yaml pydantic msgspec litestar uvicorn torch numpy transformers"


def test_importing_gateway_is_light() -> None:
    script = f"import sys, gateway; print(*set({HEAVY!r}.split()) & sys.modules.keys())"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.split() == []


@pytest.mark.parametrize("name", gateway.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(gateway, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        gateway.nothing  # noqa: B018
