"""Make a model directory of weights that exist already: a file, a directory, or a repository of the Hugging Face Hub.

The directory gets a config.yaml that says where the weights are; nothing is copied, downloaded or opened as a model.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import yaml

from ..directories.unserved.unserved import find_unserved
from ..errors import ConfigError
from ..files import integrity, ordinary
from ..plugins import Plugins
from ..spec import Format, ModelSpec

HUB = re.compile(r"(?:hf:(?://)?)?([\w.-]+/[\w.-]+(?:@[\w./-]+)?)")
PICKLES = (".pkl", ".pickle", ".joblib")
TRUSTS = "allow_pickle = true   # the file runs code when it is opened"


@dataclass(frozen=True, slots=True)
class Made:
    """A model directory that was made. `settings` are lines for its table in gateway.toml."""

    spec: ModelSpec
    about: str
    routes: Sequence[str]  # as its format names them
    settings: Sequence[str] = ()


def make(path: Path, source: str, framework: str | None, plugins: Plugins, *, allow_links: bool = False) -> Made:
    """Write the directory `path` for the weights `source`, and return what serves it.

    `plugins` are those of frameworks: the formats of classes would take any directory with a config.yaml. `allow_links`
    is what gateway.toml says of the model.

    Raises:
        ClickException: there are no such weights, or nothing serves them. Nothing is left behind.
    """
    formats = {name: found for name, (_, found) in plugins.formats().items() if found.needs}
    address = _address(source, framework, formats)
    is_pickle = Path(source).suffix.lower() in PICKLES
    config: dict[str, object] = {"weights": [{"source": address}]}
    if framework is not None:
        config["framework"] = framework
    if not allow_links:
        _check_links(Path(source).expanduser())
    existed = path.exists()
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), "utf-8")
    try:
        with ordinary.within(path, allow_links):
            spec = plugins.find_model(path, {"allow_pickle": True} if is_pickle else {})
        if spec is None:
            raise ConfigError(_unserved(Path(source), formats))
    except BaseException as error:
        (path / "config.yaml").unlink()
        if not existed:
            shutil.rmtree(path)
        if isinstance(error, ConfigError):
            raise click.ClickException(f"{source}: {str(error).removeprefix(f'{path} ')}") from error
        raise
    routes = formats[spec.format].routes if spec.format in formats else ()
    return Made(spec, f"a model of {spec.format}, weights from {address}", routes, (TRUSTS,) if is_pickle else ())


def _address(source: str, framework: str | None, formats: Mapping[str, Format]) -> str:
    """Return the source of the weights as config.yaml names it."""
    if framework is not None and framework not in formats:
        raise click.ClickException(f"no plugin serves framework {framework!r} (have: {', '.join(formats)})")
    place = Path(source).expanduser()
    if place.exists():
        if any((place / name).exists() for name in ("model.py", "model/model.py", "config.yaml")):
            raise click.ClickException(f"{source} is a model directory already: gateway serve --models {source}")
        return place.absolute().as_uri()
    if source.startswith(("/", ".", "~")) or (found := HUB.fullmatch(source)) is None:
        raise click.ClickException(
            f"{source}: no such file or directory, and no repository of the Hub, such as hf:owner/name"
        )
    if framework is None:
        raise click.ClickException(
            f"{source}: say what it is with --framework, because it is not here to be looked at; {_have(formats)}"
        )
    return f"hf://{found[1]}"


def _check_links(place: Path) -> None:
    try:
        integrity.check_weights(place)
    except ConfigError as error:
        raise click.ClickException(str(error)) from error


def _unserved(place: Path, formats: Mapping[str, Format]) -> str:
    found = find_unserved(place) if place.exists() else None
    return f"it is {found.what} ({found.fix})" if found else f"no plugin serves it; {_have(formats)}"


def _have(formats: Mapping[str, Format]) -> str:
    return f"have: {', '.join(formats)}; `gateway formats` says how each is recognized"
