"""Rules of config.yaml that involve several keys, and rules for single keys beyond their type."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from ...files.integrity import DEEPEST
from ...settings.kinds import LARGEST_BATCH
from .report import Report
from .schema import ACCELERATORS, AUTH_METHODS, OTHER_SERVERS
from .values import ACCELERATOR, CPU, MEMORY

ONE_WORKER = "num_workers must be 1: a model is one process per replica"
RESERVED_VARIABLES = ("PORT", "HOSTNAME")
INSIDE = ("data_dir", "bundled_packages_dir", "requirements_file", "model_module_dir")  # inside the model directory
MOST_WEIGHTS = 100  # entries
LONGEST_PATH = 4096  # characters; Linux allows no longer ones
MOST_PATTERNS, LONGEST_PATTERN = 100, 1000  # of an entry, and characters; each is compared with the name of each file
_CPU, _MEMORY, _ACCELERATOR = ("resources", "cpu"), ("resources", "memory"), ("resources", "accelerator")


def check(data: Mapping[str, Any], report: Report) -> None:
    _check_transport(data["runtime"]["transport"]["kind"], report)  # first, because then nothing else matters
    for name, what in OTHER_SERVERS.items():
        if data[name] is not None:
            report.error(f"this model {what}, which cannot be hosted here", (name,), code="unsupported_server")
    if data["requirements"] and data["requirements_file"]:
        report.error("requirements and requirements_file exclude each other", ("requirements_file",))
    if data["model_cache"] and data["weights"]:
        report.error("model_cache and weights exclude each other", ("weights",))
    if data["build"]["no_cache"]:
        report.error("build.no_cache cannot be set in the file", ("build", "no_cache"))
    for name in INSIDE:
        if (place := data[name]) and (PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts):
            report.error(f"{name} must lie inside the model directory", (name,), code="outside")
    _check_runtime(data["runtime"], report)
    _check_resources(data["resources"], report)
    _check_weights(data["weights"], report)
    for name in RESERVED_VARIABLES:
        if name in data["environment_variables"]:
            what = f"environment variable {name} is overwritten on Truss's platform"
            report.warn(what, ("environment_variables", name), code="reserved_variable")


def _check_transport(kind: str, report: Report) -> None:
    at = ("runtime", "transport", "kind")
    if kind == "grpc":
        fix = "serve it outside the gateway, or write a class with predict"
        what = "this model speaks gRPC (transport.kind), which cannot be hosted here"
        report.error(what, at, fix=fix, code="unsupported_server")
    elif kind not in ("http", "websocket"):
        report.error(f"runtime.transport.kind must be http or websocket, not {kind}", at)


def _check_runtime(runtime: Mapping[str, Any], report: Report) -> None:
    if runtime.get("num_workers", 1) != 1:
        fix = "raise predict_concurrency, or replicas in gateway.toml"
        report.error(ONE_WORKER, ("runtime", "num_workers"), fix=fix)
    given = {name: value for name, value in runtime.items() if value is not None}  # None: not of its kind, as told
    for name in ("predict_concurrency", "streaming_read_timeout", "batch_concurrency"):
        if given.get(name, 1) < 1:
            report.error(f"runtime.{name} must be at least 1", ("runtime", name))
    if not 1 <= given.get("batch_size", 1) <= LARGEST_BATCH:
        report.error(f"runtime.batch_size must be from 1 to {LARGEST_BATCH}", ("runtime", "batch_size"))
    if not 0 < given.get("batch_budget", 1) < float("inf"):
        report.error("runtime.batch_budget must be above 0", ("runtime", "batch_budget"))
    if (does := given.get("batch_on_error", "fail")) not in ("isolate", "fail"):
        report.error(f"runtime.batch_on_error must be isolate or fail, not {does}", ("runtime", "batch_on_error"))


def _check_resources(resources: Mapping[str, Any], report: Report) -> None:
    if not CPU.fullmatch(resources["cpu"]):
        report.error(f'resources.cpu must be cores ("2") or millicores ("500m"), not {resources["cpu"]}', _CPU)
    if not MEMORY.fullmatch(resources["memory"]):
        report.error(f'resources.memory must be a size such as "8Gi", not {resources["memory"]}', _MEMORY)
    if resources.get("node_count", 1) not in (None, 1):
        report.error("resources.node_count above 1 cannot be hosted here", ("resources", "node_count"))
    if (accelerator := resources["accelerator"]) is None:
        return
    if not isinstance(accelerator, str) or not (match := ACCELERATOR.fullmatch(accelerator)):
        report.error(f'resources.accelerator must be a name such as "L4" or "L4:4", not {accelerator}', _ACCELERATOR)
    elif match[1] not in ACCELERATORS:
        close = difflib.get_close_matches(match[1].upper(), ACCELERATORS, n=1)
        fix = f"did you mean {close[0]}?" if close else ""
        report.warn(f"accelerator {match[1]} is not a name that Truss knows", _ACCELERATOR, fix=fix)


def _check_weights(weights: list[Any], report: Report) -> None:
    places: set[str] = set()
    if len(weights) > MOST_WEIGHTS:
        report.error(f"weights has {len(weights)} entries, and may have {MOST_WEIGHTS}", ("weights",))
        weights.clear()  # each is looked for on this machine, whoever asks
    for index, entry in enumerate(weights):
        at = ("weights", index)
        if told := _too_long(entry, f"weights[{index}]"):
            report.error(told, at)
            entry["source"] = None
            continue
        if not entry.get("source"):
            report.error(f"weights[{index}] needs a source", at, fix='such as "hf://owner/name@revision"')
            continue
        _check_auth(entry, f"weights[{index}]", at, report)
        if (place := entry["mount_location"]) is None:
            continue
        if not PurePosixPath(place).is_absolute():
            report.error(f"weights[{index}].mount_location must be an absolute path", (*at, "mount_location"))
        elif place in places:
            report.error(f"mount_location {place} is used twice", (*at, "mount_location"))
        else:
            places.add(place)


def _too_long(entry: Mapping[str, Any], name: str) -> str | None:
    """Return what of an entry would take long to look for, or to compare with the names of files."""
    for key in ("source", "mount_location"):
        if len(entry.get(key) or "") > LONGEST_PATH:
            return f"{name}.{key} has {len(entry[key])} characters, and may have {LONGEST_PATH}"
        if (entry.get(key) or "").count("/") > DEEPEST:
            return f"{name}.{key} has more than {DEEPEST} levels"
    for key in ("allow_patterns", "ignore_patterns"):
        patterns = entry.get(key) or ()
        if len(patterns) > MOST_PATTERNS:
            return f"{name}.{key} has {len(patterns)} patterns, and may have {MOST_PATTERNS}"
        if any(len(pattern) > LONGEST_PATTERN for pattern in patterns):
            return f"{name}.{key} has a pattern of more than {LONGEST_PATTERN} characters"
    return None


def _check_auth(entry: Mapping[str, Any], name: str, at: tuple[Any, ...], report: Report) -> None:
    """Apply Truss's rules as far as they matter here: the secret, and that its name is set in one place."""
    if (auth := entry["auth"]) is None:
        return
    here, method = (*at, "auth"), auth["auth_method"]
    if method not in AUTH_METHODS:
        wrong = f"{name}.auth.auth_method must be one of {', '.join(AUTH_METHODS)}, not {method}"
        report.error(wrong, here)
    elif method != "CUSTOM_SECRET":
        what = f"{name}.auth.auth_method {method} is for Truss's platform; here this machine's credentials are used"
        report.warn(what, here, code="platform_auth")
    elif not auth["auth_secret_name"]:
        report.error(f"{name}.auth.auth_secret_name must be given when auth_method is CUSTOM_SECRET", here)
    if auth["auth_secret_name"] and entry["auth_secret_name"]:
        report.error(f"{name}: auth_secret_name is set twice, in auth and next to it; keep one", here)
