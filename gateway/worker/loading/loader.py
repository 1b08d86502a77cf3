"""Load a model from its spec, in Truss's order, on one thread that is not the event loop's.

1. check links and checksums of the directory  2. logging, sys.path, our module names, data directory
3. weights at their mount locations  4. import  5. construct  6. inspect  7. setup_environment
8. load, with its retries
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import inspect
import os
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from types import MethodType, ModuleType
from typing import Any

from ...files import integrity, ordinary
from ...spec import ModelSpec
from ...wording import counted, ungiven
from .. import log_records
from ..batching.install import install
from ..batching.methods import batch_names, used
from ..batching.runner import Batcher
from ..bodies.failures import places_of, say, text_of
from . import disconnect_checks
from .derived_methods import derive
from .descriptor import Descriptor, describe
from .misspelt_methods import cannot_be_called, without_self
from .module_conflicts import step_aside
from .retry_advice import CODE, may_help
from .secrets import Secrets
from .sources import pin, pin_modules

RETRY_PAUSE = 1.0  # seconds between two attempts of load(), as in Truss


class NoSuchClass(AttributeError):
    """The model's file has no class with this name."""


class Unloadable(Exception):
    """A model that a retry cannot help; the text says why."""


class LazyDataResolver:
    """Replaces Truss's resolver of data mounted by its platform; here nothing needs to be downloaded."""

    def block_until_download_complete(self, log_stats: bool = True, issue_collect: bool = True) -> str:
        return ""


class Loaded:
    """A loaded model with its descriptor."""

    def __init__(self, spec: ModelSpec, model: Any, descriptor: Descriptor) -> None:
        self.spec, self.model, self.descriptor = spec, model, descriptor


def load(
    spec: ModelSpec,
    secrets: Secrets,
    deployment: dict[str, Any] | None,
    endpoint_methods: frozenset[str],
    loop: asyncio.AbstractEventLoop,
    on_described: Callable[[Any, Descriptor], None] = lambda model, descriptor: None,
) -> Loaded:
    """Import, construct and load. Runs on the loader's thread; `loop` runs coroutines of the model.

    `on_described` is called with the model before its load().

    Raises:
        Unloadable: the class cannot be found, constructed or served.
        ConfigError: its files are invalid, or its weights cannot be fetched.
        Exception: whatever `load` raised at its last attempt.
    """
    _check_contents(spec)
    log_records.set_up(bool((spec.config.get("runtime") or {}).get("enable_debug_logs")))
    _extend_path(spec)
    step_aside(spec)
    _make_data_dir(spec)
    _mount_weights(spec, secrets)
    cls = import_target(spec)
    _pin_sources(spec)
    with _within(spec):
        model = construct(cls, spec, secrets, deployment)
        descriptor = inspect_model(model, endpoint_methods, spec)
        on_described(model, descriptor)
        if descriptor.setup_environment is not None and deployment is not None:
            call(loop, descriptor.setup_environment, deployment)
        with _noted(each.text for each in descriptor.asked):
            _load_with_retries(model, loop, spec.parity == "strict")
    _pin_sources(spec)  # including modules imported by load()
    return Loaded(spec, model, derive(model, disconnect_checks.mark(descriptor, spec), spec))


def inspect_model(
    model: Any, endpoint_methods: frozenset[str], spec: ModelSpec, before: Batcher | None = None
) -> Descriptor:
    """Describe an instance, with the methods that its batch methods serve. `before` are the batches of replaced code.

    Raises:
        ModelDefinitionError: its class cannot be served.
    """
    if spec.parity == "strict":
        return install(model, describe(model, endpoint_methods, True), frozenset(), spec)
    has_size = spec.batching.size is not None
    served = used(model, endpoint_methods, has_size)
    has_others = any(callable(getattr(model, name, None)) for name in (*endpoint_methods, "predict"))
    known = batch_names(endpoint_methods) if has_size or not has_others else frozenset[str]()
    return install(model, describe(model, endpoint_methods, False, served, known), served, spec, before)


def _within(spec: ModelSpec) -> contextlib.AbstractContextManager[None]:
    """While active, what a plugin opens for a directory that is only data is in it, wherever its names lead."""
    return contextlib.nullcontext() if spec.own_code else ordinary.within(spec.root, spec.allow_links)


@contextlib.contextmanager
def _noted(asked: Iterable[str]) -> Iterator[None]:
    """Add the questions to the author to errors of their code: the mistakes they name may be the cause."""
    try:
        yield
    except CODE as error:
        for text in filter(None, asked):
            error.add_note(text)
        raise


def _pin_sources(spec: ModelSpec) -> None:
    if spec.own_code:
        pin_modules(places_of(spec))


def _check_contents(spec: ModelSpec) -> None:
    """Check links and checksums before any file of the model is opened."""
    if not spec.allow_links:
        integrity.check_links(spec.root, has_code=spec.own_code)
    if count := integrity.verify(spec.root, but=_own_data(spec)):
        say(f"{counted(count, 'file')} as {integrity.MANIFEST} lists them")
        # Do not use existing compiled code: it is checked by time and size only, which are easy to forge.
        sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = tempfile.mkdtemp(prefix="pycache-")


def _own_data(spec: ModelSpec) -> Path | None:
    """Return the directory that a class writes to, which checksums cannot cover.

    Without its own code a model writes nothing.
    """
    return spec.data_dir if spec.own_code else None


def _extend_path(spec: ModelSpec) -> None:
    """Add the directories of a model with code to sys.path. Without code, a skops.py there would shadow the library."""
    if not spec.own_code:
        return
    root = str(spec.root)
    if root not in sys.path:
        sys.path.insert(0, root)
    for directory in spec.import_dirs:
        if directory.is_dir() and str(directory) not in sys.path:
            sys.path.append(str(directory))


def _make_data_dir(spec: ModelSpec) -> None:
    """Create the data directory as Truss's server does; ignore errors for read-only model directories."""
    if spec.format == "truss" and spec.data_dir is not None:
        with contextlib.suppress(OSError):
            spec.data_dir.mkdir(parents=True, exist_ok=True)


def _mount_weights(spec: ModelSpec, secrets: Secrets) -> None:
    """Mount the weights: the class may open mount locations, and fetch weights without one, in its constructor."""
    if not spec.config.get("weights"):
        return
    from ...directories.weights import mount_weights, use_settings

    use_settings(secrets, spec.allow_links)
    if spec.own_code:
        mount_weights(spec.config, spec.root, spec.mount_roots, secrets=secrets)


def import_target(spec: ModelSpec) -> type:
    """Import the class that `spec.target` names."""
    module_name, _, class_name = spec.target.rpartition(":")
    module = _import(spec, module_name)
    cls = getattr(module, class_name, None)
    if cls is None:
        classes = [name for name, value in vars(module).items() if inspect.isclass(value)]
        have = ", ".join(classes) or "none"
        cause = NoSuchClass(f"module '{module.__name__}' has no attribute '{class_name}'")
        raise Unloadable(f"{module.__file__} has no class '{class_name}' (classes there: {have})") from cause
    return cls  # type: ignore[no-any-return]


def _import(spec: ModelSpec, module_name: str) -> ModuleType:
    if module_name.endswith(".py"):
        path = Path(module_name)
        return import_file(path, path.stem)
    path = spec.root.joinpath(*module_name.split(".")).with_suffix(".py")
    if spec.own_code and path.is_file():
        name = module_name_of(path, spec.root)
        if "." not in name and str(path.parent) not in sys.path:  # child processes import it by name
            sys.path.append(str(path.parent))
        return import_file(path, name)
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # a module that the module itself imports
        if spec.own_code:
            text = f"RuntimeError: No module class file found: {path} does not exist, and no module '{module_name}'"
            raise Unloadable(f"{text} is installed") from error
        text = f"no module '{module_name}' is installed, and the model directory is only data to the plugin of the"
        own = "; if it contains the class, the plugin must set ModelSpec(own_code=True)" if path.is_file() else ""
        raise Unloadable(f"{text} format {spec.format}{own}") from error


def module_name_of(path: Path, root: Path) -> str:
    """Return the module name by Truss's rule: `model.model` for model/model.py, otherwise the file's stem."""
    if path.parent != root and path.parent.name == path.stem:
        return f"{path.parent.name}.{path.stem}"
    return path.stem


def import_file(path: Path, name: str) -> ModuleType:
    """Execute a file as module `name`. It is registered before it runs, so that dataclasses and type hints resolve."""
    if not path.is_file():
        raise Unloadable(f"RuntimeError: No module class file found: {path} does not exist")
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    # No package, so that relative imports fail as in Truss: model.py may get another module name.
    module.__package__ = ""
    sys.modules[name] = module
    pin(str(path))  # its imports may take long, and the file may be edited meanwhile
    try:
        module_spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)
        if isinstance(error, ImportError) and "attempted relative import" in str(error):
            package = name.rpartition(".")[0]
            instead = f"from {package}.utils import x" if package else "from utils import x"
            raise ImportError(
                f"During import of `{path}`: relative imports (starting with '.') are not supported in the model's "
                f"file. Please replace them with absolute imports, such as `{instead}`."
            ) from error
        raise
    module.__package__ = None
    return module


def construct(cls: type, spec: ModelSpec, secrets: Secrets, deployment: dict[str, Any] | None) -> Any:
    """Construct the model with the keyword arguments that its constructor accepts."""
    offered = {
        "config": dict(spec.config),
        "data_dir": _data_dir(spec),
        "secrets": secrets,
        "environment": deployment,
        "lazy_data_resolver": LazyDataResolver(),
    }
    constructor = MethodType(cls.__init__, object())  # type: ignore[misc]
    if told := cannot_be_called("__init__", constructor):
        raise Unloadable(told)
    parameters = inspect.signature(cls).parameters
    if needed := _needed(cls, offered):
        told = ungiven("__init__", needed, offered)
        raise Unloadable(f"{told}: give it a default, or read it from config, which is config.yaml")
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        offered = {name: value for name, value in offered.items() if name in parameters}
    if told := without_self("__init__", constructor):
        say(f"WARNING gateway: {told}")
    with _noted([told]):
        return cls(**offered)


def _data_dir(spec: ModelSpec) -> Path:
    """Return the data directory, relative to the working directory if it is inside, as Truss does."""
    path = spec.data_dir or spec.root / "data"
    return path.relative_to(spec.root) if path.is_relative_to(spec.root) else path


def _needed(function: Callable[..., Any], offered: Collection[str] = ()) -> list[str]:
    """Return the required parameters that are not given."""
    return [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and (name not in offered or parameter.kind is parameter.POSITIONAL_ONLY)
    ]


def _load_with_retries(model: Any, loop: asyncio.AbstractEventLoop, strict: bool) -> None:
    function = getattr(model, "load", None)
    if function is None:
        return
    if callable(function) and (needed := _needed(function)):
        raise Unloadable(
            f"{ungiven('load', needed, ())}: it is called without arguments and can use what `__init__` stored"
        )
    retries = _retries()
    for attempt in range(retries + 1):
        try:
            call(loop, function)
            return
        except Exception as error:
            if attempt == retries or not (strict or may_help(error)):
                raise
            say(f"load() failed: {text_of(error)}; trying again")
            time.sleep(RETRY_PAUSE)


def _retries() -> int:
    try:
        return max(0, int(os.environ.get("NUM_LOAD_RETRIES_TRUSS", "1")))
    except ValueError:
        return 1


def call(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of the model on this thread; if it returns an awaitable, await that on the model's event loop.

    Raises:
        BaseException: whatever it raised, including `SystemExit`, which would otherwise end the loop.
    """
    result = function(*args)
    if not inspect.isawaitable(result):
        return result
    value, error = asyncio.run_coroutine_threadsafe(_settle(result), loop).result()
    if error is not None:
        raise error
    return value


async def _settle(awaitable: Any) -> tuple[Any, BaseException | None]:
    try:
        return await awaitable, None
    except BaseException as error:
        return None, error
