"""From a spec to a loaded model, in Truss's order, on one thread that is not the loop's.

1. environment and sys.path  2. import  3. construct  4. inspect  5. setup_environment  6. load, with its retries
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from ..spec import ModelSpec
from .adapter import Descriptor, describe
from .secrets import Secrets

RETRY_PAUSE = 1.0  # seconds between two attempts of load(), as in Truss


class Unloadable(Exception):
    """A model that another try cannot help: the text says why."""


class LazyDataResolver:
    """Truss's resolver of data that its platform mounts; there is nothing to wait for here."""

    def block_until_download_complete(self, log_stats: bool = True, issue_collect: bool = True) -> str:
        return ""


class Loaded:
    """A model that is ready to be called."""

    def __init__(self, spec: ModelSpec, model: Any, descriptor: Descriptor, secrets: Secrets) -> None:
        self.spec, self.model, self.descriptor, self.secrets = spec, model, descriptor, secrets


def load(
    spec: ModelSpec,
    secret_values: dict[str, str],
    deployment: dict[str, Any] | None,
    endpoint_methods: frozenset[str],
    loop: asyncio.AbstractEventLoop,
) -> Loaded:
    """Import, construct and load. Runs on the loader's thread; `loop` runs what the model wrote as coroutines.

    Raises:
        Unloadable: the class cannot be found, built or served.
        Exception: whatever `load` raised at its last attempt.
    """
    os.environ.update(spec.environment)
    _extend_path(spec)
    cls = import_target(spec)
    secrets = Secrets(spec.secrets, secret_values)
    model = construct(cls, spec, secrets, deployment)
    descriptor = describe(model, endpoint_methods)
    if descriptor.setup_environment is not None and deployment is not None:
        _call(loop, descriptor.setup_environment, deployment)
    _load_with_retries(model, loop)
    return Loaded(spec, model, descriptor, secrets)


def _extend_path(spec: ModelSpec) -> None:
    root = str(spec.root)
    if root not in sys.path:
        sys.path.insert(0, root)
    for directory in spec.import_dirs:
        if directory.is_dir() and str(directory) not in sys.path:
            sys.path.append(str(directory))


def import_target(spec: ModelSpec) -> type:
    """The class that `spec.target` names."""
    module_name, _, class_name = spec.target.rpartition(":")
    module = _import(spec, module_name)
    cls = getattr(module, class_name, None)
    if cls is None:
        classes = [name for name, value in vars(module).items() if inspect.isclass(value)]
        have = ", ".join(classes) or "none"
        raise Unloadable(f"{module.__file__} has no class '{class_name}' (classes there: {have})")
    return cls  # type: ignore[no-any-return]


def _import(spec: ModelSpec, module_name: str) -> ModuleType:
    if module_name.endswith(".py"):
        path = Path(module_name)
        return import_file(path, path.stem)
    path = spec.root.joinpath(*module_name.split(".")).with_suffix(".py")
    if path.is_file():
        return import_file(path, module_name_of(path, spec.root))
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name == module_name:
            raise Unloadable(f"RuntimeError: No module class file found: {path} does not exist") from error
        raise


def module_name_of(path: Path, root: Path) -> str:
    """Truss's rule: `model.model` for model/model.py, otherwise the file's stem."""
    if path.parent != root and path.parent.name == path.stem:
        return f"{path.parent.name}.{path.stem}"
    return path.stem


def import_file(path: Path, name: str) -> ModuleType:
    """Execute a file as module `name`, registered before it runs, so that dataclasses and type hints resolve."""
    if not path.is_file():
        raise Unloadable(f"RuntimeError: No module class file found: {path} does not exist")
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    try:
        module_spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def construct(cls: type, spec: ModelSpec, secrets: Secrets, deployment: dict[str, Any] | None) -> Any:
    """Build the model with the keyword arguments that its constructor asks for, and no others."""
    offered = {
        "config": dict(spec.config),
        "data_dir": _data_dir(spec),
        "secrets": secrets,
        "environment": deployment,
        "lazy_data_resolver": LazyDataResolver(),
    }
    parameters = inspect.signature(cls).parameters
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        offered = {name: value for name, value in offered.items() if name in parameters}
    return cls(**offered)


def _data_dir(spec: ModelSpec) -> Path:
    """Relative to the working directory when it lies inside it, as Truss hands it over."""
    path = spec.data_dir or spec.root / "data"
    return path.relative_to(spec.root) if path.is_relative_to(spec.root) else path


def _load_with_retries(model: Any, loop: asyncio.AbstractEventLoop) -> None:
    function = getattr(model, "load", None)
    if function is None:
        return
    retries = int(os.environ.get("NUM_LOAD_RETRIES_TRUSS", "1"))
    for attempt in range(retries + 1):
        try:
            _call(loop, function)
            return
        except Exception as error:
            if attempt == retries:
                raise
            print(f"load() failed: {type(error).__name__}: {error}; trying again", file=sys.stderr, flush=True)
            time.sleep(RETRY_PAUSE)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function, and await what it returns on the worker's own loop, where the model will live."""
    result = function(*args)
    if inspect.isawaitable(result):
        return asyncio.run_coroutine_threadsafe(_await(result), loop).result()
    return result


async def _await(awaitable: Any) -> Any:
    return await awaitable
