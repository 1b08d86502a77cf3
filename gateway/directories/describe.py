"""Describe a model directory as a ModelSpec: its config.yaml with the operator's settings applied.

Every format calls `describe`, built-in or not, so that a key has one meaning for all formats. No code of the model is
imported and nothing is started.

The first of these that sets a value wins: [models.NAME] of gateway.toml · config.yaml · what the format asks for ·
[gateway.limits] · the defaults of `gateway.spec`. A batch size sets the slots, unless one of the first two does.
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
from ..wording import MOST_NAMES, few
from .batch_settings import batching_of, override
from .config.config import ModelConfig, read_config
from .config.values import ACCELERATOR, CPU
from .weights import secret_of

UNLIMITED = 10_000  # slots of a websocket model that sets none: Truss does not limit its connections

LIMITS = frozenset(field.name for field in fields(Limits))


def describe(
    path: Path,
    *,
    target: str,
    format: str,
    overrides: Mapping[str, Any],
    own_code: bool = False,
    slots: int | None = None,
    needs: tuple[str, ...] = (),
    install: str = "",
    options: Mapping[str, Any] | None = None,
) -> ModelSpec:
    """Return the spec of the model in `path`, whose class is `target`.

    `own_code` says that the class is a file of the directory itself. Without it the directory is only data: no file in
    it is ever imported, whatever its name. `overrides` is what the hook got: the model's table in gateway.toml. `slots`
    is the number of concurrent calls if `predict_concurrency` is not set. `options` reach the class as
    `config["options"]`; those of config.yaml and gateway.toml override them. `needs` lists the modules that the class
    imports, its framework first. If one of them is missing, the error shows the command `install`.

    Raises `ConfigError`, with the file and the line, if config.yaml is wrong.
    """
    config = read_config(path)
    if config.errors:
        raise ConfigError("\n".join(str(problem) for problem in config.errors))
    data = copy.deepcopy(dict(config.data))
    in_vain = () if own_code else _drop_variables(path, data)
    _mount(data, overrides.get("mounts") or {})
    if merged := {**(options or {}), **(data.get("options") or {}), **overrides.get("options", {})}:
        data["options"] = merged
    root = path.absolute()  # the messages above use the path as it was given
    spec = ModelSpec(
        name=root.name,
        target=target,
        root=root,
        format=format,
        display_name=data["model_name"],
        config=data,
        limits=_limits(config, overrides.get("limits") or {}, slots),
        batching=batching_of(data["runtime"], has_own_slots=_sets_slots(config)),
        resources=_resources(config),
        environment=data["environment_variables"],
        own_code=own_code,
        secrets=tuple(dict.fromkeys([*data["secrets"], *filter(None, map(secret_of, data["weights"]))])),
        import_dirs=_import_dirs(root, data),
        data_dir=root / data["data_dir"],
        needs=needs,
        install=install,
        notes=(*(str(problem) for problem in config.warnings), *config.notes, *in_vain, *_missing(path, data)),
    )
    return apply_overrides(spec, overrides)


def complete(spec: ModelSpec, overrides: Mapping[str, Any]) -> ModelSpec:
    """Return a plugin's spec with everything that it left out: a hook may return a bare ModelSpec.

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
        needs=spec.needs,
        install=spec.install,
    )
    bare = ModelSpec(name="", target=spec.target, root=spec.root)
    names = [field.name for field in fields(spec)]
    given = {name: value for name in names if (value := getattr(spec, name)) != getattr(bare, name)}
    return apply_overrides(replace(base, **given), overrides)


def apply_overrides(spec: ModelSpec, overrides: Mapping[str, Any]) -> ModelSpec:
    """Return `spec` with a [models.NAME] table applied. Applying it twice changes nothing.

    Raises `ConfigError` if weights need a secret that the model may not have, and if a data-only directory would have a
    secret sent to an address of its choice.
    """
    values = {name: value for name, value in overrides.items() if value is not None}
    if "predict_concurrency" in values:
        values.setdefault("slots", values["predict_concurrency"])
    limits = replace(spec.limits, **{name: value for name, value in values.items() if name in LIMITS})
    batching, limits = override(spec.batching, limits, values, spec.root)
    parity = values.get("truss_parity", spec.parity)
    allowed: Collection[str] | None = values.get("secrets")
    if allowed is not None:
        _check_allowed(spec, allowed)
    elif not spec.own_code:
        _check_secrets(spec)
    return replace(
        spec,
        config=_effective(spec.config, limits.slots),
        limits=limits,
        batching=batching,
        resources=_override_resources(spec.resources, values),
        replicas=values.get("replicas", spec.replicas),
        environment={**spec.environment, **values.get("environment", {})},
        parity=parity,
        derive=() if parity == "strict" else values.get("derive", spec.derive),  # Truss derives no route
        secrets=spec.secrets if allowed is None else tuple(name for name in spec.secrets if name in allowed),
        python=values.get("python", spec.python),
        enforce_stop=values.get("enforce_stop", spec.enforce_stop),
        sandbox=values.get("sandbox", spec.sandbox),
        memory_limit=values.get("memory_limit", spec.memory_limit),
        nice=values.get("nice", spec.nice),
        yields=values.get("yields", spec.yields),
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
    if _sets_slots(config):
        limits = replace(limits, slots=runtime["predict_concurrency"])
    elif slots is not None:
        limits = replace(limits, slots=slots)
    if written.get("streaming_read_timeout") is not None:
        gap = float(runtime["streaming_read_timeout"])
        limits = replace(limits, gap_timeout=gap, first_item_timeout=max(limits.first_item_timeout, gap))
    if (startup := runtime["health_checks"]["startup_threshold_seconds"]) is not None:
        limits = replace(limits, load_timeout=float(startup))
    return limits


def _sets_slots(config: ModelConfig) -> bool:
    return _mapping(config.raw.get("runtime")).get("predict_concurrency") is not None


def _resources(config: ModelConfig) -> Resources:
    data, written = config.data["resources"], _mapping(config.raw.get("resources"))
    cpu = None  # Truss's default of one core is meant for its containers; here an unset key means no limit
    if written.get("cpu") is not None and (match := CPU.fullmatch(data["cpu"])):
        cpu = float(match[1]) / (1000 if match[2] else 1)
    if data["accelerator"] and (match := ACCELERATOR.fullmatch(data["accelerator"])):
        return Resources(gpus=int(match[2] or 1), accelerator=match[1], cpu=cpu)
    return Resources(cpu=cpu)


def _override_resources(resources: Resources, values: Mapping[str, Any]) -> Resources:
    """Apply `gpus`: a count, a list of devices to be divided among all replicas, or one list per replica."""
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
    """Return the model's packages, then shared ones: `external_package_dirs` are relative to the model."""
    bundled = path / data["bundled_packages_dir"]
    own = (bundled,) if os.path.isdir(bundled) else ()
    return (*own, *(path / place for place in data["external_package_dirs"]))


def _drop_variables(path: Path, data: dict[str, Any]) -> list[str]:
    """Drop the environment variables of a data-only directory, and say so.

    Many libraries run what a variable names: a program found in PATH, a module of OpenSSL or of iconv.
    """
    names, data["environment_variables"] = list(data["environment_variables"]), {}
    if not names:
        return []
    what = f"environment_variables ({few(names, MOST_NAMES)}) of a data-only directory are ignored"
    return [f"{path / 'config.yaml'}: {what}; set them in [models.NAME.environment] in gateway.toml"]


def _check_allowed(spec: ModelSpec, allowed: Collection[str]) -> None:
    """Refuse weights that need a secret which the model may not have: another model may have fetched them with it."""
    for entry in spec.config.get("weights") or []:
        if (name := secret_of(entry)) and name not in allowed:
            what = f"needs the secret {name}, which [models.NAME] secrets in gateway.toml does not list"
            fix = "list it there, or remove it from the entry"
            raise ConfigError(f"{spec.root / 'config.yaml'}: weights {entry['source']}: {what}; {fix}")


def _check_secrets(spec: ModelSpec) -> None:
    """Refuse to let a data-only directory send a secret to an address of its choice. The Hugging Face Hub is OK."""
    entries = [entry for entry in spec.config.get("weights") or [] if secret_of(entry)]
    elsewhere = next((entry for entry in entries if not entry["source"].startswith("hf://")), None)
    if elsewhere is None:
        return
    names = few([f'"{name}"' for name in dict.fromkeys(map(secret_of, entries))], MOST_NAMES)
    what = f"a data-only directory may not choose an address that receives the secret {secret_of(elsewhere)}"
    fix = f"to allow it: [models.NAME] secrets = [{names}] in gateway.toml"
    raise ConfigError(f"{spec.root / 'config.yaml'}: weights {elsewhere['source']}: {what}; {fix}")


def _missing(path: Path, data: Mapping[str, Any]) -> list[str]:
    missing = [place for place in data["external_package_dirs"] if not os.path.isdir(path / place)]
    told = [f"{path}: external_package_dirs: {place} does not exist" for place in missing[:MOST_NAMES]]
    more = len(missing) - len(told)
    return [*told, f"{path}: external_package_dirs: {more} more do not exist"] if more else told


def _mount(data: dict[str, Any], mounts: Mapping[str, Path]) -> None:
    """Rewrite mount locations as mapped in [models.NAME.mounts]. The model reads the resulting path."""
    for entry in data["weights"]:
        if (place := entry.get("mount_location")) in mounts:
            entry["mount_location"] = str(mounts[place].absolute())  # a worker has another working directory


def _mount_roots(values: Mapping[str, Any]) -> tuple[Path, ...]:
    """Return where the operator lets a class find its weights: mapped paths, and everything below the roots."""
    places = (*values.get("mount_roots", ()), *(values.get("mounts") or {}).values())
    return tuple(place.absolute() for place in places)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
