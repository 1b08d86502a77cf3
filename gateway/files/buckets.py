"""Copy weights from buckets: S3 and compatible servers, Google Cloud Storage, Azure, through fsspec.

    s3://bucket/path
    gs://bucket/path
    r2://account.bucket/path              Cloudflare R2, which has an S3 API at an address of the account
    azure://account/container/path

Without a secret, the libraries look for credentials in their usual places: the model's environment and home.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import ConfigError
from .downloads import fail, keep, lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A kind of bucket: its fsspec protocol, and how the keys of a secret map to fsspec's arguments."""

    protocol: str
    package: str
    address: str
    secret: str  # an example
    arguments: Mapping[str, tuple[str, ...]]  # empty: the secret is passed as a whole


_S3 = {
    "key": ("aws_access_key_id", "access_key_id"),
    "secret": ("aws_secret_access_key", "secret_access_key"),
    "token": ("aws_session_token", "session_token"),
    "region": ("aws_region", "region", "aws_default_region"),
    "endpoint_url": ("endpoint_url", "aws_endpoint_url"),
}
_S3_SECRET = '{"aws_access_key_id": "…", "aws_secret_access_key": "…"}'
_AZURE = {name: (name,) for name in ("account_key", "sas_token", "connection_string")}

BUCKETS: Mapping[str, Bucket] = {
    "s3": Bucket(protocol="s3", package="s3fs", address="s3://bucket/path", secret=_S3_SECRET, arguments=_S3),
    "gs": Bucket(
        protocol="gs",
        package="gcsfs",
        address="gs://bucket/path",
        secret='{"type": "service_account", …}',
        arguments={},
    ),
    "r2": Bucket(protocol="s3", package="s3fs", address="r2://account.bucket/path", secret=_S3_SECRET, arguments=_S3),
    "azure": Bucket(
        protocol="abfs",
        package="adlfs",
        address="azure://account/container/path",
        secret='{"account_key": "…"}',
        arguments=_AZURE,
    ),
}


def fetch_bucket(
    entry: Mapping[str, Any], path: Path, *, secret: str | None = None, credentials: str | None = None
) -> None:
    """Copy the object or prefix of a `weights` entry to `path`. Only one process at a time does this.

    `credentials` is the value of the secret named `secret`: JSON, as in Truss.

    Raises:
        ConfigError: with the package to install, or the reason.
    """
    url = entry["source"]
    kind = BUCKETS[url.partition("://")[0]]
    place, options = _address(url, kind)
    if credentials is not None:
        options |= _options(kind, secret or "", credentials)
    try:
        with lock(path):
            if path.exists():
                return
            files = _file_system(url, kind, options)
            part = path.with_name(f"{path.name}.part")
            if part.is_dir():
                shutil.rmtree(part)  # if the directory exists, fsspec copies one level deeper
            _copy(files, place, part, entry)
            keep(part, path)
    except ConfigError:
        raise
    except Exception as error:  # every fsspec backend has its own exceptions
        fail(url, error)


def check_address(url: str) -> None:
    """Raise `ConfigError` if the address of a bucket is incomplete."""
    _address(url, BUCKETS[url.partition("://")[0]])


def _file_system(url: str, kind: Bucket, options: Mapping[str, Any]) -> Any:
    try:
        import fsspec

        return fsspec.filesystem(kind.protocol, **options)
    except ImportError:
        line = f"pip install fsspec {kind.package}"
        raise ConfigError(f"weights {url} need fsspec and {kind.package}; run: {line}") from None
    except Exception as error:  # credentials that the library rejects without a request
        fail(url, error)


def _copy(files: Any, place: str, part: Path, entry: Mapping[str, Any]) -> None:
    """Copy everything, or the files that the patterns select, by the rules of Hugging Face snapshots."""
    if files.isfile(place):
        files.get_file(place, str(part))
        return
    start = len(files._strip_protocol(place).rstrip("/")) + 1  # the length of the prefix, as this file system writes it
    found = {name: name[start:] for name in files.find(place) if name[start:]}
    if not found:
        raise FileNotFoundError(f"there is nothing at {place}")
    if odd := next((inside for inside in found.values() if not _stays_inside(inside)), None):
        raise ConfigError(f"weights {entry['source']}: the bucket has a name that leads out of its directory: {odd!r}")
    wanted = {name: part / inside for name, inside in found.items() if chooses(entry, inside)}
    if not wanted:
        have = ", ".join(sorted(found.values())[:5])
        raise ConfigError(f"weights {entry['source']}: the patterns select no file (there are: {have})")
    for target in wanted.values():
        target.parent.mkdir(parents=True, exist_ok=True)
    files.get(list(wanted), [str(target) for target in wanted.values()])  # several at once, if the library can


def _stays_inside(path: str) -> bool:
    """Return whether a path stays in its directory: names in buckets may contain `..`."""
    return ".." not in PurePosixPath(path).parts and not path.startswith("/")


def chooses(entry: Mapping[str, Any], path: str) -> bool:
    """Return whether the patterns of a `weights` entry select the file at this path below its source."""
    allow, ignore = entry.get("allow_patterns"), entry.get("ignore_patterns")
    return (not allow or _matches(path, allow)) and not _matches(path, ignore or ())


def _matches(path: str, patterns: Any) -> bool:
    return any(fnmatchcase(path, f"{pattern}*" if pattern.endswith("/") else pattern) for pattern in patterns)


def _address(url: str, kind: Bucket) -> tuple[str, dict[str, Any]]:
    """Return fsspec's path, and the connection options that are part of the address."""
    scheme, _, rest = url.rstrip("/").partition("://")
    if scheme == "r2":
        account, dot, place = rest.partition(".")
        if not dot or not account or not place or "/" in account:
            raise ConfigError(f"weights {url}: expected {kind.address}")
        return place, {"endpoint_url": f"https://{account}.r2.cloudflarestorage.com"}
    if scheme == "azure":
        account, slash, place = rest.partition("/")
        if not slash or not account or not place:
            raise ConfigError(f"weights {url}: expected {kind.address}")
        return place, {"account_name": account}
    return rest, {}


def _options(kind: Bucket, secret: str, credentials: str) -> dict[str, Any]:
    """Return fsspec's arguments from a secret. Error messages never contain its value."""
    try:
        given = json.loads(credentials)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise ConfigError(f"the secret {secret} for {kind.address} must be JSON, such as {kind.secret}")
    if not kind.arguments:
        return {"token": given}
    options: dict[str, Any] = {}
    for argument, names in kind.arguments.items():
        if found := next((given[name] for name in names if given.get(name)), None):
            options[argument] = found
    if not options:
        known = ", ".join(names[0] for names in kind.arguments.values())
        raise ConfigError(f"the secret {secret} for {kind.address} has none of {known}; it looks like {kind.secret}")
    if region := options.pop("region", None):
        options["client_kwargs"] = {"region_name": region}
    return options
