"""What asks for a terminal: `breakpoint()`, `input()`, debuggers, consoles.

A worker has none, and whoever reads its stdin would find the end of it without a word. So the place is said, and the
command that runs the model where there is one. What looks whether there is input and goes on without finds what it
always did: the error is an EOFError. Under `gateway run` there is one, and a debugger for what raises where that is
wanted.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn


class NoTerminal(EOFError):
    """Somebody was to be asked, and nobody is there."""


is_there = False
_refused = ""  # what was said last
_examines = False  # what the model raises is looked at in a debugger


def begin(model: str) -> None:
    """Find out whether there is one. It is called before any code of the model."""
    global is_there, _examines
    given = os.environ.pop("GW_TERMINAL", "")  # of gateway/runners/child.py
    is_there, _examines = bool(given), given == "pdb"
    if not given:
        refuse(model)


def examine(error: BaseException, root: Path) -> None:
    """Open a debugger where the model raised, at the deepest of its own frames, if that was asked for."""
    if not _examines or error.__traceback__ is None:
        return
    import pdb

    if has_quit(error):  # out of one that was there already
        return

    class AtTheModel(pdb.Pdb):
        def get_stack(self, frame: Any, trace: Any) -> Any:
            stack, last = super().get_stack(frame, trace)
            of_model = [at for at, (one, _) in enumerate(stack) if one.f_code.co_filename.startswith(f"{root}{os.sep}")]
            return stack, (of_model or [last])[-1]

    debugger = AtTheModel()
    debugger.reset()
    debugger.interaction(None, error.__traceback__)


def has_quit(error: BaseException) -> bool:
    """Whether a debugger was left, as one is that finds no terminal."""
    bdb = sys.modules.get("bdb")
    return bdb is not None and isinstance(error, bdb.BdbQuit)


def about_quit() -> str:
    """Why a debugger was left, for its error has no text; empty where there was a terminal."""
    return _refused


def refuse(model: str) -> None:
    """From now on, in this process and in those that it forks."""
    root = str(Path.cwd())
    sys.stdin = _NoInput(model, root)
    usual = sys.breakpointhook

    def stop(*args: Any, **more: Any) -> Any:
        if os.environ.get("PYTHONBREAKPOINT"):  # set for this model, to what needs no terminal
            return usual(*args, **more)
        _fail("breakpoint()", model, root)

    sys.breakpointhook = stop


def _fail(what: str, model: str, root: str) -> NoReturn:
    global _refused
    text = f"{what} in {_place(root)} needs a terminal, which a worker has not; this runs the model in one:"
    text += f" gateway run {shlex.quote(model)}{_found_in(model, root)}"
    _refused = text
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)  # what catches an EOFError, as pdb does, says nothing
    raise NoTerminal(text)


def _found_in(model: str, root: str) -> str:
    """The option that finds the model wherever the command is run; none for one that its settings alone name."""
    above = root.removesuffix(f"{os.sep}{model}")
    return f" --models {shlex.quote(above)}" if above not in ("", root) else ""


def _place(root: str) -> str:
    """The line of the model that asks; else that which asked us."""
    first: FrameType | None = sys._getframe(3)
    frame = first
    while frame is not None and not frame.f_code.co_filename.startswith(f"{root}{os.sep}"):
        frame = frame.f_back
    frame = frame or first
    assert frame is not None
    return f"{frame.f_code.co_filename.removeprefix(f'{root}{os.sep}')}, line {frame.f_lineno}"


class _NoInput(io.TextIOWrapper):
    """A stdin of nothing: as /dev/null, but for those who read text, as people write it."""

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
