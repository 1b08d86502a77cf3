"""Whether a load that failed may go well another time, and what to say of a variable that no try will find."""

from __future__ import annotations

import os
import traceback

from ..wording import table_of
from .terminal import NoTerminal

_LOOKUP = type(os.environ).__getitem__.__code__.co_filename  # os is frozen, so that its file is none
# Of the code, not of the world: what is misspelt, missing or of another type stays so.
CODE = (NameError, AttributeError, TypeError, ImportError, SyntaxError, NotImplementedError, NoTerminal)


def may_help(error: BaseException) -> bool:
    """Whether another try of a load may end otherwise: networks and devices recover, code does not."""
    return not isinstance(error, CODE) and missing_variable(error) is None


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


def about_variable(name: str, model: str) -> str:
    """A clause to put behind the text of the error."""
    where = table_of(model, "environment")
    return (
        f"; models do not inherit the environment of the gateway: set {name} under {where} in gateway.toml, or in"
        f" environment_variables of config.yaml, or make it a secret and read secrets['{name}']"
    )
