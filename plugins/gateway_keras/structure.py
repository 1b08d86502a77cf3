"""Check a .keras file before Keras reads it: its layers are those of Keras that only compute, and it has nothing else.

The file is a zip file. config.json in it names classes and functions, which Keras imports and calls with arguments of
the file; its own safe mode has let some of them through. So what it may name is listed here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway import ConfigError, check_ordinary, peek_archive

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
LARGEST = 64 << 20  # bytes of config.json: a large network has some megabytes
DEEPEST = 200
MOST_NAMED = 100  # characters of a name in messages
MODELS = frozenset({"Functional", "Sequential"})
# Layers that call code of the file (Lambda), open pickles, programs or files, or need TensorFlow.
REFUSED = frozenset(
    "Lambda TorchModuleWrapper TFSMLayer JaxLayer FlaxLayer StringLookup IntegerLookup IndexLookup TextVectorization "
    "Hashing HashedCrossing Discretization FeatureSpace MelSpectrogram Pipeline".split()
)
MODULES = re.compile(
    r"keras(\.src)?\.(layers|initializers|regularizers|constraints|dtype_policies|optimizers|losses|metrics)(\.\w+)*"
    r"|keras\.src\.backend\.\w+\.optimizers\.\w+"
    r"|keras\.src\.ops\.(numpy|nn|math|image|linalg|einops|operation)"
)
CORE = {"keras": frozenset({"Sequential", "Functional", "DTypePolicy", "Variable"})}
ACTIVATIONS = re.compile(r"keras(\.src)?\.activations(\.\w+)?")
NAME = re.compile(r"[A-Za-z]\w{0,99}", re.ASCII)
REGISTERED = re.compile(r"[A-Za-z]\w{0,99}", re.ASCII)
VALUES = frozenset({"__keras_tensor__", "__ellipsis__", "__slice__", "__numpy__", "__tensor__"})
Settings = Mapping[str, Any]


def is_model(name: str, begin: bytes) -> bool:
    """Return whether a file may be of Keras 3, by its name and, if that is known, its beginning."""
    return name.endswith(".keras") and (not begin or begin.startswith(b"PK"))


def check_file(file: Path) -> Settings:
    """Return the settings of a model that only computes.

    Raises:
        ConfigError: it is damaged, or more; why.
    """
    check_ordinary(file)
    try:
        text, sizes = peek_archive(file, CONFIG, LARGEST)
        found = json.loads(text)
        _check_files(sizes)
        _check_settings(found)
    except RecursionError as error:
        raise ConfigError(f"{file} cannot be served: {CONFIG} in it is nested too deeply") from error
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{file} cannot be served: {error}") from error
    settings: Settings = found
    return settings


def _check_files(sizes: Mapping[str, int]) -> None:
    if missing := [name for name in (CONFIG, METADATA, WEIGHTS) if name not in sizes]:
        raise ValueError(f"it has no {missing[0]}: save the model again with Keras 3")
    for name in sizes:
        if name not in (CONFIG, METADATA, WEIGHTS):
            what = f"it has {name[:MOST_NAMED]!a}, a file of a layer that reads more than weights"
            raise ValueError(f"{what}: leave that layer out, or write a model.py that loads the model")


def _check_settings(found: Any) -> None:
    if not isinstance(found, dict) or found.get("class_name") not in MODELS:
        name = found.get("class_name") if isinstance(found, dict) else None
        what = f"the model is of the class {str(name)[:MOST_NAMED]!a}, and that is code"
        raise ValueError(f"{what}: build it as Functional or Sequential, or write a model.py that loads it")
    # How it was trained is not loaded; that of models in it is.
    for each in _objects({key: value for key, value in found.items() if key != "compile_config"}):
        _check_object(each)


def _objects(found: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Yield every object that names a class or a function."""
    if depth > DEEPEST:
        raise ValueError(f"{CONFIG} in it is nested too deeply")
    if isinstance(found, dict):
        if "class_name" in found or "module" in found:
            yield found
        for each in found.values():
            yield from _objects(each, depth + 1)
    elif isinstance(found, list):
        for each in found:
            yield from _objects(each, depth + 1)


def _check_object(found: Mapping[str, Any]) -> None:
    name, module, registered = found.get("class_name"), found.get("module"), found.get("registered_name")
    if name in VALUES:
        return
    if name == "__lambda__" or name in REFUSED:
        what = f"its layer {_called(found)} ({name}) has code, or opens files"
        raise ValueError(f"{what}: build the model without it, or write a model.py that loads it")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"it names the class {str(name)[:MOST_NAMED]!a}")
    if registered is not None and not (isinstance(registered, str) and REGISTERED.fullmatch(registered)):
        what = f"its layer {_called(found)} ({str(registered)[:MOST_NAMED]!a}) is a class of its own, and that is code"
        raise ValueError(f"{what}: build the model without it, or write a model.py that loads it")
    if name == "function":
        config = found.get("config")
        if not isinstance(module, str) or not ACTIVATIONS.fullmatch(module) or not NAME.fullmatch(str(config)):
            raise ValueError(f"it calls the function {str(config)[:MOST_NAMED]!a} of {str(module)[:MOST_NAMED]!a}")
        return
    is_core = isinstance(module, str) and name in CORE.get(module, ())
    is_model_class = name in MODELS and module in ("keras", "keras.models", f"keras.src.models.{name.lower()}")
    if not is_core and not is_model_class and not (isinstance(module, str) and MODULES.fullmatch(module)):
        what = f"its layer {_called(found)} ({name} of {str(module)[:MOST_NAMED]!a}) is not one of Keras"
        raise ValueError(f"{what}, so it is code: build the model without it, or write a model.py that loads it")


def _called(found: Mapping[str, Any]) -> str:
    config = found.get("config")
    name = found.get("name") or (config.get("name") if isinstance(config, dict) else None)
    return ascii(str(name or found.get("class_name"))[:MOST_NAMED])
