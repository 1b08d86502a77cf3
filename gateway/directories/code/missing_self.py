"""Detect methods without `self` by the names of their parameters.

Values only, taken from the source of a class or from the class itself: `["inputs", "*args", "**kwargs"]`.
"""

from __future__ import annotations

from collections.abc import Sequence

SELF = ("self", "this", "me", "_", "__self__")  # names that authors use for the model itself
# If it is not one of these names, the first of several parameters, or the only one of a method without arguments, may
# be the model under another name.
GIVEN = frozenset(
    "config data_dir secrets environment lazy_data_resolver inputs input data body request messages payload "
    "model_input result results output outputs websocket".split()
)
GIVEN_NOTHING = frozenset(("__init__", "load", "unload", "is_healthy", "setup_environment"))


def cannot_be_called(name: str, parameters: Sequence[str]) -> str:
    """Return what is wrong with a method without a parameter for the model, whose calls all fail; "" if it is fine."""
    if parameters and parameters[0] != "*" and not parameters[0].startswith("**"):
        return ""
    return f"`{name}({', '.join(parameters)})` has no self, so it cannot be called"


def is_given_the_model(name: str, parameters: Sequence[str]) -> str:
    """Return what is wrong with a method whose first parameter gets the model, but was meant for something else."""
    first = parameters[0] if parameters else "*"
    if first.startswith("*") or first in SELF:
        return ""
    if first not in GIVEN and (len(parameters) > 1 or name in GIVEN_NOTHING):
        return ""
    return f"`{name}({', '.join(parameters)})` has no self, so {first} is the model itself" + (
        "" if name in GIVEN_NOTHING else " and not the input"
    )


def remedy(name: str, parameters: Sequence[str]) -> str:
    """Return the correct signature. A method that is called with the body gets a parameter for it."""
    if name not in GIVEN_NOTHING and (not parameters or parameters[0].startswith("**")):
        parameters = ["websocket" if name == "websocket" else "inputs"]
    return f"write `{name}({', '.join(['self', *parameters])})`"
