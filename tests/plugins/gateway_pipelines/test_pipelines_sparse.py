"""Sparse encoders of sentence-transformers (SPLADE), with weights compared with those of the library."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gateway_pipelines
import pytest

pytest.importorskip("sentence_transformers")
from classifier_folders import texts
from pipeline_folders import load, near, save_texts

from gateway import BadRequest, ConfigError

TEXTS = [text for text in texts() if len(text) < 3000]
PROMPTS = {"query": "good ", "document": "bad "}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sentence_transformers import SparseEncoder

    root = tmp_path_factory.mktemp("sparse")
    plain = save_texts(root / "plain", "AutoModelForMaskedLM")
    SparseEncoder(str(plain), device="cpu", prompts=PROMPTS).save_pretrained(str(root / "it"))
    return root / "it"


@pytest.fixture
def make(encoder: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy whose JSON files are changed: `pooling`, `module`, `about` and `modules`."""
    names = {
        "pooling": "1_SpladePooling/config.json",
        "module": "sentence_bert_config.json",
        "about": "config_sentence_transformers.json",
        "modules": "modules.json",
    }

    def make(**changed: Any) -> Path:
        path = Path(shutil.copytree(encoder, tmp_path / "it"))
        for name, content in changed.items():
            file = path / names[name]
            found = json.loads(file.read_text())
            file.write_text(json.dumps({**found, **content} if isinstance(found, dict) else content))
        return path

    return make


def of_library(path: Path, given: list[str], **how: Any) -> list[dict[int, float]]:
    from sentence_transformers import SparseEncoder

    model = SparseEncoder(str(path), device="cpu", local_files_only=True)
    rows = model.encode(given, convert_to_tensor=False, **how)
    return [dict(zip(each.indices()[0].tolist(), each.values().tolist(), strict=True)) for each in map(coalesced, rows)]


def coalesced(row: Any) -> Any:
    return row.coalesce()


def weights(answer: Any) -> dict[int, float]:
    return {each["index"]: each["value"] for each in answer}


def ask(model: Any, inputs: Any, **parameters: Any) -> Any:
    (found,) = model.predict_batch([{"inputs": inputs, "parameters": parameters}])
    return found


@pytest.mark.parametrize(("pooling", "function"), [("max", "relu"), ("sum", "relu"), ("max", "log1p_relu")])
def test_weights_are_those_of_the_library(
    pooling: str, function: str, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(pooling={"pooling_strategy": pooling, "activation_function": function})
    model = load(path, monkeypatch)
    found = ask(model, TEXTS, truncate=True)
    for text, one, other in zip(TEXTS, found, of_library(path, TEXTS), strict=True):
        assert near(weights(one), other, 1e-4 if pooling == "max" else 1e-3), text
        assert [each["value"] for each in one] == sorted((each["value"] for each in one), reverse=True)
    assert len({len(one) for one in found}) > 5
    assert found[-1][0]["token"] == model.tokenizer.convert_ids_to_tokens(found[-1][0]["index"])


def test_prompts_and_the_heaviest(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = make()
    model = load(path, monkeypatch)
    for name in PROMPTS:
        (wanted,) = of_library(path, ["a film"], prompt_name=name)
        assert near(weights(ask(model, "a film", prompt_name=name)), wanted, 1e-4)
    (wanted,) = of_library(path, ["a film"], max_active_dims=3)
    found = ask(model, "a film", max_active_dims=3)
    assert near(weights(found), wanted, 1e-4) and len(found) == 3
    for parameters, says in (
        ({"prompt_name": "other"}, "prompt_name must be one of document, query"),
        ({"max_active_dims": 0}, "max_active_dims must be a whole number from 1"),
    ):
        refused = ask(model, "a film", **parameters)
        assert isinstance(refused, BadRequest) and says in str(refused)
    refused = ask(model, "a " * 80)
    assert isinstance(refused, BadRequest) and refused.code == "context_length_exceeded"


def test_settings_of_the_folder_count(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(about={"default_prompt_name": "query", "max_active_dims": 5}, module={"max_seq_length": 20})
    model = load(path, monkeypatch)
    assert model.network.length == 20
    (wanted,) = of_library(path, ["a film"])
    found = ask(model, "a film")
    assert near(weights(found), wanted, 1e-4) and len(found) == 5


SPLADE = "sentence_transformers.sparse_encoder.modules.splade_pooling.SpladePooling"
NETWORK = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"pooling": {"pooling_strategy": "mean"}}, "its SpladePooling has mean of relu"),
        ({"module": {"model_args": {"trust_remote_code": True}}}, "sets model_args"),
        ({"module": {"max_seq_length": "all"}}, "max_seq_length is all"),
        ({"about": {"prompts": ["a"]}}, "are not texts"),
        ({"about": {"default_prompt_name": "other"}}, "is none of its prompts"),
        (
            {"modules": [NETWORK, {**NETWORK, "path": "1", "type": "x.SpladePooling"}]},
            "lists Transformer, SpladePooling",
        ),
        ({"modules": [{**NETWORK, "path": "../x"}, {**NETWORK, "path": "1", "type": SPLADE}]}, "only a network beside"),
        ({"modules": [NETWORK, {**NETWORK, "path": "../x", "type": SPLADE}]}, "leads out of the directory"),
        ({"modules": [NETWORK, {**NETWORK, "path": "gone", "type": SPLADE}]}, "gone/config.json is missing"),
    ],
)
def test_a_folder_that_computes_something_else_is_named(
    changed: dict[str, Any], says: str, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(**changed)
    with pytest.raises(ConfigError, match=says) as error:
        load(path, monkeypatch)
    spec = gateway_pipelines.find_model(path, {})
    assert spec is not None and spec.target == "gateway_pipelines.sparse:Sparse"
    (problem,) = gateway_pipelines.check_model(spec)
    assert str(error.value).removeprefix(f"{path}: ") == problem.what


def test_the_example_is_answered_and_the_folder_is_no_embedding_model(
    encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gateway_sentence_transformers

    assert gateway_sentence_transformers.find_model(encoder, {}) is None
    spec = gateway_pipelines.find_model(encoder, {})
    assert spec is not None and list(gateway_pipelines.check_model(spec)) == []
    model = load(encoder, monkeypatch)
    (answer,) = model.predict_batch(model.input_schema["examples"])
    assert answer and set(model.input_schema["properties"]["parameters"]["properties"]) == set(model.parameters)
