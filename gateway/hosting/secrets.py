"""Find the values of declared secrets, and the deployment environment of a model.

The first that exists wins: the file /secrets/NAME · the variable TRUSS_SECRET_NAME · our own sources (a file of
`secrets_dir`, GATEWAY_SECRET_NAME, /run/secrets/NAME) · the value in config.yaml. Only declared names are read.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import ordinary
from ..wording import a_type

if TYPE_CHECKING:
    from ..settings.schema import Settings
    from ..spec import ModelSpec

log = logging.getLogger("gateway.secrets")
TRUSS_DIR, RUN_DIR = Path("/secrets"), Path("/run/secrets")
MAX_SIZE = 1024 * 1024  # bytes of a file; more than Kubernetes takes for one
DEPLOYMENT_FILE = Path("/etc/b10_dynamic_config/environment")


class SecretSources:
    """Read files and environment variables at every call.

    Only the last value of each file is cached, for files that are locked at the moment.
    """

    def __init__(self, settings: Callable[[], Settings]) -> None:
        """`settings` returns the settings in force, which SIGHUP may change."""
        self._settings = settings
        self._complaint = ""
        self._latest: dict[Path, str | None] = {}
        self._too_large: set[Path] = set()

    def for_model(self, spec: ModelSpec) -> dict[str, str]:
        """Return the values of the secrets that the model declares; names without a value are left out."""
        given = spec.config.get("secrets") or {}
        values = {}
        for name in spec.secrets:
            found = self._find(name)
            values[name] = given.get(name) if found is None else found
        return {name: str(value) for name, value in values.items() if value}

    def _find(self, name: str) -> str | None:
        if (value := self._read(TRUSS_DIR, name)) is not None:
            return value
        if (value := os.environ.get(f"TRUSS_SECRET_{name}")) is not None:
            return value
        directory = self._settings().gateway.secrets_dir
        if directory is not None and (value := self._read(directory, name)) is not None:
            return value
        for variable in (f"GATEWAY_SECRET_{name}", f"GATEWAY_SECRET_{name.upper()}"):
            if (value := os.environ.get(variable)) is not None:
                return value
        return self._read(RUN_DIR, name)

    def deployment(self) -> dict[str, Any] | None:
        """Return Truss's `environment`: the JSON object in the environment file, or None without one."""
        file = self._settings().gateway.environment_file or DEPLOYMENT_FILE
        try:
            value = json.loads(ordinary.content(file))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self._complain(f"{file} cannot be read as JSON: {error}")
            return None
        if not isinstance(value, dict):
            self._complain(f"{file} holds {a_type(value)}, not an object")
            return None
        return value

    def _read(self, directory: Path, name: str) -> str | None:
        if "/" in name or name.startswith("."):
            return None
        path = directory / name
        try:
            found = ordinary.content(path, MAX_SIZE).decode()
        except BlockingIOError:  # another process holds a lease on the file; the secret still exists
            return self._latest.get(path)
        except (OSError, ValueError) as error:  # missing, or not text
            found = None
            if isinstance(error, OSError) and error.errno == errno.EFBIG and path not in self._too_large:
                self._too_large.add(path)
                log.warning("%s has more than %d bytes, and is no secret", path, MAX_SIZE)
        self._latest[path] = found
        return found

    def _complain(self, text: str) -> None:
        if text != self._complaint:  # this is called every 30 s: log each complaint once
            self._complaint = text
            log.warning("%s", text)
