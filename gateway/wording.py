"""Format numbers, types, tables and names in a sentence: "1 call", "an int", `[models."a/b"]`, "did you mean x?"."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

TOML = "gateway.toml (read at the start, at SIGHUP, and with --reload when it changes)"  # as advice names the file
TABLE = "[models.NAME"  # as advice names the table when the model id is not known

# Names that are spelt out and begin with a vowel sound: "an HTTPError", "an NDArray".
_SPOKEN_WITH_A_VOWEL = frozenset("AEFHILMNORSX")
_SPOKEN_WITH_A_CONSONANT = ("uni", "use", "usa", "uti", "uint", "uuid", "uri", "url", "ufunc", "eu", "one")

MOST_NAMES = 10
MOST_SAID = 2000  # characters of an error message
MOST_LOOKED_AT = 1000  # names to compare for a suggestion: more would delay the answer


def counted(number: int, noun: str, plural: str = "") -> str:
    """ "1 call", "2 calls"; `plural` is for nouns that do not just take an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def in_state(state: str) -> str:
    """Return a model's state as the rest of a sentence: "is loading", "failed"."""
    return state if state == "failed" else f"is {state}"


def with_article(name: str) -> str:
    """Return a name, such as a type's, with "a" or "an" according to its pronunciation."""
    plain = name.lstrip("_")
    if len(plain) > 1 and plain[:2].isupper():
        is_vowel = plain[0] in _SPOKEN_WITH_A_VOWEL
    else:
        low = plain.lower()
        is_vowel = low.startswith(("a", "e", "i", "o", "u", "nd")) and not low.startswith(_SPOKEN_WITH_A_CONSONANT)
    return f"{'an' if is_vowel else 'a'} {name}"


def instead_of(name: str, have: Iterable[str]) -> str:
    """Suggest existing names for an unknown one: " (did you mean X?)", " (have: X, Y)"; "" if there are too many."""
    names = sorted(have)
    if len(names) > MOST_LOOKED_AT:
        return ""
    if close := difflib.get_close_matches(name, names, n=1, cutoff=0.7):
        return f" (did you mean {close[0]}?)"
    return f" (have: {', '.join(names)})" if 0 < len(names) <= MOST_NAMES else ""


def few(names: Sequence[str], most: int = 3) -> str:
    """Return the first names of a list, and the number of the others."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def beginning(text: str) -> str:
    """Return the text; if it is very long, its beginning and its length."""
    return text if len(text) <= MOST_SAID else f"{text[:MOST_SAID]}… ({len(text)} characters)"


def listed(names: Iterable[object]) -> str:
    """Return the first names of a collection from outside the gateway, sorted. They need not be strings."""
    known = sorted(map(str, names))
    return ", ".join([*known[:MOST_NAMES], *("…" for _ in known[MOST_NAMES : MOST_NAMES + 1])])


def ungiven(method: str, needed: Iterable[str], offered: Iterable[str]) -> str:
    """Say that a method requires arguments that the gateway does not pass."""
    given = ", ".join(offered)
    return f"`{method}` needs {', '.join(needed)}, which nobody gives" + (f"; there are {given}" if given else "")


def whole_body(names: Iterable[str]) -> str:
    """Return advice for a method that takes the keys of its input one by one."""
    *keys, last = (f'inputs["{name}"]' for name in names)
    return f"the body arrives whole, as the first: take one `inputs`, and of that {', '.join(keys)} and {last}"


def path_of(steps: Iterable[str | int]) -> str:
    """Return the path of a value inside another: "$.rows[3].image"."""
    parts = [
        f"[{step}]" if isinstance(step, int) else f".{step}" if step.isidentifier() else f"[{step!r}]" for step in steps
    ]
    return "".join(("$", *parts))


def a_type(value: object) -> str:
    """Return what a value is: "an int", "a str", "None"."""
    return "None" if value is None else with_article(type(value).__name__)


def table_of(model: str, part: str = "") -> str:
    """Return the header of a model's table in gateway.toml, or of a part of it. The id is quoted if TOML needs it."""
    name = model if re.fullmatch(r"[A-Za-z0-9_-]+", model) else f'"{model}"'
    return f"[models.{name}.{part}]" if part else f"[models.{name}]"


def unexpected(error: Exception) -> str:
    """Describe an unexpected exception. Its text may quote user data, so it only goes to the log."""
    reason = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
    return f"{type(error).__name__}{reason}{'; the log has the traceback' if traceback_of(error) else ''}"


def traceback_of(error: Exception) -> Exception | None:
    """Return the exception for the log; None for a path that no system call accepts.

    The text of such an exception is only the path, which may be very long.
    """
    return None if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP) else error


def addressed(text: str, model: str | None) -> str:
    """Put the model's id into advice about its table, and say when the file is read.

    The code that gives the advice may only know a directory's name.
    """
    if model is None or TABLE not in text:
        return text
    return text.replace(TABLE, table_of(model)[:-1]).replace("gateway.toml", TOML, 1)


def shorten(path: str) -> str:
    """Return a path, or a text that begins with one, relative to the current directory."""
    return path.removeprefix(f"{Path.cwd()}/")
