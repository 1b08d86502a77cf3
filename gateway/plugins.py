"""All that plugins provide, with pluggy's traps closed in one place; nobody else touches its manager.

Results come in registration order (pluggy's come last-in first-out): plugin files named in the settings, then entry
points, then built-ins, with the formats `truss` and `python` last. Each result knows its plugin. An exception in one
plugin becomes a `Problem` that names it, and disables nothing else. A misspelt hook is a problem, not silence.
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

from . import __version__, hookspecs
from .callers import Caller
from .errors import ConfigError, GatewayError
from .plugin_files import FilePlugin, load_file
from .spec import Endpoint, ModelSpec, Problem
from .wording import instead_of

if TYPE_CHECKING:
    from .devices import Device
    from .replica import Runner

GROUP = "gateway"  # of entry points
BUILTINS = {
    "openai_chat": "gateway.dialects.openai_chat",
    "openai_completions": "gateway.dialects.openai_completions",
    "openai_embeddings": "gateway.dialects.openai_embeddings",
    "anthropic_messages": "gateway.dialects.anthropic_messages",
    "anthropic_count_tokens": "gateway.dialects.anthropic_count_tokens",
    "rerank": "gateway.dialects.rerank",
    "score": "gateway.dialects.score",
    "classify": "gateway.dialects.classify",
    "moderations": "gateway.dialects.moderations",
    "tokenize": "gateway.dialects.tokenize",
    "audio_transcriptions": "gateway.dialects.audio_transcriptions",
    "audio_speech": "gateway.dialects.audio_speech",
    "images": "gateway.dialects.images",
    "openai_responses": "gateway.dialects.openai_responses",
    "openai_input_tokens": "gateway.dialects.openai_input_tokens",
    "process": "gateway.runners.process",
    # the formats stay last, so that every other plugin is asked first whether a directory is its own
    "truss": "gateway.formats.truss",
    "python": "gateway.formats.python",
}

# pip extra → what its models look like, and the modules that must be there to serve them
EXTRAS = {
    "transformers": ("a transformers model", ("torch", "transformers")),
    "sentence-transformers": ("sentence-transformers", ("torch", "sentence_transformers")),
    "sklearn": ("scikit-learn", ("sklearn", "skops")),
}

# Paths that no plugin may answer: who asks them must not get a model's answer, nor a model's error.
OWN = frozenset(
    "/ /livez /readyz /health /ping /metrics /v2 /v1/models /invocations /hot-reload /docs /openapi.json".split()
)
OWN_BELOW = ("/admin/", "/models/", "/v1/models/", "/v2/models/", "/v2/health/", "/v2/repository/", "/docs/")

log = logging.getLogger("gateway.plugins")


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginInfo:
    """A row of `gateway plugins`."""

    name: str
    version: str
    source: str  # "built-in", "package model-gateway", or the path of a file
    hooks: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()  # "dialect openai_chat", "POST /v1/chat/completions", …


class Plugins:
    """The plugins of one gateway. `problems` are what went wrong with them, at load and since."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager("gateway")
        self._manager.add_hookspecs(hookspecs)
        self._infos: dict[str, PluginInfo] = {}
        self._files: dict[str, FilePlugin] = {}
        self._problems: dict[str, Problem] = {}
        self._implementations: dict[str, list[tuple[str, pluggy.HookImpl]]] = {}

    @classmethod
    def load(
        cls, files: Sequence[str | Path] = (), block: Iterable[str] = (), builtins: Mapping[str, str] = BUILTINS
    ) -> Self:
        """Return the plugins of `files`, of installed packages, and our own, without those named in `block`."""
        plugins = cls()
        blocked = set(block)
        for file in files:
            plugins._load_file(Path(file), blocked)
        for point in entry_points(group=GROUP):
            if point.name not in blocked:
                package = point.dist.name if point.dist else point.value
                version = point.dist.version if point.dist else ""
                plugins._load(point.name, point.load, source=f"package {package}", version=version)
        for name, module in builtins.items():
            if name not in blocked:
                plugins.register(importlib.import_module(module), name, source="built-in", version=__version__)
        names = {*(Path(file).stem for file in files), *(point.name for point in entry_points(group=GROUP)), *builtins}
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
        """Add one plugin behind those that are there."""
        if name in self._infos:
            self._problem(name, "load", f"a plugin of this name is loaded already, from {self._infos[name].source}")
            return
        try:
            self._manager.register(module, name)
        except Exception as error:  # a hook whose parameters are not those of the specification
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
                self._problem(name, attribute, "it is not marked with @hookimpl, so that nobody calls it")
            if marked and (marked["wrapper"] or marked["hookwrapper"]):
                self._problem(name, hook, "hook wrappers are not supported")

    # ── calling ──────────────────────────────────────────────────────────────────────────────────────────────

    def _of(self, hook: str) -> list[tuple[str, pluggy.HookImpl]]:
        """The implementations of a hook in the order in which they are asked."""
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
        """Yield each plugin's name and result; one that raises becomes a problem, unless it raises `raises`."""
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

    def _collect(self, hook: str, kind: str) -> dict[str, tuple[str, Any]]:
        """What plugins register by name, with the plugin; of two the first counts, so a plugin replaces a built-in."""
        found: dict[str, tuple[str, Any]] = {}
        for name, implementation in self._of(hook):

            def register(key: str, value: Any, name: str = name) -> None:
                if key not in found:
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
        """Keep a problem; false when it is known. A hook that fails on every call must not fill the memory."""
        key = f"{name} {hook} {what}"[:300]
        if key in self._problems or len(self._problems) >= 200:
            return False
        self._problems[key] = Problem(where=f"plugin {name}", what=f"{hook}{about}: {what}", code="plugin")
        return True

    # ── what plugins provide ─────────────────────────────────────────────────────────────────────────────────

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(self._problems.values())

    @property
    def has_authorize(self) -> bool:
        return bool(self._of("authorize"))

    @property
    def has_call_finished(self) -> bool:
        return bool(self._of("call_finished"))

    def find_model(self, path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
        """Return the first plugin's description of a directory, None when nobody knows it.

        Raises `ConfigError` when it is somebody's but broken, or needs an extra that is not installed.
        """
        for name, spec in self._results("find_model", raises=ConfigError, path=path, overrides=overrides):
            if spec is None:
                continue
            if not isinstance(spec, ModelSpec):
                self._problem(name, "find_model", f"returned {type(spec).__name__}, not a ModelSpec")
                continue
            if name in self._files:
                spec = replace(spec, target=self._files[name].rewrite(spec.target))
            if spec.python is None:
                _check_extra(path, spec.extra)
            return spec
        return None

    def check_model(self, spec: ModelSpec) -> list[Problem]:
        """Return what plugins say of a model that was found."""
        told: list[Problem] = []
        for name, found in self._results("check_model", spec=spec):
            try:
                told += found or ()
            except Exception as error:  # of a generator, which runs only now
                what = f"check_model of plugin {name}: {type(error).__name__}: {error}"
                told.append(Problem(where=str(spec.root), what=what, code="plugin", model=spec.name))
        return told

    def endpoints(self) -> list[Endpoint]:
        """Return the routes that plugins offer; of two for one path the first counts.

        One whose dialect nobody registers is a problem, and none of these.
        """
        return [endpoint for _, endpoint in self._endpoints()]

    def _endpoints(self) -> list[tuple[str, Endpoint]]:
        found: dict[str, tuple[str, Endpoint]] = {}
        dialects = self.dialects()
        for name, implementation in self._of("register_endpoints"):

            def register(endpoint: Endpoint, name: str = name) -> None:
                if not is_free(endpoint.path):
                    what = f"{endpoint.path} is not served: the path is the gateway's own, or none"
                    self._problem(name, "register_endpoints", what)
                    return
                if endpoint.dialect in dialects:
                    found.setdefault(endpoint.path, (name, endpoint))
                    return
                known = ", ".join(dialects) or "none"
                what = f"{endpoint.path} is not served: unknown dialect {endpoint.dialect!r} (have: {known})"
                self._problem(name, "register_endpoints", what)

            try:
                _call(implementation, {"register": register})
            except Exception as error:
                self._failed(name, "register_endpoints", error)
        return list(found.values())

    def dialects(self) -> dict[str, Any]:
        return {key: value for key, (_, value) in self._collect("register_dialects", "dialect").items()}

    def runners(self) -> dict[str, Runner]:
        return {key: value for key, (_, value) in self._collect("register_runners", "runner").items()}

    def find_devices(self) -> list[Device]:
        return [device for _, devices in self._results("find_devices") for device in devices or ()]

    def authorize(self, scope: Mapping[str, Any]) -> Caller | None:
        """Return who is calling, None when no plugin knows. A plugin that breaks lets nobody in."""
        for name, implementation in self._of("authorize"):
            try:
                caller = _caller(_call(implementation, {"scope": scope}))
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
        """Return a row for each plugin, with what it provides."""
        provides: dict[str, list[str]] = {name: [] for name in self._infos}
        for name, endpoint in self._endpoints():
            provides[name].append(f"POST {endpoint.path}")
        for hook, kind in (("register_dialects", "dialect"), ("register_runners", "runner")):
            for key, (name, _) in self._collect(hook, kind).items():
                provides[name].append(f"{kind} {key}")
        return [replace(info, provides=tuple(provides[name])) for name, info in self._infos.items()]


def _is_made_in(module: ModuleType, name: str) -> bool:
    """Whether a function is the module's own: what it imports may be called like a hook."""
    function = getattr(module, name)
    return isinstance(function, FunctionType) and function.__module__ == module.__name__


def _call(implementation: pluggy.HookImpl, arguments: Mapping[str, Any]) -> Any:
    return implementation.function(*(arguments[name] for name in implementation.argnames))


def _caller(said: Any) -> Caller | None:
    """Whom a plugin's `authorize` means.

    Raises:
        ValueError: nobody that could be told from others.
    """
    caller = Caller(said) if isinstance(said, str) else said
    if caller is None or (isinstance(caller, Caller) and isinstance(caller.name, str) and caller.name):
        return caller
    raise ValueError(f"returned {said!r}: expected a gateway.Caller with a name, a name, or None")


def is_free(path: str) -> bool:
    """Whether a plugin may have it."""
    return path.startswith("/") and path not in OWN and not path.startswith(OWN_BELOW)


def _check_extra(path: Path, extra: str | None) -> None:
    """Say which extra serves the model when one of its modules is missing."""
    from importlib.util import find_spec

    label, modules = EXTRAS.get(extra or "", ("", ()))
    if any(find_spec(module) is None for module in modules):
        raise ConfigError(f"{path} looks like {label}; run: pip install 'model-gateway[{extra}]'")
