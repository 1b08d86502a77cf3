"""The pages about plugins: each plugin that they show is a file outside the project, run by a real gateway.

They use public names only, and each of those is needed: without it the plugin that uses it is a problem.
"""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from pages import ROOT, Block, blocks
from test_docs import PLUGIN_PAGES, run_page, write_files

import gateway
from gateway import Replica, errors
from gateway.plugins import Plugins
from gateway.testing import Gateway

PACKAGE_PAGE = ROOT / "docs" / "plugins" / "package.md"
RUNNER_PAGE = ROOT / "docs" / "plugins" / "runner.md"
RUN = [page for page in PLUGIN_PAGES if page != PACKAGE_PAGE]


def cards(root: Path) -> None:
    """What the driver of AMD's cards shows of two of them."""
    for index in range(2):
        card = root / "class" / "drm" / f"card{index}" / "device"
        card.mkdir(parents=True)
        for name, text in (("vram_total", "206158430208"), ("vram_used", "1073741824")):
            (card / f"mem_info_{name}").write_text(f"{text}\n")
        (card / "product_name").write_text("AMD Instinct MI300X\n")


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_a_plugin_does_what_a_page_shows_of_it(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards(tmp_path / "sys")
    monkeypatch.setenv("SYSFS", str(tmp_path / "sys"))
    write_files(tmp_path, page, settings=True)
    with Gateway("models/", cwd=tmp_path) as running:
        run_page(page, tmp_path, running.url)


def test_a_strangers_plugin_is_packaged_installed_and_tested_as_its_page_says(tmp_path: Path) -> None:
    """In a fresh environment, which finds all else in that of these tests instead of a registry."""
    desk, place = tmp_path / "desk", tmp_path / "venv"
    write_files(desk, PACKAGE_PAGE)
    venv.create(place)
    python = place / "bin" / "python"
    packages = sysconfig.get_path("purelib", vars={"base": str(place)})
    outer = sysconfig.get_path("purelib")
    (Path(packages) / "outer.pth").write_text(f"import site; site.addsitedir({outer!r})\n")
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=desk, env=environ, capture_output=True, text=True, timeout=150)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    options = ("--no-index", "--no-build-isolation", "--no-deps", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, "-e", ".")
    assert "lines" in run(python, "-P", "-m", "gateway", "plugins")
    assert "2 passed" in run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider")


def test_every_method_of_a_replica_is_on_the_page_of_runners() -> None:
    (block,) = [block for block in blocks(RUNNER_PAGE) if block.what == "replica"]
    real = [f"{name}: {kind}" for name, kind in Replica.__annotations__.items()]
    for name, item in vars(Replica).items():
        if isinstance(item, property):
            real.append(name)
        elif inspect.isfunction(item) and not name.startswith("_"):
            real.append(f"{name}({', '.join([*inspect.signature(item).parameters][1:])})")
    assert block.text.splitlines() == real


# ── public names ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Use(NamedTuple):
    block: Block
    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.block.file}-{self.name}"


def uses() -> Iterator[Use]:
    """Every name that the plugins and models of the pages import of the gateway."""
    for page in PLUGIN_PAGES:
        for block in blocks(page):
            if block.language == "python" and block.file:
                for node in ast.walk(ast.parse(block.text)):
                    assert not (isinstance(node, ast.Import) and any(a.name == "gateway" for a in node.names))
                    if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "gateway":
                        yield from (Use(block, str(node.module), alias.name) for alias in node.names)


USES = sorted(set(uses()), key=str)
OF_PLUGINS = [use for use in USES if "/" not in str(use.block.file)]


def test_the_pages_use_public_names_only() -> None:
    public = {"gateway": set(gateway.__all__), "gateway.errors": {name for name in vars(errors) if name[0].isupper()}}
    assert [str(use) for use in USES if use.name not in public.get(use.module, ())] == []


def test_every_kind_of_plugin_has_its_names() -> None:
    """What the pages would not do without: a change of what is public shows here."""
    names = {use.name for use in OF_PLUGINS}
    assert names >= {
        *("BadRequest", "Caller", "Capabilities", "Device", "Dialect", "Endpoint", "EventEncoder", "HTTPError"),
        *("LoadError", "MethodInfo", "Prepared", "Problem", "TaskReplica", "Unauthorized", "describe", "error_body"),
        *("events", "fields", "hookimpl", "peek_json"),
    }


@pytest.mark.parametrize("use", OF_PLUGINS, ids=str)
def test_without_a_public_name_the_plugin_that_uses_it_is_a_problem(
    use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / str(use.block.file)
    file.write_text(use.block.text)
    assert Plugins.load([file]).problems == ()

    for table in (gateway._WHERE, gateway._MODULES):
        monkeypatch.delitem(table, use.name, raising=False)
    monkeypatch.delattr(gateway, use.name, raising=False)
    (problem,) = Plugins.load([file]).problems
    assert f"cannot import name {use.name!r} from 'gateway'" in str(problem)
