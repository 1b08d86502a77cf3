"""Which methods of a class serve in batches, and what is said about mistakes in them and in their settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from starlette.requests import Request

from gateway.spec import Batching, ModelSpec
from gateway.worker.batching.methods import batch_method
from gateway.worker.loading.descriptor import Descriptor, ModelDefinitionError, capabilities
from gateway.worker.loading.loader import inspect_model

METHODS = frozenset({"chat_completions", "embeddings"})


def inspected(cls: Any, parity: Any = "improved", **batching: Any) -> Descriptor:
    spec = ModelSpec(name="m", target="", root=Path("/nowhere"), batching=Batching(**batching), parity=parity)
    return inspect_model(cls(), METHODS, spec)


class Text(BaseModel):
    text: str


class Typed:
    def predict_batch(self, inputs: list[Text], them: list[Request]) -> list[Text]:
        return inputs


def test_the_types_of_an_item_are_those_of_the_lists() -> None:
    method = batch_method(Typed(), "predict")
    assert (method.item_type, method.returns, method.takes_requests) == (Text, Text, True)
    found = inspected(Typed, size=2)
    predict = found.methods["predict"]
    assert (predict.input_type, predict.takes) == (Text, "inputs_and_request")
    told = capabilities(Typed(), found)
    assert told.input_schema == Text.model_json_schema() and told.output_schema == Text.model_json_schema()


class Plain:
    def predict_batch(self, inputs: Any) -> Any:
        return inputs

    def shape(self, item: Any) -> int:
        return len(item)

    def embeddings(self, body: Any) -> Any: ...


def test_a_class_may_have_only_a_batch_method() -> None:
    assert list(inspected(Plain).methods) == ["embeddings", "predict"]
    assert list(inspected(Plain, size=4, key="shape").methods) == ["embeddings", "predict"]


def test_a_batched_predict_reads_bodies_of_other_types_as_a_single_one_does() -> None:
    class Model(Plain):
        body_readers = {"text/csv": "shape"}  # noqa: RUF012

    assert list(inspected(Model, size=4).methods["predict"].readers) == ["text/csv"]


def test_strict_parity_has_no_batches() -> None:
    class Both(Plain):
        def predict(self, x: Any) -> Any: ...

    assert inspected(Both, "strict").batcher is None
    with pytest.raises(ModelDefinitionError, match="batch_size has no effect with truss_parity"):
        inspected(Both, "strict", size=4)


class Single:
    def predict(self, x: Any) -> Any: ...


class Misspelt(Single):
    def predict_batchs(self, inputs: Any) -> Any: ...


class TooMany:
    def predict_batch(self, inputs: Any, more: Any) -> Any: ...


class NoSelf:
    def predict_batch(inputs: Any) -> Any: ...


class NoParameters:
    def predict_batch() -> Any: ...  # type: ignore[misc]


@pytest.mark.parametrize(
    ("cls", "settings", "told"),
    [
        (Single, {"size": 4}, "batch_size is set, but the class has no method for batches: write predict_batch"),
        (Misspelt, {"size": 4}, "the class has `predict_batchs`, which nothing calls: did you mean `predict_batch`"),
        (Plain, {"size": 4, "key": "shapes"}, "batch_key names `shapes`, but the class has no such method: did you m"),
        (Plain, {"size": 4, "cost": "tokens"}, "batch_cost names `tokens`, but the class has no such method: it has"),
        (TooMany, {"size": 4}, "`predict_batch` gets a list of inputs, and the list of their requests if its second"),
        (NoSelf, {}, "write `predict_batch\\(self, inputs\\)`"),
        (NoParameters, {}, "has no self, so it cannot be called"),
    ],
)
def test_a_mistake_keeps_the_model_from_loading(cls: Any, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ModelDefinitionError, match=told):
        inspected(cls, **settings)


def test_a_helper_with_that_name_is_left_alone_without_a_batch_size() -> None:
    class Model(Single):
        def predict_batch(self, texts: Any, model: Any, device: Any) -> Any: ...

    assert inspected(Model).batcher is None


def test_a_misspelt_batch_method_is_asked_about_if_there_is_no_other_method() -> None:
    class Model:
        def predict_batchs(self, inputs: Any) -> Any: ...

    with pytest.raises(ModelDefinitionError, match="did you mean `predict_batch`"):
        inspected(Model)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"delay": 0.1}, "WARNING gateway: no effect without batch_size: batch_delay"),
        ({"on_error": "fail", "key": "x"}, "no effect without batch_size: batch_key, batch_on_error"),
        ({}, "predict_batch: called with one input at a time, because batch_size is not set"),
    ],
)
def test_settings_without_effect_are_in_the_log(
    settings: dict[str, Any], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    inspected(Plain, **settings)
    assert told in capsys.readouterr().err
