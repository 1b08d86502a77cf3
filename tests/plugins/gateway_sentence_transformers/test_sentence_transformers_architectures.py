"""What `framework: sentence-transformers` makes of a checkpoint that the library did not save, or not as one."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gateway_sentence_transformers import check_model, find_model
from gateway_sentence_transformers.model import SentenceTransformerModel
from st_folders import WORDS, loaded

from gateway import ConfigError

TEXTS = ["the cat", "a dog and a cat sat on the mat", "x"]
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """A random model as transformers saves it for a task, with a config.yaml that names the plugin."""

    def of(task: str, kind: str = "bert", **settings: Any) -> Path:
        import torch
        import transformers

        place = tmp_path / "it"
        place.mkdir()
        (place / "vocab.txt").write_text("\n".join(WORDS) + "\n")
        transformers.BertTokenizer(str(place / "vocab.txt")).save_pretrained(place)
        torch.manual_seed(0)
        values = {**SIZES, "initializer_range": 0.3, "pad_token_id": 0, **settings}
        config = transformers.AutoConfig.for_model(kind, vocab_size=len(WORDS), **values)
        getattr(transformers, task).from_config(config).save_pretrained(place)
        (place / "config.yaml").write_text("framework: sentence-transformers\n")
        return place

    return of


def told(place: Path, level: str) -> list[str]:
    spec = find_model(place, {})
    assert spec is not None
    return [problem.what for problem in check_model(spec) if problem.level == level]


def refused(place: Path, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the load and by `gateway check`, in the same words."""
    with pytest.raises(ConfigError, match=says) as error:
        loaded(place, monkeypatch)
    assert [f"{place}: {what}" for what in told(place, "error")] == [str(error.value)]


def assert_answers_as_the_library(place: Path, model: SentenceTransformerModel) -> None:
    from sentence_transformers import SentenceTransformer

    wanted = SentenceTransformer(str(place), device="cpu", local_files_only=True).encode(TEXTS)
    vectors = np.array(asyncio.run(model.embeddings({"input": TEXTS}))["embeddings"])
    model.unload()
    assert vectors.shape == wanted.shape
    assert np.abs(vectors - wanted).max() < 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ("AutoModelForSequenceClassification", "BertForSequenceClassification, a classifier of texts: .*rerank"),
        ("AutoModelForTokenClassification", "BertForTokenClassification, a classifier of words"),
        ("AutoModelForQuestionAnswering", "BertForQuestionAnswering, a finder of answers"),
    ],
)
def test_a_classifier_gives_no_vectors(
    task: str, says: str, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(make(task), says, monkeypatch)


def test_a_cross_encoder_gives_no_vectors(
    make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers import CrossEncoder

    CrossEncoder(str(make("AutoModelForSequenceClassification")), device="cpu").save_pretrained(str(tmp_path / "cross"))
    (tmp_path / "cross" / "config.yaml").write_text("framework: sentence-transformers\n")
    refused(
        tmp_path / "cross",
        "CrossEncoder, a cross encoder of sentence-transformers: the plugin classifiers",
        monkeypatch,
    )


@pytest.mark.parametrize("says_its_kind", [True, False])
def test_a_sparse_encoder_gives_no_vectors(
    says_its_kind: bool, make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers import SparseEncoder

    place = tmp_path / "sparse"
    SparseEncoder(str(make("AutoModelForMaskedLM")), device="cpu").save_pretrained(str(place))
    about = json.loads((place / "config_sentence_transformers.json").read_text())
    if not says_its_kind:
        del about["model_type"]
    (place / "config_sentence_transformers.json").write_text(json.dumps(about))
    (place / "config.yaml").write_text("framework: sentence-transformers\n")
    refused(
        place, "SparseEncoder, a sparse encoder of sentence-transformers: the plugin pipelines serves it", monkeypatch
    )


@pytest.mark.parametrize(
    ("task", "kind", "says"),
    [
        ("AutoModel", "bert", "BertModel, .*a vector is the mean of its tokens, which is not part of the checkpoint"),
        ("AutoModelForMaskedLM", "bert", "BertForMaskedLM, .*a vector is the mean of its tokens"),
        ("AutoModelForCausalLM", "llama", "LlamaForCausalLM, .*a vector is that of its last token"),
    ],
)
def test_a_plain_encoder_answers_as_the_library_with_a_warning(
    task: str,
    kind: str,
    says: str,
    make: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import re

    place = make(task, kind)
    model = loaded(place, monkeypatch)
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert told(place, "error") == []
    assert warnings == [f"warning: {what}" for what in told(place, "warning")]
    assert re.search(says, warnings[0])
    assert_answers_as_the_library(place, model)


# ── folders of the library whose numbers are not what they seem ──────────────────────────────────────────────────────


@pytest.fixture
def folder(make: Callable[..., Path], tmp_path: Path) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    modules = [Transformer(str(make("AutoModel"))), Pooling(32)]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "folder"))
    return tmp_path / "folder"


def set_length(place: Path, length: object) -> None:
    file = place / "config_sentence_transformers.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "truncate_dim": length}))


@pytest.mark.parametrize("length", [0, -4, "8", 2.5, True])
def test_a_length_of_vectors_that_is_none_is_told(
    length: object, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_length(folder, length)
    refused(folder, r"truncate_dim of config_sentence_transformers\.json is .*: correct it", monkeypatch)


@pytest.mark.parametrize(("length", "real"), [(8, 8), (32, 32), (64, 32), (None, 32)])
def test_the_length_that_is_told_is_that_of_the_vectors(
    length: int | None, real: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_length(folder, length)
    model = loaded(folder, monkeypatch)
    assert model.capabilities["dimensions"] == real
    assert_answers_as_the_library(folder, model)


def change_tensors(place: Path, how: Callable[[dict[str, Any]], object]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(place / "model.safetensors")
    how(tensors)
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})


def test_weights_that_were_rounded_to_whole_numbers_are_not_taken_as_they_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    name = "encoder.layer.0.output.dense.weight"
    change_tensors(folder, lambda tensors: tensors.update({name: (tensors[name] * 99).to(torch.int8)}))
    refused(folder, rf"1 of its matrices, {name} among them, are whole numbers \(I8\)", monkeypatch)


def test_scales_that_nobody_reads_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    change_tensors(folder, lambda tensors: tensors.update({"encoder.layer.0.output.dense.weight_scale": torch.ones(1)}))
    refused(folder, "is quantized, and transformers does not read 1 of its tensors", monkeypatch)


def test_weights_for_openvino_alone_are_called_that(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "openvino").mkdir()
    (folder / "openvino/openvino_model.xml").write_text('<net name="a" version="11">')
    shutil.move(folder / "model.safetensors", folder / "openvino/openvino_model.bin")
    refused(folder, r"its weights are only in OpenVINO format \(openvino/openvino_model\.xml\)", monkeypatch)
