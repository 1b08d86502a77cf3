"""Encode the capabilities that are reported to the gateway."""

from __future__ import annotations

from dataclasses import replace

from ...spec import Capabilities
from ...wire import frames, plain
from ...wire.values import WireError, decode_weighed, encode
from ..bodies.failures import say


def encoded(found: Capabilities) -> bytes:
    """Encode the capabilities for the gateway.

    If that fails, or the gateway would reject them, schemas and the model's own fields are left out: a model can serve
    without them. A Pydantic schema may contain numbers of any size, and a class's own schema anything.
    """
    try:
        payload = encode(plain.from_capabilities(found))
        if len(payload) > frames.MAX_FRAME:
            raise WireError(f"{len(payload)} bytes, at most {frames.MAX_FRAME} can be told")
        plain.to_capabilities(decode_weighed(payload))
        return payload
    except Exception as error:
        say(f"the schemas of predict are not reported to the gateway: {error}")
        bare = replace(found, input_schema=None, output_schema=None, asked={}, extra={})
        return encode(plain.from_capabilities(bare))
