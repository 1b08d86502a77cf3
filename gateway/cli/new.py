"""gateway new"""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import ConfigError
from . import options
from .tables import tell
from .templates import TEMPLATES, Template


@click.command("new")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--template",
    type=click.Choice(list(TEMPLATES)),
    default="chat",
    show_default=True,
    metavar="|".join(TEMPLATES),
    help="What to start from.",
)
@click.option(
    "--from",
    "source",
    metavar="WEIGHTS",
    help="Serve these weights instead: a file, a directory, or hf:owner/name.",
)
@click.option("--framework", metavar="NAME", help="What the weights are, if it cannot be seen. See gateway formats.")
@click.pass_context
def command(ctx: click.Context, path: Path, template: str, source: str | None, framework: str | None) -> None:
    """Create a model directory to start from. Also called init."""
    from ..directories.ids import id_problem

    name = path.absolute().name
    if problem := id_problem(name):
        raise click.ClickException(problem)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise click.ClickException(f"{path} already exists; choose another path, or remove it")
    if source is not None:
        if ctx.get_parameter_source("template") is not click.core.ParameterSource.DEFAULT:
            raise click.UsageError("--template and --from exclude each other")
        _make(path, source, framework)
        return
    if framework is not None:
        raise click.UsageError("--framework says what the weights of --from are")
    chosen = TEMPLATES[template]
    try:
        _write(path, chosen, name)
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error
    tell(f"{path}: {chosen.about}")
    tell("\nNext:")
    for step in _steps(path, chosen):
        tell(f"  {step}")


def _make(path: Path, source: str, framework: str | None) -> None:
    from ..directories.preview import routes_of
    from ..http.route_table import is_own
    from ..plugins import Plugins
    from .new_from import make

    settings = options.settings_of()
    gateway = settings.gateway
    name, root, is_running = _placed(path)
    plugins = Plugins.load(gateway.plugins, (*gateway.block_plugins, "truss", "python"), is_own=is_own)
    try:
        made = make(path, source, framework, plugins, allow_links=settings.model(name).allow_links)
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error
    tell(f"{path}: {made.about}")
    if routes := routes_of(made.spec, plugins.endpoints()) or made.routes:
        tell(f"It answers {', '.join(routes)}")
    if made.settings:
        tell(f'\nAdd to gateway.toml, if you trust where the file is from:\n  [models."{name}"]')
        for line in made.settings:
            tell(f"  {line}")
    tell("\nNext:")
    tell(f"  gateway load {name}" if is_running else f"  gateway serve --models {root}")


def _write(path: Path, template: Template, name: str) -> None:
    for file, text in template.files.items():
        place = path / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text.replace("{name}", name), "utf-8")


def _steps(path: Path, template: Template) -> list[str]:
    name, root, is_running = _placed(path)
    steps = [step.format(path=path) for step in template.before]
    steps.append(f"gateway load {name}" if is_running else f"gateway serve --models {root}")
    key = """-H "Authorization: Bearer $GATEWAY_API_KEY" """ if _needs_key() else ""
    return [*steps, template.ask.format(name=name, url="http://127.0.0.1:8000", key=key)]


def _placed(path: Path) -> tuple[str, Path, bool]:
    """Return the id of the model, its root, and whether a running gateway serves that root."""
    root, is_running = _root_of(path)
    name = path.absolute().relative_to(root.absolute()).as_posix() if root != path else path.absolute().name
    return name, root, is_running


def _root_of(path: Path) -> tuple[Path, bool]:
    """Return the model root that contains the directory, and whether a running gateway serves that root."""
    from .operator import Operator

    place = path.absolute()
    try:
        settings = options.settings_of()
    except ConfigError:  # `gateway serve` reports it
        return _above(path), False
    try:
        running = Operator.of(settings, None).ask("GET", "/admin/models").get("roots", ())
    except click.ClickException:  # none is running
        running = ()
    roots = [(Path(root), True) for root in running] + [(root, False) for root in settings.gateway.models]
    for root, is_running in roots:
        if place != root.absolute() and place.is_relative_to(root.absolute()):
            return root, is_running
    return _above(path), False


def _above(path: Path) -> Path:
    """Return the parent directory to serve: a root that is itself a model would hide the models next to it."""
    return path.parent if path.parent != Path(".") else path


def _needs_key() -> bool:
    """Return whether the gateway started from here requires a key."""
    try:
        gateway = options.settings_of().gateway
    except ConfigError:  # `gateway serve` reports it
        return False
    return gateway.api_key is not None or gateway.keys_file.is_file()
