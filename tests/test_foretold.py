"""Lazy models: what they serve is known before they are loaded, and one table makes thirty of them lazy."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from gateway import foretold
from gateway.formats.source import ClassInfo
from gateway.http.exchange import Exchange
from gateway.http.models import Models
from gateway.hub import Hub
from gateway.inventory import take_inventory
from gateway.reloading import reload
from gateway.roots import look_again
from gateway.settings import load_settings
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
    routes = {name: hub.routes(model) for name, model in hub.models.items()}
    assert routes["team/tensor"] == ["/v1/models/team/tensor:predict"]
    assert {"/v1/chat/completions", "/v1/messages", "/v1/responses"} <= set(routes["chat"])
    assert hub.models["team/tensor"].spec.limits.slots == 3 and hub.models["chat"].spec.limits.slots == 1
    (tmp_path / "models/chat/model.py").unlink()
    assert hub.routes(hub.models["chat"]) == routes["chat"]  # the file is not read for every question
    asked = Exchange({"type": "http", "method": "GET", "path": "/v1/models", "headers": []}, None, None)
    shown = Models(hub).describe(hub.models["chat"], asked)
    assert shown["status"] == "unloaded" and shown["capabilities"]["routes"] == routes["chat"]


async def test_sources_are_parsed_beside_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, for models that are new, and for a model that is read again."""
    threads: list[tuple[str, bool]] = []
    read = foretold.read_class

    def watched(path: Path, name: str) -> ClassInfo | None:
        threads.append((path.parent.name, threading.current_thread() is threading.main_thread()))
        return read(path, name)

    hub = hub_in(tmp_path, '[models."*"]\nload = "lazy"\n')
    monkeypatch.setattr(foretold, "read_class", watched)
    hub.start()
    await hub._foretelling  # type: ignore[misc]
    (tmp_path / "models/new").mkdir()
    (tmp_path / "models/new/model.py").write_text(CODE["chat"])
    await look_again(hub, "somebody")
    await reload(hub, hub.models["chat"])
    assert all(hub.routes(model) for model in hub.models.values())
    await hub.stop(0)
    assert threads == [("chat", False), ("tensor", False), ("new", False), ("chat", False)]


async def test_a_target_that_nobody_can_look_for_has_no_routes(tmp_path: Path) -> None:
    hub = hub_in(tmp_path, "")
    assert hub.foretold.routes(ModelSpec(name="odd", target="", root=tmp_path)) == []


def test_a_pattern_that_no_model_matches_is_told(tmp_path: Path) -> None:
    for name, code in CODE.items():
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "model.py").write_text(code)
    (tmp_path / "gateway.toml").write_text('[models."taem/*"]\nslots = 3\n[models."team/*"]\nslots = 2\n')
    found = take_inventory(load_settings(tmp_path / "gateway.toml", environ={}))
    (problem,) = [problem for problem in found.problems if problem.code == "unused_table"]
    assert '[models."taem/*"]' in problem.what
