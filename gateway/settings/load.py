"""Collect settings from gateway.toml, the environment and flags, in that order; the later one wins.

Each value is converted by the kind of its key. All errors are reported together, each with its place.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import ordinary
from ..spec import Limits, Problem
from ..wording import table_of
from .kinds import PATHS, Kind, misfit, starting_at
from .patterns import is_pattern
from .schema import (
    LIMIT_KINDS,
    USUAL_FILE,
    GatewaySettings,
    ModelSettings,
    PlacementSettings,
    ResponsesSettings,
    Settings,
    WorkerSettings,
)
from .toml_lines import key_lines, line_of


def _kinds(settings: type) -> dict[str, Kind]:
    return {item.name: item.metadata["kind"] for item in fields(settings) if "kind" in item.metadata}


SECTIONS: Mapping[str, Mapping[str, Kind]] = {
    "gateway": _kinds(GatewaySettings),
    "gateway.limits": LIMIT_KINDS,
    "gateway.placement": _kinds(PlacementSettings),
    "gateway.worker": _kinds(WorkerSettings),
    "gateway.responses": _kinds(ResponsesSettings),
}
MODEL = {**_kinds(ModelSettings), "predict_concurrency": LIMIT_KINDS["slots"]}
PREFIX = "GATEWAY_"
ALSO = {"GATEWAY_DEVICES": "gateway.placement.devices"}
# Not settings of ours: read elsewhere, or set by other software. A Kubernetes service named "gateway" gives every pod a
# GATEWAY_PORT=tcp://…, GATEWAY_SERVICE_HOST and GATEWAY_PORT_80_TCP; CGI has GATEWAY_INTERFACE.
NO_SETTINGS = re.compile(r"GATEWAY_(API_KEY|API_KEY_FILE|URL|INTERFACE|SECRET_.*|SERVICE_(HOST|PORT).*|PORT_\d+_.*)")


class Sources:
    """Values by dotted key, where each came from, and the errors in them."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._models: dict[str, dict[str, Any]] = {}
        self._origins: dict[str, str] = {}
        self._errors: list[str] = []
        self._warnings: list[Problem] = []

    def settings(self, file: Path | None) -> Settings:
        """Return the collected settings. Raises `ConfigError` with a line for each error."""
        base = file.parent if file is not None else Path()
        gateway = GatewaySettings(
            **self._section("gateway", GatewaySettings, base),
            limits=Limits(**self._section("gateway.limits", Limits, base)),
            placement=PlacementSettings(**self._section("gateway.placement", PlacementSettings, base)),
            worker=WorkerSettings(**self._section("gateway.worker", WorkerSettings, base)),
            responses=ResponsesSettings(**self._section("gateway.responses", ResponsesSettings, base)),
        )
        if self._errors:
            raise ConfigError("\n".join(self._errors))
        models = {name: ModelSettings(**values) for name, values in self._models.items()}
        return Settings(
            gateway=gateway, models=models, file=file, origins=self._origins, problems=tuple(self._warnings)
        )

    def _section(self, section: str, settings: type, base: Path) -> dict[str, Any]:
        """Return the values set in a section, and default paths, which also start at `base`."""
        kinds = {item.name: item.metadata["kind"] for item in fields(settings) if item.metadata.get("kind") in PATHS}
        paths = {item.name: starting_at(base, item.default) for item in fields(settings) if item.name in kinds}
        given = {name: self._values[key] for name in SECTIONS[section] if (key := f"{section}.{name}") in self._values}
        for name, kind in kinds.items():
            if what := misfit(kind, (paths | given)[name]):
                key = f"{section}.{name}"
                self.error(self._origins.get(key, "default"), f"{key} = {what}")
        return paths | given

    # ── gateway.toml ─────────────────────────────────────────────────────────────────────────────────────────

    def read_file(self, file: Path) -> None:
        try:
            text = ordinary.content(file).decode("utf-8-sig")
            data = tomllib.loads(text)
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{file}: not UTF-8") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{file}: {error}") from error
        _FileReader(self, file, key_lines(text)).read(data)

    # ── environment, flags ───────────────────────────────────────────────────────────────────────────────────

    def read_environment(self, environ: Mapping[str, str]) -> None:
        names = {_variable(section, name): f"{section}.{name}" for section, keys in SECTIONS.items() for name in keys}
        names = {variable: key for variable, key in names.items() if key not in ("gateway.api_key", "gateway.aliases")}
        names.update(ALSO)
        for variable, value in sorted(environ.items()):
            if not variable.startswith(PREFIX) or NO_SETTINGS.fullmatch(variable):
                continue
            if variable not in names:
                fix = suggestion(variable, names)
                self._warn(variable, f"environment variable {variable} is not a setting", fix, "unknown_variable")
            elif variable == "GATEWAY_PORT" and value.startswith("tcp://"):
                what = "GATEWAY_PORT is ignored: Kubernetes sets it for a service named gateway"
                self._warn(variable, what, "set enableServiceLinks: false", "kubernetes_variable")
            elif value:
                self.put(names[variable], value, f"environment {variable}", from_text=True)
        self._read_key(environ)

    def _warn(self, variable: str, what: str, fix: str, code: str) -> None:
        self._warnings.append(Problem(where=f"environment {variable}", what=what, fix=fix, code=code, level="warning"))

    def _read_key(self, environ: Mapping[str, str]) -> None:
        key, file = environ.get("GATEWAY_API_KEY", "").strip(), environ.get("GATEWAY_API_KEY_FILE", "")
        variable = "GATEWAY_API_KEY_FILE" if file else "GATEWAY_API_KEY"
        if key and file:
            self._errors.append("GATEWAY_API_KEY and GATEWAY_API_KEY_FILE are both set; set one")
        elif file:
            try:
                key = ordinary.content(Path(file).expanduser()).decode().strip()
            except (OSError, UnicodeDecodeError) as error:
                self._errors.append(
                    f"GATEWAY_API_KEY_FILE={file}: cannot be read: {getattr(error, 'strerror', 'not UTF-8')}"
                )
                return
            if not key:
                self._errors.append(f"GATEWAY_API_KEY_FILE={file}: the file is empty")
        if any(not "!" <= character <= "~" for character in key):
            self._errors.append(f"the key in {variable} contains characters that are not allowed in an HTTP header")
        elif key:
            self._values["gateway.api_key"] = key
            self._origins["gateway.api_key"] = f"environment {variable}"

    def read_flags(self, flags: Mapping[str, Any]) -> None:
        for key, value in flags.items():
            if value is not None and value != ():
                name = key.rpartition(".")[2].replace("_", "-")
                self.put(key, value, f"flag --{name}", from_text=True)

    # ── one value ────────────────────────────────────────────────────────────────────────────────────────────

    def put(self, key: str, value: Any, origin: str, *, from_text: bool = False, base: Path | None = None) -> None:
        section, _, name = key.rpartition(".")
        converted = self.convert(SECTIONS[section][name], key, value, origin, from_text=from_text, base=base)
        if converted is not None:
            self._values[key] = converted
            self._origins[key] = origin

    def put_model(self, model: str, values: dict[str, Any], origins: dict[str, str], table: str) -> None:
        self._models[model] = values
        self._origins[f"models.{model}"] = table
        self._origins.update({f"models.{model}.{name}": origin for name, origin in origins.items()})

    def convert(
        self, kind: Kind, key: str, value: Any, origin: str, *, from_text: bool = False, base: Path | None = None
    ) -> Any:
        """Return the converted value; on an error, record it and return None. Relative paths start at `base`."""
        try:
            converted = kind(value, from_text)
        except ValueError as error:
            self.error(origin, f"{key} must be {error}, not {value!r}")
            return None
        except ConfigError as error:  # of sizes and devices: the message needs no addition
            self.error(origin, f"{key}: {error}")
            return None
        return starting_at(base, converted) if base is not None and kind in PATHS else converted

    def error(self, where: str, what: str) -> None:
        self._errors.append(f"{where}: {what}")


class _FileReader:
    """Reads the tables of one file."""

    def __init__(self, sources: Sources, file: Path, lines: dict[tuple[str, ...], int]) -> None:
        self._sources = sources
        self._file = file
        self._lines = lines

    def read(self, data: Mapping[str, Any]) -> None:
        for name, value in data.items():
            if name == "gateway":
                self._section("gateway", value)
            elif name == "models":
                self._models(value)
            else:
                self._unknown((name,), ["gateway", "models", *(f"gateway.{key}" for key in SECTIONS["gateway"])])

    def _section(self, section: str, value: Any) -> None:
        at = tuple(section.split("."))
        if not isinstance(value, Mapping):
            self._error(at, f"{section} must be a table")
            return
        for name, item in value.items():
            here, key = (*at, name), f"{section}.{name}"
            if key in SECTIONS:
                self._section(key, item)
            elif key == "gateway.api_key":
                self._error(here, "the API key does not belong in this file: set GATEWAY_API_KEY or _FILE instead")
            elif name in SECTIONS[section]:
                self._sources.put(key, item, self._where(here), base=self._file.parent)
            else:
                subsections = [part.removeprefix(f"{section}.") for part in SECTIONS if part.startswith(f"{section}.")]
                known = [*SECTIONS[section], *subsections]
                elsewhere = [f"{part}.{other}" for part, keys in SECTIONS.items() for other in keys if other == name]
                self._unknown(here, elsewhere or known)

    def _models(self, tables: Any) -> None:
        if not isinstance(tables, Mapping):
            self._error(("models",), "models must be a table of tables; model roots are [gateway] models")
            return
        for model, table in tables.items():
            if isinstance(table, Mapping):
                self._model(model, table)
            else:
                self._error(("models", model), f"{table_of(model)} must be a table; model roots are [gateway] models")

    def _model(self, model: str, table: Mapping[str, Any]) -> None:
        values: dict[str, Any] = {}
        origins: dict[str, str] = {}
        for name, item in table.items():
            here = ("models", model, name)
            if name not in MODEL:
                self._unknown(here, MODEL, value=item)
                continue
            if name == "aliases" and is_pattern(model):
                self._error(here, f"{table_of(model)} matches several models, but an alias must name one")
                continue
            key = "slots" if name == "predict_concurrency" else name
            if key in values:
                self._error(here, f"models.{model}: slots and predict_concurrency are the same setting; use one")
            converted = self._sources.convert(
                MODEL[name], f"models.{model}.{name}", item, self._where(here), base=self._file.parent
            )
            if converted is not None:
                values[key], origins[key] = converted, self._where(here)
        self._sources.put_model(model, values, origins, self._where(("models", model)))

    def _unknown(self, at: tuple[str, ...], known: Collection[str], *, value: Any = None) -> None:
        name = at[-1]
        if isinstance(value, Mapping) and at[0] == "models" and not difflib.get_close_matches(name, known, 1):
            # TOML reads [models.qwen2.5] as the table "5" in "qwen2"
            self._error(at, f'[{".".join(at)}] is a nested table; quote the name: [models."{".".join(at[1:])}"]')
            return
        self._error(at, f"unknown key {'.'.join(at)} ({suggestion(name, known)})")

    def _error(self, at: tuple[str, ...], what: str) -> None:
        self._sources.error(self._where(at), what)

    def _where(self, at: tuple[str, ...]) -> str:
        line = line_of(self._lines, at)
        return f"{self._file}:{line}" if line else str(self._file)


def suggestion(name: str, known: Collection[str]) -> str:
    """Return "did you mean …?", or a list of all names."""
    endings = {
        key.rpartition(".")[2]: key for key in reversed(list(known))
    }  # of two equal endings, the one listed first
    close = difflib.get_close_matches(name, [*known, *endings], n=1)
    return f"did you mean {endings.get(close[0], close[0])}?" if close else f"have: {', '.join(sorted(known))}"


def _variable(section: str, name: str) -> str:
    """Return the variable of a setting, such as GATEWAY_PORT, or GATEWAY_LIMITS__MAX_QUEUE of `gateway.limits`."""
    inner = section.partition(".")[2]
    return PREFIX + (f"{inner}__{name}" if inner else name).upper()


def load_settings(
    file: Path | None = None, *, flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] = os.environ
) -> Settings:
    """Return the settings. `flags` have dotted keys, {"gateway.port": 9000}; flags that are None were not given.

    Raises `ConfigError` with a line for each error. Without `file`, ./gateway.toml is read if it exists. Relative paths
    in the file, and default paths, start at the directory of the file; those of variables and flags start at the
    working directory.
    """
    sources = Sources()
    default = Path(USUAL_FILE)
    if file is not None or default.exists():
        sources.read_file(file or default)
    sources.read_environment(environ)
    sources.read_flags(flags or {})
    return sources.settings(file or (default if default.exists() else None))
