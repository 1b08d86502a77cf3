"""Decide whether a failed load may succeed in a retry, and give advice about missing variables and places."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Iterator
from pathlib import Path

from ...wording import TOML, instead_of, table_of
from .terminal import NoTerminal, has_quit

_LOOKUP = type(os.environ).__getitem__.__code__.co_filename  # `os` is frozen, so it has no real file
_NO_WAY_IN = (errno.ENOENT, errno.EACCES)
# Errors of the code: a retry does not change them.
CODE = (NameError, AttributeError, TypeError, ImportError, SyntaxError, NotImplementedError, NoTerminal)


def may_help(error: BaseException) -> bool:
    """Return whether a retry of a load may succeed: networks and devices recover, code does not."""
    if isinstance(error, CODE) or has_quit(error) or any(file.errno == errno.EROFS for file in _files(error)):
        return False
    return missing_variable(error) is None


def missing_variable(error: BaseException) -> str | None:
    """Return the name in `os.environ[name]`, if that raised the error or its cause."""
    step: BaseException | None = error
    for _ in range(10):
        if step is None:
            break
        frames = traceback.extract_tb(step.__traceback__) if isinstance(step, KeyError) and step.args else None
        if frames and frames[-1].filename == _LOOKUP:
            return str(step.args[0])
        step = step.__cause__
    return None


def about_place(error: BaseException, data_dir: str | Path | None) -> str:
    """Return a clause about a file that cannot be written at its place, or is not found at a relative path."""
    for file in _files(error):
        path = os.path.abspath(os.fsdecode(file.filename))
        is_data = _is_below(path, data_dir)
        if file.errno == errno.EROFS or (is_data and file.errno in _NO_WAY_IN):
            kept = f" ({data_dir} is the model's data_dir)" if is_data else ""
            return (
                f"; {path} is where nothing can be written{kept}: write what need not stay below"
                " tempfile.gettempdir(), the rest below a directory on a volume"
            )
        if file.errno == errno.ENOENT and not os.path.isabs(os.fsdecode(file.filename)):
            return f"; it was looked for as {path}{instead_of(os.path.basename(path), _names(os.path.dirname(path)))}"
    return ""


def _names(directory: str) -> list[str]:
    """Return the names in a directory, without hidden ones."""
    try:
        return [name for name in os.listdir(directory) if not name.startswith((".", "__"))]
    except OSError:
        return []


def _files(error: BaseException) -> Iterator[OSError]:
    """Yield the file errors among the error, its causes and its contexts."""
    step: BaseException | None = error
    for _ in range(10):
        if step is None:
            return
        if isinstance(step, OSError) and isinstance(step.filename, (str, bytes)):
            yield step
        step = step.__cause__ or step.__context__


def _is_below(path: str, data_dir: str | Path | None) -> bool:
    """Return whether the path is in the model's data directory and that is not writable."""
    if data_dir is None or not Path(path).is_relative_to(data_dir):
        return False
    there = next(place for place in (Path(data_dir), *Path(data_dir).parents) if place.exists())
    return not os.access(there, os.W_OK)


def about_variable(name: str, model: str) -> str:
    """Return a clause to append to the error's text."""
    where = table_of(model, "environment")
    return (
        f"; models do not inherit the environment of the gateway: set {name} under environment_variables in the model's"
        f" config.yaml, or under {where} in {TOML}, or make it a secret and read secrets['{name}']"
    )


def about_secret(name: str, is_declared: bool) -> str:
    """Return a clause that says how to give a secret its value."""
    first = "" if is_declared else f"write `{name}: null` below `secrets:` in config.yaml, and "
    return (
        f"; here {first}put its value into a file called {name} in the directory of"
        f' `[gateway] secrets_dir = "…"` in {TOML}'
        f", and the model is reloaded within half a minute; or set GATEWAY_SECRET_{name.upper()} and start the"
        " gateway again"
    )
