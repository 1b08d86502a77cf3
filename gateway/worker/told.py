"""What the gateway is told that a model can do."""

from __future__ import annotations

from dataclasses import replace

from .. import plain, wire
from ..spec import Capabilities
from .failures import say


def encoded(found: Capabilities) -> bytes:
    """It, without the schemas and the rest of its own where they cannot be told or would not be taken.

    A model serves without them. A schema of Pydantic may hold numbers of any size, and one of a class anything.
    """
    try:
        payload = wire.encode(plain.from_capabilities(found))
        if len(payload) > wire.MAX_FRAME:
            raise wire.WireError(f"{len(payload)} bytes, at most {wire.MAX_FRAME} can be told")
        plain.to_capabilities(wire.decode_weighed(payload))
        return payload
    except Exception as error:
        say(f"the schemas of predict are left out of what the gateway is told: {error}")
        bare = replace(found, input_schema=None, output_schema=None, asked={}, extra={})
        return wire.encode(plain.from_capabilities(bare))
