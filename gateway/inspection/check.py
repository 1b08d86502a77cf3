"""Check model directories without importing their code or starting anything.

1. settings, plugins, directories that cannot be served  2. config.yaml, key by key  3. the source, by its syntax tree,
and the class that a plugin names  4. requirements that are not installed, imports that nothing here provides,
environment variables that will not be set  5. weights that are not available, missing files, links that leave the
directory  6. secrets without a value  7. requested devices that are missing  8. what gateway.toml allows the model
9. what the plugin of its format finds in its files  10. ports on which the model's own servers would listen
"""

from __future__ import annotations

import functools
import json
import logging
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..devices.plan import plan_inventory
from ..directories.code.requirements import lacking
from ..directories.code.server_ports import MAX_LOOKED, is_searched_whole, server_ports
from ..directories.code.source import ENDPOINTS, SourceError, inspect_source, read_class
from ..directories.code.targets import missing_target
from ..directories.code.variables import unset
from ..directories.config.config import ModelConfig, read_config
from ..directories.model_warnings import remarks
from ..directories.preview import source_of
from ..directories.repeated_problems import first_of_each_kind
from ..directories.weights import missing_weights, peek_all_weights, unmounted
from ..environments.distributions import canonical
from ..environments.virtualenvs import find_uv
from ..errors import ConfigError
from ..files import integrity, ordinary
from ..files.placeholders import placeholders
from ..hosting.secrets import SecretSources
from ..settings.allowances import allowances
from ..spec import Level, Problem
from ..system import inherited_environment
from ..system.separate_process import Apart, Lost
from ..wording import addressed, shorten, table_of, traceback_of, unexpected

if TYPE_CHECKING:
    from ..settings.schema import Settings
    from ..spec import ModelSpec
    from .inventory import Inventory

log = logging.getLogger("gateway.discovery")
# Limits for plugins and their libraries that read a model's files. Importing the libraries takes seconds and half a GB;
# the largest tokenizers take as much again.
MEMORY = 4 << 30  # bytes
SECONDS = 60.0
_LIST = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A line of `gateway check`. An error prevents the model from being served; a note is information."""

    level: Level
    code: str
    where: str
    what: str
    fix: str = ""
    model: str | None = None


def check(found: Inventory) -> list[Finding]:
    """Return the first findings of each kind: general ones first, then by model."""
    findings = list(first_of_each_kind(_told(found)))
    placements: dict[str, Mapping[str, Any]] = {}
    for row in _plan(found):
        placements.setdefault(row["model"], row)
    with Apart(partial(_plugins_say, found), memory=MEMORY, seconds=SECONDS) as apart:
        for number, spec in enumerate(found.specs):
            ask = partial(apart.ask, number)
            findings += first_of_each_kind(_checked(spec, found, placements[spec.name], ask))
    return findings


def _plugins_say(found: Inventory, number: int) -> bytes:
    """Run the plugin's checks in a separate process: libraries open the model's files there."""
    spec = found.specs[number]
    with ordinary.within(spec.root, spec.allow_links):
        return json.dumps([asdict(problem) for problem in found.plugins.check_model(spec)], default=str).encode()


def _checked(
    spec: ModelSpec, found: Inventory, placement: Mapping[str, Any], ask: Callable[[], bytes]
) -> Iterator[Finding]:
    try:
        with ordinary.within(spec.root, spec.allow_links):
            yield from _check_model(spec, found, placement, ask)
    except Exception as error:  # whatever its files are, the others are checked
        log.error("%s could not be checked", spec.name, exc_info=traceback_of(error))
        yield _odd(str(spec.root), spec.name, f"cannot be checked further ({unexpected(error)})")


def _odd(place: str, model: str | None, what: str) -> Finding:
    fix = "fix or remove the unusual files in its directory"
    return Finding(level="error", code="unexpected", where=shorten(place), what=what, fix=fix, model=model)


def _told(found: Inventory) -> Iterator[Finding]:
    """1. Problems found before. A broken config.yaml is read again, because the message alone has lost the codes."""
    seen: set[str] = set()
    for problem in found.problems:
        try:
            details = {str(detail): detail for detail in _details(problem, found.settings)}
        except Exception as error:  # whatever was wrong with it
            log.error("%s could not be read again", problem.where, exc_info=traceback_of(error))
            details = {}
            yield _odd(problem.where, problem.model, f"cannot be read again ({unexpected(error)})")
        better = details.get(str(problem), problem)
        for each in (better, *details.values()):
            if str(each) not in seen:
                seen.add(str(each))
                yield _finding(each, problem.model)


def _details(problem: Problem, settings: Settings) -> Iterator[Problem]:
    path = Path(re.sub(r":\d+$", "", problem.where))
    if problem.model is None or problem.code != "invalid_model":
        return
    if path.suffix == ".py":
        root = path.parent.parent if (path.parent.parent / "config.yaml").is_file() else path.parent
        with ordinary.within(root, settings.model(problem.model).allow_links):
            yield from _of_source(root, path)
    elif path.name == "config.yaml":
        with ordinary.within(path.parent, settings.model(problem.model).allow_links):
            config = read_config(path.parent)
        yield from config.problems


def _of_source(root: Path, path: Path) -> list[Problem]:
    try:
        read_class(path, read_config(root).data["model_class_name"])
    except SourceError as error:
        return [error.problem]
    return []


def _finding(problem: Problem, model: str | None) -> Finding:
    return Finding(
        level=problem.level,
        code=problem.code,
        where=shorten(problem.where),
        what=addressed(problem.what, problem.model or model),
        fix=addressed(problem.fix, problem.model or model),
        model=problem.model or model,
    )


def _check_model(
    spec: ModelSpec, found: Inventory, placement: Mapping[str, Any], ask: Callable[[], bytes]
) -> Iterator[Finding]:
    """Check one model. It is this long because it lists the steps of the module's docstring, with their numbers."""
    config = read_config(spec.root)
    here = shorten(str(spec.root))

    def finding(level: Level, code: str, what: str, fix: str = "") -> Finding:
        what, fix = addressed(what, spec.name), addressed(fix, spec.name)
        return Finding(level=level, code=code, where=here, what=what, fix=fix, model=spec.name)

    # 2
    yield from (_finding(problem, spec.name) for problem in config.problems)
    yield from (finding("note", "no_effect", note) for note in config.notes)
    yield from (_finding(problem, spec.name) for problem in remarks(spec, config))
    # 3
    source = source_of(spec)
    if source is not None and source[0].is_relative_to(spec.root):
        methods = {endpoint.method for endpoint in found.plugins.endpoints()} | set(ENDPOINTS)
        yield from (_finding(problem, spec.name) for problem in inspect_source(*source, methods, spec.batching))
    elsewhere = spec.python is not None or found.settings.isolates(spec)
    if what := missing_target(spec, elsewhere=elsewhere):
        yield finding("error", "missing_target", what)
    # 4
    for level, code, what, fix in lacking(spec, installed(spec.python), isolated=found.settings.isolates(spec)):
        yield finding(level, code, what, fix)
    if found.settings.isolates(spec) and (reason := _without_uv()):
        yield finding("error", "missing_uv", reason)
    for each in unset(spec):
        where = f"{here}/{each.where}"
        yield Finding(
            level=each.level, code="missing_variable", where=where, what=each.what, fix=each.fix, model=spec.name
        )
    # 5
    if reason := missing_weights(spec.root):
        will_come = reason.endswith("not on this machine yet")
        yield finding("note" if will_come else "error", "missing_weights", reason)
    yield from (finding("error", "mount_location", reason) for reason in unmounted(spec))
    contents = list(_contents(spec))
    yield from (finding("error", code, what) for code, what in contents)
    has_code = spec.format in ("python", "truss")  # only their own code knows which files they open
    for name, found_there in placeholders(spec.root):
        code = "lfs_pointer" if found_there.is_pointer else "not_the_file"
        yield finding("warning" if has_code else "error", code, f"{name} {found_there.what}", found_there.fix)
    # 6
    values = SecretSources(lambda: found.settings).for_model(spec)
    for name in spec.secrets:
        if name not in values:
            fix = f"set GATEWAY_SECRET_{name.upper()}, or put it in a file in secrets_dir"
            yield finding("warning", "missing_secret", f"secret {name} has no value", fix)
    # 7
    if placement["state"] in ("impossible", "busy"):
        yield finding("error", "does_not_fit", placement["why"])
    # 8
    for allowance in allowances(found.settings, [spec]):
        yield finding("note", "allowance", allowance.what)
    # 9
    try:
        if all(code != "link_out" for code, _ in contents):  # a library would follow the link
            yield from (_finding(Problem(**problem), spec.name) for problem in json.loads(ask()))
    except Lost as lost:
        what = f"a library could not check its files: {lost}"
        yield finding("error", "unlooked", what, "download its files again from a trusted source")
    # 10
    if not is_searched_whole(spec):
        what = f"it has more than {MAX_LOOKED} files, those of its external_package_dirs included"
        fix = "list only directories of packages"
        yield finding("warning", "not_searched", f"{what}: the rest was not searched for server ports", fix)
    for severity, code, what, fix in _ports(spec, config, found.settings):
        yield finding(severity, code, what, fix)


def _without_uv() -> str | None:
    """Return why no virtual environment can be built here; None if it can."""
    try:
        find_uv()
    except ConfigError as error:
        return str(error)
    return None


def _ports(
    spec: ModelSpec, config: ModelConfig, settings: Settings
) -> Iterator[tuple[Literal["warning", "note"], str, str, str]]:
    """Report ports of servers that the model's class starts: the gateway's own, or fixed ones that need to be free."""
    table = table_of(spec.name)
    for item in server_ports(spec, config.data):
        does = "a server of its own would listen on" if item.listens else "it starts a process and connects to"
        if item.port == settings.gateway.port:
            what = f"{item.where}: {does} port {item.port}, which is the gateway's own"
            yield "warning", "own_port", what, "choose another port for it, or one for the gateway with --port"
        elif spec.replicas > 1:
            what = f"{item.where}: {does} port {item.port}, which its {spec.replicas} replicas cannot share"
            yield "warning", "fixed_port", what, f"set replicas = 1 in {table}, or let it use a free port"
        elif settings.model(spec.name).reload == "beside":
            what = f"{item.where}: {does} port {item.port}, so a second copy cannot be loaded next to it"
            yield "note", "fixed_port", what, f'set reload = "replace" in {table}'


def _contents(spec: ModelSpec) -> Iterator[tuple[str, str]]:
    """Check links and the list of SHA256SUMS. Checksums are compared when the model loads: reading weights is slow."""
    try:
        if not spec.allow_links:
            integrity.check_links(spec.root, has_code=spec.own_code)
            for place in peek_all_weights(spec.root):
                integrity.check_weights(place)
    except ConfigError as error:
        yield "link_out", str(error)
    try:
        for name in integrity.missing(spec.root):
            yield "missing_file", f"{name} is listed in {integrity.MANIFEST} and not there"
        for name in integrity.unlisted(spec.root, but=spec.data_dir if spec.own_code else None):
            yield "unlisted_file", f"{name} is not listed in {integrity.MANIFEST}"
    except ConfigError as error:
        yield "invalid_sums", str(error)


def _plan(found: Inventory) -> list[dict[str, Any]]:
    """Return the plan, with replicas that do not fit first."""
    return sorted(plan_inventory(found), key=lambda row: row["state"] in ("placed", "cpu"))


# ── packages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@functools.cache
def installed(python: str | None) -> Mapping[str, str]:
    """Return the packages of an interpreter with their versions; none if it cannot be run."""
    if python is None:
        return {canonical(item.name): item.version for item in distributions() if item.name}
    try:
        asked = [python, "-I", "-c", _LIST]
        environment = inherited_environment.of_workers()
        answer = subprocess.run(asked, capture_output=True, timeout=30, check=True, env=environment).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return {canonical(name): version for name, version in json.loads(answer).items()}
