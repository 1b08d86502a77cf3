"""The keys of a model's config.yaml: Truss's keys with their defaults, as one table.

The keys are in the alphabetical order of the dict that a model receives. `config.py` reads files by this table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["text", "whole", "number", "seconds", "flag", "list", "texts", "map", "any"]


@dataclass(frozen=True, slots=True)
class Key:
    """One key: its kind, and its value if the file does not set it."""

    kind: Kind
    default: Any = None  # None allows null; with `absent`, the key is left out unless the file sets it
    absent: bool = False
    cloud: bool = False  # affects Truss's image build or cloud only; accepted, without effect here


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping of known keys. An optional one is null unless the file sets it."""

    keys: Mapping[str, Key | Section | Each]
    optional: bool = False
    cloud: bool = False


@dataclass(frozen=True, slots=True)
class Each:
    """A list of mappings of known keys."""

    section: Section
    optional: bool = False  # null unless the file sets it; otherwise an empty list
    cloud: bool = False

    @property
    def default(self) -> list[Any] | None:
        return None if self.optional else []


def _cloud(kind: Kind, default: Any = None, *, absent: bool = False) -> Key:
    return Key(kind, default, absent=absent, cloud=True)


_HEALTH_CHECKS = Section(
    {
        "restart_check_delay_seconds": _cloud("whole"),
        "restart_threshold_seconds": _cloud("whole"),
        "startup_threshold_seconds": Key("whole"),  # the model's load timeout
        "stop_traffic_threshold_seconds": _cloud("whole"),
    }
)

# Federated cloud identities, without a key: for `weights` and `base_image.docker_auth`.
_FEDERATED: Mapping[str, Key] = {
    name: Key("text")
    for name in (
        *("aws_assume_role_arn", "aws_assume_role_region", "aws_oidc_region", "aws_oidc_role_arn"),
        *("gcp_oidc_service_account", "gcp_oidc_workload_id_provider"),
    )
}

_BASE_IMAGE = Section(
    {
        "docker_auth": Section(
            {
                "auth_method": Key("text"),
                "aws_access_key_id_secret_name": Key("text", "aws_access_key_id"),
                "aws_secret_access_key_secret_name": Key("text", "aws_secret_access_key"),
                "registry": Key("text", ""),
                "secret_name": Key("text"),
                **_FEDERATED,
            },
            optional=True,
        ),
        "image": Key("text", ""),
        "python_executable_path": Key("text", ""),
    },
    optional=True,
    cloud=True,
)

_MODEL_REPO = Section(
    {
        "allow_patterns": Key("texts"),
        "ignore_patterns": Key("texts"),
        "kind": Key("text", "hf"),
        "repo_id": Key("text"),
        "revision": Key("text", ""),
        "runtime_secret_name": Key("text", "hf_access_token"),
        "use_volume": Key("flag", False),
        "volume_folder": Key("text"),
    }
)

# One entry of `weights`; sha256 and pip are our additions.
WEIGHTS = Section(
    {
        "allow_patterns": Key("texts"),
        "auth": Section({"auth_method": Key("text"), "auth_secret_name": Key("text"), **_FEDERATED}, optional=True),
        "auth_secret_name": Key("text"),
        "ignore_patterns": Key("texts"),
        "mount_location": Key("text"),
        "pip": Key("text", absent=True),  # the `pip install` target if the package of a package:// source is missing
        "sha256": Key("text", absent=True),
        "source": Key("text"),
    }
)

# Ours: how calls share batches.
BATCH: Mapping[str, Key] = {
    "batch_budget": Key("number", absent=True),
    "batch_concurrency": Key("whole", absent=True),
    "batch_cost": Key("text", absent=True),
    "batch_delay": Key("seconds", absent=True),
    "batch_key": Key("text", absent=True),
    "batch_on_error": Key("text", absent=True),
    "batch_size": Key("whole", absent=True),
    "batch_sort": Key("flag", absent=True),
}

_RUNTIME = Section(
    {
        **BATCH,
        "egress_restrictions": Section(
            {"fqdn_allow_list": Key("texts"), "ip_allow_list": Key("texts")}, optional=True, cloud=True
        ),
        "enable_debug_logs": Key("flag", False),
        "enable_tracing_data": _cloud("flag", False),
        "health_checks": _HEALTH_CHECKS,
        "is_websocket_endpoint": Key("flag", False),
        "num_workers": Key("whole", absent=True),  # must be 1
        "oidc": Section({"enabled": _cloud("flag")}),
        "predict_concurrency": Key("whole", 1),
        "remote_ssh": Section({"enabled": _cloud("flag", False)}),
        "streaming_read_timeout": Key("whole", 60),
        "transport": Section(
            {
                "kind": Key("text", "http"),
                "ping_interval_seconds": Key("number", absent=True),
                "ping_timeout_seconds": Key("number", absent=True),
            }
        ),
        "truss_server_version_override": _cloud("text"),
    }
)

_RESOURCES = Section(
    {
        "accelerator": Key("any"),  # "L4:2", or a mapping of accelerator and count
        "cpu": Key("text", "1"),
        "fabric": _cloud("any", absent=True),
        "instance_type": _cloud("text", absent=True),
        "memory": Key("text", "2Gi"),
        "node_count": Key("whole", absent=True),
        "use_gpu": Key("any", False),  # always derived from accelerator
    }
)

CONFIG = Section(
    {
        "apply_library_patches": Key("flag", True),
        "base_image": _BASE_IMAGE,
        "bdn": Section(
            {
                "access": _cloud("list", []),
                "hotload": Section({"enabled": _cloud("flag", False)}),
                "mounts": Each(
                    Section(
                        {
                            "exclude": Key("texts", []),
                            "include": Key("texts", []),
                            "path": Key("text"),
                            "source": Key("text"),
                        }
                    ),
                    cloud=True,
                ),
            }
        ),
        "bis_llm": Key("any"),
        "build": Section(
            {
                "arguments": _cloud("map", {}),
                "model_server": _cloud("text", "TrussServer"),
                "no_cache": Key("flag", False),
                "secret_to_path_mapping": _cloud("map", {}),
            }
        ),
        "build_commands": _cloud("texts", []),
        "bundled_packages_dir": Key("text", "packages"),
        "cache_internal": Each(_MODEL_REPO, cloud=True),
        "data_dir": Key("text", "data"),
        "description": Key("text"),
        "docker_server": Key("any"),
        "engine": Key("text", absent=True),  # ours: which engine of a framework to use
        "environment_variables": Key("map", {}),
        "examples_filename": Key("text", "examples.yaml"),
        "external_data": Each(
            Section(
                {
                    "backend": Key("text", "http_public"),
                    "local_data_path": Key("text"),
                    "name": Key("text"),
                    "url": Key("text"),
                }
            ),
            optional=True,
            cloud=True,
        ),
        "external_package_dirs": Key("texts", []),
        "framework": Key("text", absent=True),  # ours: the format of the directory, instead of detecting it
        "input_type": Key("text", "Any"),
        "live_reload": _cloud("flag", False),
        "model_cache": Each(_MODEL_REPO, cloud=True),
        "model_class_filename": Key("text", "model.py"),
        "model_class_name": Key("text", "Model"),
        "model_framework": Key("text", "custom"),
        "model_metadata": Key("map", {}),
        "model_module_dir": Key("text", "model"),
        "model_name": Key("text"),
        "model_type": Key("text", "Model"),
        "options": Key("map", absent=True),  # ours: options for the plugin that serves the directory
        "python_version": Key("text", "py313"),
        "requirements": Key("texts", []),
        "requirements_file": Key("text"),
        "resources": _RESOURCES,
        "runtime": _RUNTIME,
        "secrets": Key("map", {}),
        "spec_version": Key("text", "2.0"),
        "system_packages": _cloud("texts", []),
        "training_checkpoints": Key("any"),
        "trt_llm": Key("any"),
        "use_local_src": _cloud("flag", False),
        "weights": Each(WEIGHTS),
    }
)

# How `weights.auth` authenticates; the first uses a secret, the others are roles on Truss's platform.
AUTH_METHODS = ("CUSTOM_SECRET", "AWS_OIDC", "GCP_OIDC", "AWS_ASSUME_ROLE")

# Names of older Truss versions for a key above.
RENAMED = {"hf_cache": "model_cache"}

# Options that let a directory run its own code; only the operator may set them, in [models.NAME].
OPERATORS = ("allow_pickle", "trust_remote_code")

# Variables that only the operator may set. Those of the dynamic linker and of Python can run code in every program that
# is started; the others are the gateway's own.
OPERATORS_VARIABLES = re.compile(r"(LD_|DYLD_|PYTHON|GW_|GATEWAY_)\w*|TMPDIR")

# Keys of directories that describe another server instead of a Model class, and how they are described.
OTHER_SERVERS = {
    "docker_server": "starts its own server in a container (docker_server)",
    "trt_llm": "runs on Baseten's TensorRT-LLM engine (trt_llm)",
    "bis_llm": "runs on Baseten's inference stack (bis_llm)",
    "training_checkpoints": "wants the checkpoints of Baseten's training (training_checkpoints)",
}

# Truss's names of accelerators; other names cause a warning.
ACCELERATORS = frozenset(
    {"T4", "L4", "A10G", "V100", "A100", "A100_40GB", "H100", "H200", "H100_40GB", "B200", "L40S", "B300", "GB300"}
    | {"RTX_PRO_6000"}
)
