"""A method that nothing calls and whose name is nearly one that a route calls: the model's author is asked."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.worker.loading.descriptor import ModelDefinitionError, capabilities, describe

ENDPOINTS = frozenset({"chat_completions", "completions", "embeddings", "rerank"})
PREDICT = "class Model:\n    def predict(self, x): ...\n"


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """A function that makes the model of a source."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names: list[str] = []

    def make(source: str) -> Any:
        names.append(f"written_{len(names)}")
        (tmp_path / f"{names[-1]}.py").write_text(source)
        importlib.invalidate_caches()
        return importlib.import_module(names[-1]).Model()

    yield make
    for name in names:
        sys.modules.pop(name, None)


def asked(model: Any) -> dict[str, str]:
    """What the gateway is told, by the method that is missing."""
    return dict(capabilities(model, describe(model, ENDPOINTS)).asked)


def plain(self: Any, x: Any) -> Any:
    return x


def look_at(*names: str, strict: bool = False) -> None:
    describe(type("Model", (), dict.fromkeys(names, plain))(), ENDPOINTS, strict)


@pytest.mark.parametrize(
    ("wrote", "meant"),
    [
        ("chat", "chat_completions"),
        ("chat_completion", "chat_completions"),
        ("predcit", "predict"),
        ("embed", "embeddings"),
        ("chatt", "chat_completions"),
        ("generat", "predict"),
        ("__call__", "predict"),
    ],
)
def test_a_class_that_serves_nothing_hears_what_it_may_have_meant(wrote: str, meant: str) -> None:
    with pytest.raises(ModelDefinitionError, match=f"the class has `{wrote}`.* did you mean `{meant}`"):
        look_at(wrote)
    with pytest.raises(ModelDefinitionError) as caught:
        look_at(wrote, strict=True)
    assert str(caught.value) == "Truss model must have a `predict` or `websocket` method."


def test_a_method_without_self_is_told_that_it_is_given_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    def predict(inputs: Any) -> Any: ...

    def other(self: Any) -> Any: ...

    describe(type("Model", (), {"preprocess": other, "predict": predict})(), ENDPOINTS)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "`predict(inputs)` has no self" in line and line.endswith("write `predict(self, inputs)`")
    describe(type("Model", (), {"predict": staticmethod(predict)})(), ENDPOINTS)
    describe(type("Model", (), {"predict": classmethod(predict)})(), ENDPOINTS)
    assert capsys.readouterr().err == ""


def test_beside_a_method_that_serves_only_a_slip_of_the_pen_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    look_at("predict", "chat_completion")
    assert "did you mean `chat_completions`?" in capsys.readouterr().err
    for wrote, meant in (("laod", "load"), ("perprocess", "preprocess"), ("is_healhty", "is_healthy")):
        look_at("predict", wrote)
        told = f"WARNING gateway: the class has `{wrote}`, which nothing calls: did you mean `{meant}`?"
        assert capsys.readouterr().err.strip() == told
    look_at("predict", "chat", "embed", "run", "prediction", "__call__", "_chat_completion", "pre_process_text")
    look_at("predict", "chat_completions", "chat_completion")
    look_at("predict", "unload")  # which is called, and may be there without a load
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("wrote", "meant"),
    [
        ("chat(self, x)", "chat_completions"),
        ("generate(self, x)", "completions"),
        ("embed(self, x)", "embeddings"),
        ("load_model(self)", "load"),
        ("__int__(self, config)", "__init__"),
        ("_init_(self)", "__init__"),
        ("__init(self, config)", "__init__"),
        ("init(self, config)", "__init__"),
    ],
)
def test_what_neither_its_file_nor_a_base_calls_is_asked_about_beside_a_good_predict(
    written: Callable[[str], Any], capsys: pytest.CaptureFixture[str], wrote: str, meant: str
) -> None:
    name = wrote.partition("(")[0]
    told = f"the class has `{name}`, which nothing calls: did you mean `{meant}`?"
    assert asked(written(f"{PREDICT}    def {wrote}: ...\n")) == {meant: told}
    assert capsys.readouterr().err.strip() == f"WARNING gateway: {told}"
    assert asked(written(f"{PREDICT}    def {wrote}: ...\n    def helper(self):\n        self.{name}(1)\n")) == {}


def test_a_method_that_the_class_may_call_by_a_computed_name_is_no_slip(written: Callable[[str], Any]) -> None:
    dispatched = (
        "    def chat(self, x): ...\n    def preprocess(self, x):\n        return getattr(self, x['task'])(x)\n"
    )
    assert asked(written(PREDICT + dispatched)) == {}
    based = "import threading\n" + PREDICT.replace("Model", "Model(threading.Thread)")
    assert asked(written(f"{based}    def setup(self): ...\n")) == {}


def test_a_function_that_slipped_out_of_the_class_is_named_with_its_line(written: Callable[[str], Any]) -> None:
    told = "`chat_completions` is defined outside the class, so nothing calls it: indent it, as a method of the class"
    (found,) = asked(written(f"{PREDICT}\ndef chat_completions(self, body): ...\n")).items()
    assert found == ("chat_completions", f"written_0.py:4: {told}")
    nested = "class Model:\n    def load(self):\n        def predict(self, x): ...\n"
    with pytest.raises(ModelDefinitionError, match=r"written_1\.py:3: `predict` is defined inside `load`"):
        asked(written(nested))


@pytest.mark.parametrize("name", ["load", "unload", "is_healthy", "websocket", "predict", "postprocess", "rerank"])
def test_a_method_without_any_parameter_is_refused_with_its_line_and_how_it_is_written(
    written: Callable[[str], Any], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    model = written(f"class Model:\n    def {name}(): ...\n    def completions(self, x): ...\n")
    try:
        describe(model, ENDPOINTS)
    except ModelDefinitionError as error:
        told = str(error)
    else:  # of a name that Truss does not serve: it may be no route
        told = capsys.readouterr().err
    assert f"written_0.py:2: `{name}()` has no self, so it cannot be called: write `{name}(self" in told
