"""Load plugins and call their hooks. This is the only module that uses pluggy's plugin manager, and hides its pitfalls.

Results come in registration order (pluggy's own is last in, first out): plugin files named in the settings, then entry
points, then built-ins, with the formats `truss` and `python` last. Each result names its plugin. An exception in a
plugin becomes a `Problem` with its name and disables nothing else. A misspelt hook is reported as a problem.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Self

import pluggy

from . import __version__, hookspecs, plugin_checks
from .access.callers import Caller
from .errors import ConfigError, GatewayError
from .plugin_files import FilePlugin, load_file
from .plugin_manager import Manager, packages_of
from .spec import Endpoint, Format, ModelSpec, Problem
from .wording import a_type, instead_of

if TYPE_CHECKING:
    from .devices.device import Device
    from .runners.replica import Runner

GROUP = "gateway"  # the entry point group
BUILTINS = {
    "openai_chat": "gateway.dialects.openai.chat",
    "openai_completions": "gateway.dialects.openai.completions",
    "openai_embeddings": "gateway.dialects.openai.embeddings",
    "anthropic_messages": "gateway.dialects.anthropic.messages",
    "anthropic_count_tokens": "gateway.dialects.anthropic.count_tokens",
    "rerank": "gateway.dialects.scoring.rerank",
    "score": "gateway.dialects.scoring.score",
    "classify": "gateway.dialects.scoring.classify",
    "decisions": "gateway.dialects.openai.decisions",
    "system_one": "gateway.dialects.system_one",
    "moderations": "gateway.dialects.openai.moderations",
    "tokenize": "gateway.dialects.scoring.tokenize",
    "audio_transcriptions": "gateway.dialects.openai.transcriptions",
    "audio_speech": "gateway.dialects.openai.speech",
    "images": "gateway.dialects.openai.images",
    "openai_responses": "gateway.dialects.responses.route",
    "openai_input_tokens": "gateway.dialects.openai.input_tokens",
    "plain_json": "gateway.dialects.plain_json",
    "process": "gateway.runners.process",
    # the formats stay last, so that every other plugin is asked for a directory first
    "truss": "gateway.directories.truss",
    "python": "gateway.directories.python",
}

log = logging.getLogger("gateway.plugins")


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginInfo:
    """One row of `gateway plugins`."""

    name: str
    version: str
    source: str  # "built-in", "package model-gateway", or the path of a file
    hooks: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()  # "dialect openai_chat", "POST /v1/chat/completions", …


class Plugins:
    """The plugins of one gateway. `problems` are their problems at load time and since.

    `is_own` returns whether a path belongs to the gateway, so that no plugin may serve it. By default none does.
    """

    def __init__(self, is_own: Callable[[str], bool] = lambda path: False) -> None:
        self._is_own = is_own
        self._manager = Manager("gateway")
        self._manager.add_hookspecs(hookspecs)
        self._infos: dict[str, PluginInfo] = {}
        self._files: dict[str, FilePlugin] = {}
        self._problems: dict[str, Problem] = {}
        self._implementations: dict[str, list[tuple[str, pluggy.HookImpl]]] = {}

    @classmethod
    def load(
        cls,
        files: Sequence[str | Path] = (),
        block: Iterable[str] = (),
        builtins: Mapping[str, str] = BUILTINS,
        *,
        is_own: Callable[[str], bool] = lambda path: False,
    ) -> Self:
        """Return the plugins of `files`, of installed packages, and the built-ins, without those named in `block`."""
        plugins = cls(is_own)
        blocked = set(block)
        for file in files:
            plugins._load_file(Path(file), blocked)
        points = entry_points(group=GROUP)  # reads the metadata of every installed distribution
        for point, (package, version) in zip(points, packages_of(points), strict=True):
            if point.name not in blocked:
                plugins._load(point.name, point.load, source=f"package {package}", version=version)
        for name, module in builtins.items():
            if name not in blocked:
                plugins.register(importlib.import_module(module), name, source="built-in", version=__version__)
        names = {*(Path(file).stem for file in files), *(point.name for point in points), *builtins}
        for name in sorted(blocked - names):
            plugins._problems[f"{name} block"] = Problem(
                where="block_plugins",
                what=f"no plugin is called {name!r}{instead_of(name, names)}",
                code="plugin",
                level="warning",
            )
        return plugins

    # ── registration ─────────────────────────────────────────────────────────────────────────────────────────

    def register(self, module: ModuleType, name: str, *, source: str, version: str = "") -> None:
        """Add one plugin after the existing ones."""
        if name in self._infos:
            self._problem(name, "load", f"a plugin of this name is loaded already, from {self._infos[name].source}")
            return
        try:
            self._manager.register(module, name)
        except Exception as error:  # a hook whose parameters differ from the specification
            self._manager.unregister(name=name)
            self._problem(name, "load", str(error).splitlines()[-1] if str(error) else type(error).__name__)
            return
        self._check_names(module, name)
        callers = self._manager.get_hookcallers(module) or []
        hooks = tuple(sorted(caller.name for caller in callers if caller.has_spec()))
        self._infos[name] = PluginInfo(name=name, version=version, source=source, hooks=hooks)
        self._implementations.clear()

    def _load_file(self, path: Path, blocked: set[str]) -> None:
        if path.stem in blocked:
            return
        name = path.stem

        def load() -> ModuleType:
            plugin = load_file(path)
            self._files[name] = plugin
            return plugin.module

        self._load(name, load, source=str(path), version="")

    def _load(self, name: str, load: Callable[[], Any], *, source: str, version: str) -> None:
        try:
            module = load()
        except ConfigError as error:
            self._problem(name, "load", str(error))
        except (Exception, SystemExit) as error:
            log.debug("plugin %s could not be loaded", name, exc_info=error)
            self._problem(name, "load", f"{type(error).__name__}: {error}")
        else:
            version = version or str(getattr(module, "__version__", ""))
            self.register(module, name, source=source, version=version)

    def _check_names(self, module: ModuleType, name: str) -> None:
        import difflib

        known = [hook for hook in vars(hookspecs) if hasattr(getattr(hookspecs, hook), "gateway_spec")]
        for attribute in dir(module):
            marked = self._manager.parse_hookimpl_opts(module, attribute)
            hook = (marked and marked.get("specname")) or attribute
            if marked and not marked["optionalhook"] and hook not in known:
                close = difflib.get_close_matches(hook, known, n=1)
                hint = f"did you mean {close[0]}?" if close else f"have: {', '.join(known)}"
                self._problem(name, hook, f"no such hook ({hint})")
            if not marked and attribute in known and _is_made_in(module, attribute):
                self._problem(name, attribute, "it is not marked with @hookimpl, so it is never called")
            if marked and (marked["wrapper"] or marked["hookwrapper"]):
                self._problem(name, hook, "hook wrappers are not supported")

    # ── calling ──────────────────────────────────────────────────────────────────────────────────────────────

    def _of(self, hook: str) -> list[tuple[str, pluggy.HookImpl]]:
        """Return the implementations of a hook in calling order."""
        if hook not in self._implementations:
            caller = getattr(self._manager.hook, hook)
            order = {name: index for index, name in enumerate(self._infos)}
            found = [item for item in caller.get_hookimpls() if not (item.wrapper or item.hookwrapper)]
            found.sort(key=lambda item: (not item.tryfirst, item.trylast, order.get(item.plugin_name, 0)))
            self._implementations[hook] = [(item.plugin_name, item) for item in found]
        return self._implementations[hook]

    def _results(
        self, hook: str, *, raises: type[Exception] | tuple[()] = (), **arguments: Any
    ) -> Iterator[tuple[str, Any]]:
        """Yield each plugin's name and result. An exception becomes a problem, unless it is one of `raises`."""
        for name, implementation in self._of(hook):
            try:
                result = _call(implementation, arguments)
            except raises:
                raise
            except Exception as error:
                about = f" of {arguments['path']}" if "path" in arguments else ""
                self._failed(name, hook, error, about)
            else:
                yield name, result

    def _collect(self, hook: str, kind: str, fault: Callable[[Any], str | None]) -> dict[str, tuple[str, Any]]:
        """Return what plugins register by name, with the plugin. The first of two wins: plugins replace built-ins."""
        found: dict[str, tuple[str, Any]] = {}
        for name, implementation in self._of(hook):

            def register(key: str, value: Any, name: str = name) -> None:
                if not isinstance(key, str) or not key:
                    self._problem(name, hook, f"register({key!r}, …): expected the name of the {kind}, a string")
                elif (wrong := fault(value)) is not None:
                    self._problem(name, hook, f"{kind} {key!r} {wrong}")
                elif key not in found:
                    found[key] = (name, value)
                elif found[key][0] == name:
                    self._problem(name, hook, f"{kind} {key} is registered twice; the first one counts")

            try:
                _call(implementation, {"register": register})
            except Exception as error:
                self._failed(name, hook, error)
        return found

    def _failed(self, name: str, hook: str, error: Exception, about: str = "") -> None:
        if self._problem(name, hook, f"{type(error).__name__}: {error}", about):
            log.error("plugin %s failed in %s%s", name, hook, about, exc_info=error)

    def _problem(self, name: str, hook: str, what: str, about: str = "") -> bool:
        """Record a problem; False if it is known. The number is bounded: a hook may fail on every call."""
        key = f"{name} {hook} {what}"[:300]
        if key in self._problems or len(self._problems) >= 200:
            return False
        self._problems[key] = Problem(where=f"plugin {name}", what=f"{hook}{about}: {what}", code="plugin")
        return True

    # ── what plugins provide ─────────────────────────────────────────────────────────────────────────────────

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(self._problems.values())

    def has(self, hook: str) -> bool:
        return bool(self._of(hook))

    def find_model(self, path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
        """Return the first plugin's description of a directory, or None if no plugin recognizes it.

        Raises `ConfigError` if a plugin recognizes it but it is broken or needs modules that are not installed.
        """
        for name, spec in self._results("find_model", raises=ConfigError, path=path, overrides=overrides):
            if spec is None:
                continue
            if not isinstance(spec, ModelSpec):
                self._problem(name, "find_model", f"returned {a_type(spec)}; expected a gateway.ModelSpec or None")
                continue
            if name in self._files:
                spec = replace(spec, target=self._files[name].rewrite(spec.target))
            if spec.python is None:
                plugin_checks.check_needs(path, spec)
            return replace(spec, served_by=name)
        return None

    def formats(self) -> dict[str, tuple[str, Format]]:
        """Return the formats by name, each with the plugin that serves it."""
        return self._collect("register_formats", "format", plugin_checks.format_fault)

    def check_model(self, spec: ModelSpec) -> list[Problem]:
        """Return what plugins report about a model that was found."""
        told: list[Problem] = []
        for name, found in self._results("check_model", spec=spec):
            try:
                for problem in found or ():
                    if isinstance(problem, Problem):
                        told.append(problem)
                    else:
                        self._problem(name, "check_model", f"gave {a_type(problem)}; expected gateway.Problem")
            except Exception as error:  # a generator runs only now
                what = f"check_model of plugin {name}: {type(error).__name__}: {error}"
                told.append(Problem(where=str(spec.root), what=what, code="plugin", model=spec.name))
        return told

    def endpoints(self) -> list[Endpoint]:
        """Return the routes of plugins; the first of two for the same path wins.

        One with an unregistered dialect is recorded as a problem and left out.
        """
        return [endpoint for _, endpoint in self._endpoints()]

    def _endpoints(self) -> list[tuple[str, Endpoint]]:
        found: dict[str, tuple[str, Endpoint]] = {}
        dialects = self.dialects()
        for name, implementation in self._of("register_endpoints"):

            def register(endpoint: Endpoint, name: str = name) -> None:
                if (wrong := plugin_checks.endpoint_fault(endpoint)) is not None:
                    self._problem(name, "register_endpoints", wrong)
                    return
                if not endpoint.path.startswith("/") or self._is_own(endpoint.path):
                    what = f"{endpoint.path} is not served: the path belongs to the gateway or is invalid"
                    self._problem(name, "register_endpoints", what)
                    return
                if endpoint.dialect not in dialects:
                    known = ", ".join(dialects) or "none"
                    what = f"{endpoint.path} is not served: unknown dialect {endpoint.dialect!r} (have: {known})"
                    self._problem(name, "register_endpoints", what)
                elif endpoint.path not in found:
                    found[endpoint.path] = (name, endpoint)
                elif found[endpoint.path][0] == name:
                    what = f"{endpoint.path} is registered twice; the first one counts"
                    self._problem(name, "register_endpoints", what)

            try:
                _call(implementation, {"register": register})
            except Exception as error:
                self._failed(name, "register_endpoints", error)
        return list(found.values())

    def dialects(self) -> dict[str, Any]:
        """Return the dialects by name. Invalid attributes of a dialect are recorded as problems and ignored."""
        found = self._dialects()
        for key, (name, dialect) in found.items():
            for attribute, why in plugin_checks.left_out(dialect).items():
                what = f"{attribute} of dialect {key!r} {why}; it is served without"
                self._problem(name, "register_dialects", what)
        return {key: value for key, (_, value) in found.items()}

    def _dialects(self) -> dict[str, tuple[str, Any]]:
        return self._collect("register_dialects", "dialect", plugin_checks.dialect_fault)

    def runners(self) -> dict[str, Runner]:
        return {key: value for key, (_, value) in self._runners().items()}

    def _runners(self) -> dict[str, tuple[str, Any]]:
        return self._collect("register_runners", "runner", plugin_checks.runner_fault)

    def find_devices(self) -> list[Device]:
        found: dict[str, Device] = {}
        for name, devices in self._results("find_devices"):
            try:
                for device in plugin_checks.devices(devices):
                    if (wrong := plugin_checks.device_fault(device, found)) is not None:
                        self._problem(name, "find_devices", wrong)
                    else:
                        found[device.id] = device
            except Exception as error:  # a generator runs only now
                self._failed(name, "find_devices", error)
        return list(found.values())

    def authorize(self, scope: Mapping[str, Any]) -> Caller | None:
        """Return the caller, or None if no plugin knows it. If a plugin fails, the request is refused."""
        for name, implementation in self._of("authorize"):
            try:
                caller = plugin_checks.caller(_call(implementation, {"scope": scope}))
            except GatewayError:
                raise
            except Exception as error:
                self._failed(name, "authorize", error)
                raise GatewayError("the request could not be authorized") from error
            if caller is not None:
                return caller
        return None

    def configure_app(self, config: Any) -> None:
        self._run("configure_app", config=config)

    def model_changed(self, event: Mapping[str, Any]) -> None:
        self._run("model_changed", event=event)

    def call_finished(self, record: Mapping[str, Any]) -> None:
        self._run("call_finished", record=record)

    def register_commands(self, cli: Any) -> None:
        self._run("register_commands", cli=cli)

    def _run(self, hook: str, **arguments: Any) -> None:
        for _ in self._results(hook, **arguments):
            pass

    def describe(self) -> list[PluginInfo]:
        """Return one row for each plugin, with what it provides."""
        provides: dict[str, list[str]] = {name: [] for name in self._infos}
        for name, endpoint in self._endpoints():
            provides[name].append(f"{endpoint.verb} {endpoint.path}")
        for kind, found in (("format", self.formats()), ("dialect", self._dialects()), ("runner", self._runners())):
            for key, (name, _) in found.items():
                provides[name].append(f"{kind} {key}")
        return [replace(info, provides=tuple(provides[name])) for name, info in self._infos.items()]


def _is_made_in(module: ModuleType, name: str) -> bool:
    """Return whether the module defines this function itself: an imported one may happen to have the name of a hook."""
    function = getattr(module, name)
    return isinstance(function, FunctionType) and function.__module__ == module.__name__


def _call(implementation: pluggy.HookImpl, arguments: Mapping[str, Any]) -> Any:
    return implementation.function(*(arguments[name] for name in implementation.argnames))
