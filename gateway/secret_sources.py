"""Where the values of declared secrets come from, and of which deployment a model is part.

First to last: the file /secrets/NAME · the variable TRUSS_SECRET_NAME · our own sources (a file of `secrets_dir`,
GATEWAY_SECRET_NAME, /run/secrets/NAME) · the value in config.yaml. Only names that the model declares are read.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .wording import a_type

if TYPE_CHECKING:
    from .settings import Settings
    from .spec import ModelSpec

log = logging.getLogger("gateway.secrets")
TRUSS_DIR, RUN_DIR = Path("/secrets"), Path("/run/secrets")
DEPLOYMENT_FILE = Path("/etc/b10_dynamic_config/environment")


class SecretSources:
    """Reads files and the environment at every call; remembers nothing but what it complained about."""

    def __init__(self, settings: Settings) -> None:
        self._dir = settings.gateway.secrets_dir
        self._deployment_file = settings.gateway.environment_file or DEPLOYMENT_FILE
        self._complaint = ""

    def for_model(self, spec: ModelSpec) -> dict[str, str]:
        """The values of the names it declares; one without a value is left out."""
        given = spec.config.get("secrets") or {}
        values = {}
        for name in spec.secrets:
            found = self._find(name)
            values[name] = given.get(name) if found is None else found
        return {name: str(value) for name, value in values.items() if value}

    def _find(self, name: str) -> str | None:
        if (value := _read(TRUSS_DIR, name)) is not None:
            return value
        if (value := os.environ.get(f"TRUSS_SECRET_{name}")) is not None:
            return value
        if self._dir is not None and (value := _read(self._dir, name)) is not None:
            return value
        for variable in (f"GATEWAY_SECRET_{name}", f"GATEWAY_SECRET_{name.upper()}"):
            if (value := os.environ.get(variable)) is not None:
                return value
        return _read(RUN_DIR, name)

    def deployment(self) -> dict[str, Any] | None:
        """Truss's `environment`: the JSON object in the environment file, None without one."""
        try:
            value = json.loads(self._deployment_file.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self._complain(f"{self._deployment_file} cannot be read as JSON: {error}")
            return None
        if not isinstance(value, dict):
            self._complain(f"{self._deployment_file} holds {a_type(value)}, not an object")
            return None
        return value

    def _complain(self, text: str) -> None:
        if text != self._complaint:  # it is asked every half minute
            self._complaint = text
            log.warning("%s", text)


def _read(directory: Path, name: str) -> str | None:
    if "/" in name or name.startswith("."):
        return None
    try:
        return (directory / name).read_text()
    except (OSError, ValueError):  # not there, or no text
        return None
