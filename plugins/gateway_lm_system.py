"""What the system says, in the place where a chat template takes it.

Clients put messages of the system anywhere: agents behind the user's, others several at the beginning. Templates refuse
those that do not stand first, or all of them, or leave them out without a word. Rendering is left to the caller.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Message = dict[str, Any]
GAP = "\n\n"  # between texts that become one


def readings(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """The messages as they may be read, what changes least first: the same when the system says nothing in them.

    1. as they are  2. all that the system says at the beginning  3. the same within the first message of the user
    """
    yield list(messages)
    told = GAP.join(texts(messages))
    if not told:
        return
    rest = _without_system(messages)
    if messages[0]["role"] != "system" or any(message["role"] == "system" for message in messages[1:]):
        yield [{"role": "system", "content": told}, *rest]
    at = next((index for index, message in enumerate(rest) if message["role"] == "user"), None)
    if at is None:
        yield [{"role": "user", "content": told}, *rest]
    else:
        asked = {**rest[at], "content": f"{told}{GAP}{rest[at]['content']}"}
        yield [*rest[:at], asked, *rest[at + 1 :]]


def texts(messages: Sequence[Message]) -> list[str]:
    """What the system says in them."""
    told = (message["content"].strip() for message in messages if message["role"] == "system")
    return [text for text in told if text]


def _without_system(messages: Sequence[Message]) -> list[Message]:
    """The others. Two of the user between which only the system spoke are one: roles have to alternate for many."""
    kept: list[Message] = []
    is_behind_system = False
    for message in messages:
        if message["role"] == "system":
            is_behind_system = True
            continue
        if is_behind_system and kept and kept[-1]["role"] == message["role"] == "user":
            kept[-1] = {**kept[-1], "content": f"{kept[-1]['content']}{GAP}{message['content']}"}
        else:
            kept.append(message)
        is_behind_system = False
    return kept
