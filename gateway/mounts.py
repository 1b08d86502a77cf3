"""Links at the absolute places that a `weights` entry names as its `mount_location`.

A class may open such a place as if it ran in a container of its own. Here the machine is shared, so a model directory
alone makes no link anywhere: the operator maps the place, or names roots below which models may have theirs.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cache import cache_dir
from .errors import ConfigError
from .spec import Problem
from .wording import unexpected

if TYPE_CHECKING:
    from .spec import ModelSpec

log = logging.getLogger("gateway.discovery")


def is_there(place: Path) -> bool:
    """Whether somebody put the files there already: a directory, a file, or a link that is not ours and works."""
    if os.path.islink(place) and _is_ours(place):
        return False
    return os.path.exists(place)


def refusal(place: Path, roots: Collection[Path]) -> str | None:
    """Why no link may be made at `place`, with what to write; None when it is one of `roots` or lies below one."""
    if ".." not in place.parts and any(place.is_relative_to(root) for root in roots):
        return None
    return (
        f"mount_location {place}: is made only where gateway.toml says so; map it to a place of yours, "
        f'[models.NAME.mounts] "{place}" = "/a/directory/of/yours", or name a directory below which models may have'
        f' theirs, [gateway] mount_roots = ["{place.parent}"]'
    )


def contradictions(specs: Iterable[ModelSpec]) -> Iterator[Problem]:
    """The models that want a place which one before them has for other files: the link can lead to one of them only."""
    taken: dict[str, tuple[str, object]] = {}
    for spec in specs:
        what, fix = "", "give one of them another place, and have its class open that"
        try:
            if other := _other(spec, taken):
                what = f"mount_location {other[0]} is that of model '{other[1]}' too, for other files"
        except Exception as error:  # of one model, whatever its places are called
            log.exception("the places of %s could not be compared", spec.name)
            what, fix = f"its mount_locations cannot be compared ({unexpected(error)})", "give them other places"
        if what:
            yield Problem(where=str(spec.root), what=what, fix=fix, code="mount_location", model=spec.name)


def _other(spec: ModelSpec, taken: dict[str, tuple[str, object]]) -> tuple[str, str] | None:
    """A place that the model wants, and who has it; all others are taken now."""
    for entry in _linked(spec):
        place, files = os.path.normpath(entry["mount_location"]), _files(entry, spec.root)
        owner, theirs = taken.setdefault(place, (spec.name, files))
        if theirs != files:
            return place, owner
    return None


def _linked(spec: ModelSpec) -> Iterator[Mapping[str, Any]]:
    """The entries for which a link is made."""
    for entry in (spec.config.get("weights") or []) if spec.own_code else []:
        if text := entry.get("mount_location"):
            place = Path(text)
            if not is_there(place) and refusal(place, spec.mount_roots) is None:
                yield entry


def _files(entry: Mapping[str, Any], root: Path) -> object:
    """Which files an entry means, to be compared. Those of one repository lie in one snapshot, whatever is chosen."""
    scheme, _, rest = entry["source"].partition("://")
    if scheme == "file":
        return (root / rest).resolve()
    if scheme == "hf":
        return entry["source"].removesuffix("@main")
    return entry["source"], *(tuple(entry.get(key) or ()) for key in ("allow_patterns", "ignore_patterns"))


def mount(found: Path, place: Path, roots: Collection[Path]) -> None:
    """Link `place` to the files, through a name in our cache by which we know our own links again.

    Raises:
        ConfigError: the way to the place leads out of every root, or it cannot be made.
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
            f"mount_location {place} cannot be created ({error.strerror}); map it to a place of yours in gateway.toml:"
            f' [models.NAME.mounts] "{place}" = "/a/directory/of/yours"'
        ) from error


def _check_parent(place: Path, roots: Collection[Path]) -> None:
    """The way to a place must not lead out of its root through a link, which an earlier entry may have been."""
    parent = place.parent.resolve()
    if not any(place == root or parent.is_relative_to(root.resolve()) for root in roots if place.is_relative_to(root)):
        raise ConfigError(f"mount_location {place}: leads out of its mount root, to {parent}, through a link")


def _ours() -> Path:
    return cache_dir() / "mounts"


def _is_ours(link: Path) -> bool:
    return Path(os.readlink(link)).is_relative_to(_ours())


def _link(place: Path, target: Path) -> None:
    """Make `place` a link to `target` in one step: replicas load at the same time."""
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, place)
