"""Numbers, types, tables and other names within a sentence: "1 call", "an int", `[models."a/b"]`, "did you mean x?"."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

TOML = "gateway.toml (read at the start, at SIGHUP, and with --reload when it changes)"  # where advice names it
TABLE = "[models.NAME"  # how advice is written where the id of the model is not known

# Spelt out letter by letter, these begin with a vowel: "an HTTPError", "an NDArray".
_SPOKEN_WITH_A_VOWEL = frozenset("AEFHILMNORSX")
_SPOKEN_WITH_A_CONSONANT = ("uni", "use", "usa", "uti", "uint", "uuid", "uri", "url", "ufunc", "eu", "one")

MOST_NAMES = 10
MOST_SAID = 2000  # characters of what is said of a fault
MOST_LOOKED_AT = 1000  # names of which a near one is looked for: more take too long for whoever waits for the answer


def counted(number: int, noun: str, plural: str = "") -> str:
    """ "1 call", "2 calls"; `plural` is for nouns that do more than take an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def in_state(state: str) -> str:
    """The state of a model as the rest of a sentence about it: "is loading", "failed"."""
    return state if state == "failed" else f"is {state}"


def with_article(name: str) -> str:
    """A name, such as that of a type, after "a" or "an" as it is spoken."""
    plain = name.lstrip("_")
    if len(plain) > 1 and plain[:2].isupper():
        is_vowel = plain[0] in _SPOKEN_WITH_A_VOWEL
    else:
        low = plain.lower()
        is_vowel = low.startswith(("a", "e", "i", "o", "u", "nd")) and not low.startswith(_SPOKEN_WITH_A_CONSONANT)
    return f"{'an' if is_vowel else 'a'} {name}"


def instead_of(name: str, have: Iterable[str]) -> str:
    """What there is in place of a name that is not: " (did you mean X?)", " (have: X, Y)"; nothing of many others."""
    names = sorted(have)
    if len(names) > MOST_LOOKED_AT:
        return ""
    if close := difflib.get_close_matches(name, names, n=1, cutoff=0.7):
        return f" (did you mean {close[0]}?)"
    return f" (have: {', '.join(names)})" if 0 < len(names) <= MOST_NAMES else ""


def few(names: Sequence[str], most: int = 3) -> str:
    """The first names of a list, and how many there are behind them."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def beginning(text: str) -> str:
    """The text; of one that is longer than anybody reads, the beginning and how long it is."""
    return text if len(text) <= MOST_SAID else f"{text[:MOST_SAID]}… ({len(text)} characters)"


def listed(names: Iterable[object]) -> str:
    """Names that somebody else made up, the first of them; they need not be texts."""
    known = sorted(map(str, names))
    return ", ".join([*known[:MOST_NAMES], *("…" for _ in known[MOST_NAMES : MOST_NAMES + 1])])


def ungiven(method: str, needed: Iterable[str], offered: Iterable[str]) -> str:
    """What is wrong with a method whose arguments nobody has."""
    given = ", ".join(offered)
    return f"`{method}` needs {', '.join(needed)}, which nobody gives" + (f"; there are {given}" if given else "")


def whole_body(names: Iterable[str]) -> str:
    """What to write in place of a method that takes the keys of its input one by one."""
    *keys, last = (f'inputs["{name}"]' for name in names)
    return f"the body arrives whole, as the first: take one `inputs`, and of that {', '.join(keys)} and {last}"


def path_of(steps: Iterable[str | int]) -> str:
    """Where a value is in another: "$.rows[3].image"."""
    parts = [
        f"[{step}]" if isinstance(step, int) else f".{step}" if step.isidentifier() else f"[{step!r}]" for step in steps
    ]
    return "".join(("$", *parts))


def a_type(value: object) -> str:
    """What a value is: "an int", "a str", "None"."""
    return "None" if value is None else with_article(type(value).__name__)


def table_of(model: str, part: str = "") -> str:
    """The head of the table of a model in gateway.toml, or of a part of it: the id as TOML takes it."""
    name = model if re.fullmatch(r"[A-Za-z0-9_-]+", model) else f'"{model}"'
    return f"[models.{name}.{part}]" if part else f"[models.{name}]"


def unexpected(error: Exception) -> str:
    """What to say of an exception that nobody expected. Its text, which may quote what was read, is for the log."""
    reason = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
    return f"{type(error).__name__}{reason}; the log has the traceback"


def addressed(text: str, model: str | None) -> str:
    """Advice about the table of a model, with its id, and with what makes it count: those who give it may know no more
    than a directory's name."""
    if model is None or TABLE not in text:
        return text
    return text.replace(TABLE, table_of(model)[:-1]).replace("gateway.toml", TOML, 1)


def shorten(path: str) -> str:
    """Return a path, or a text that begins with one, as people would type it from here."""
    return path.removeprefix(f"{Path.cwd()}/")
