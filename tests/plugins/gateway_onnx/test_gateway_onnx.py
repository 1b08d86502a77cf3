"""Which directories are ONNX models, which file of them, and what they serve."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gateway_onnx
import gateway_sentence_transformers
import pytest
import yaml
from graphs import FLOAT, doubled, loaded, problems, same, save

from gateway import ConfigError
from gateway.directories.discovery import discover
from gateway.plugins import Plugins

MODELS = Path(__file__).parents[3] / "models"
BERT = {"architectures": ["BertModel"]}


def make(place: Path, *names: str, **objects: Any) -> Path:
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    for name, found in objects.items():
        (place / f"{name}.json").write_text(json.dumps(found))
    return place


def target(place: Path, **overrides: Any) -> str | None:
    spec = gateway_onnx.find_model(place, overrides)
    return None if spec is None else spec.target.partition(":")[2]


def test_nothing_of_the_runtime_is_imported_to_find_and_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(doubled(), tmp_path / "it")
    heavy = ("onnxruntime", "onnx", "tokenizers")
    for name in [name for name in sys.modules if name.partition(".")[0] in heavy]:
        monkeypatch.delitem(sys.modules, name)
    (spec,) = discover([tmp_path], Plugins.load()).specs
    assert (spec.format, spec.served_by, spec.limits.slots) == ("onnx", "onnx", 4)
    assert list(gateway_onnx.check_model(spec)) == []
    assert not {name.partition(".")[0] for name in sys.modules}.intersection(heavy)


def test_a_missing_package_is_told_with_its_command(tmp_path: Path) -> None:
    spec = gateway_onnx.find_model(save(doubled(), tmp_path), {})
    assert spec is not None
    assert spec.needs[0] == "onnxruntime" and spec.install == "pip install 'model-gateway[onnx]'"


@pytest.mark.parametrize(
    "beside",
    ["m.skops", "m.gguf", "m.safetensors", "MLmodel", "model.pkl", "genai_config.json", "model_index.json", "model.py"],
)
def test_a_copy_beside_a_model_of_another_kind_is_left_to_it(beside: str, tmp_path: Path) -> None:
    place = make(save(doubled(), tmp_path), beside)
    (place / "model.py").write_text("class Model: ...\n") if beside == "model.py" else None
    assert target(place) is None
    (place / "config.yaml").write_text("framework: onnx\n")
    assert target(place) == "OnnxModel"


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "T5ForConditionalGeneration", "WhisperForConditionalGeneration"])
def test_a_model_that_writes_is_more_than_its_network(name: str, tmp_path: Path) -> None:
    assert target(make(save(doubled(), tmp_path), "tokenizer.json", config={"architectures": [name]})) is None


def test_the_file_is_the_only_one_or_model_onnx_or_the_one_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(doubled(), tmp_path, "one.onnx")
    assert problems(tmp_path) == []
    save(same(FLOAT), tmp_path, "two.onnx")
    (told,) = problems(tmp_path)
    assert "several models (one.onnx, two.onnx)" in told and "options: file: one.onnx" in told
    assert loaded(tmp_path, monkeypatch, options={"file": "one.onnx"}).predict({"x": [[1, 2]]})["y"].tolist() == [
        [2, 4]
    ]
    (tmp_path / "config.yaml").write_text("options: {file: two.onnx}\n")
    assert loaded(tmp_path, monkeypatch).predict({"x": [1]})["y"].tolist() == [1]
    (tmp_path / "config.yaml").write_text("options: {file: ../two.onnx}\n")
    assert "'../two.onnx', which is no ONNX file here (have: one.onnx, two.onnx)" in problems(tmp_path)[0]
    (tmp_path / "config.yaml").unlink()
    save(doubled(), tmp_path, "model.onnx")
    assert problems(tmp_path) == []


def test_weights_of_a_config_choose_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one.onnx", "two.onnx"):
        save(doubled() if name == "one.onnx" else same(FLOAT), tmp_path / "weights", name)
    (tmp_path / "it").mkdir()
    source = "weights: [{source: 'file://../weights', allow_patterns: [two.onnx]}]\n"
    (tmp_path / "it" / "config.yaml").write_text(source)
    assert loaded(tmp_path / "it", monkeypatch).predict({"x": [1]})["y"].tolist() == [1]


def test_a_directory_without_a_file_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("framework: onnx\n")
    assert "no *.onnx file; export the model to model.onnx" in problems(tmp_path)[0]
    make(tmp_path, "model.skops")
    assert "model.skops is a model of scikit-learn" in problems(tmp_path)[0]


@pytest.mark.parametrize(
    ("names", "config", "served"),
    [
        (["tokenizer.json"], BERT, "OnnxEmbedder"),
        (["tokenizer.json", "modules.json"], {}, "OnnxEmbedder"),
        (["tokenizer.json"], {"architectures": ["BertForSequenceClassification"]}, "OnnxClassifier"),
        (["tokenizer.json"], {"architectures": ["XForSequenceClassification"], "id2label": {"0": "x"}}, "OnnxReranker"),
        (["tokenizer.json"], {"architectures": ["BertForTokenClassification"]}, "OnnxModel"),
        (["tokenizer.json"], {}, "OnnxModel"),
        ([], BERT, "OnnxModel"),
    ],
)
@pytest.mark.parametrize("file", ["model.onnx", "onnx/model.onnx"])
def test_files_of_a_transformer_decide_what_its_export_serves(
    file: str, names: list[str], config: dict[str, Any], served: str, tmp_path: Path
) -> None:
    place = make(save(b"", tmp_path, file), *names, config=config)
    if "/" in file and not names:
        assert target(place) is None  # a directory called onnx may be anything
        return
    found = gateway_onnx.find_model(place, {"framework": "onnx"})
    assert found is not None and found.target.endswith(served)
    assert gateway_sentence_transformers.find_model(place, {}) is None
    is_of_texts = served != "OnnxModel"
    assert (found.batching.size, "tokenizers" in found.needs) == (64 if is_of_texts else None, is_of_texts)
    assert found.limits.slots == (128 if is_of_texts else 4)  # the next batch is complete when one ends


def test_an_export_beside_the_weights_is_used_if_the_config_says_so(tmp_path: Path) -> None:
    place = make(save(b"", tmp_path, "onnx/model.onnx"), "tokenizer.json", "model.safetensors", config=BERT)
    (place / "modules.json").write_text("[]")
    assert target(place) is None
    assert gateway_sentence_transformers.find_model(place, {}) is not None
    (place / "config.yaml").write_text("framework: onnx\n")
    assert target(place) == "OnnxEmbedder"
    assert gateway_sentence_transformers.find_model(place, {}) is None


def test_batches_are_as_the_operator_says(tmp_path: Path) -> None:
    place = make(save(b"", tmp_path), "tokenizer.json", config=BERT)
    (place / "config.yaml").write_text("runtime: {batch_size: 8}\n")
    spec = gateway_onnx.find_model(place, {})
    assert spec is not None and (spec.batching.size, spec.limits.slots) == (8, 16)


def test_directories_beside_a_loose_file_of_a_root_called_onnx_are_models(tmp_path: Path) -> None:
    for name in ("onnx", "other"):
        save(doubled(), tmp_path / name)
    assert {spec.name for spec in discover([tmp_path], Plugins.load()).specs} == {"onnx", "other"}


def test_several_files_are_a_problem_of_the_directory(tmp_path: Path) -> None:
    save(doubled(), save(same(FLOAT), tmp_path, "a.onnx"), "b.onnx")
    with pytest.raises(ConfigError, match="one directory serves one"):
        gateway_onnx.find_model(tmp_path, {})


def test_the_demo_reads_its_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(MODELS / "digits-cnn", monkeypatch)
    examples = yaml.safe_load((MODELS / "digits-cnn" / "examples.yaml").read_text())
    assert [model.predict(each["input"])["digit"].tolist() for each in examples] == [[3], [0, 4]]


def test_the_demo_is_what_its_script_makes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import importlib.util

    import numpy as np
    from graphs import direct

    source = importlib.util.spec_from_file_location("train", MODELS / "digits-cnn" / "train.py")
    assert source is not None and source.loader is not None
    script = importlib.util.module_from_spec(source)
    source.loader.exec_module(script)
    script.HERE = tmp_path
    script.main()
    assert "accuracy on 540 digits that it has not seen: 0.97" in capsys.readouterr().out
    images = np.random.default_rng(1).uniform(0, 16, (50, 8, 8)).astype(np.float32)
    old, new = (direct(place, {"image": images})["probabilities"] for place in (MODELS / "digits-cnn", tmp_path))
    assert np.abs(old - new).max() < 0.05
