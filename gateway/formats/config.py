"""Read a model's config.yaml: Truss's schema, every default filled in, every oddity named with its line.

Reads one file and returns a value; what a directory becomes of it is `describe.py`'s. Unknown keys are kept at every
level, because models read them.
"""

from __future__ import annotations

import copy
import difflib
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from .. import ordinary
from ..alike import MOST_ALIKE, first_of_each_kind
from ..spec import Problem
from ..values import can_be_set
from .config_values import EXPECTED, accelerator_of, convert, copied, jsonable, variable
from .safe_yaml import MAX_BYTES, Document, YAMLError, parse
from .schema import (
    ACCELERATORS,
    AUTH_METHODS,
    CONFIG,
    OPERATORS,
    OPERATORS_VARIABLES,
    OTHER_SERVERS,
    RENAMED,
    Each,
    Key,
    Section,
)

NO_YAML = (
    "No truss configuration file ending in .yaml but found one ending in .yml. Did you mean to rename it?"  # Truss's
)
SETTLED = 2.0  # seconds: two writes within the clock's tick of each other would leave all times as they are
ONE_WORKER = "num_workers must be 1: a model is one process per replica"
CPU = re.compile(r"(\d+(?:\.\d+)?)(m?)")
MEMORY = re.compile(r"\d+(\.\d+)?([kMGTPE]|[KMGTPE]i)?")
ACCELERATOR = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)(?::([1-9]\d*))?")
LONGEST = 100  # characters of a key that may be a misspelt one of ours
RESERVED_VARIABLES = ("PORT", "HOSTNAME")
INSIDE = ("data_dir", "bundled_packages_dir", "requirements_file", "model_module_dir")  # of the model directory


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A config.yaml as read. `data` is the dict a model receives, `raw` what the file says.

    `notes` are the keys that only Truss's image build or cloud acts on.
    """

    path: Path  # of the file, which need not exist
    data: Mapping[str, Any]
    raw: Mapping[str, Any]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.level == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.level == "warning")


def read_config(path: Path) -> ModelConfig:
    """Return the config of the model directory `path`; all defaults when it has none."""
    file = path / "config.yaml"
    reader = _Reader(file)
    if file.is_file():
        try:
            document = _document(file)
        except YAMLError as error:
            reader.error(error.what, line=error.line, code="invalid_yaml")
            document = Document({}, {})
    else:
        if (path / "config.yml").is_file():
            reader.file = path / "config.yml"
            reader.error(NO_YAML, code="config_yml")
        document = Document({}, {})
    return reader.read(document)


def peek_config(path: Path) -> dict[str, Any]:
    """Return what the config.yaml of the model directory `path` says, and no defaults.

    For a format's `find_model`, which asks whether a directory is its own. It is {} where there is no such file, or one
    that cannot be read within bounds: `describe` raises what is wrong with it.
    """
    try:
        data = _document(path / "config.yaml").data
    except YAMLError:
        return {}
    return copy.deepcopy(data) if isinstance(data, dict) else {}


def is_of_another_program(path: Path) -> bool:
    """Return whether the config.yaml, or the config.yml, says something, and nothing that Truss knows: Hydra's."""
    name = "config.yaml" if (path / "config.yaml").is_file() else "config.yml"
    try:
        config = _document(path / name).data
    except YAMLError:
        return False
    return isinstance(config, dict) and bool(config) and not config.keys() & CONFIG.keys.keys()


def has_code(path: Path) -> bool:
    """Return whether the model directory `path` has a class of its own: the file that its config.yaml names, or
    model/model.py, or model.py."""
    config = peek_config(path)
    names = (config.get("model_module_dir", "model"), config.get("model_class_filename", "model.py"))
    return os.path.isfile(path.joinpath(*map(str, names))) or (path / "model.py").is_file()


def _document(file: Path) -> Document:
    """The file, parsed once until it changes. Raises `YAMLError`."""
    try:
        ordinary.check_inside(file)  # it may be known from when links were allowed
        stat = file.stat()
        if time.time() - stat.st_ctime < SETTLED:
            return _parse(file)
        return _parsed(file, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    except OSError as error:
        raise YAMLError(f"cannot be read: {error.strerror}") from None


def _parse(file: Path) -> Document:
    with ordinary.opened(file) as opened:
        return parse(opened.read(MAX_BYTES + 1))


@lru_cache(maxsize=1024)
def _parsed(file: Path, *version: int) -> Document:
    return _parse(file)


class _Reader:
    def __init__(self, file: Path) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._unknown_keys = 0
        self.lines: Mapping[tuple[Any, ...], int] = {}

    def read(self, document: Document) -> ModelConfig:
        self.lines = document.lines
        for name, line in document.duplicates:
            self.warn(f"{name} is written twice; the last one counts", line=line, code="duplicate_key")
        raw: Any = {} if document.data is None else copy.deepcopy(document.data)
        if not isinstance(raw, dict):
            self.error("expected a mapping of keys", line=1, code="invalid_type")
            raw = {}
        for old, new in RENAMED.items():
            if old in raw and new not in raw:
                raw = {new if name == old else name: value for name, value in raw.items()}
        data = self._fill(CONFIG, raw, ())
        self._derive(data)
        self._check(data)
        notes = [f"{'.'.join(key)} has no effect here" for key in _cloud_keys(CONFIG, raw, data)]
        return ModelConfig(
            path=self.file,
            data=jsonable(data),
            raw=raw,
            problems=tuple(first_of_each_kind(self.problems)),
            notes=tuple(_python_note(raw) + notes),
        )

    # ── values ───────────────────────────────────────────────────────────────────────────────────────────────

    def _fill(self, section: Section, raw: Mapping[Any, Any], at: tuple[Any, ...]) -> dict[str, Any]:
        """Return `raw` with every default of `section`, unknown keys behind the known ones."""
        data: dict[str, Any] = {}
        for name, key in section.keys.items():
            here, value = (*at, name), raw.get(name)
            if isinstance(key, Section):
                data[name] = self._mapping(key, value, here)
            elif isinstance(key, Each):
                data[name] = self._list(key, value, here)
            elif value is not None:
                data[name] = self._value(key, value, here)
            elif not key.absent:
                data[name] = copied(key.default)
        for name, value in raw.items():
            if name not in section.keys:
                data[name] = value
                self._unknown(section, str(name), at)
        return data

    def _mapping(self, section: Section, value: Any, at: tuple[Any, ...]) -> dict[str, Any] | None:
        if value is not None and not isinstance(value, dict):
            self.error(f"{_path(at)} must be a mapping", at, code="invalid_type")
            value = None
        return None if value is None and section.optional else self._fill(section, value or {}, at)

    def _list(self, each: Each, value: Any, at: tuple[Any, ...]) -> list[dict[str, Any]] | None:
        if value is not None and not isinstance(value, list):
            self.error(f"{_path(at)} must be a list, not {_shown(value)}", at, code="invalid_type")
            value = None
        if value is None:
            return each.default
        return [self._mapping(each.section, item, (*at, index)) or {} for index, item in enumerate(value)]

    def _value(self, key: Key, value: Any, at: tuple[str, ...]) -> Any:
        try:
            return convert(key.kind, value)
        except ValueError:
            wrong = f"{_path(at)} must be {EXPECTED[key.kind]}, not {_shown(value)}"
            self.error(wrong, at, code="invalid_type")
            return copied(key.default)

    def _unknown(self, section: Section, name: str, at: tuple[Any, ...]) -> None:
        fix = "it is handed to the model"
        self._unknown_keys += 1
        if self._unknown_keys > MOST_ALIKE or len(name) > LONGEST:
            pass  # to look for near names takes longest, and those others are counted alone
        elif close := difflib.get_close_matches(name, section.keys, n=1, cutoff=0.75):
            fix = f"did you mean {close[0]}?"
        elif place := _elsewhere(name):
            fix = f"did you mean {place}?"
        self.warn(f"unknown key {_path((*at, name))}", (*at, name), fix=fix, code="unknown_key")

    def _derive(self, data: dict[str, Any]) -> None:
        """Fill in what Truss computes: texts of environment variables, use_gpu, the websocket transport."""
        for name in OPERATORS:
            if name in (data.get("options") or {}):
                data["options"] = {key: value for key, value in data["options"].items() if key != name}
                fix = f"set {name} in [models.NAME] of gateway.toml"
                self.warn(f"options.{name} is the operator's to decide", ("options", name), fix=fix)
        variables = {str(name): variable(value) for name, value in data["environment_variables"].items()}
        for name, text in variables.items():
            if not can_be_set(name, text):
                what = f"environment variable {name!r} cannot be set: an empty name, a = in it, or a NUL"
                self.error(what, ("environment_variables", name), code="invalid_variable")
            if OPERATORS_VARIABLES.fullmatch(name):
                fix = f"set {name} in environment of [models.NAME] of gateway.toml"
                at = ("environment_variables", name)
                self.warn(
                    f"environment variable {name} is the operator's to set", at, fix=fix, code="reserved_variable"
                )
        data["environment_variables"] = {
            name: value for name, value in variables.items() if not OPERATORS_VARIABLES.fullmatch(name)
        }
        data["secrets"] = {str(name): None if value is None else str(value) for name, value in data["secrets"].items()}
        resources = data["resources"]
        if resources["use_gpu"] is True and not resources["accelerator"]:
            self.warn(
                "use_gpu is derived from resources.accelerator and ignored",
                ("resources", "use_gpu"),
                fix="name an accelerator",
                code="use_gpu_alone",
            )
        resources["accelerator"] = accelerator_of(resources["accelerator"])
        resources["use_gpu"] = resources["accelerator"] is not None
        for name in ("instance_type", "node_count"):
            if not resources.get(name):
                resources.pop(name, None)
        if isinstance(fabric := resources.get("fabric"), dict):
            resources["fabric"] = {key: value for key, value in fabric.items() if value is not None}
        self._derive_transport(data["runtime"])
        signed = [entry["auth"] for entry in data["weights"]]
        signed.append((data["base_image"] or {}).get("docker_auth"))
        for auth in filter(None, signed):
            auth["auth_method"] = auth["auth_method"] and auth["auth_method"].upper()
        for mount in data["bdn"]["mounts"]:
            mount["path"] = mount["path"] and str(PurePosixPath(mount["path"]))

    def _derive_transport(self, runtime: dict[str, Any]) -> None:
        """Two ways of saying websocket are one, and of the keys those are left that the kind has."""
        transport = runtime["transport"]
        if runtime["is_websocket_endpoint"]:
            transport["kind"] = "websocket"
        if transport["kind"] == "websocket":
            pings = ("ping_interval_seconds", "ping_timeout_seconds")
            runtime["transport"] = {"kind": "websocket", **{name: transport.get(name) for name in pings}}
        else:
            runtime["transport"] = {"kind": transport["kind"]}
        runtime["is_websocket_endpoint"] = transport["kind"] == "websocket"

    # ── rules that join keys ─────────────────────────────────────────────────────────────────────────────────

    def _check(self, data: Mapping[str, Any]) -> None:
        self._check_transport(data["runtime"]["transport"]["kind"])  # first: nothing else matters then
        for name, what in OTHER_SERVERS.items():
            if data[name] is not None:
                self.error(f"this model {what}, which cannot be hosted here", (name,), code="unsupported_server")
        if data["requirements"] and data["requirements_file"]:
            self.error("requirements and requirements_file exclude each other", ("requirements_file",))
        if data["model_cache"] and data["weights"]:
            self.error("model_cache and weights exclude each other", ("weights",))
        if data["build"]["no_cache"]:
            self.error("build.no_cache cannot be set in the file", ("build", "no_cache"))
        for name in INSIDE:
            if (place := data[name]) and (PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts):
                self.error(f"{name} must lie inside the model directory", (name,), code="outside")
        self._check_runtime(data["runtime"])
        self._check_resources(data["resources"])
        self._check_weights(data["weights"])
        for name in RESERVED_VARIABLES:
            if name in data["environment_variables"]:
                what = f"environment variable {name} is overwritten on Truss's platform"
                self.warn(what, ("environment_variables", name), code="reserved_variable")

    def _check_transport(self, kind: str) -> None:
        at = ("runtime", "transport", "kind")
        if kind == "grpc":
            fix = "serve it beside the gateway, or write a class with predict"
            what = "this model speaks gRPC (transport.kind), which cannot be hosted here"
            self.error(what, at, fix=fix, code="unsupported_server")
        elif kind not in ("http", "websocket"):
            self.error(f"runtime.transport.kind must be http or websocket, not {kind}", at)

    def _check_runtime(self, runtime: Mapping[str, Any]) -> None:
        if runtime.get("num_workers", 1) != 1:
            fix = "raise predict_concurrency, or replicas in gateway.toml"
            self.error(ONE_WORKER, ("runtime", "num_workers"), fix=fix)
        for name in ("predict_concurrency", "streaming_read_timeout"):
            if runtime[name] < 1:
                self.error(f"runtime.{name} must be at least 1", ("runtime", name))

    def _check_resources(self, resources: Mapping[str, Any]) -> None:
        if not CPU.fullmatch(resources["cpu"]):
            self.error(f'resources.cpu must be cores ("2") or millicores ("500m"), not {resources["cpu"]}', _CPU)
        if not MEMORY.fullmatch(resources["memory"]):
            self.error(f'resources.memory must be a size such as "8Gi", not {resources["memory"]}', _MEMORY)
        if resources.get("node_count", 1) not in (None, 1):
            self.error("resources.node_count above 1 cannot be hosted here", ("resources", "node_count"))
        if (accelerator := resources["accelerator"]) is None:
            return
        if not isinstance(accelerator, str) or not (match := ACCELERATOR.fullmatch(accelerator)):
            self.error(f'resources.accelerator must be a name such as "L4" or "L4:4", not {accelerator}', _ACCELERATOR)
        elif match[1] not in ACCELERATORS:
            close = difflib.get_close_matches(match[1].upper(), ACCELERATORS, n=1)
            fix = f"did you mean {close[0]}?" if close else ""
            self.warn(f"accelerator {match[1]} is not a name that Truss knows", _ACCELERATOR, fix=fix)

    def _check_weights(self, weights: list[Any]) -> None:
        places: set[str] = set()
        for index, entry in enumerate(weights):
            at = ("weights", index)
            if not entry.get("source"):
                self.error(f"weights[{index}] needs a source", at, fix='such as "hf://owner/name@revision"')
                continue
            self._check_auth(entry, f"weights[{index}]", at)
            if (place := entry["mount_location"]) is None:
                continue
            if not PurePosixPath(place).is_absolute():
                self.error(f"weights[{index}].mount_location must be an absolute path", (*at, "mount_location"))
            elif place in places:
                self.error(f"mount_location {place} is used twice", (*at, "mount_location"))
            else:
                places.add(place)

    def _check_auth(self, entry: Mapping[str, Any], name: str, at: tuple[Any, ...]) -> None:
        """Truss's rules for the half that acts here: which secret, and that there is one place for its name."""
        if (auth := entry["auth"]) is None:
            return
        here, method = (*at, "auth"), auth["auth_method"]
        if method not in AUTH_METHODS:
            wrong = f"{name}.auth.auth_method must be one of {', '.join(AUTH_METHODS)}, not {method}"
            self.error(wrong, here)
        elif method != "CUSTOM_SECRET":
            what = f"{name}.auth.auth_method {method} is of Truss's platform; here this machine's own credentials count"
            self.warn(what, here, code="platform_auth")
        elif not auth["auth_secret_name"]:
            self.error(f"{name}.auth.auth_secret_name must be given when auth_method is CUSTOM_SECRET", here)
        if auth["auth_secret_name"] and entry["auth_secret_name"]:
            self.error(f"{name}: auth_secret_name is written twice, in auth and beside it; leave one", here)

    # ── problems ─────────────────────────────────────────────────────────────────────────────────────────────

    def error(
        self, what: str, at: tuple[Any, ...] = (), *, line: int = 0, fix: str = "", code: str = "invalid_config"
    ) -> None:
        self.problems.append(Problem(where=self._where(at, line), what=what, fix=fix, code=code))

    def warn(
        self, what: str, at: tuple[Any, ...] = (), *, line: int = 0, fix: str = "", code: str = "odd_config"
    ) -> None:
        self.problems.append(Problem(where=self._where(at, line), what=what, fix=fix, code=code, level="warning"))

    def _where(self, at: tuple[Any, ...], line: int) -> str:
        while at and not line:
            line, at = self.lines.get(at, 0), at[:-1]
        return f"{self.file}:{line}" if line else str(self.file)


_CPU, _MEMORY, _ACCELERATOR = ("resources", "cpu"), ("resources", "memory"), ("resources", "accelerator")


def _path(at: tuple[Any, ...]) -> str:
    """weights[0].auth"""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at)
    return text.removeprefix(".")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _elsewhere(name: str) -> str | None:
    """Return where a key of about this name belongs: predict_concurency at the top is runtime.predict_concurrency."""
    places = {place.rpartition(".")[2]: place for place in _places(CONFIG)}
    close = difflib.get_close_matches(name, places, n=1, cutoff=0.85)
    return places[close[0]] if close else None


def _places(section: Section, prefix: str = "") -> Iterator[str]:
    for name, key in section.keys.items():
        yield prefix + name
        if isinstance(key, Section) and not key.optional:
            yield from _places(key, f"{prefix}{name}.")


def _cloud_keys(
    section: Section, raw: Mapping[str, Any], data: Mapping[str, Any], at: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    for name, key in section.keys.items():
        if isinstance(key, Section) and not key.cloud:
            if isinstance(inner := raw.get(name), dict) and data[name] is not None:
                yield from _cloud_keys(key, inner, data[name], (*at, name))
        elif key.cloud and raw.get(name) and data.get(name) not in (None, getattr(key, "default", None)):
            yield (*at, name)


def _python_note(raw: Mapping[str, Any]) -> list[str]:
    ours = f"py{sys.version_info.major}{sys.version_info.minor}"
    wanted = raw.get("python_version")
    if str(wanted).replace(".", "").removeprefix("py") == ours.removeprefix("py"):
        return []
    return [f"python_version is {wanted}; this gateway runs {ours}"] if wanted not in (None, ours) else []
