"""Whether a load that failed may go well another time, and what to say of variables and places that no try finds."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Iterator
from pathlib import Path

from ..wording import TOML, instead_of, table_of
from .terminal import NoTerminal, has_quit

_LOOKUP = type(os.environ).__getitem__.__code__.co_filename  # os is frozen, so that its file is none
_NO_WAY_IN = (errno.ENOENT, errno.EACCES)
# Of the code, not of the world: what is misspelt, missing or of another type stays so.
CODE = (NameError, AttributeError, TypeError, ImportError, SyntaxError, NotImplementedError, NoTerminal)


def may_help(error: BaseException) -> bool:
    """Whether another try of a load may end otherwise: networks and devices recover, code does not."""
    if isinstance(error, CODE) or has_quit(error) or any(file.errno == errno.EROFS for file in _files(error)):
        return False
    return missing_variable(error) is None


def missing_variable(error: BaseException) -> str | None:
    """The name in `os.environ[name]` when that is what failed, or what the error was raised from."""
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
    """A clause about a file that cannot be written where the code wants it, or is not where a relative path leads."""
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
    """What is in a directory, but for what no model looks for."""
    try:
        return [name for name in os.listdir(directory) if not name.startswith((".", "__"))]
    except OSError:
        return []


def _files(error: BaseException) -> Iterator[OSError]:
    """Of an error and what it was raised from or behind, those about a file."""
    step: BaseException | None = error
    for _ in range(10):
        if step is None:
            return
        if isinstance(step, OSError) and isinstance(step.filename, (str, bytes)):
            yield step
        step = step.__cause__ or step.__context__


def _is_below(path: str, data_dir: str | Path | None) -> bool:
    """Whether it is in the model's data directory, and that cannot be written to."""
    if data_dir is None or not Path(path).is_relative_to(data_dir):
        return False
    there = next(place for place in (Path(data_dir), *Path(data_dir).parents) if place.exists())
    return not os.access(there, os.W_OK)


def about_variable(name: str, model: str) -> str:
    """A clause to put behind the text of the error."""
    where = table_of(model, "environment")
    return (
        f"; models do not inherit the environment of the gateway: set {name} under environment_variables in the model's"
        f" config.yaml, or under {where} in {TOML}, or make it a secret and read secrets['{name}']"
    )


def about_secret(name: str, is_declared: bool) -> str:
    """The same for a secret: where its value may come from."""
    first = "" if is_declared else f"write `{name}: null` below `secrets:` in config.yaml, and "
    return (
        f"; here {first}put its value into a file called {name} in the directory of"
        f' `[gateway] secrets_dir = "…"` in {TOML}'
        f", and the model is loaded anew within half a minute; or set GATEWAY_SECRET_{name.upper()} and start the"
        " gateway again"
    )
