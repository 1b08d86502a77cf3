"""Find likely mistakes in a class, to ask its author about them.

They are methods that no route calls but whose name is similar to a called one, methods that slipped out of the class by
their indentation, and methods without `self`.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...directories.code import missing_self
from ...directories.code.slipped_methods import strays, used
from ...near_names import ANY, CALLED, is_asked_about, near, near_init

LARGEST = 256 * 1024  # characters of a file that is parsed, because time and memory grow with its length


@dataclass(frozen=True, slots=True)
class Asked:
    """A sentence about the class; `meant` is the method that the author probably wanted to write."""

    meant: str
    text: str


def asked(model: Any, endpoint_methods: Collection[str], have: Collection[str]) -> list[Asked]:
    """Return the questions about a model's class. `have` are the methods that are served."""
    cls, known = type(model), {*endpoint_methods, *CALLED}
    text = _text_of(cls)
    own = _own_methods(cls)
    called = used(text[0]) if text is not None and _is_whole(cls) else frozenset((ANY,))
    pairs = [
        (name, meant)
        for name, meant in near(filter(is_asked_about, own), known, have, called)
        if not hasattr(model, meant)
    ]
    if name := near_init({name: _takes_more(function) for name, function in own.items()}, called):
        pairs.append((name, "__init__"))
    found = [
        Asked(meant, f"the class has `{name}`, which nothing calls: did you mean `{meant}`?") for name, meant in pairs
    ]
    return [*found, *_strays(model, text, {*known, "__init__"})]


def cannot_be_called(name: str, function: Any) -> str:
    """Return a sentence, with file and line, about a method without a parameter for `self`; otherwise ""."""
    plain = _plain(function)
    if plain is None or not (told := missing_self.cannot_be_called(name, parameters := _written(plain))):
        return ""
    code = plain.__code__
    return f"{code.co_filename}:{code.co_firstlineno}: {told}: {missing_self.remedy(name, parameters)}"


def without_self(name: str, function: Any) -> str:
    """Return a sentence about a method whose first parameter gets the model instead of an input; otherwise ""."""
    plain = _plain(function)
    if plain is None or not (told := missing_self.is_given_the_model(name, parameters := _written(plain))):
        return ""
    return f"{told}: {missing_self.remedy(name, parameters)}"


def _plain(function: Any) -> Any:
    """Return the function of a method bound to an instance; None for anything else."""
    plain = getattr(function, "__func__", None)
    is_bound = inspect.ismethod(function) and not inspect.isclass(function.__self__)
    return plain if is_bound and inspect.isfunction(plain) else None


def _written(plain: Callable[..., Any]) -> list[str]:
    """Return its parameters as written, without types and defaults."""
    written: list[str] = []
    taken = inspect.signature(plain, follow_wrapped=False).parameters.values()
    for one in taken:
        if one.kind is one.KEYWORD_ONLY and not any(each.startswith("*") for each in written):
            written.append("*")
        stars = "*" if one.kind is one.VAR_POSITIONAL else "**" if one.kind is one.VAR_KEYWORD else ""
        written.append(f"{stars}{one.name}")
    return written


def _own_methods(cls: type) -> Mapping[str, Any]:
    """Return the methods of the class and its bases in the same file.

    Methods of library bases may be called by the library.
    """
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        if base.__module__ == cls.__module__ and base is not object:
            mangled = f"_{base.__name__.lstrip('_')}__"  # `__init` is `_Model__init` there
            for name, value in vars(base).items():
                if inspect.isroutine(value):
                    found.setdefault(f"__{name.removeprefix(mangled)}" if name.startswith(mangled) else name, value)
    return found


def _is_whole(cls: type) -> bool:
    """Return whether all its bases are in its file: a base from elsewhere may call any method."""
    return all(base is object or base.__module__ == cls.__module__ for base in cls.__mro__)


def _takes_more(function: Any) -> bool:
    """Return whether a method has more parameters than `self`."""
    return inspect.isfunction(function) and len(inspect.signature(function).parameters) > 1


def _strays(model: Any, text: tuple[ast.Module, ast.ClassDef] | None, known: Collection[str]) -> Iterator[Asked]:
    file = Path(_file_of(type(model))).name
    for stray in strays(*text, known) if text is not None else ():
        if stray.name == "__init__" or not hasattr(model, stray.name):
            yield Asked(stray.name, f"{file}:{stray.line}: {stray.what}: {stray.fix}")


def _file_of(cls: type) -> str:
    return getattr(sys.modules.get(cls.__module__), "__file__", None) or ""


def _text_of(cls: type) -> tuple[ast.Module, ast.ClassDef] | None:
    """Return the syntax trees of its file and of the class.

    None if the source is missing or too long, or has no such class.
    """
    text = "".join(linecache.getlines(_file_of(cls)))
    if not text or len(text) > LARGEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # already shown by the import
            module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    classes = (each for each in ast.walk(module) if isinstance(each, ast.ClassDef))
    node = next((each for each in classes if each.name == cls.__name__), None)
    return (module, node) if node is not None else None
