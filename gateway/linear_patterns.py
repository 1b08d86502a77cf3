"""Search strings for the `pattern` of a JSON schema, in time that grows with the string, whatever the pattern is.

Python's `re` backtracks and holds the interpreter's lock meanwhile: a string of 80 kB can take seconds, and with some
patterns 40 characters take hours. The engine used here is the one of Pydantic, Rust's crate `regex`, which is linear in
the string. It has no lookarounds and no backreferences, see https://docs.rs/regex/latest/regex/#syntax.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache


@lru_cache(maxsize=256)
def linear(pattern: str) -> Callable[[str], bool]:
    """Return a function that tells whether a string contains a match.

    Raises:
        ValueError: the pattern is invalid or too large, or has a lookaround or a backreference.
    """
    from pydantic_core import SchemaError, SchemaValidator, core_schema

    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex")).isinstance_python
    except SchemaError as error:
        why = str(error).strip().splitlines()[-1].removeprefix("error: ").removeprefix("SchemaError: ")
        raise ValueError(f"pattern {pattern[:100]!r}: {why}") from None
