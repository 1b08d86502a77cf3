"""The small models of `models/`, called as a worker calls them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway import ModelSpec
from gateway.directories.code.source import inspect_source
from gateway.directories.discovery import discover
from gateway.plugins import Plugins

MODELS = Path(__file__).parent.parent / "models"
NAMES = ("shout", "text-stats", "ticker")


def spec(name: str) -> ModelSpec:
    (found,) = discover([MODELS / name], Plugins.load()).specs
    return found


def source(found: ModelSpec) -> Path:
    return found.root / "model.py" if found.format == "python" else found.root / "model" / "model.py"


def build(name: str, monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> Any:
    found = spec(name)
    for directory in found.import_dirs:
        monkeypatch.syspath_prepend(directory)
    module_spec = importlib.util.spec_from_file_location("demo_model", source(found))
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    monkeypatch.setitem(sys.modules, "demo_model", module)
    module_spec.loader.exec_module(module)
    return module.Model(**arguments)


@pytest.mark.parametrize("name", NAMES)
def test_a_demo_has_nothing_to_complain_about(name: str) -> None:
    found = spec(name)

    assert found.name == name
    assert found.notes == ()
    assert inspect_source(source(found), "Model") == []
    assert len((found.root / "README.md").read_text().splitlines()) == 3


def test_text_stats_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("text-stats", monkeypatch, config=spec("text-stats").config)
    text = sys.modules["demo_model"].Text(text="  One fish. Two fish!  ", top=1)

    assert model.postprocess(model.predict(model.preprocess(text))) == {
        "model": "Text statistics",
        "characters": 19,
        "words": 4,
        "sentences": 2,
        "longest": "fish",
        "top": {"fish": 2},
    }


def test_ticker_counts_in_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    items = build("ticker", monkeypatch).predict({"count": 3, "delay": 0})
    assert list(items) == ["1\n", "2\n", "3\n"]


def test_shout_answers_the_last_message_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [
        {"role": "user", "content": "no"},
        {"role": "assistant", "content": "NO"},
        {"role": "user", "content": "good morning"},
    ]
    model = build("shout", monkeypatch)
    assert list(model.chat_completions({"messages": messages})) == ["GOOD ", "MORNING "]
    assert list(model.chat_completions({"messages": []})) == ["? "]
