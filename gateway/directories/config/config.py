"""Read a model's config.yaml by Truss's schema: fill in every default, and report every problem with its line.

Reads one file and returns a value. `rules.py` has the rules that involve several keys, and `describe.py` makes a spec
of the result. Unknown keys are kept at every level, because models read them.
"""

from __future__ import annotations

import copy
import difflib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from ...files import ordinary
from ...settings.kinds import can_be_set
from ...spec import Problem
from ...wording import counted
from ..repeated_problems import MOST_ALIKE, first_of_each_kind
from .document import MAX_BYTES, Document, YAMLError
from .report import Report, path_of, shown
from .rules import check
from .schema import CONFIG, OPERATORS, OPERATORS_VARIABLES, RENAMED, Each, Key, Section
from .values import EXPECTED, accelerator_of, convert, copied, jsonable, variable

NO_YAML = (
    "No truss configuration file ending in .yaml but found one ending in .yml. Did you mean to rename it?"  # Truss's
)
SETTLED = 2.0  # seconds: two writes within one clock tick would leave all timestamps equal
MOST_SECRETS, SECRETS_SIZE = 100, 16 * 1024  # names, and characters of names and values
LONGEST = 100  # characters of a key that is compared with ours for a misspelling


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A parsed config.yaml. `data` is the dict that the model receives, `raw` is the content of the file.

    `notes` lists keys that only affect Truss's image build or cloud.
    """

    path: Path  # path of the file, which need not exist
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
    """Return the config of the model directory `path`; all defaults if it has no config.yaml."""
    file = path / "config.yaml"
    report = Report(file)
    if file.is_file():
        try:
            document = _document(file)
        except YAMLError as error:
            report.error(error.what, line=error.line, code="invalid_yaml")
            document = Document({}, {})
    elif (path / "config.yml").is_file():
        report.file = path / "config.yml"
        report.error(NO_YAML, code="config_yml")
        document = Document({}, {})
    else:
        defaults = _defaults()
        return replace(defaults, path=file, data=jsonable(defaults.data))
    return _Reader(report).read(document)


@lru_cache(maxsize=1)
def _defaults() -> ModelConfig:
    """Return the config of every model directory without a file; there may be a thousand of them."""
    return _Reader(Report(Path("config.yaml"))).read(Document({}, {}))


def peek_config(path: Path) -> dict[str, Any]:
    """Return the content of the config.yaml of the model directory `path`, without defaults.

    For a format's `find_model`, to decide whether a directory is its own. Returns {} if the file does not exist or
    cannot be read within bounds; `describe` reports such errors.
    """
    try:
        data = _document(path / "config.yaml").data
    except YAMLError:
        return {}
    return copy.deepcopy(data) if isinstance(data, dict) else {}


def is_of_another_program(path: Path) -> bool:
    """Return whether config.yaml or config.yml has keys, but none that Truss knows: for example one of Hydra."""
    name = "config.yaml" if (path / "config.yaml").is_file() else "config.yml"
    try:
        config = _document(path / name).data
    except YAMLError:
        return False
    return isinstance(config, dict) and bool(config) and not config.keys() & CONFIG.keys.keys()


def has_code(path: Path) -> bool:
    """Return whether the model directory `path` has a class of its own.

    That is the file named in its config.yaml, or else model/model.py, or model.py.
    """
    config = peek_config(path)
    names = (config.get("model_module_dir", "model"), config.get("model_class_filename", "model.py"))
    return os.path.isfile(path.joinpath(*map(str, names))) or (path / "model.py").is_file()


def peek_yaml(file: Path) -> Any:
    """Return what is in a small YAML file of a model directory, for a plugin. It is cached: do not change it.

    Raises:
        ValueError: it cannot be read, is not YAML with safe tags, or is too large.
    """
    return _document(file).data


def _document(file: Path) -> Document:
    """Return the parsed file, from a cache until it changes. Raises `YAMLError`."""
    try:
        ordinary.check_inside(file)  # it may be cached from a time when links were allowed
        stat = file.stat()
        if time.time() - stat.st_ctime < SETTLED:
            return _parse(file)
        return _parsed(file, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    except OSError as error:
        raise YAMLError(f"cannot be read: {error.strerror}") from None


def _parse(file: Path) -> Document:
    from .safe_yaml import parse  # a model without config.yaml does not wait for the import of PyYAML

    with ordinary.opened(file) as opened:
        return parse(opened.read(MAX_BYTES + 1))


@lru_cache(maxsize=1024)
def _parsed(file: Path, *version: int) -> Document:
    return _parse(file)


class _Reader:
    def __init__(self, report: Report) -> None:
        self._report = report
        self._unknown_keys = 0

    def read(self, document: Document) -> ModelConfig:
        self._report.lines = document.lines
        for name, line in document.duplicates:
            self._report.warn(f"{name} is set twice; the last one is used", line=line, code="duplicate_key")
        raw: Any = {} if document.data is None else copy.deepcopy(document.data)
        if not isinstance(raw, dict):
            self._report.error("expected a mapping of keys", line=1, code="invalid_type")
            raw = {}
        for old, new in RENAMED.items():
            if old in raw and new not in raw:
                raw = {new if name == old else name: value for name, value in raw.items()}
        data = self._fill(CONFIG, raw, ())
        self._derive(data)
        check(data, self._report)
        notes = [f"{'.'.join(key)} has no effect here" for key in _cloud_keys(CONFIG, raw, data)]
        return ModelConfig(
            path=self._report.file,
            data=jsonable(data),
            raw=raw,
            problems=tuple(first_of_each_kind(self._report.problems)),
            notes=tuple(_python_note(raw) + notes),
        )

    # ── values ───────────────────────────────────────────────────────────────────────────────────────────────

    def _fill(self, section: Section, raw: Mapping[Any, Any], at: tuple[Any, ...]) -> dict[str, Any]:
        """Return `raw` with every default of `section`; unknown keys follow the known ones."""
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
            self._report.error(f"{path_of(at)} must be a mapping", at, code="invalid_type")
            value = None
        return None if value is None and section.optional else self._fill(section, value or {}, at)

    def _list(self, each: Each, value: Any, at: tuple[Any, ...]) -> list[dict[str, Any]] | None:
        if value is not None and not isinstance(value, list):
            self._report.error(f"{path_of(at)} must be a list, not {shown(value)}", at, code="invalid_type")
            value = None
        if value is None:
            return each.default
        return [self._mapping(each.section, item, (*at, index)) or {} for index, item in enumerate(value)]

    def _value(self, key: Key, value: Any, at: tuple[str, ...]) -> Any:
        try:
            return convert(key.kind, value)
        except ValueError:
            wrong = f"{path_of(at)} must be {EXPECTED[key.kind]}, not {shown(value)}"
            self._report.error(wrong, at, code="invalid_type")
            return copied(key.default)

    def _unknown(self, section: Section, name: str, at: tuple[Any, ...]) -> None:
        fix = "it is passed to the model"
        self._unknown_keys += 1
        if self._unknown_keys > MOST_ALIKE or len(name) > LONGEST:
            pass  # searching for similar names takes longest, and problems beyond this number are only counted
        elif close := difflib.get_close_matches(name, section.keys, n=1, cutoff=0.75):
            fix = f"did you mean {close[0]}?"
        elif place := _elsewhere(name):
            fix = f"did you mean {place}?"
        self._report.warn(f"unknown key {path_of((*at, name))}", (*at, name), fix=fix, code="unknown_key")

    def _derive(self, data: dict[str, Any]) -> None:
        """Fill in what Truss computes: environment variables as strings, use_gpu, the websocket transport."""
        for name in OPERATORS:
            if name in (data.get("options") or {}):
                data["options"] = {key: value for key, value in data["options"].items() if key != name}
                fix = f"set {name} in [models.NAME] of gateway.toml"
                self._report.warn(f"options.{name} can only be set by the operator", ("options", name), fix=fix)
        variables = {str(name): variable(value) for name, value in data["environment_variables"].items()}
        for name, text in variables.items():
            if not can_be_set(name, text):
                what = f"environment variable {name!r} cannot be set: an empty name, a = in it, or a NUL"
                self._report.error(what, ("environment_variables", name), code="invalid_variable")
            if OPERATORS_VARIABLES.fullmatch(name):
                fix = f"set {name} in environment of [models.NAME] of gateway.toml"
                at = ("environment_variables", name)
                self._report.warn(
                    f"environment variable {name} may only be set by the operator",
                    at,
                    fix=fix,
                    code="reserved_variable",
                )
        data["environment_variables"] = {
            name: value for name, value in variables.items() if not OPERATORS_VARIABLES.fullmatch(name)
        }
        data["secrets"] = self._bounded_secrets(
            {str(name): None if value is None else str(value) for name, value in data["secrets"].items()}
        )
        resources = data["resources"]
        if resources["use_gpu"] is True and not resources["accelerator"]:
            self._report.warn(
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

    def _bounded_secrets(self, secrets: dict[str, str | None]) -> dict[str, str | None]:
        """Return the secrets, or none if they are too many: each is looked for in everything that the model prints."""
        size = sum(len(name) + len(value or "") for name, value in secrets.items())
        if len(secrets) <= MOST_SECRETS and size <= SECRETS_SIZE:
            return secrets
        what = f"{counted(len(secrets), 'secret')} with {counted(size, 'character')} of names and values"
        fix = (
            f"declare at most {MOST_SECRETS}, and set long values outside of config.yaml (at most {SECRETS_SIZE} here)"
        )
        self._report.error(what, ("secrets",), fix=fix, code="too_many_secrets")
        return {}

    def _derive_transport(self, runtime: dict[str, Any]) -> None:
        """Unify the two ways to declare a websocket, and keep only the keys that the transport kind has."""
        transport = runtime["transport"]
        if runtime["is_websocket_endpoint"]:
            transport["kind"] = "websocket"
        if transport["kind"] == "websocket":
            pings = ("ping_interval_seconds", "ping_timeout_seconds")
            runtime["transport"] = {"kind": "websocket", **{name: transport.get(name) for name in pings}}
        else:
            runtime["transport"] = {"kind": transport["kind"]}
        runtime["is_websocket_endpoint"] = transport["kind"] == "websocket"


def _elsewhere(name: str) -> str | None:
    """Return where a key with a similar name belongs: predict_concurency at the top is runtime.predict_concurrency."""
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
