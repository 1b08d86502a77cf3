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

if TYPE_CHECKING:
    from .settings import Settings
    from .spec import ModelSpec

log = logging.getLogger("gateway.secrets")
TRUSS_DIR, RUN_DIR = Path("/secrets"), Path("/run/secrets")
DEPLOYMENT_FILE = Path("/etc/b10_dynamic_config/environment")


class SecretSources:
    def __init__(self, settings: Settings) -> None:
        self._dir = settings.gateway.secrets_dir
        self._deployment_file = settings.gateway.environment_file or DEPLOYMENT_FILE

    def for_model(self, spec: ModelSpec) -> dict[str, str]:
        """The values of the names it declares; one without a value is left out."""
        given = spec.config.get("secrets") or {}
        values = {name: self._find(name) or given.get(name) for name in spec.secrets}
        return {name: value for name, value in values.items() if value}

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

    def deployment(self, spec: ModelSpec) -> dict[str, Any] | None:
        """Truss's `environment`: the JSON object in the environment file, None without one."""
        try:
            value = json.loads(self._deployment_file.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("%s cannot be read as JSON: %s", self._deployment_file, error)
            return None
        return value if isinstance(value, dict) else None


def _read(directory: Path, name: str) -> str | None:
    if "/" in name or name.startswith("."):
        return None
    try:
        return (directory / name).read_text()
    except OSError:
        return None
