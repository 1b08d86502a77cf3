"""Handle code that asks for a terminal: `breakpoint()`, `input()`, debuggers, consoles.

A worker has no terminal, so reading stdin would silently find the end of file. Instead, an error names the place, and
the command that runs the model in a terminal. It is an EOFError, so code that handles missing input works as before.
Under `gateway run` there is a terminal, and optionally a debugger for exceptions.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from ...spec import ModelSpec


class NoTerminal(EOFError):
    """Code asked for input, but there is no terminal."""


is_there = False
_refused = ""  # the last message
_examines = False  # exceptions of the model open a debugger


def begin(model: str) -> None:
    """Find out whether there is a terminal. Call it before any code of the model runs."""
    global is_there, _examines
    given = os.environ.pop("GW_TERMINAL", "")  # set by gateway/runners/spawn.py
    is_there, _examines = bool(given), given == "pdb"
    if not given:
        refuse(model)


def examine(error: BaseException, spec: ModelSpec) -> None:
    """Open a debugger at the deepest of the model's own frames, if that was requested."""
    if not _examines or error.__traceback__ is None:
        return
    import pdb

    if has_quit(error):  # a debugger was already open
        return

    class AtTheModel(pdb.Pdb):
        def get_stack(self, frame: Any, trace: Any) -> Any:
            stack, last = super().get_stack(frame, trace)
            of_model = [
                at for at, (one, _) in enumerate(stack) if one.f_code.co_filename.startswith(f"{spec.root}{os.sep}")
            ]
            return stack, (of_model or [last])[-1]

    # It would run the .pdbrc in the working directory, which is the model's: of one that is only data nothing runs.
    debugger = AtTheModel(readrc=spec.own_code)
    debugger.reset()
    debugger.interaction(None, error.__traceback__)


def has_quit(error: BaseException) -> bool:
    """Return whether a debugger was quit, which also happens to one without a terminal."""
    bdb = sys.modules.get("bdb")
    return bdb is not None and isinstance(error, bdb.BdbQuit)


def about_quit() -> str:
    """Return why a debugger was quit, because its error has no text; "" if there was a terminal."""
    return _refused


def refuse(model: str) -> None:
    """Refuse terminal input from now on, in this process and in processes that it forks."""
    root = str(Path.cwd())
    sys.stdin = _NoInput(model, root)
    usual = sys.breakpointhook

    def stop(*args: Any, **more: Any) -> Any:
        if os.environ.get("PYTHONBREAKPOINT"):  # the model uses a hook that needs no terminal
            return usual(*args, **more)
        _fail("breakpoint()", model, root)

    sys.breakpointhook = stop


def _fail(what: str, model: str, root: str) -> NoReturn:
    global _refused
    text = f"{what} in {_place(root)} needs a terminal, which a worker does not have; this runs the model in one:"
    text += f" gateway run {shlex.quote(model)}{_found_in(model, root)}"
    _refused = text
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)  # code that catches EOFError, like pdb, prints nothing
    raise NoTerminal(text)


def _found_in(model: str, root: str) -> str:
    """Return the option that finds the model from any working directory; "" if only the settings name its directory."""
    above = root.removesuffix(f"{os.sep}{model}")
    return f" --models {shlex.quote(above)}" if above not in ("", root) else ""


def _place(root: str) -> str:
    """Return the line of the model that asks; otherwise the line that called us."""
    first: FrameType | None = sys._getframe(3)
    frame = first
    while frame is not None and not frame.f_code.co_filename.startswith(f"{root}{os.sep}"):
        frame = frame.f_back
    frame = frame or first
    assert frame is not None
    return f"{frame.f_code.co_filename.removeprefix(f'{root}{os.sep}')}, line {frame.f_lineno}"


class _NoInput(io.TextIOWrapper):
    """An empty stdin like /dev/null; reading text raises NoTerminal."""

    def __init__(self, model: str, root: str) -> None:
        super().__init__(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
        self._model, self._root = model, root

    def read(self, size: int | None = -1, /) -> str:
        _fail("reading stdin", self._model, self._root)

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        _fail("input()", self._model, self._root)

    def readlines(self, hint: int = -1, /) -> list[str]:  # type: ignore[override]
        _fail("reading stdin", self._model, self._root)

    def __next__(self) -> str:  # type: ignore[override]
        _fail("reading stdin", self._model, self._root)
