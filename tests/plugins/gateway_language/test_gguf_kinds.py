"""A GGUF file of no language model is passed over with a line, and refused by its name where it is chosen."""

from __future__ import annotations

import re
from pathlib import Path

import gateway_llamacpp
import pytest
from gateway_language.gguf import kinds as it
from gguf_headers import Value, model, write

from gateway.directories.discovery import Discovery, discover
from gateway.inspection.check import check
from gateway.inspection.inventory import take_inventory
from gateway.plugins import Plugins
from gateway.settings.load import load_settings

DECODER: dict[str, Value] = {"general.architecture": "qwen3", "general.type": "model"}
VOCABULARY: dict[str, Value] = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2"}
# What a header says, and how the line about such a file begins.
KINDS: dict[str, tuple[dict[str, Value], str]] = {
    "classes": (
        {"general.architecture": "bert", "bert.pooling_type": 4, "bert.classifier.output_labels": ["bad", "good"]},
        "a classifier",
    ),
    "labels": ({**DECODER, "qwen3.classifier.output_labels": ["bad", "good"]}, "a classifier"),
    "both ways": ({**DECODER, "qwen3.attention.causal": False}, "a model that does not generate text token by token"),
    "diffusion": ({**DECODER, "diffusion.shift_logits": True}, "a diffusion language model"),
    "older adapter": ({**DECODER, "adapter.type": "lora"}, "a LoRA adapter"),
    **{name: ({**DECODER, "general.type": name}, other.what) for name, other in it.TYPES.items()},
    **{
        name: ({"general.architecture": name}, other.what.split(",")[0])
        for name, other in it.ARCHITECTURES.items()
        if other.task is None
    },
}
# The same for files that llama.cpp serves, and what it does with them.
SERVED: dict[str, tuple[dict[str, Value], str, str]] = {
    **{
        f"pooling {kind}": ({**DECODER, "qwen3.pooling_type": kind}, "an embedding model", "embeddings")
        for kind in (1, 2, 3, 5)
    },
    "rank": ({**DECODER, "qwen3.pooling_type": 4, "qwen3.classifier.output_labels": ["yes"]}, "a reranker", "rerank"),
    "yes and no": (
        {**DECODER, "qwen3.pooling_type": 4, "qwen3.classifier.output_labels": ["yes", "no"]},
        "a reranker",
        "rerank",
    ),
    **{
        name: ({"general.architecture": name}, other.what.split(",")[0], str(other.task))
        for name, other in it.ARCHITECTURES.items()
        if other.task is not None
    },
}


def look(root: Path) -> Discovery:
    return discover([root], Plugins.load())


def findings(root: Path) -> str:
    return "\n".join(map(str, check(take_inventory(load_settings(environ={}), roots=[root], with_devices=False))))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["model.gguf", "model-00001-of-00002.gguf"])
def test_alone_in_a_directory_it_is_no_model_and_has_its_line(kind: str, name: str, tmp_path: Path) -> None:
    said, says = KINDS[kind]
    place = tmp_path / "it"
    write(place / name, {**said, **VOCABULARY})
    if name != "model.gguf":
        write(place / "model-00002-of-00002.gguf", {"split.no": 1, "split.count": 2})
    found = look(tmp_path)
    assert found.specs == ()
    (problem,) = found.problems
    assert (problem.level, problem.code) == ("warning", "unserved")
    assert problem.what.startswith(says)
    assert problem.fix


@pytest.mark.parametrize("kind", SERVED)
def test_alone_in_a_directory_a_model_of_texts_is_served_by_llama_cpp(kind: str, tmp_path: Path) -> None:
    said, _, task = SERVED[kind]
    write(tmp_path / "m" / "it.gguf", {**said, **VOCABULARY})
    (spec,) = look(tmp_path).specs
    assert (spec.format, spec.target) == ("llamacpp", gateway_llamacpp.TARGETS[task])
    assert (spec.batching.size is not None) is (task == "rerank")


@pytest.mark.parametrize("kind", [*KINDS, *SERVED])
def test_beside_a_chat_model_it_is_passed_over_with_a_note(kind: str, tmp_path: Path) -> None:
    said, says = {**KINDS, **SERVED}[kind][:2]
    model(tmp_path / "m" / "chat.gguf")
    write(tmp_path / "m" / "aside.gguf", {**said, **VOCABULARY})
    (spec,) = look(tmp_path).specs
    (aside,) = spec.asides
    assert aside.startswith(f"ignored next to chat.gguf: aside.gguf is {says}")


@pytest.mark.parametrize(
    "config", ["framework: transformers\nweights:\n- source: file://it.gguf\n", "framework: transformers\n"]
)
def test_where_it_is_chosen_it_is_refused_by_its_name(config: str, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    kinds = {**KINDS, **SERVED}
    for number, (said, *_) in enumerate(kinds.values()):
        write(tmp_path / f"m{number}" / "it.gguf", {**said, **VOCABULARY})
        (tmp_path / f"m{number}" / "config.yaml").write_text(config)
    inventory = take_inventory(load_settings(environ={}), roots=[tmp_path], with_devices=False)
    found = {finding.model: finding.what for finding in check(inventory)}
    assert found.keys() == {f"m{number}" for number in range(len(kinds))}
    for number, (kind, (_, says, *_)) in enumerate(kinds.items()):
        assert re.search(rf"it.gguf(: it)? is {says}", found[f"m{number}"]), kind


def test_a_header_that_says_it_behind_its_vocabulary_is_refused_when_it_is_read_whole(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    long: dict[str, Value] = {"tokenizer.ggml.tokens": [f"token{number}" for number in range(20_000)]}
    write(tmp_path / "m" / "it.gguf", {**DECODER, **VOCABULARY, **long, "qwen3.pooling_type": 3})
    assert "it.gguf: it is an embedding model" in findings(tmp_path)


def test_what_says_of_itself_that_it_writes_word_after_word_is_served(tmp_path: Path) -> None:
    for number, said in enumerate(
        ({"qwen3.pooling_type": 0}, {"qwen3.pooling_type": 2**32 - 1}, {"qwen3.attention.causal": True})
    ):
        write(tmp_path / f"m{number}" / "it.gguf", {**DECODER, **VOCABULARY, **said})
    assert [spec.name for spec in look(tmp_path).specs] == ["m0", "m1", "m2"]


def test_a_file_with_a_vocabulary_and_no_tensors_is_called_so(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    place = tmp_path / "m"
    write(place / "ggml-vocab-qwen2.gguf", {**DECODER, **VOCABULARY}, tensors=0)
    (problem,) = look(tmp_path).problems
    assert "a vocabulary without a model" in problem.what and "weights" in problem.fix
    (place / "config.yaml").write_text("weights:\n- source: file://ggml-vocab-qwen2.gguf\n")
    assert "it is a vocabulary without a model (it has no tensors)" in findings(tmp_path)


def test_the_first_of_several_parts_may_have_no_tensors(tmp_path: Path) -> None:
    write(tmp_path / "m" / "it-00001-of-00002.gguf", {**DECODER, **VOCABULARY, "split.count": 2}, tensors=0)
    write(tmp_path / "m" / "it-00002-of-00002.gguf", {"split.no": 1, "split.count": 2})
    assert [spec.name for spec in look(tmp_path).specs] == ["m"]


def test_another_model_beside_the_one_with_the_name_of_the_directory_is_noted(tmp_path: Path) -> None:
    model(tmp_path / "m" / "m.gguf")
    model(tmp_path / "m" / "other.gguf")
    (spec,) = look(tmp_path).specs
    assert spec.asides == ("ignored next to m.gguf: other.gguf is another model: move it into its own directory",)


def test_the_line_names_what_would_serve_it(tmp_path: Path) -> None:
    fixes = {}
    for kind in ("t5encoder", "labels", "diffusion", "adapter", "whisper", "flux"):
        write(tmp_path / kind / "it.gguf", KINDS[kind][0])
        (problem,) = look(tmp_path / kind).problems
        fixes[kind] = problem.fix
    assert "modules.json" in fixes["t5encoder"]
    assert "a method classify" in fixes["labels"]
    assert "a method chat_completions" in fixes["diffusion"]
    assert "merge it into its base" in fixes["adapter"]
    assert "a method transcriptions" in fixes["whisper"]
    assert "a method images" in fixes["flux"]


# ── files that say little, or something else than they are served as ─────────────────────────────────────────────────

DRAWN = ("model.diffusion_model.x_embedder.weight", "first_stage_model.decoder.weight", "double_blocks.0.img.weight")


@pytest.mark.parametrize("name", DRAWN)
def test_a_file_without_an_architecture_is_a_model_of_images_by_its_tensors(name: str, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    place = tmp_path / "draws"
    write(place / "it.gguf", {}, tensors=["other", name])
    (problem,) = look(tmp_path).problems
    assert problem.what == "a model of images as a GGUF file, by the names of its tensors (it.gguf)"
    assert "a method images" in problem.fix
    (place / "config.yaml").write_text("framework: transformers\nweights:\n- source: file://it.gguf\n")
    assert f"it is a model of images (it has the tensor {name})" in findings(tmp_path)


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("called", ["aa.gguf", "m.gguf"])
def test_beside_a_chat_model_it_is_passed_over_whatever_it_is_called(called: str, name: str, tmp_path: Path) -> None:
    model(tmp_path / "m" / "qwen.gguf")
    write(tmp_path / "m" / called, {}, tensors=[name])
    (spec,) = look(tmp_path).specs
    (aside,) = spec.asides
    assert aside.startswith(f"ignored next to qwen.gguf: {called} is a model of images")


def test_a_language_model_may_have_tensors_of_any_name(tmp_path: Path) -> None:
    write(tmp_path / "m" / "it.gguf", {**DECODER, **VOCABULARY}, tensors=DRAWN)
    assert [spec.name for spec in look(tmp_path).specs] == ["m"]


@pytest.mark.parametrize("said", [{}, {"general.name": "x"}, VOCABULARY], ids=["no key", "a name", "a vocabulary"])
def test_a_file_that_names_no_architecture_is_told_as_that(said: dict[str, Value], tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    place = tmp_path / "it"
    write(place / "it.gguf", said)
    (problem,) = look(tmp_path).problems
    assert problem.what == "a GGUF file that names no architecture (it.gguf)"
    (place / "config.yaml").write_text("framework: transformers\nweights:\n- source: file://it.gguf\n")
    assert "names no architecture" in findings(tmp_path)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"general.name": "Qwen3 Reranker 0.6B"}, "a reranker"),
        ({"general.tags": ["text-ranking"]}, "a reranker"),
        ({"general.name": "Qwen3 Embedding 0.6B"}, "an embedding model"),
        ({"general.name": "E5 Mistral 7b Instruct"}, "an embedding model"),
        ({"general.basename": "Nemotron-Embed"}, "an embedding model"),
        ({"general.name": "x", "general.tags": ["mistral", "sentence-similarity"]}, "an embedding model"),
    ],
)
def test_what_calls_itself_a_reranker_or_an_encoder_is_served_with_a_warning(
    said: dict[str, Value], kind: str, tmp_path: Path
) -> None:
    write(tmp_path / "m" / "it.gguf", {**DECODER, **said, **VOCABULARY})
    (spec,) = look(tmp_path).specs
    (note,) = spec.notes
    assert f"it is {kind}, but its header has no pooling_type" in note and note.startswith("it.gguf: ")


@pytest.mark.parametrize("name", ["Embedded Systems Tutor", "Llama 3", "Gte5000", "Embark"])
def test_what_calls_itself_something_else_has_none(name: str, tmp_path: Path) -> None:
    write(tmp_path / "m" / "it.gguf", {**DECODER, "general.name": name, "general.tags": ["chat"], **VOCABULARY})
    (spec,) = look(tmp_path).specs
    assert spec.notes == ()
