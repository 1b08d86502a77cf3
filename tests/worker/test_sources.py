"""A traceback shows the lines of the code that runs, whatever its files are by then."""

from __future__ import annotations

import asyncio
import linecache
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import HTTPError
from gateway.spec import ModelSpec
from gateway.worker.bodies.failures import trace_of
from gateway.worker.loading import hot_reload, loader, sources
from gateway.worker.loading.loader import Loaded
from gateway.worker.loading.secrets import Secrets

CODE = """
import early
class Model:
    def load(self):
        import late
        self.calls = [early.fails, late.fails]
    def predict(self, number):
        return self.calls[number]()  # of the {version} code
"""
PART = "def fails():\n    raise ValueError  # of the {version} part\n"


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(linecache, "cache", {})
    monkeypatch.setenv("NUM_LOAD_RETRIES_TRUSS", "0")
    monkeypatch.chdir(tmp_path)
    before = dict(sys.modules)
    yield
    sys.modules.clear()
    sys.modules.update(before)


def write(root: Path, version: str, code: str = CODE) -> None:
    for name, text in {"model": code, "early": PART, "late": PART}.items():
        (root / f"{name}.py").write_text(
            "# one line more\n" * (version != "first") + text.replace("{version}", version)
        )


def loaded(root: Path) -> Loaded:
    write(root, "first")
    spec = ModelSpec(name="m", target="model:Model", root=root, own_code=True)
    loop = asyncio.new_event_loop()
    try:
        return loader.load(spec, Secrets((), {}), None, frozenset(), loop)
    finally:
        loop.close()


def trace(found: Loaded, number: int) -> str:
    with pytest.raises(ValueError) as caught:
        found.model.predict(number)
    return trace_of(caught.value, found.spec)


@pytest.mark.parametrize("number", [0, 1])
def test_a_traceback_of_code_that_serves_on_shows_no_line_of_the_files_that_came_later(
    tmp_path: Path, number: int
) -> None:
    found = loaded(tmp_path)
    write(tmp_path, "second")
    shown = trace(found, number)
    assert "of the first code" in shown and "of the first part" in shown and "second" not in shown


def test_after_a_hot_reload_it_shows_the_new_lines_and_after_one_that_failed_the_old_ones(tmp_path: Path) -> None:
    found = loaded(tmp_path)
    write(tmp_path, "second")
    hot_reload.reload(found, frozenset())
    write(tmp_path, "third", code=CODE + "raise TypeError('of the third code')\n")
    shown = trace(found, 0)
    assert "of the second code" in shown and "third" not in shown
    with pytest.raises(HTTPError, match="of the third code"):
        hot_reload.reload(found, frozenset())
    shown = trace(found, 0)
    assert "of the second code" in shown and "third" not in shown


def test_of_much_code_no_more_than_a_bound_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "first")
    monkeypatch.setattr(sources, "MOST", (tmp_path / "model.py").stat().st_size + 10)
    loaded(tmp_path)
    kept = [Path(file).name for file, entry in linecache.cache.items() if entry[1:2] == (None,)]
    assert kept == ["model.py"]


def test_a_module_that_computes_its_attributes_is_asked_for_none(tmp_path: Path) -> None:
    class Computed(type(sys)):  # type: ignore[misc]
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    sys.modules["computed"] = Computed("computed")
    sources.pin_modules([str(tmp_path)])
