"""A model gateway: many plain Python `Model` classes behind one OpenAI base URL.

Authors of models and plugins import the names defined here. Importing it is cheap: no web framework, Pydantic or torch.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # not from `typing`: every worker is started by a program that gets by without that import
__version__ = "0.1.0"

if TYPE_CHECKING:
    from typing import Any

    from .access.callers import Caller
    from .devices.device import Device
    from .dialects import events, fields
    from .dialects import single_value as values
    from .dialects.answer import CallOutput, Choice, EventEncoder
    from .dialects.base import (
        ESTIMATED,
        Context,
        Dialect,
        Encoder,
        Headers,
        Prepared,
        Used,
        client_message,
        error_body,
        one_of_n,
    )
    from .dialects.raw import Ending
    from .dialects.single_value import ValueEncoder
    from .directories.config.config import has_code, peek_config, peek_yaml
    from .directories.describe import describe
    from .directories.unserved.architectures import peek_architecture
    from .directories.unserved.chosen_framework import peek_mismatch
    from .directories.weights import peek_patterns, peek_weights, weights_path
    from .errors import BadRequest, ConfigError, GatewayError, HTTPError, InvalidOutput, Unauthorized
    from .files.archives import peek_archive
    from .files.cache import cache_dir
    from .files.fingerprints import fingerprint
    from .files.locks import locked
    from .files.ordinary import check_ordinary, named_file, opened, parse_json, peek_json
    from .files.placeholders import placeholder
    from .files.same_files import distinct
    from .hookspecs import hookimpl
    from .runners.call import Call
    from .runners.question import Question
    from .runners.replica import Launch, LoadError, Replica, Runner
    from .runners.tasks import TaskReplica
    from .spec import END, Batching, Capabilities, Endpoint, Format, Limits, MethodInfo, ModelSpec, Problem, Resources
    from .worker.loading.label_questions import answer_questions, question_text

# The module of each name. It is imported when the name is first used.
_WHERE = {
    "BadRequest": "errors",
    "Batching": "spec",
    "Call": "runners.call",
    "CallOutput": "dialects.answer",
    "Caller": "access.callers",
    "Capabilities": "spec",
    "Choice": "dialects.answer",
    "ConfigError": "errors",
    "Context": "dialects.base",
    "Device": "devices.device",
    "Dialect": "dialects.base",
    "END": "spec",
    "ESTIMATED": "dialects.base",
    "Encoder": "dialects.base",
    "Ending": "dialects.raw",
    "Endpoint": "spec",
    "EventEncoder": "dialects.answer",
    "Format": "spec",
    "GatewayError": "errors",
    "HTTPError": "errors",
    "Headers": "dialects.base",
    "InvalidOutput": "errors",
    "Launch": "runners.replica",
    "Limits": "spec",
    "LoadError": "runners.replica",
    "MethodInfo": "spec",
    "ModelSpec": "spec",
    "Prepared": "dialects.base",
    "Problem": "spec",
    "Question": "runners.question",
    "Replica": "runners.replica",
    "Resources": "spec",
    "Runner": "runners.replica",
    "TaskReplica": "runners.tasks",
    "Unauthorized": "errors",
    "Used": "dialects.base",
    "ValueEncoder": "dialects.single_value",
    "answer_questions": "worker.loading.label_questions",
    "cache_dir": "files.cache",
    "check_ordinary": "files.ordinary",
    "client_message": "dialects.base",
    "describe": "directories.describe",
    "distinct": "files.same_files",
    "error_body": "dialects.base",
    "fingerprint": "files.fingerprints",
    "has_code": "directories.config.config",
    "hookimpl": "hookspecs",
    "locked": "files.locks",
    "named_file": "files.ordinary",
    "one_of_n": "dialects.base",
    "opened": "files.ordinary",
    "parse_json": "files.ordinary",
    "peek_architecture": "directories.unserved.architectures",
    "peek_archive": "files.archives",
    "peek_config": "directories.config.config",
    "peek_json": "files.ordinary",
    "peek_mismatch": "directories.unserved.chosen_framework",
    "peek_patterns": "directories.weights",
    "peek_weights": "directories.weights",
    "peek_yaml": "directories.config.config",
    "placeholder": "files.placeholders",
    "question_text": "worker.loading.label_questions",
    "weights_path": "directories.weights",
}
_MODULES = {"events": "dialects.events", "fields": "dialects.fields", "values": "dialects.single_value"}

__all__ = [
    "END",
    "ESTIMATED",
    "BadRequest",
    "Batching",
    "Call",
    "CallOutput",
    "Caller",
    "Capabilities",
    "Choice",
    "ConfigError",
    "Context",
    "Device",
    "Dialect",
    "Encoder",
    "Ending",
    "Endpoint",
    "EventEncoder",
    "Format",
    "GatewayError",
    "HTTPError",
    "Headers",
    "InvalidOutput",
    "Launch",
    "Limits",
    "LoadError",
    "MethodInfo",
    "ModelSpec",
    "Prepared",
    "Problem",
    "Question",
    "Replica",
    "Resources",
    "Runner",
    "TaskReplica",
    "Unauthorized",
    "Used",
    "ValueEncoder",
    "__version__",
    "answer_questions",
    "cache_dir",
    "check_ordinary",
    "client_message",
    "describe",
    "distinct",
    "error_body",
    "events",
    "fields",
    "fingerprint",
    "has_code",
    "hookimpl",
    "locked",
    "named_file",
    "one_of_n",
    "opened",
    "parse_json",
    "peek_architecture",
    "peek_archive",
    "peek_config",
    "peek_json",
    "peek_mismatch",
    "peek_patterns",
    "peek_weights",
    "peek_yaml",
    "placeholder",
    "question_text",
    "values",
    "weights_path",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = importlib.import_module(f".{_MODULES[name]}", __name__)
    elif name in _WHERE:
        value = getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
    else:
        raise AttributeError(f"module 'gateway' has no attribute {name!r}")
    globals()[name] = value
    return value
