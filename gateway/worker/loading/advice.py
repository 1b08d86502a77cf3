"""Advice for imports of a model that fail because a module is missing."""

from __future__ import annotations

import ast
import difflib
import inspect
import linecache
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...directories.code import submodules
from ...environments import distributions
from ...wording import instead_of

IN_TRUSS = ("fastapi", "starlette", "numpy", "msgpack", "httpx")  # included in Truss's image
_INSTALL = "if it comes with a package, add that to the requirements and install it"
# Python's text when a namespace package lacks a module, which is not a ModuleNotFoundError.
_TAKEN = re.compile(r"^cannot import name '(\w+)' from '[\w.]+' \(")
_NAME = re.compile(r"cannot import name '(\w+)' from '[\w.]+' \(unknown location\)")


def is_missing(error: BaseException) -> bool:
    """Return whether the module does not exist, as opposed to one whose import fails."""
    return isinstance(error, ModuleNotFoundError) or (isinstance(error, ImportError) and bool(_NAME.search(str(error))))


def about_missing(error: ImportError, model: Mapping[str, Any]) -> str:
    """Return a clause to append to the error's text. `model` is the ModelSpec as plain data."""
    told = _about_missing(error, model)
    # An install changes no file of the model, so `--reload` does not notice it.
    installs = told.startswith("; run: pip") or told.endswith(_INSTALL)
    return f"{told}, then: gateway reload {model['name']}" if installs else told


def about_taken(error: ImportError) -> str:
    """Return a clause about a name that a module lacks; "" if the module has no public names or is partly imported."""
    taken, module = _TAKEN.search(str(error)), sys.modules.get(error.name or "")
    if taken is None or module is None:
        return ""
    names = [name for name, value in vars(module).items() if name[:1] != "_" and not inspect.ismodule(value)]
    return instead_of(taken[1], names)


def _about_missing(error: ImportError, model: Mapping[str, Any]) -> str:
    statement, module = _imported(error)
    top, package = module.partition(".")[0], model["target"].partition(":")[0].rpartition(".")[0]
    beside = Path(model["root"], *package.split("."))
    lies_beside = os.path.isfile(beside / f"{top}.py") or os.path.isdir(beside / top)
    if package and top != package.partition(".")[0] and lies_beside:
        return f"; it is next to the model's file: import it as {package}.{statement}"
    if (install := model.get("install")) and _is_brought(module, install, model.get("needs") or ()):
        return f"; run: {install}"
    if told := _about_submodule(error, module, model):
        return told
    own = model.get("python")  # an environment of its own
    if line := distributions.required(module, _requirements(model)):
        return (
            f"; it should have been installed with {line}"
            if own
            else f"; run: pip install '{line}', as its requirements say"
        )
    known = distributions.candidates(module)
    if top in IN_TRUSS and not own:
        return "; run: pip install 'model-gateway[truss]', because Truss's image includes it"
    if known and not any(map(distributions.is_installed, known)):
        line = distributions.to_install(module)
        return f"; add {line} to the model's requirements" if own else f"; run: pip install {line}"
    return f"; {_unknown(top, model)}"


def _is_brought(module: str, install: str, needs: Iterable[str]) -> bool:
    """Return whether a plugin's install command brings the module, directly or with a package that it names."""
    top = module.partition(".")[0]
    return top in needs or bool(distributions.required(module, distributions.brought_by(install)))


def _about_submodule(error: ImportError, module: str, model: Mapping[str, Any]) -> str:
    """Return advice if the top-level module exists, so that neither an install nor a file of that name would help."""
    places, top = _places(model), module.partition(".")[0]
    ours = submodules.missing(module, places)
    meant = f"; did you mean {ours.meant}?" if ours and ours.meant else ""
    if (place := next((place for place in places if os.path.isdir(place / top)), None)) is not None:
        return f"; {place / top} has no such module{meant}"
    if ours:
        return f"; {ours.parent} exists but has no module {ours.name}{meant}"
    lack = submodules.missing(module)
    if lack is None:
        return ""
    # A library that imports it did not misspell the name; it was written for another version.
    if lack.meant and _is_of_model(error, places):
        return f"; {lack.parent} exists but has no module {lack.name}; did you mean {lack.meant}?"
    if lack.is_shared or distributions.is_namespace(lack.parent):
        return ""
    if found := distributions.installed(module):
        line = distributions.required(module, _requirements(model))
        asked = f" (its requirements say {line})" if line else ""
        return f"; {found} is installed and has no such module: another version may{asked}"
    return f"; {lack.parent} exists but has no module {lack.name}"


def _is_of_model(error: ImportError, places: list[Path]) -> bool:
    """Return whether the failing statement is in a file of the model."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and any(Path(frames[-1].filename).is_relative_to(place) for place in places)


def _unknown(top: str, model: Mapping[str, Any]) -> str:
    """Return advice for an unknown module: maybe a forgotten file, or a package that we do not know."""
    names = {path.stem for place in _places(model) if place.is_dir() for path in place.iterdir() if _is_code(path)}
    if close := difflib.get_close_matches(top, names, n=1, cutoff=0.8):
        return f"the model has {close[0]}, and no {top}"
    if meant := distributions.did_you_mean(top):
        return meant
    packages = (model.get("config") or {}).get("bundled_packages_dir") or "packages"
    beside = model.get("format") == "python"  # a Truss has its code in a package; files are imported through it
    place = "beside model.py" if beside else f"into {packages}/ of the model"
    return f"if it is your own code, put {top}.py or a directory {top} {place}; {_INSTALL}"


def _is_code(path: Path) -> bool:
    return path.suffix == ".py" or (path.is_dir() and not path.name.startswith((".", "__")))


def _imported(error: ImportError) -> tuple[str, str]:
    """Return the module of the failing statement, and that module with the imported name, which may be a module too.

    The error itself only has the first missing part.
    """
    name = error.name or ""
    taken = _NAME.search(str(error))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        for module, names in _statements(frame):
            if not f"{module}.".startswith(f"{name}.") or (taken and taken[1] not in names):
                continue
            first = taken[1] if taken else names[0] if names else ""
            return module, f"{module}.{first}" if first else module
    return name, f"{name}.{taken[1]}" if taken else name


def _statements(frame: traceback.FrameSummary) -> Iterator[tuple[str, list[str]]]:
    """Yield the imports of the statement at a frame, which may span several lines."""
    first = frame.lineno or 0
    lines = [linecache.getline(frame.filename, number) for number in range(first, (frame.end_lineno or first) + 1)]
    try:
        body = ast.parse(textwrap.dedent("".join(lines)) or frame.line or "").body
    except (SyntaxError, ValueError):
        return
    for node in body:
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, [alias.name for alias in node.names]


def _places(model: Mapping[str, Any]) -> list[Path]:
    return [Path(model["root"]), *map(Path, model.get("import_dirs") or ())]


def _requirements(model: Mapping[str, Any]) -> list[str]:
    config = model.get("config") or {}
    lines = [str(line) for line in config.get("requirements") or []]
    implied = "requirements.txt" if model.get("format") == "python" and not lines else None
    if name := config.get("requirements_file") or implied:
        path = Path(model["root"], str(name))
        try:
            lines += path.read_text("utf-8").splitlines() if path.suffix == ".txt" else []
        except (OSError, UnicodeDecodeError):
            pass
    return lines
