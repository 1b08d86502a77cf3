"""What the documentation shows is run, and what it lists is compared with the code. The conventions are in pages.py."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import inspect
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import click
import pages
import pytest
from click.testing import CliRunner
from pages import PAGES, ROOT, URL, Block, blocks, codes, commands, matches, prose, table

from gateway import errors, hookspecs
from gateway.cli import COMMANDS, cli
from gateway.dialects import events
from gateway.directories.config.config import read_config
from gateway.directories.config.schema import CONFIG, Section
from gateway.settings.load import ALSO, MODEL, SECTIONS, load_settings
from gateway.settings.schema import ModelSettings, Settings
from gateway.spec import Limits
from gateway.testing import Gateway

DOCS, MODELS = ROOT / "docs", ROOT / "models"
DEMO = ("shout", "text-stats", "ticker")  # those of models/ that need no torch
PLUGINS_PAGE = DOCS / "plugins.md"
PLUGIN_PAGES = (PLUGINS_PAGE, *sorted((DOCS / "plugins").glob("*.md")))  # run with the plugins that they show
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


# ── running ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_files(desk: Path, page: Path, *, settings: bool = False) -> None:
    """Write the files that a page shows. config.yaml and gateway.toml alone are fragments, unless asked for."""
    for block in blocks(page):
        if block.file is None or block.file == "config.yaml" or (block.file == "gateway.toml" and not settings):
            continue
        path = desk / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)


def demo_models(desk: Path) -> None:
    for name in DEMO:
        shutil.copytree(MODELS / name, desk / "models" / name, ignore=shutil.ignore_patterns("__pycache__"))


def shell(command: str, desk: Path, url: str) -> str:
    """What a command prints, on both streams, where the gateway is at `url`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "GATEWAY_URL": url, "NO_COLOR": "1"}
    done = subprocess.run(
        ["bash", "-c", command.replace(URL, url)],
        cwd=desk,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    return (done.stdout + done.stderr).replace(url, URL)


def run_page(page: Path, desk: Path, url: str) -> None:
    """Run the blocks of a page, one after the other."""
    found = blocks(page)
    names: dict[str, Any] = {"__name__": "__main__"}
    for block, following in zip(found, [*found[1:], None], strict=False):
        if block.language == "console":
            for command, expected in commands(block.text):
                printed = shell(command, desk, url)
                assert matches(expected, printed), f"{block}: {command} printed:\n{printed}"
        elif (block.language, block.what) == ("python", "run"):
            with contextlib.chdir(desk):
                printed = run_python(block, names, url)
            if following is not None and following.language == "output":
                assert matches(following.text, printed), f"{block} printed:\n{printed}"


def run_python(block: Block, names: dict[str, Any], url: str) -> str:
    printed = io.StringIO()
    code = compile(block.text.replace(URL, url), str(block), "exec")
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    return printed.getvalue().replace(url, URL)


def is_run(page: Path) -> bool:
    runs = any(block.language == "console" or block.what == "run" for block in blocks(page))
    return runs and page not in PLUGIN_PAGES


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as its user has it in front of them: the demo models, and those that the pages show."""
    desk = tmp_path_factory.mktemp("desk")
    demo_models(desk)
    for page in PAGES:
        if page not in PLUGIN_PAGES:
            write_files(desk, page)
    for line in shown_commands(ROOT / "README.md", "gateway new"):
        assert "Next:" in shell(line, desk, URL)
    return desk


@pytest.fixture(scope="module")
def gateway(desk: Path) -> Iterator[Gateway]:
    with Gateway("models/", cwd=desk) as gateway:
        yield gateway


def shown_commands(page: Path, start: str) -> list[str]:
    """The lines of `sh` blocks that begin so."""
    lines = [line for block in blocks(page) if block.language == "sh" for line in block.text.splitlines()]
    return [line for line in lines if line.startswith(start)]


@pytest.mark.parametrize("page", [page for page in PAGES if is_run(page)], ids=lambda page: page.name)
def test_what_a_page_shows_works(page: Path, desk: Path, gateway: Gateway) -> None:
    run_page(page, desk, gateway.url)


def get(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.slow
def test_the_readme_talks_to_real_models() -> None:
    """The blocks marked `python demo` need what `make serve` installs."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    shown = [block for block in blocks(ROOT / "README.md") if block.what == "demo"]
    assert shown
    with Gateway(MODELS, cwd=ROOT, timeout=300) as gateway:
        printed = "".join(run_python(block, {}, gateway.url) for block in shown)
    assert printed.startswith("Reykjavik\n")  # tiny-chat answers exactly


# ── pages ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in pages.links(page):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        assert target.is_relative_to(ROOT), f"{page.name} links out of the repository: {link}"
        assert not anchor or anchor in pages.anchors(target), f"{page.name} links to {link}"


def test_the_page_on_architecture_names_every_module() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    modules = [*(ROOT / "gateway").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    names = {path.name for path in modules if path.name not in ("__init__.py", "__main__.py")}
    assert [name for name in sorted(names) if not re.search(rf"[`/]{re.escape(name)}\b", page)] == []


@every_page
def test_every_block_is_of_a_known_kind(page: Path) -> None:
    assert [str(block) for block in blocks(page) if not block.is_known] == []


@every_page
def test_the_settings_that_a_page_shows_are_read(page: Path, tmp_path: Path) -> None:
    for block in blocks(page):
        if block.file == "gateway.toml":
            file = tmp_path / "gateway.toml"
            file.write_text(block.text)
            load_settings(file, environ={})
        elif block.file and block.file.endswith("config.yaml"):
            (tmp_path / "config.yaml").write_text(block.text)
            assert [str(problem) for problem in read_config(tmp_path).problems] == [], str(block)


@every_page
def test_the_commands_that_a_page_shows_exist(page: Path) -> None:
    for line in shown_commands(page, ""):
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if words[:1] == ["gateway"]:
            check_command(words[1:], page)
        elif words[:1] == ["make"]:
            targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert words[1] in targets, f"{page.name}: {line}"


def check_command(words: list[str], page: Path) -> None:
    context = cli.make_context("gateway", [words[0]], resilient_parsing=True)
    command = cli.get_command(context, words[0]) if words[0] in (*COMMANDS, "init") else None
    assert command is not None, f"{page.name}: gateway {' '.join(words)}"
    command.make_parser(click.Context(command, context, words[0])).parse_args(words[1:])  # raises for unknown options


def test_no_model_is_without_its_three_lines() -> None:
    for directory in sorted(MODELS.iterdir()):
        if not directory.name.startswith((".", "__")) and directory.is_dir():
            lines = (directory / "README.md").read_text().splitlines()
            assert len(lines) == 3, f"{directory.name}/README.md has {len(lines)} lines"


@pytest.mark.parametrize("name", DEMO)
def test_a_demo_model_is_tried_as_its_readme_says(name: str, desk: Path, gateway: Gateway) -> None:
    tried = re.findall(r"`(gateway [^`]+)`", (MODELS / name / "README.md").read_text())
    assert tried
    for command in tried:
        printed = shell(command, desk, gateway.url)
        assert printed.strip(), command
        assert "Error" not in printed


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_help_of_every_command_is_on_its_page() -> None:
    helps = [block for block in blocks(DOCS / "cli.md") if block.what.startswith("help ")]
    shown = {block.what.removeprefix("help "): block for block in helps}
    assert list(shown) == list(COMMANDS)
    for name, block in shown.items():
        result = CliRunner().invoke(cli, [name, "--help"], prog_name="gateway", terminal_width=100)
        assert block.text.strip() == result.output.strip(), f"{block} is not the help of gateway {name}"


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_is_in_its_table(section: str) -> None:
    defaults = section_of(Settings(), section)
    flags = flags_of_serve()
    rows = {codes(row[0])[0]: row for row in table(DOCS / "settings.md", f"[{section}]")}
    assert list(rows) == list(SECTIONS[section]), "the table and gateway/settings/schema.py list other keys"
    for name, (_, default, variables, flag, _) in rows.items():
        key = f"{section}.{name}"
        assert same_default(default, SECTIONS[section][name], getattr(defaults, name)), f"{key}: default {default}"
        assert sorted(codes(variables)) == sorted(variables_of(key)), f"{key}: environment"
        assert codes(flag) == flags.get(key, []), f"{key}: flag"


def test_every_setting_of_a_model_is_in_its_table() -> None:
    rows = {codes(row[0])[0]: row[1] for row in table(DOCS / "settings.md", "[models.NAME]")}
    assert sorted(rows) == sorted(MODEL)
    defaults = {item.name: item.default for item in fields(ModelSettings)}
    for name, shown in rows.items():
        default = defaults.get(name)
        assert same_default(shown, MODEL[name], default), f"models.NAME.{name}: default {shown}, not {default}"


def empty_file() -> Path:
    return Path(os.devnull)


def section_of(settings: Any, section: str) -> Any:
    for part in section.split("."):
        settings = getattr(settings, part)
    return settings


def same_default(shown: str, kind: Any, default: Any) -> bool:
    if shown.startswith("none"):
        return default is None
    (text,) = codes(shown)
    value = tomllib.loads(f"x = {text}")["x"]
    return bool(kind(value, False) == default)


def variables_of(key: str) -> list[str]:
    """The environment variables that set a key, found by setting each that could."""
    section, _, name = key.rpartition(".")
    inner = section.partition(".")[2]
    candidates = [f"GATEWAY_{inner}__{name}".upper() if inner else f"GATEWAY_{name}".upper()]
    candidates += [variable for variable, target in ALSO.items() if target == key]
    known = []
    for variable in candidates:
        try:
            settings = load_settings(empty_file(), environ={variable: "1"})
        except errors.ConfigError:  # it is known, and 1 is no value of it
            known.append(variable)
            continue
        if not any(problem.code == "unknown_variable" for problem in settings.problems):
            known.append(variable)
    return known


def flags_of_serve() -> dict[str, list[str]]:
    """Settings by key → the options of `gateway serve` that set them; how each is called is the command's affair."""
    from gateway.cli.serve import command

    known = {f"{section}.{name}" for section in ("gateway", "gateway.placement") for name in SECTIONS[section]}
    found: dict[str, list[str]] = {}
    for option in command.params:
        name = "unmatched_accelerator" if option.name == "any_gpu" else str(option.name)
        for section in ("gateway", "gateway.placement"):
            if f"{section}.{name}" in known:
                found.setdefault(f"{section}.{name}", []).append(option.opts[0])
    return found


def test_the_keys_of_a_config_are_real_ones_with_their_defaults() -> None:
    for row in table(DOCS / "models.md", "config.yaml"):
        for key, default in zip(codes(row[0]), codes(row[1]) or [None] * 3, strict=False):
            node: Any = CONFIG
            for part in key.split("."):
                assert isinstance(node, Section) and part in node.keys, key
                node = node.keys[part]
            if default is not None:
                assert default.strip('"') in (str(node.default), json.dumps(node.default)), key


def test_every_key_without_effect_is_on_the_page_of_trusses() -> None:
    rows = table(DOCS / "truss.md", "Keys of config.yaml for images and the cloud")
    shown = {part for row in rows for code in codes(" ".join(row)) for part in code.split(".")}
    for key in keys_without_effect(CONFIG):
        assert shown & set(key) - {"runtime", "resources"}, f"{'.'.join(key)} is not on the page"


def keys_without_effect(section: Section, *at: str) -> Iterator[tuple[str, ...]]:
    for name, key in section.keys.items():
        if isinstance(key, Section):
            yield from keys_without_effect(key, *at, name)
        elif key.cloud:
            yield (*at, name)


def test_the_times_that_the_pages_name_are_the_defaults() -> None:
    limits = {item.name: item.default for item in fields(Limits)}
    text = prose(DOCS / "models.md")
    assert f"queue of {limits['max_queue']} (`max_queue`)" in text
    assert f"{limits['load_timeout'] / 60:g} minutes (`load_timeout`)" in " ".join(text.split())


# ── plugins, errors, metrics, routes ─────────────────────────────────────────────────────────────────────────────────


def hooks() -> dict[str, Any]:
    return {name: item for name, item in vars(hookspecs).items() if hasattr(item, "gateway_spec")}


def test_every_hook_is_shown_with_its_parameters() -> None:
    (block,) = [block for block in blocks(PLUGINS_PAGE) if block.what == "hooks"]
    real = [f"{name}({', '.join(inspect.signature(hook).parameters)})" for name, hook in hooks().items()]
    assert block.text.splitlines() == real
    assert [codes(row[0])[0] for row in table(PLUGINS_PAGE, "The hooks")] == list(hooks())


def tree(cls: type[errors.GatewayError]) -> Iterator[type[errors.GatewayError]]:
    yield cls
    for child in cls.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


def test_every_error_is_in_the_table() -> None:
    real = {(cls.code, cls.status, cls.type) for cls in tree(errors.GatewayError) if cls is not errors.HTTPError}
    rows = table(DOCS / "routes.md", "Errors")
    assert {(codes(row[0])[0], int(row[1]), codes(row[2])[0]) for row in rows} == real


def test_every_event_is_in_both_tables() -> None:
    """What a value means, and what each protocol makes of that."""
    rows = table(DOCS / "outputs.md", "Chat: `chat_completions`")
    known = [member.__name__ for member in get_args(events.AnyEvent)]
    assert set(known) <= {name for row in rows if len(row) == 2 for name in codes(row[1])}
    assert [codes(row[0])[0] for row in rows if len(row) == 5 and codes(row[0])] == known


def test_every_route_answers(gateway: Gateway) -> None:
    for row in table(DOCS / "routes.md", "Routes"):
        method, path = codes(row[0])[0].split(" ")
        if method == "WS":
            continue
        name = "text-stats" if "predict" in path or "schema" in path else "shout"
        status, body = get(f"{gateway.url}{path.replace('{id}', name)}", method, b"{}" if method == "POST" else None)
        assert status != 405, f"{method} {path}"
        assert status != 404 or "unknown_url" not in body, f"{method} {path}"  # /metrics may count some of others


def test_every_route_is_in_the_table(gateway: Gateway) -> None:
    shown = {codes(row[0])[0] for row in table(DOCS / "routes.md", "Routes")}
    paths = json.loads(get(f"{gateway.url}/openapi.json")[1])["paths"]
    real = {f"{method.upper()} {path}".replace("{model}", "{id}") for path, verbs in paths.items() for method in verbs}
    of_one_model = {route for route in real if route.startswith("POST /models/") and "{id}" not in route}
    assert real - of_one_model <= shown  # models that declare a schema have a path of their own there


def test_every_metric_is_in_the_table(gateway: Gateway) -> None:
    chat = b'{"model": "shout", "messages": [{"role": "user", "content": "hi"}]}'
    assert get(f"{gateway.url}/v1/chat/completions", "POST", chat)[0] == 200
    real = set()
    for line in get(f"{gateway.url}/metrics")[1].splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            real.add(f"{name}_total" if kind == "counter" and not name.endswith("_total") else name)
    shown = {name for row in table(DOCS / "operations.md", "Metrics") for name in codes(row[0])}
    assert {name for name in real if not name.endswith("_created")} == shown - {"metric"}


# ── architecture ─────────────────────────────────────────────────────────────────────────────────────────────────────


def definitions(file: Path) -> set[str]:
    """Functions, classes and methods of a file: "Call", "Call.take", "to_error"."""
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = [item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
            found |= {f"{node.name}.{item.name}" for item in methods}
    return found


def test_the_walk_through_the_code_is_true_to_the_files() -> None:
    steps = re.findall(
        r"^(?:\d+\.|-) \[([^\]]+)\]\(\.\./([^)]+)\)(.*?)(?=^(?:\d+\.|-) |^$|\Z)",
        prose(DOCS / "architecture.md"),
        re.DOTALL | re.MULTILINE,
    )
    assert len(steps) > 40
    for shown, path, text in steps:
        assert shown == path
        names = re.findall(r"`([\w.]+)\(\)`", text)
        missing = set(names) - definitions(ROOT / path)
        assert not missing, f"{path} has no {', '.join(sorted(missing))}"


def test_libraries_are_imported_where_the_page_says() -> None:
    """Which imports are allowed is the business of test_import_directions.py; here the page is compared with them."""
    imported = imports_of_the_gateway()
    for row in table(DOCS / "architecture.md", "Import direction"):
        for library in codes(row[0]):
            places = {place for place in codes(row[1]) if place.endswith(".py")}
            assert imported.get(library, set()) == places, library


def imports_of_the_gateway() -> dict[str, set[str]]:
    """Top-level package → the files that import it."""
    found: dict[str, set[str]] = {}
    for file in (ROOT / "gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                found.setdefault(name.partition(".")[0], set()).add(str(file.relative_to(ROOT)))
    return found
