"""What a model serves and needs, before it is loaded."""

from __future__ import annotations

from ..devices.claims import to_requests
from ..devices.device import format_size
from ..errors import ConfigError
from ..spec import ModelSpec
from .code.expected_routes import routes_of, source_of

__all__ = ["devices_wanted", "routes_of", "source_of"]


def devices_wanted(spec: ModelSpec) -> str:
    """Return the devices that each replica requests: "cpu", "2 × H100", "1 × GPU, 20GiB of it"."""
    try:
        request = to_requests(spec)[0]
    except ConfigError as error:
        return str(error)
    if not request.count:
        return "cpu"
    share = f"{request.share * 100:g}%" if request.share is not None else ""
    memory = format_size(request.memory) if request.memory is not None else share
    wanted = f"{request.count} × {request.accelerator or 'GPU'}"
    return f"{wanted}, {memory} of {'it' if request.count == 1 else 'each'}" if memory else wanted
