"""Open an ONNX file with the runtime, on the devices and threads that the model was given."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway import BadRequest, ConfigError

from .faults import EXTENSIONS

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
QUIET = 3  # errors only: it warns of every constant that it removes
LONGEST = 300  # characters of the runtime's own message
SOURCE = re.compile(r"\S*/onnxruntime/core/\S+:\d+ .*?(?=[A-Z][a-z])|\[ONNXRuntimeError\] : \d+ : \w+ : ")
MEMORY = ("Failed to allocate memory", "std::bad_alloc")


class Session:
    """A loaded graph. Threads may share it."""

    def __init__(self, file: Path, threads: int, custom: Sequence[str] = ()) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = QUIET
        # Threads that spin between calls take the cores from others, see the threads of workers.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        for library in custom:
            _register(options, library)
        # With it, a file could set all of these, and have a profile written.
        os.environ.pop("ORT_LOAD_CONFIG_FROM_MODEL", None)
        try:
            self.inner = onnxruntime.InferenceSession(str(file), options, providers=_providers(onnxruntime))
        except Exception as error:  # the runtime has a class of its own for each kind
            raise ConfigError(
                f"{file} cannot be loaded by onnxruntime {onnxruntime.__version__}: {words(error)}"
            ) from error
        self.outputs = [each.name for each in self.inner.get_outputs()]
        if CUDA not in (used := self.inner.get_providers()) and has_gpu():
            print(f"warning: the model has a GPU, but is computed by {', '.join(used)}: onnxruntime says why above")

    def run(self, feed: Mapping[str, Any], names: Sequence[str] | None = None) -> list[Any]:
        """Compute these outputs, or all.

        Raises:
            BadRequest: the graph does not take these values.
        """
        try:
            found: list[Any] = self.inner.run(self.outputs if names is None else names, feed)
        except Exception as error:
            if isinstance(error, MemoryError) or any(text in str(error) for text in MEMORY):
                raise MemoryError(words(error)) from error
            raise BadRequest(f"the model refused these inputs: {words(error)}", code="invalid_value") from error
        return found


def has_gpu() -> bool:
    """Return whether the placement gave the model a GPU: the gateway sets the variable for every worker."""
    return bool(os.environ.get("CUDA_VISIBLE_DEVICES"))


def thread_count(options: Mapping[str, Any], calls: int) -> int:
    """Return the threads of one call: the option `threads`, or the model's cores divided by the calls at once."""
    given = options.get("threads")
    if given is None:
        cores = os.environ.get("OMP_NUM_THREADS", "1")
        return max(1, int(cores) // max(1, calls)) if cores.isdigit() else 1
    if type(given) is not int or given < 1:
        raise ConfigError("config.yaml: options: threads has to be a whole number from 1 on")
    return min(given, os.cpu_count() or 1)


def words(error: BaseException) -> str:
    """Return the runtime's message in one line, without places in its source."""
    text = SOURCE.sub("", " ".join(str(error).split())) or type(error).__name__
    text = text.removeprefix("Non-zero status code returned while ")
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def _providers(library: Any) -> list[str]:
    if not has_gpu():
        return [CPU]
    if CUDA not in library.get_available_providers():
        print(
            "warning: the model has a GPU, but this onnxruntime only computes on CPUs; run: pip install onnxruntime-gpu"
        )
        return [CPU]
    return [CUDA, CPU]


def _register(options: Any, library: str) -> None:
    """Add the operators of a library, which is run."""
    path = library
    if library == EXTENSIONS:
        try:
            import onnxruntime_extensions
        except ImportError as error:
            raise ConfigError(f"custom_ops names {EXTENSIONS}; run: pip install onnxruntime-extensions") from error
        path = onnxruntime_extensions.get_library_path()
    try:
        options.register_custom_ops_library(path)
    except Exception as error:
        raise ConfigError(f"custom_ops names {library!a}, which cannot be loaded: {words(error)}") from error
