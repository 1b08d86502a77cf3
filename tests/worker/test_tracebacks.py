"""The frames of a model's author come first: what led to them is not theirs to mend."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.spec import ModelSpec
from gateway.worker.bodies.failures import trace_of
from gateway.worker.loading import loader, terminal
from gateway.worker.loading.secrets import Secrets

HELPER = "def raises(text):\n    raise ValueError(text)\n"


def failed(root: Path, source: str, **files: str) -> tuple[BaseException, str]:
    """The load of a model with this source, and what is shown of its failure."""
    (root / "model.py").write_text(source)
    for name, text in files.items():
        (root / f"{name}.py").write_text(text)
    spec = ModelSpec(name="m", target="model:Model", root=root, own_code=True)
    loop = asyncio.new_event_loop()
    with pytest.raises(BaseException) as caught:
        loader.load(spec, Secrets((), {}), None, frozenset(), loop)
    loop.close()
    return caught.value, trace_of(caught.value, spec)


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.setenv("NUM_LOAD_RETRIES_TRUSS", "0")
    monkeypatch.chdir(tmp_path)


def files_of(text: str) -> list[str]:
    return [Path(file).name for file in re.findall(r'File "([^"]+)"', text)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("class Model:\n    def load(self):\n        1 / 0\n    def predict(self, x): ...\n", ["model.py"]),
        ("class Model:\n    def __init__(self):\n        1 / 0\n    def predict(self, x): ...\n", ["model.py"]),
        ("import helping\nhelping.raises('no')\n", ["model.py", "helping.py"]),
        ("import nothing_of_that_name\n", ["model.py"]),
        ("class Model\n", ["model.py"]),
    ],
    ids=["load", "__init__", "helper", "import", "syntax"],
)
def test_a_failed_load_shows_the_models_own_frames_and_not_those_that_led_to_them(
    tmp_path: Path, source: str, expected: list[str]
) -> None:
    _, text = failed(tmp_path, source, helping=HELPER)
    assert files_of(text) == expected


def test_each_exception_of_a_chain_begins_with_a_frame_of_the_model(tmp_path: Path) -> None:
    source = """
import importlib
class Model:
    def predict(self, x): ...
    def load(self):
        try:
            importlib.import_module("helping")
        except ValueError as error:
            raise RuntimeError("no weights") from error
"""
    _, text = failed(tmp_path, source, helping=HELPER + "raises('no')\n")
    first, second = text.split("direct cause")
    assert files_of(first)[0] == files_of(second)[0] == "model.py"
    assert files_of(first)[-1] == "helping.py"


def test_frames_of_ours_that_the_model_called_come_after_its_own(tmp_path: Path) -> None:
    source = """
from gateway.chat import flatten
class Model:
    def predict(self, x): ...
    def load(self):
        flatten(1)
"""
    _, text = failed(tmp_path, source)
    assert files_of(text)[0] == "model.py" and "gateway/chat.py" in text


def test_what_asks_for_a_terminal_is_shown_by_the_line_of_the_model_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "_refused", "")
    for name in ("stdin", "breakpointhook"):  # which are as they were afterwards
        monkeypatch.setattr(sys, name, getattr(sys, name))
    terminal.refuse("m")
    source = "class Model:\n    def predict(self, x): ...\n    def load(self):\n        breakpoint()\n"
    _, text = failed(tmp_path, source)
    assert files_of(text) == ["model.py"] and "needs a terminal" in text


def test_where_no_file_is_the_models_own_ours_lead_no_more(tmp_path: Path) -> None:
    import json

    spec = ModelSpec(name="m", target="json:loads", root=tmp_path)

    def called() -> Any:
        return json.loads("{")

    with pytest.raises(ValueError) as caught:
        loader.call(asyncio.new_event_loop(), called)
    assert files_of(trace_of(caught.value, spec))[0] == Path(__file__).name
    with pytest.raises(loader.Unloadable) as ours:
        loader.import_file(tmp_path / "nowhere.py", "nowhere")
    assert files_of(trace_of(ours.value, spec))[-1] == "loader.py"
