"""Create links at the absolute paths of `mount_location` in `weights` entries.

A class may open such a path as if it ran in its own container. This machine is shared, so a model directory alone
cannot create links: the operator maps the path, or allows paths below certain roots.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..spec import Problem
from ..wording import traceback_of, unexpected
from .cache import cache_dir

if TYPE_CHECKING:
    from ..spec import ModelSpec

log = logging.getLogger("gateway.discovery")


def is_there(place: Path) -> bool:
    """Return whether the files already exist there: a directory, a file, or a working link that is not ours."""
    if os.path.islink(place) and _is_ours(place):
        return False
    return os.path.exists(place)


def refusal(place: Path, roots: Collection[Path]) -> str | None:
    """Return why no link may be created at `place`, with advice; None if it is one of `roots` or below one."""
    if ".." not in place.parts and any(place.is_relative_to(root) for root in roots):
        return None
    return (
        f"mount_location {place}: is only created where gateway.toml allows it; map it to a path of yours, "
        f'[models.NAME.mounts] "{place}" = "/a/directory/of/yours", or allow models to use a directory for'
        f' theirs, [gateway] mount_roots = ["{place.parent}"]'
    )


def contradictions(specs: Iterable[ModelSpec]) -> Iterator[Problem]:
    """Yield models that need a path which an earlier model uses for other files: a link can only lead to one target."""
    taken: dict[str, tuple[str, object]] = {}
    for spec in specs:
        what, fix = "", "give one of them another path, and change its class accordingly"
        try:
            if other := _other(spec, taken):
                what = f"mount_location {other[0]} is also used by model '{other[1]}', for other files"
        except Exception as error:  # of one model, whatever its places are called
            log.error("the places of %s could not be compared", spec.name, exc_info=traceback_of(error))
            what, fix = f"its mount_locations cannot be compared ({unexpected(error)})", "give them other paths"
        if what:
            yield Problem(where=str(spec.root), what=what, fix=fix, code="mount_location", model=spec.name)


def _other(spec: ModelSpec, taken: dict[str, tuple[str, object]]) -> tuple[str, str] | None:
    """Return a path that the model needs and the model that has it; otherwise reserve the model's paths."""
    for entry in _linked(spec):
        place, files = os.path.normpath(entry["mount_location"]), _files(entry, spec.root)
        owner, theirs = taken.setdefault(place, (spec.name, files))
        if theirs != files:
            return place, owner
    return None


def _linked(spec: ModelSpec) -> Iterator[Mapping[str, Any]]:
    """Yield the entries for which links are created."""
    for entry in (spec.config.get("weights") or []) if spec.own_code else []:
        if text := entry.get("mount_location"):
            place = Path(text)
            if not is_there(place) and refusal(place, spec.mount_roots) is None:
                yield entry


def _files(entry: Mapping[str, Any], root: Path) -> object:
    """Return a value that identifies an entry's files. All files of a repository are in one snapshot."""
    scheme, _, rest = entry["source"].partition("://")
    if scheme == "file":
        return (root / rest).resolve()
    if scheme == "hf":
        return entry["source"].removesuffix("@main")
    return entry["source"], *(tuple(entry.get(key) or ()) for key in ("allow_patterns", "ignore_patterns"))


def mount(found: Path, place: Path, roots: Collection[Path]) -> None:
    """Link `place` to the files, through an intermediate link in our cache that identifies our own links.

    Raises:
        ConfigError: the path leads out of every root, or the link cannot be created.
    """
    try:
        if place.is_symlink() and _is_ours(place) and place.resolve() == found.resolve():
            return
        _check_parent(place, roots)
        middle = _ours() / hashlib.sha256(str(found).encode()).hexdigest()[:16]
        _link(middle, found)
        _link(place, middle)
    except OSError as error:
        raise ConfigError(
            f"mount_location {place} cannot be created ({error.strerror}); map it to a path of yours in gateway.toml:"
            f' [models.NAME.mounts] "{place}" = "/a/directory/of/yours"'
        ) from error


def _check_parent(place: Path, roots: Collection[Path]) -> None:
    """Refuse a path that leaves its root through a link, possibly one of an earlier entry."""
    parent = place.parent.resolve()
    if not any(place == root or parent.is_relative_to(root.resolve()) for root in roots if place.is_relative_to(root)):
        raise ConfigError(f"mount_location {place}: leads out of its mount root, to {parent}, through a link")


def _ours() -> Path:
    return cache_dir() / "mounts"


def _is_ours(link: Path) -> bool:
    return Path(os.readlink(link)).is_relative_to(_ours())


def _link(place: Path, target: Path) -> None:
    """Create or replace a link atomically: replicas load at the same time."""
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, place)
