"""Methods whose author left `self` out, by their parameters as they are written.

Values only: from the text of a class or from the class itself, `["inputs", "*args", "**kwargs"]`.
"""

from __future__ import annotations

from collections.abc import Sequence

SELF = ("self", "this", "me", "_", "__self__")  # what authors call the model itself
# The first of several parameters, or the one of a method that is given none, may be the model by another name.
GIVEN = frozenset(
    "config data_dir secrets environment lazy_data_resolver inputs input data body request messages payload "
    "model_input result results output outputs websocket".split()
)
GIVEN_NOTHING = frozenset(("__init__", "load", "unload", "is_healthy", "setup_environment"))


def cannot_be_called(name: str, parameters: Sequence[str]) -> str:
    """What is wrong with a method that has no place for the model, so that every call of it fails; else empty."""
    if parameters and parameters[0] != "*" and not parameters[0].startswith("**"):
        return ""
    return f"`{name}({', '.join(parameters)})` has no self, so it cannot be called"


def is_given_the_model(name: str, parameters: Sequence[str]) -> str:
    """What is wrong with a method whose first parameter is the model, though its author meant another; else empty."""
    first = parameters[0] if parameters else "*"
    if first.startswith("*") or first in SELF:
        return ""
    if first not in GIVEN and (len(parameters) > 1 or name in GIVEN_NOTHING):
        return ""
    return f"`{name}({', '.join(parameters)})` has no self, so {first} is the model itself" + (
        "" if name in GIVEN_NOTHING else " and not what was sent"
    )


def remedy(name: str, parameters: Sequence[str]) -> str:
    """How it is written; what is called with the body takes that."""
    if name not in GIVEN_NOTHING and (not parameters or parameters[0].startswith("**")):
        parameters = ["websocket" if name == "websocket" else "inputs"]
    return f"write `{name}({', '.join(['self', *parameters])})`"
