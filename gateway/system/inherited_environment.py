"""Which variables of the gateway's environment a program for a model inherits: only those listed here.

The gateway's environment contains its API key, the secrets of every model and the credentials of the user.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

PATHS = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")
# Paths, locale, and how to reach the network.
COMMON = frozenset(
    "PATH HOME LANG LANGUAGE TZ LD_LIBRARY_PATH XDG_CACHE_HOME SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE "
    "HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy".split()
)
OF_WORKERS = COMMON | frozenset(
    "PYTHONPATH GATEWAY_CACHE_DIR HF_HOME HF_HUB_CACHE HF_HUB_OFFLINE HF_ENDPOINT TRANSFORMERS_OFFLINE TORCH_HOME "
    "NUM_LOAD_RETRIES_TRUSS".split()
)
OF_BUILDS = COMMON | frozenset(
    "USER LOGNAME XDG_CONFIG_HOME XDG_CONFIG_DIRS XDG_DATA_HOME ALL_PROXY all_proxy CURL_CA_BUNDLE SSL_CLIENT_CERT "
    "GIT_SSL_CAINFO NETRC".split()
)
PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "NCCL_", "ROCM_", "HIP_")
# Package indexes, their credentials, and options. uv and pip have other variables, some of them secrets.
_INSTALLER = (
    r"UV_(DEFAULT_INDEX|INDEX|INDEX_\w+|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|KEYRING_PROVIDER|INSECURE_HOST|NATIVE_TLS"
    r"|SYSTEM_CERTS|OFFLINE|HTTP_\w+|REQUEST_TIMEOUT|CONCURRENT_\w+|CACHE_DIR|NO_CACHE|LINK_MODE|CONFIG_FILE|NO_CONFIG"
    r"|CONSTRAINT|BUILD_CONSTRAINT|OVERRIDE|EXCLUDE_NEWER|PRERELEASE|RESOLUTION|TORCH_BACKEND)"
    r"|PIP_(INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|KEYRING_PROVIDER|TRUSTED_HOST|CERT|CLIENT_CERT|PROXY|TIMEOUT"
    r"|DEFAULT_TIMEOUT|RETRIES|CACHE_DIR|NO_CACHE_DIR|CONFIG_FILE|CONSTRAINT|PREFER_BINARY)"
)


def of_workers(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a model's process; it has to declare any other variable."""
    return {name: _absolute(name, value) for name, value in environ.items() if is_of_workers(name)}


def is_of_workers(name: str) -> bool:
    """Return whether a model's process inherits this variable."""
    return _is_of(name, OF_WORKERS)


def of_builds(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of uv, and of git and the build scripts that it runs."""
    return {
        name: _absolute(name, value)
        for name, value in environ.items()
        if _is_of(name, OF_BUILDS) or re.fullmatch(_INSTALLER, name)
    }


def of_installers(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables of a build that say where packages come from."""
    return {name: value for name, value in environ.items() if re.fullmatch(_INSTALLER, name)}


def _is_of(name: str, names: frozenset[str]) -> bool:
    return name in names or name.startswith(PREFIXES)


def _absolute(name: str, value: str) -> str:
    """Make relative path entries absolute, because the program starts in another directory."""
    if name not in PATHS:
        return value
    return os.pathsep.join(os.path.abspath(entry) for entry in value.split(os.pathsep) if entry)
