"""Lazy models: what they serve is known before they are loaded, and one table makes thirty of them lazy."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from gateway.access.callers import everybody
from gateway.directories.code import expected_routes
from gateway.directories.code.source import ClassInfo
from gateway.hosting.hub import Hub
from gateway.hosting.model_roots import look_again
from gateway.hosting.reload import reload
from gateway.http.exchange import Exchange
from gateway.http.routes.models import Models
from gateway.inspection.inventory import take_inventory
from gateway.settings.load import load_settings
from gateway.spec import ModelSpec

pytestmark = pytest.mark.anyio
CODE = {
    "chat": "class Model:\n    def chat_completions(self, inputs):\n        yield 'fine'\n",
    "team/tensor": "class Model:\n    def predict(self, inputs):\n        return inputs\n",
}


def hub_in(place: Path, settings: str) -> Hub:
    for name, code in CODE.items():
        (place / "models" / name).mkdir(parents=True)
        (place / "models" / name / "model.py").write_text(code)
    (place / "gateway.toml").write_text(settings)
    found = take_inventory(load_settings(place / "gateway.toml", environ={}))
    assert not [problem for problem in found.problems if problem.code == "unused_table"]
    return Hub(found.settings, found.plugins, found.specs)


async def test_a_lazy_model_shows_its_routes_before_it_is_loaded(tmp_path: Path) -> None:
    hub = hub_in(tmp_path, '[models."*"]\nload = "lazy"\n[models."team/*"]\nslots = 3\n')
    assert all(hub.is_lazy(name) for name in CODE)
    routes = {name: hub.catalog.routes(model) for name, model in hub.catalog.models.items()}
    assert routes["team/tensor"] == ["/v1/models/team/tensor:predict"]
    assert {"/v1/chat/completions", "/v1/messages", "/v1/responses"} <= set(routes["chat"])
    assert (
        hub.catalog.models["team/tensor"].spec.limits.slots == 3 and hub.catalog.models["chat"].spec.limits.slots == 1
    )
    (tmp_path / "models/chat/model.py").unlink()
    assert hub.catalog.routes(hub.catalog.models["chat"]) == routes["chat"]  # the file is not read for every question
    asked = Exchange({"type": "http", "method": "GET", "path": "/v1/models", "headers": []}, None, None)
    shown = Models(hub).describe(hub.catalog.models["chat"], asked)
    assert shown["status"] == "unloaded" and shown["capabilities"]["routes"] == routes["chat"]


async def test_sources_are_parsed_beside_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, for models that are new, and for a model that is read again."""
    threads: list[tuple[str, bool]] = []
    read = expected_routes.read_class

    def watched(path: Path, name: str) -> ClassInfo | None:
        threads.append((path.parent.name, threading.current_thread() is threading.main_thread()))
        return read(path, name)

    hub = hub_in(tmp_path, '[models."*"]\nload = "lazy"\n')
    monkeypatch.setattr(expected_routes, "read_class", watched)
    hub.start()
    await hub._expecting  # type: ignore[misc]
    (tmp_path / "models/new").mkdir()
    (tmp_path / "models/new/model.py").write_text(CODE["chat"])
    await look_again(hub, everybody, "somebody")
    await reload(hub, hub.catalog.models["chat"])
    assert all(hub.catalog.routes(model) for model in hub.catalog.models.values())
    await hub.stop(0)
    assert threads == [("chat", False), ("tensor", False), ("new", False), ("chat", False)]


async def test_a_class_in_a_package_of_a_plugin_is_read_and_the_package_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = hub_in(tmp_path, "")
    (tmp_path / "boxed_plugin").mkdir()
    (tmp_path / "boxed_plugin/__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "boxed_plugin/inner.py").write_text(CODE["chat"])
    monkeypatch.syspath_prepend(tmp_path)
    spec = ModelSpec(name="data", target="boxed_plugin.inner:Model", root=tmp_path / "data")
    assert hub.catalog.expected_routes.routes(spec) == hub.catalog.routes(hub.catalog.models["chat"])
    assert "boxed_plugin" not in sys.modules


async def test_a_target_that_nobody_can_look_for_has_no_routes(tmp_path: Path) -> None:
    hub = hub_in(tmp_path, "")
    assert hub.catalog.expected_routes.routes(ModelSpec(name="odd", target="", root=tmp_path)) == []


def test_a_pattern_that_no_model_matches_is_told(tmp_path: Path) -> None:
    for name, code in CODE.items():
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "model.py").write_text(code)
    (tmp_path / "gateway.toml").write_text('[models."taem/*"]\nslots = 3\n[models."team/*"]\nslots = 2\n')
    found = take_inventory(load_settings(tmp_path / "gateway.toml", environ={}))
    (problem,) = [problem for problem in found.problems if problem.code == "unused_table"]
    assert '[models."taem/*"]' in problem.what
