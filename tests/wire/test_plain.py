"""The frozen values cross the channel and are the same on the other side."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.spec import Capabilities, Limits, MethodInfo, ModelSpec, Resources
from gateway.wire import plain
from gateway.wire.values import WireError, decode, encode

SPEC = ModelSpec(
    name="team/llama",
    target="model.model:Model",
    root=Path("/models/llama"),
    config={"runtime": {"predict_concurrency": 3}, "weights": [{"source": "hf://a/b"}], 5: None, "ünï": [1.5, True]},
    limits=Limits(slots=3, queue_timeout=1.5, gap_timeout=float("inf")),
    resources=Resources(gpus=2, pin=(("0", "1"),), gpu_memory="50%"),
    environment={"A": "b"},
    secrets=("token",),
    import_dirs=(Path("/models/llama/packages"),),
    data_dir=Path("/models/llama/data"),
    parity="strict",
)


def over_the_channel(value: Any) -> Any:
    return decode(encode(value))


def test_a_spec_arrives_as_it_was() -> None:
    found = plain.to_spec(over_the_channel(plain.from_spec(SPEC)))
    assert found == SPEC
    assert isinstance(found.root, Path)
    assert isinstance(found.import_dirs[0], Path)


def test_what_yaml_knows_beyond_json_travels_as_text() -> None:
    config = {"when": datetime.date(2024, 5, 6), "where": Path("/a"), "tags": {"x"}}
    spec = ModelSpec(name="m", target="x:X", root=Path("/"), config=config)
    found = plain.to_spec(over_the_channel(plain.from_spec(spec)))
    assert found.config == {"when": "2024-05-06", "where": "/a", "tags": ["x"]}


def test_capabilities_arrive_as_they_were() -> None:
    sent = Capabilities(
        methods=(MethodInfo(name="predict", kind="generator", wants_request=True),),
        has_hooks=True,
        input_schema={"type": "object"},
        max_model_len=4096,
        asked={"chat_completions": "the class has `chat`"},
        extra={"dimensions": 384},
    )
    assert plain.to_capabilities(over_the_channel(plain.from_capabilities(sent))) == sent


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "text",
        {"methods": "predict"},
        {"methods": [{"name": "x", "kind": "magic"}]},
        {"max_model_len": "many"},
    ],
)
def test_a_worker_that_says_nonsense_breaks_the_protocol(value: Any) -> None:
    with pytest.raises(WireError, match="bad capabilities"):
        plain.to_capabilities(value)


@pytest.mark.parametrize("text", ["two\nlines", "\x1b[2J", "long" * 200])
def test_a_question_about_a_class_that_is_no_line_breaks_the_protocol(text: str) -> None:
    with pytest.raises(WireError, match="a question that is not one line"):
        plain.to_capabilities({"asked": {"predict": text}})
