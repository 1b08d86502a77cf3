"""Any legal body of a request, drawn from the parameter types of the official SDK."""

from __future__ import annotations

import collections.abc
import types
from typing import Any, Literal, NotRequired, Required, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

LISTS = (list, collections.abc.Iterable, collections.abc.Sequence)
words = st.text("abc é", max_size=5)
values: dict[Any, st.SearchStrategy[Any]] = {
    str: words,
    int: st.integers(0, 20),
    float: st.floats(-2, 2) | st.integers(0, 2),
    bool: st.booleans(),
    object: st.none() | words | st.integers() | st.lists(words, max_size=2),
    Any: st.none() | words,
    type(None): st.none(),
}


def bodies(params: Any, fixed: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Dicts that the TypedDict allows. `fixed` are fields of which the types say less than the protocol."""
    hints = get_type_hints(params, include_extras=True)
    needed = {name for name, hint in hints.items() if get_origin(hint) is Required}
    fields = {name: fixed[name] if name in fixed else drawn_from(hint) for name, hint in hints.items()}
    return st.fixed_dictionaries(
        {name: field for name, field in fields.items() if name in needed},
        optional={name: field for name, field in fields.items() if name not in needed},
    )


def drawn_from(hint: Any) -> st.SearchStrategy[Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Required, NotRequired):
        return drawn_from(arguments[0])
    if origin in (Union, types.UnionType):
        return st.one_of([drawn_from(argument) for argument in arguments])
    if origin is Literal:
        return st.sampled_from(arguments)
    if hasattr(hint, "__required_keys__"):  # a TypedDict, of typing or typing_extensions
        return bodies(hint, {})
    if origin is dict:
        return st.dictionaries(words, drawn_from(arguments[1]), max_size=2)
    if origin in LISTS or getattr(origin, "__name__", "") == "SequenceNotStr":
        return st.lists(drawn_from(arguments[0]), max_size=2)
    return values[hint]
