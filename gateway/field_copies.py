"""Bound how often the fields of one request are copied: each of its texts, prompts and choices gets all of them."""

from __future__ import annotations

from .errors import TooLarge

MOST_COPIES = 1 << 18  # each takes up to 50 bytes in a dict; as many as 10000 texts have with 26 fields


def check_copies(fields: int, copies: int, what: str) -> None:
    """Refuse a request with this many fields for each of its parts, before it is divided into them.

    One copy is never refused: it is no larger than the request. `what` names the parts.

    Raises:
        TooLarge: together they have more than `MOST_COPIES`.
    """
    if copies > 1 and fields * copies > MOST_COPIES:
        raise TooLarge(
            f"this request has {fields} fields for each of its {copies} {what}, together more than {MOST_COPIES}; "
            f"leave out fields that the model does not need, or send fewer {what} at once"
        )
