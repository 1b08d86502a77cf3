"""Read JSON text that a model wrote: an event, the arguments of a tool, the fields of an instance.

It is not weighed by its frame, in which it is one text. Whether it is valid is for those who read it.
"""

from __future__ import annotations

from typing import Any

from .. import json_costs
from ..errors import InvalidOutput


def read(text: bytes | str, most: int = json_costs.MOST) -> Any:
    """Return the value of a text that costs at most so much.

    Raises:
        InvalidOutput: it would take too long to read.
        msgspec.DecodeError, RecursionError: it is not valid.
    """
    try:
        return json_costs.read(text, most)
    except json_costs.TooDear as error:
        raise InvalidOutput(f"JSON of {len(text)} characters in the model's answer {error}") from None
