"""A model gateway: many plain Python `Model` classes behind one OpenAI base URL.

What authors of models and plugins import lives here. It stays light: no web framework, no pydantic, no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .archives import peek_archive
    from .cache import cache_dir
    from .callers import Caller
    from .errors import BadRequest, ConfigError, GatewayError, HTTPError
    from .fingerprints import fingerprint
    from .formats.architectures import peek_architecture
    from .formats.config import has_code, peek_config
    from .formats.describe import describe
    from .formats.unserved_chosen import peek_mismatch
    from .hookspecs import hookimpl
    from .ordinary import check_ordinary, opened, parse_json, peek_json
    from .placeholders import placeholder
    from .same_files import distinct
    from .spec import Capabilities, Endpoint, Limits, ModelSpec, Problem, Resources
    from .weights import peek_patterns, peek_weights, weights_path

_WHERE = {
    "hookimpl": "hookspecs",
    "ModelSpec": "spec",
    "Limits": "spec",
    "Resources": "spec",
    "Endpoint": "spec",
    "Problem": "spec",
    "Capabilities": "spec",
    "GatewayError": "errors",
    "BadRequest": "errors",
    "HTTPError": "errors",
    "ConfigError": "errors",
    "cache_dir": "cache",
    "check_ordinary": "ordinary",
    "Caller": "callers",
    "describe": "formats.describe",
    "distinct": "same_files",
    "fingerprint": "fingerprints",
    "has_code": "formats.config",
    "opened": "ordinary",
    "parse_json": "ordinary",
    "peek_architecture": "formats.architectures",
    "peek_archive": "archives",
    "peek_config": "formats.config",
    "peek_json": "ordinary",
    "peek_mismatch": "formats.unserved_chosen",
    "peek_patterns": "weights",
    "peek_weights": "weights",
    "placeholder": "placeholders",
    "weights_path": "weights",
}

__all__ = [
    "BadRequest",
    "Caller",
    "Capabilities",
    "ConfigError",
    "Endpoint",
    "GatewayError",
    "HTTPError",
    "Limits",
    "ModelSpec",
    "Problem",
    "Resources",
    "__version__",
    "cache_dir",
    "check_ordinary",
    "describe",
    "distinct",
    "fingerprint",
    "has_code",
    "hookimpl",
    "opened",
    "parse_json",
    "peek_architecture",
    "peek_archive",
    "peek_config",
    "peek_json",
    "peek_mismatch",
    "peek_patterns",
    "peek_weights",
    "placeholder",
    "weights_path",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'gateway' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
    globals()[name] = value
    return value
