"""Move system messages to where a chat template accepts them.

Clients send system messages anywhere: agents after the user's, others several at the beginning. Some templates refuse
those that are not first, or all of them, or silently omit them. The caller renders the readings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Message = dict[str, Any]
GAP = "\n\n"  # between joined texts


def readings(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """Yield possible readings of the messages, smallest change first; only the original if there is no system text.

    1. unchanged  2. all system text at the beginning  3. all system text in the first user message
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
    """Return the texts of the system messages."""
    told = (message["content"].strip() for message in messages if message["role"] == "system")
    return [text for text in told if text]


def _without_system(messages: Sequence[Message]) -> list[Message]:
    """Return the other messages; join two user messages that are only separated by system messages.

    Many templates require alternating roles.
    """
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
