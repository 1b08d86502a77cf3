"""Check before production: the security of the gateway, and whether this machine has what its models need.

`examine_security` is a function of the inventory, of the files that it names and of a `Machine`; `examine` adds the
environment. A line is a danger if an unauthorized person could get access or run code, or if a model cannot be served.
The operator decides about warnings.
"""

from __future__ import annotations

import os
import platform
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..access import keys
from ..environments.distributions import extras_of, is_installed, name_in
from ..errors import ConfigError
from ..files.integrity import MANIFEST
from ..settings.allowances import MEANING, allowances
from ..settings.bind import check_keys_file, is_loopback
from ..settings.schema import GatewaySettings
from ..spec import Limits
from ..system import inherited_environment
from ..wording import counted

if TYPE_CHECKING:
    from ..settings.schema import Settings
    from .inventory import Inventory

Level = Literal["pass", "warn", "danger"]

PACKAGE = "model-gateway"
NOT_OF_MODELS = frozenset(("", "all", "dev", "isolated"))  # all other extras serve models
SHORT_KEY = 20  # characters; a key invented by a person can be guessed
RESERVE = 256  # open files for workers, logs and health checks in addition to connections
PATIENT = 10  # times the default; a client can hold a connection that long
TIMES = ("keep_alive", "head_timeout", "body_idle_timeout", "body_timeout", "send_timeout")
SOON = 14 * 24 * 3600.0  # seconds before the expiry of a certificate at which to warn
LARGE_BODY = 1024**3  # bytes; bodies are held in memory
LONG_QUEUE = 10_000  # calls; each holds its body


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One item that was checked. `fix` says what to do if it did not pass."""

    name: str
    level: Level
    what: str
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Facts about the machine that the checks depend on, besides settings and files."""

    user: int
    open_files: int  # limit of this process
    no_strict: str  # why workers cannot be confined here; "" if they can

    @classmethod
    def here(cls) -> Machine:
        return cls(
            user=os.geteuid(),
            open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            no_strict=_why_no_strict(),
        )


def examine(found: Inventory, machine: Machine) -> list[Line]:
    """Return the lines for the environment, then those for security."""
    return [*_environment(found), *examine_security(found, machine)]


def examine_security(found: Inventory, machine: Machine) -> list[Line]:
    return [*_network(found.settings), *_limits(found, machine), *_workers(found, machine), *_files(found)]


# ── access ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _network(settings: Settings) -> Iterator[Line]:
    gateway = settings.gateway
    local = is_loopback(gateway.host)
    has_key = gateway.api_key is not None or gateway.keys_file.is_file()
    if local:
        yield _pass("bind", f"{gateway.host} is reachable from this machine only")
    elif has_key:
        yield _pass("bind", f"{gateway.host} is reachable from other machines; they need a key")
    else:
        fix = "run: gateway keys add NAME, or set GATEWAY_API_KEY"
        yield _danger("bind", f"{gateway.host} is reachable from other machines, and there is no key", fix)
    yield _flag(
        "insecure_no_auth",
        gateway.insecure_no_auth,
        "a public address without keys is refused",
        "a public address without keys would be open to everyone",
        "remove insecure_no_auth",
    )
    yield _flag(
        "admin_http",
        gateway.admin_http,
        "models are loaded, unloaded and reloaded through the admin socket only",
        "any key with the scope admin can load, unload and reload models over HTTP",
        "remove admin_http",
    )
    yield _keys_file(settings)
    yield _api_key(gateway.api_key)
    if local:
        yield _pass("host names", f"only loopback{''.join(f' and {name}' for name in gateway.allowed_hosts)}")
    elif gateway.allowed_hosts:
        yield _pass("host names", f"only {', '.join(gateway.allowed_hosts)}")
    else:
        yield _warn(
            "host names",
            "requests with any Host header are answered",
            "set allowed_hosts to the names that clients use",
        )
    if "*" not in gateway.allowed_origins:
        yield _pass("origins", f"only the gateway's own{''.join(f', and {name}' for name in gateway.allowed_origins)}")
    elif has_key:
        yield _warn("origins", 'allowed_origins = "*": any web page that has a key may call', "list the origins")
    else:
        what = 'allowed_origins = "*": any web page opened on this machine may call every model'
        yield _danger("origins", what, "list the origins")
    if not gateway.debug:
        yield _pass("debug", "exceptions of models are not sent to clients")
    elif local:
        yield _warn("debug", "exceptions of models are sent to clients", "remove debug in production")
    else:
        yield _danger("debug", f"exceptions of models would be sent to clients of {gateway.host}", "remove debug")
    yield _tls(gateway, local)
    if local or has_key:
        yield _pass(
            "metrics", "reading them needs a key with the scope metrics" if has_key else "readable from this machine"
        )
    else:
        yield _warn("metrics", "anyone can read /metrics", "run: gateway keys add NAME --scopes metrics")


def _tls(gateway: GatewaySettings, local: bool) -> Line:
    if gateway.tls_cert is not None:
        from ..http.tls import expiry, exposed

        if what := exposed(gateway.tls_cert, gateway.tls_key):
            what, _, fix = what.partition("; ")
            return _warn("tls", what, fix)
        if late := expiry(gateway.tls_cert, gateway.tls_key, SOON):
            return _warn(
                "tls", f"the certificate {gateway.tls_cert} {late}", "renew it; a running gateway loads the new one"
            )
        return _pass("tls", f"with the certificate {gateway.tls_cert}")
    if local:
        return _pass("tls", "plain HTTP stays on this machine")
    return _warn(
        "tls", "keys and prompts cross the network as plain HTTP", "set tls_cert, or put a proxy with TLS in front"
    )


def _keys_file(settings: Settings) -> Line:
    file = settings.gateway.keys_file
    try:
        check_keys_file(settings)
    except ConfigError as error:
        return _danger("keys file", str(error), "")
    try:
        found = keys.read(file)
    except ConfigError as error:
        return _danger("keys file", str(error), f"chmod 600 {file}, or create it again with gateway keys")
    if not file.is_file():
        return _pass("keys file", f"{file} does not exist")
    return _pass("keys file", f"{file} has {len(found)} key{'s' * (len(found) != 1)}, and only its owner can read it")


def _api_key(key: str | None) -> Line:
    if key is not None and len(key) < SHORT_KEY:
        return _warn("api key", f"GATEWAY_API_KEY has {counted(len(key), 'character')}", "run: gateway keys add NAME")
    return _pass("api key", "none in the environment" if key is None else "the key in the environment is long enough")


# ── what one client can use up ────────────────────────────────────────────────────────────────────────────────────────


def _limits(found: Inventory, machine: Machine) -> Iterator[Line]:
    gateway = found.settings.gateway
    defaults = {item.name: item.default for item in fields(GatewaySettings)}
    for name in TIMES:
        value, usual = getattr(gateway, name), float(str(defaults[name]))
        if value > PATIENT * usual:
            yield _warn(
                name, f"{value:g} s: a slow client can hold a connection that long", f"the default is {usual:g}"
            )
        else:
            yield _pass(name, f"{value:g} s")
    room = machine.open_files - RESERVE
    connections = gateway.max_connections
    if connections is not None and connections > room:
        what = f"{connections} of {machine.open_files} open files leave none for workers and logs"
        yield _warn("max_connections", what, f"at most {max(1, room)}, or ulimit -n {connections + RESERVE}")
    else:
        yield _pass("max_connections", "a quarter of the open files" if connections is None else str(connections))
    if machine.open_files < 4 * RESERVE:
        yield _warn("open files", f"this process may open {machine.open_files} files", f"ulimit -n {4 * RESERVE}")
    else:
        yield _pass("open files", f"{machine.open_files}")
    bounds = [("[gateway.limits]", gateway.limits), *((f'"{spec.name}"', spec.limits) for spec in found.specs)]
    yield _bound("max_body", bounds, LARGE_BODY, "bodies are held in memory")
    yield _bound("max_queue", bounds, LONG_QUEUE, "each waiting call keeps its body in memory")


def _bound(name: str, bounds: list[tuple[str, Limits]], most: int, why: str) -> Line:
    over = [f"{where} {getattr(limits, name)}" for where, limits in bounds if getattr(limits, name) > most]
    if over:
        return _warn(name, f"{', '.join(over)}: {why}", f"at most {most}")
    return _pass(name, f"{getattr(bounds[0][1], name)}")


# ── what models can do ───────────────────────────────────────────────────────────────────────────────────────────────


def _workers(found: Inventory, machine: Machine) -> Iterator[Line]:
    settings = found.settings
    if machine.user == 0:
        yield _warn("user", "the gateway and its models run as root", "run it as a dedicated user")
    else:
        yield _pass("user", "not root")
    confined = [spec.name for spec in found.specs if spec.sandbox == "strict"]
    if confined and machine.no_strict:
        what = f"{', '.join(confined)} cannot load: {machine.no_strict}"
        yield _danger("sandbox", what, 'use another kernel, or sandbox = "basic"')
    elif len(confined) == len(found.specs) and confined:
        yield _pass("sandbox", "every model is confined to its files and has no network")
    else:
        free = "no" if not machine.no_strict else f"and not possible: {machine.no_strict}"
        what = "models are kept from accidents; " + (f"{len(confined)} confined" if confined else f"{free} confinement")
        yield _pass("sandbox", what)
    for key in MEANING:
        allowed = [item.model for item in allowances(settings, found.specs) if item.key == key]
        if allowed:
            yield _warn(key, f"{', '.join(allowed)}: {MEANING[key]}", "only for files that you trust")
        else:
            yield _pass(key, "no model")
    bare = [spec.name for spec in found.specs if not (spec.root / MANIFEST).is_file()]
    if bare:
        fix = f"sha256sum FILE… > {MANIFEST}, in the model directory"
        yield _warn("sums", f"the files of {', '.join(bare)} are not checked before a load", fix)
    else:
        yield _pass("sums", "the files of every model are checked before a load")


# ── who can change the code that runs ─────────────────────────────────────────────────────────────────────────────────


def _files(found: Inventory) -> Iterator[Line]:
    settings, gateway = found.settings, found.settings.gateway
    yield _unshared("settings file", [settings.file] if settings.file else [], "decides what code runs")
    writable = _writable(gateway.plugins)
    if writable:
        yield _danger("plugins", f"other users may write to {', '.join(writable)}, whose code runs", _chmod(writable))
    elif gateway.plugins:
        listed = ", ".join(map(str, gateway.plugins))
        yield _warn("plugins", f"{listed}: code that runs in the gateway itself", "only use plugins that you trust")
    else:
        yield _pass("plugins", "none from files")
    places = [*gateway.models, *(spec.root for spec in found.specs)]
    yield _unshared("model directories", places, "holds code that runs")
    yield _secrets_dir(gateway.secrets_dir)


def _unshared(name: str, places: list[Path], why: str) -> Line:
    writable = _writable(places)
    if writable:
        return _danger(name, f"other users may write to {', '.join(writable)}, which {why}", _chmod(writable))
    return _pass(name, "only their owner can write to them" if places else "none")


def _secrets_dir(place: Path | None) -> Line:
    if place is None:
        return _pass("secrets_dir", "not set")
    if not place.is_dir():
        return _warn("secrets_dir", f"{place} is not a directory", "create it with mode 700")
    loose = [path for path in (place, *place.iterdir()) if _mode(path) & 0o077]
    # Files in a directory that other users cannot enter are protected.
    if _mode(place) & 0o077 and any(path != place for path in loose):
        return _danger("secrets_dir", f"other users may read {', '.join(map(str, loose))}", f"chmod -R go= {place}")
    return _pass("secrets_dir", f"only its owner can read {place}")


def _writable(places: tuple[Path, ...] | list[Path]) -> list[str]:
    """Return the paths that other users may write to, except directories with the sticky bit."""
    return list(dict.fromkeys(str(path) for path in places if _mode(path) & 0o022 and not _mode(path) & stat.S_ISVTX))


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _chmod(places: list[str]) -> str:
    return f"chmod go-w {' '.join(places)}"


# ── the environment ──────────────────────────────────────────────────────────────────────────────────────────────────


def _environment(found: Inventory) -> Iterator[Line]:
    from ..environments.virtualenvs import find_uv
    from .check import check

    yield _pass("python", f"{platform.python_version()} at {sys.executable}")
    yield _pass("gateway", f"{version(PACKAGE)} on {platform.system()} {platform.release()}")
    for extra, requirements in extras_of(PACKAGE).items():
        if extra not in NOT_OF_MODELS:
            yield _extra(extra, requirements)
    try:
        yield _pass("uv", f"builds environments of models: {find_uv()}")
    except ConfigError as error:
        wanted = [spec.name for spec in found.specs if found.settings.isolates(spec)]
        line = _danger if wanted else _warn
        yield line("uv", f"{', '.join(wanted) or 'no model'}: {error}", "pip install 'model-gateway[isolated]'")
    devices = ", ".join(f"GPU {device.index} {device.model}" for device in found.devices)
    yield _pass("devices", devices or "no GPU found; models that need one do not load")
    for problem in found.problems:
        if problem.model is None and problem.level != "note":
            yield Line(name=problem.where, level=_levels[problem.level], what=problem.what, fix=problem.fix)
    findings = check(found)
    for name in dict.fromkeys([*(spec.name for spec in found.specs), *(f.model for f in findings if f.model)]):
        own = [finding for finding in findings if finding.model == name and finding.level != "note"]
        worst = next((finding for finding in own if finding.level == "error"), own[0] if own else None)
        if worst is None:
            yield _pass(f"model {name}", "no problems found")
        else:
            more = f", and {len(own) - 1} more: gateway check" if len(own) > 1 else ""
            yield Line(name=f"model {name}", level=_levels[worst.level], what=worst.what + more, fix=worst.fix)


_levels: dict[str, Level] = {"error": "danger", "warning": "warn"}


def _extra(extra: str, requirements: list[str]) -> Line:
    missing = [name for name in map(name_in, requirements) if name and not is_installed(name)]
    if missing:
        how = f"pip install '{PACKAGE}[{extra}]'"
        return _pass(f"extra {extra}", f"not installed ({', '.join(missing)} missing): {how}")
    return _pass(f"extra {extra}", "installed")


def _why_no_strict() -> str:
    """Confine a separate process, because that cannot be undone. Return why it failed, "" if it worked."""
    command = [sys.executable, "-P", "-m", "gateway.worker.sandbox.confine"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=inherited_environment.of_workers())
    return done.stdout.strip() if done.returncode == 0 else "the trial failed"


# ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _pass(name: str, what: str) -> Line:
    return Line(name=name, level="pass", what=what)


def _warn(name: str, what: str, fix: str) -> Line:
    return Line(name=name, level="warn", what=what, fix=fix)


def _danger(name: str, what: str, fix: str) -> Line:
    return Line(name=name, level="danger", what=what, fix=fix)


def _flag(name: str, is_set: bool, good: str, bad: str, fix: str) -> Line:
    return _warn(name, bad, fix) if is_set else _pass(name, good)
