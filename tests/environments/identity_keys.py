"""The key in which the identity of an environment ends: models with the same one share it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gateway.environments import virtualenvs
from gateway.spec import ModelSpec


def key_of(spec: ModelSpec, variables: Mapping[str, str] | None = None, cache: Path | None = None) -> str:
    return virtualenvs.asked(spec, variables, cache).key
