"""A method that nothing calls and whose name is nearly one that a route calls: the model's author is asked."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.worker.adapter import ModelDefinitionError, describe

ENDPOINTS = frozenset({"chat_completions", "completions", "embeddings", "rerank"})


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
