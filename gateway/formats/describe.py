"""Describe a model directory as a ModelSpec: config.yaml with the operator's settings over it.

Every format calls `describe`, ours and a stranger's, so that a key means the same to all of them. Imports nothing of
the model and starts nothing.

Which value counts, first to last: [models.NAME] of gateway.toml · config.yaml · what the format asks for ·
[gateway.limits] · the defaults of `gateway.spec`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..spec import Limits, ModelSpec, Resources
from ..weights import secret_of
from ..wording import MOST_NAMES, few
from .config import ACCELERATOR, CPU, ModelConfig, read_config

UNLIMITED = 10_000  # slots of a websocket model that sets none: Truss does not count its connections

LIMITS = frozenset(field.name for field in fields(Limits))


def describe(
    path: Path,
    *,
    target: str,
    format: str,
    overrides: Mapping[str, Any],
    own_code: bool = False,
    slots: int | None = None,
    extra: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> ModelSpec:
    """Return the spec of the model in `path`, whose class is `target`.

    `own_code` says that the class is a file of the directory itself. Without it the directory is only data: nothing in
    it is ever imported, whatever it is called.
    `overrides` is what the hook got: the model's table in gateway.toml. `slots` is how many calls the class runs at
    once when nobody sets `predict_concurrency`; `extra` the pip extra it needs; `options` reach the class as
    `config["options"]`, with those of config.yaml and gateway.toml over them.

    Raises `ConfigError`, with the file and the line, when config.yaml is wrong.
    """
    config = read_config(path)
    if config.errors:
        raise ConfigError("\n".join(str(problem) for problem in config.errors))
    data = copy.deepcopy(dict(config.data))
    in_vain = () if own_code else _drop_variables(path, data)
    _mount(data, overrides.get("mounts") or {})
    if merged := {**(options or {}), **(data.get("options") or {}), **overrides.get("options", {})}:
        data["options"] = merged
    root = path.absolute()  # the messages above keep the path as it was given
    spec = ModelSpec(
        name=root.name,
        target=target,
        root=root,
        format=format,
        display_name=data["model_name"],
        config=data,
        limits=_limits(config, overrides.get("limits") or {}, slots),
        resources=_resources(config),
        environment=data["environment_variables"],
        own_code=own_code,
        secrets=tuple(dict.fromkeys([*data["secrets"], *filter(None, map(secret_of, data["weights"]))])),
        import_dirs=_import_dirs(root, data),
        data_dir=root / data["data_dir"],
        extra=extra,
        notes=(*(str(problem) for problem in config.warnings), *config.notes, *in_vain, *_missing(path, data)),
    )
    return apply_overrides(spec, overrides)


def complete(spec: ModelSpec, overrides: Mapping[str, Any]) -> ModelSpec:
    """Return what a plugin found with everything that it left out: a hook may return a bare ModelSpec.

    Raises `ConfigError` as `describe` does.
    """
    if spec.config:
        return apply_overrides(spec, overrides)
    base = describe(
        spec.root,
        target=spec.target,
        format=spec.format,
        overrides=overrides,
        own_code=spec.own_code,
        extra=spec.extra,
    )
    bare = ModelSpec(name="", target=spec.target, root=spec.root)
    names = [field.name for field in fields(spec)]
    given = {name: value for name in names if (value := getattr(spec, name)) != getattr(bare, name)}
    return apply_overrides(replace(base, **given), overrides)


def apply_overrides(spec: ModelSpec, overrides: Mapping[str, Any]) -> ModelSpec:
    """Return `spec` with a [models.NAME] table over it; the same again when it lies there already.

    Raises `ConfigError` when a directory that is only data would have a secret sent where it says.
    """
    values = {name: value for name, value in overrides.items() if value is not None}
    if "predict_concurrency" in values:
        values.setdefault("slots", values["predict_concurrency"])
    limits = replace(spec.limits, **{name: value for name, value in values.items() if name in LIMITS})
    parity = values.get("truss_parity", spec.parity)
    allowed: Collection[str] | None = values.get("secrets")
    if allowed is None and not spec.own_code:
        _check_secrets(spec)
    return replace(
        spec,
        config=_effective(spec.config, limits.slots),
        limits=limits,
        resources=_override_resources(spec.resources, values),
        replicas=values.get("replicas", spec.replicas),
        environment={**spec.environment, **values.get("environment", {})},
        parity=parity,
        derive=() if parity == "strict" else values.get("derive", spec.derive),  # no route of Truss's is derived
        secrets=spec.secrets if allowed is None else tuple(name for name in spec.secrets if name in allowed),
        python=values.get("python", spec.python),
        enforce_stop=values.get("enforce_stop", spec.enforce_stop),
        sandbox=values.get("sandbox", spec.sandbox),
        memory_limit=values.get("memory_limit", spec.memory_limit),
        allow_links=values.get("allow_links", spec.allow_links),
        forward_credentials=values.get("forward_credentials", spec.forward_credentials),
        mount_roots=_mount_roots(values) if spec.own_code else (),
    )


def _effective(config: Mapping[str, Any], slots: int) -> Mapping[str, Any]:
    runtime = config.get("runtime")
    if not isinstance(runtime, dict) or runtime.get("predict_concurrency") == slots:
        return config
    return {**config, "runtime": {**runtime, "predict_concurrency": slots}}


def _limits(config: ModelConfig, defaults: Mapping[str, Any], slots: int | None) -> Limits:
    limits = replace(Limits(), **{name: value for name, value in defaults.items() if name in LIMITS})
    runtime, written = config.data["runtime"], _mapping(config.raw.get("runtime"))
    if written.get("predict_concurrency") is not None:
        limits = replace(limits, slots=runtime["predict_concurrency"])
    elif slots is not None:
        limits = replace(limits, slots=slots)
    if written.get("streaming_read_timeout") is not None:
        gap = float(runtime["streaming_read_timeout"])
        limits = replace(limits, gap_timeout=gap, first_item_timeout=max(limits.first_item_timeout, gap))
    if (startup := runtime["health_checks"]["startup_threshold_seconds"]) is not None:
        limits = replace(limits, load_timeout=float(startup))
    return limits


def _resources(config: ModelConfig) -> Resources:
    data, written = config.data["resources"], _mapping(config.raw.get("resources"))
    cpu = None  # Truss's default of one core describes its containers; here an unset key shares the machine's
    if written.get("cpu") is not None and (match := CPU.fullmatch(data["cpu"])):
        cpu = float(match[1]) / (1000 if match[2] else 1)
    if data["accelerator"] and (match := ACCELERATOR.fullmatch(data["accelerator"])):
        return Resources(gpus=int(match[2] or 1), accelerator=match[1], cpu=cpu)
    return Resources(cpu=cpu)


def _override_resources(resources: Resources, values: Mapping[str, Any]) -> Resources:
    """`gpus` is a count, a list of devices for all replicas to share out, or one list a replica."""
    if "gpu_memory" in values:
        resources = replace(resources, gpu_memory=values["gpu_memory"], gpus=max(1, resources.gpus))
    gpus = values.get("gpus")
    if gpus is None:
        return resources
    if isinstance(gpus, int):
        return replace(resources, gpus=gpus, pin=())
    if gpus and isinstance(gpus[0], (list, tuple)):
        pin = tuple(tuple(str(device) for device in devices) for devices in gpus)
        return replace(resources, gpus=len(pin[0]), pin=pin)
    count = resources.gpus if 0 < resources.gpus <= len(gpus) else len(gpus)
    return replace(resources, gpus=count, pin=(tuple(str(device) for device in gpus),))


def _import_dirs(path: Path, data: Mapping[str, Any]) -> tuple[Path, ...]:
    """The packages of the model, then those it shares: `external_package_dirs` are relative to the model."""
    bundled = path / data["bundled_packages_dir"]
    own = (bundled,) if os.path.isdir(bundled) else ()
    return (*own, *(path / place for place in data["external_package_dirs"]))


def _drop_variables(path: Path, data: dict[str, Any]) -> list[str]:
    """Data sets no variable. Many a library runs what one names: a program by PATH, a module of OpenSSL or of iconv."""
    names, data["environment_variables"] = list(data["environment_variables"]), {}
    if not names:
        return []
    what = (
        f"environment_variables ({few(names, MOST_NAMES)}) of a directory that is only data are the operator's to set"
    )
    return [f"{path / 'config.yaml'}: {what}; use [models.NAME.environment] in gateway.toml"]


def _check_secrets(spec: ModelSpec) -> None:
    """Data has no secret of the operator's sent to an address of its choice. That of the Hub is not its choice."""
    entries = [entry for entry in spec.config.get("weights") or [] if secret_of(entry)]
    elsewhere = next((entry for entry in entries if not entry["source"].startswith("hf://")), None)
    if elsewhere is None:
        return
    names = few([f'"{name}"' for name in dict.fromkeys(map(secret_of, entries))], MOST_NAMES)
    what = f"a directory that is only data does not decide who gets the secret {secret_of(elsewhere)}"
    fix = f"if that address may have it: [models.NAME] secrets = [{names}] in gateway.toml"
    raise ConfigError(f"{spec.root / 'config.yaml'}: weights {elsewhere['source']}: {what}; {fix}")


def _missing(path: Path, data: Mapping[str, Any]) -> list[str]:
    missing = [place for place in data["external_package_dirs"] if not os.path.isdir(path / place)]
    told = [f"{path}: external_package_dirs: {place} does not exist" for place in missing[:MOST_NAMES]]
    more = len(missing) - len(told)
    return [*told, f"{path}: external_package_dirs: {more} more do not exist"] if more else told


def _mount(data: dict[str, Any], mounts: Mapping[str, Path]) -> None:
    """Rewrite mount locations as [models.NAME.mounts] maps them; the model reads the effective place."""
    for entry in data["weights"]:
        if (place := entry.get("mount_location")) in mounts:
            entry["mount_location"] = str(mounts[place].absolute())  # a worker's working directory is another


def _mount_roots(values: Mapping[str, Any]) -> tuple[Path, ...]:
    """Where the operator lets a class find its weights: the places that are mapped, and what is below the roots."""
    places = (*values.get("mount_roots", ()), *(values.get("mounts") or {}).values())
    return tuple(place.absolute() for place in places)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
