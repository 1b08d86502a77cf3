"""Pipelines of spaCy: documents as the library makes them, and what is refused before the library reads a directory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("spacy")
import gateway_spacy
import spacy
from fakes import PATIENT
from gateway_spacy.settings import RULES, TRAINED
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines import changed, loaded, problems, texts, train

from gateway import BadRequest, ConfigError
from gateway.testing import Gateway
from gateway.worker.bodies.truss import document


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("pipelines") / "trained")


@pytest.fixture(scope="module")
def model(trained: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        return loaded(trained, patch)


# ── answers ──


def assert_same(found: Any, wanted: Any) -> None:
    """The documents of one text; the numbers of categories depend on the batch by rounding."""
    assert [each.pop("text") for each in found["ents"]] == [
        wanted["text"][it["start"] : it["end"]] for it in found["ents"]
    ]
    for each in found["ents"]:
        assert (each.pop("id", None) == "coffee") is (each["label"] == "DRINK")
    cats = wanted.pop("cats")
    assert found.pop("cats") == pytest.approx(cats, abs=1e-5)
    assert found == wanted


def test_documents_are_those_of_the_library_for_random_texts(trained: Path, model: Any) -> None:
    nlp = spacy.load(trained)
    wanted = [nlp(text).to_json() for text in texts()]
    assert {entity["label"] for each in wanted for entity in each["ents"]} == {"PERSON", "CITY", "DRINK"}
    found = model.predict_batch([{"text": text} for text in texts()])
    (together,) = model.predict_batch([{"texts": texts()}])
    for one, other, each in zip(found, together["documents"], wanted, strict=True):
        assert_same(one, {**each, "cats": dict(each["cats"])})
        assert_same(other, each)


def test_the_categories_of_an_empty_text_do_not_depend_on_others(trained: Path, model: Any) -> None:
    """The library gives none to texts without words, but others if a text with words is beside them."""
    nlp = spacy.load(trained)
    alone, beside = nlp("").cats, next(iter(nlp.pipe(["", "Ada"]))).cats
    assert alone != beside
    found = model.predict_batch(["", "Ada", ["", "Ada"]])
    assert found[0]["cats"] == found[2]["documents"][0]["cats"] == alone


def test_a_request_is_a_text_a_list_or_an_object(model: Any) -> None:
    bodies: list[Any] = ["Ada .", {"text": "Ada ."}, {"inputs": "Ada .", "model": "x", "texts": None}]
    one, *others = model.predict_batch(bodies)
    assert one["tokens"][0]["end"] == 3 and all(each["text"] == "Ada ." for each in others)
    assert [each["documents"][0]["text"] for each in model.predict_batch([["Ada ."], {"texts": ["Ada ."]}])] == [
        "Ada ."
    ] * 2
    assert model.predict_batch([[]]) == [{"documents": []}]
    assert [set(each) for each in model.predict_batch([{"text": "Ada", "include": ["ents", "spans"]}])] == [{"ents"}]


WRONG: dict[str, tuple[Any, str]] = {
    "nothing": ({}, 'send one of "text" and "texts"'),
    "null": (None, 'send one of "text" and "texts"'),
    "two": ({"text": "a", "texts": ["b"]}, 'send one of "text" and "texts"'),
    "a number": ({"text": 5}, "text has to be a text"),
    "a list as a text": ({"text": ["a"]}, "text has to be a text"),
    "an object": ({"texts": {}}, "texts has to be a list of texts"),
    "a number in a list": ({"texts": ["a", 5]}, "texts[1] has to be a text"),
    "half a character": ({"text": "\ud800"}, "text has half a character"),
    "a long text": ({"text": "a" * 1_000_001}, "text has 1000001 characters, and the pipeline reads up to 1000000"),
    "long texts": ({"texts": ["a" * 500_001] * 2}, "the texts have 1000002 characters, and the pipeline reads up to"),
    "too many": ({"texts": ["a"] * 10_001}, "texts has more than 10000 texts"),
    "another field": ({"text": "a", "explain": True}, "there is no field 'explain'"),
    "another part": ({"text": "a", "include": ["heads"]}, "include has to be a list of some of text, ents"),
    "no list of parts": ({"text": "a", "include": "ents"}, "include has to be a list"),
}


def test_a_wrong_request_is_told_and_fails_alone(model: Any) -> None:
    found = model.predict_batch([*(body for body, _ in WRONG.values()), "Ada"])
    assert found[-1]["text"] == "Ada"
    for error, (_, told) in zip(found, WRONG.values(), strict=False):
        assert isinstance(error, BadRequest) and told in error.message


def test_words_that_were_new_are_forgotten(model: Any) -> None:
    """A server must not grow with every word that its clients invent."""
    model.predict_batch(["Ada likes zzzz-first"])
    before = len(model.nlp.vocab.strings)
    for number in range(20):
        model.predict_batch([f"Ada likes zzzz-{number}"])
    assert len(model.nlp.vocab.strings) == before


def test_options_choose_components_and_parts(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"disable": ["ner", "textcat"], "include": ["ents", "cats"]}
    (found,) = loaded(trained, monkeypatch, options=options).predict_batch(["Ada likes ☕ ."])
    assert [each["label"] for each in found["ents"]] == ["DRINK"] and "cats" not in found and "tokens" not in found
    for wrong, told in (
        ({"disable": ["nerr"]}, "disable: there is no component 'nerr'"),
        ({"disable": "ner"}, "disable has to be a list"),
        ({"include": ["head"]}, "options: include has to be a list of some of"),
    ):
        with pytest.raises(ConfigError, match=told):
            loaded(trained, monkeypatch, options=wrong)


BODY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("\ud800"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "texts", "inputs", "include", "model", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def answers_or_refuses(model: Any, body: Any) -> None:
    (found,) = model.predict_batch([body])
    if isinstance(found, Exception):
        assert isinstance(found, BadRequest) and 0 < len(found.message) < 2000
        found.message.encode()
    else:
        document(found)


@settings(PATIENT, max_examples=200)
@given(body=BODY)
def test_a_body_is_answered_or_refused(model: Any, body: Any) -> None:
    answers_or_refuses(model, body)


@pytest.mark.slow
@settings(PATIENT, max_examples=2000)
@given(body=BODY)
def test_two_thousand_bodies_are_answered_or_refused(model: Any, body: Any) -> None:
    answers_or_refuses(model, body)


# ── what is refused ──

CODE: dict[str, tuple[str, str, str]] = {
    "a component of a package": (
        'factory = "tagger"',
        'factory = "transformer"',
        "('transformer') is not one of spaCy's",
    ),
    "a part of another pipeline": ('factory = "tagger"', 'source = "en_core_web_sm"', "is a part of another pipeline"),
    "a function of a package": (
        '"spacy.Tagger.v2"',
        '"mine.Tagger.v2"',
        "uses 'mine.Tagger.v2' of the 'architectures'",
    ),
    "a tokenizer": ('"spacy.Tokenizer.v1"', '"spacy.vi.VietnameseTokenizer"', "of the 'tokenizers'"),
    "a file": (
        "before_creation = null",
        'before_creation = null\nother = {"@misc": "spacy.KBFromFile.v1", "kb_path": "/etc"}',
        "uses 'spacy.KBFromFile.v1' of the 'misc', which may be code, or opens files",
    ),
    "a reader of files": ("before_creation = null", '@readers = "srsly.read_json.v1"', "of the 'readers'"),
    "a function at the load": (
        "before_creation = null",
        'before_creation = {"@callbacks": "spacy.copy_from_base_model.v1"}',
        "it calls a function at its load ([nlp] before_creation)",
    ),
    "another module": ('lang = "en"', 'lang = "en.punctuation"', "has the language 'en.punctuation'"),
    "a component that is not used": (
        "[components.tagger]",
        '[components.extra]\nfactory = "mine"\n\n[components.tagger]',
        "extra",
    ),
}


@pytest.mark.parametrize("name", CODE)
def test_code_is_refused_by_check_and_load_unless_the_operator_allows_it(
    name: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, told = CODE[name]
    place = changed(trained, tmp_path / "it", lambda text: text.replace(old, new, 1))
    (what,) = problems(place)
    assert told in what
    with pytest.raises(ConfigError) as error:
        loaded(place, monkeypatch)
    assert told in str(error.value)
    (place / "config.yaml").write_text("trust_remote_code: true\n")
    assert told in problems(place)[0]  # a directory cannot allow it itself
    if name != "another module":
        assert told not in "".join(problems(place, trust_remote_code=True))


def test_the_load_checks_the_settings_as_the_library_reads_them(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = changed(trained, tmp_path / "it", lambda text: text.replace('"spacy.Tagger.v2"', '"mine.Tagger.v2"', 1))
    monkeypatch.setattr("gateway_spacy.settings.say_code", lambda *_: None)
    assert problems(place) == []
    with pytest.raises(ConfigError, match=r"uses 'mine.Tagger.v2' of the 'architectures'"):
        loaded(place, monkeypatch)


def test_every_component_of_the_library_is_known() -> None:
    """A newer spaCy with another component shows here."""
    from spacy.registrations import populate_registry

    populate_registry()
    nlp = spacy.blank("xx")
    for name in TRAINED | RULES:
        assert nlp.has_factory(name), name


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda place: (place / "config.cfg").write_text("nonsense"), "config.cfg cannot be read"),
        (lambda place: (place / "config.cfg").write_bytes(b"\xff" * 9), "config.cfg cannot be read"),
        (lambda place: (place / "config.cfg").write_text("[nlp]\nlang = 1\n"), "does not describe a pipeline"),
        (lambda place: (place / "config.cfg").write_text('[nlp]\npipeline = ["a"]\n'), "its component 'a'"),
        (
            lambda place: shutil.rmtree(place / "ner"),
            "the weights of its component ner are missing: get the directory ner",
        ),
    ],
)
def test_what_is_damaged_or_missing_is_told(change: Any, told: str, trained: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(trained, tmp_path / "it"))
    change(place)
    (place / "config.yaml").write_text("framework: spacy\n")
    assert told in problems(place)[0]


def test_weights_that_are_damaged_are_told_by_the_load(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(shutil.copytree(trained, tmp_path / "it"))
    (place / "ner" / "model").write_bytes((place / "ner" / "model").read_bytes()[:1000])
    with pytest.raises(ConfigError, match="cannot be loaded by spaCy"):
        loaded(place, monkeypatch)


def test_another_version_is_a_warning(trained: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(trained, tmp_path / "it"))
    meta = json.loads((place / "meta.json").read_text())
    (place / "meta.json").write_text(json.dumps({**meta, "spacy_version": ">=4,<5"}))
    spec = gateway_spacy.find_model(place, {})
    assert spec is not None
    (problem,) = gateway_spacy.check_model(spec)
    assert problem.level == "warning" and "is for spaCy >=4,<5, and 3.8" in problem.what


def test_a_pipe_in_a_directory_is_not_waited_for(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(shutil.copytree(trained, tmp_path / "it"))
    os.mkfifo(place / "vocab" / "more")
    assert "is not a regular file" in problems(place)[0]
    (place / "config.cfg").unlink()
    os.mkfifo(place / "config.cfg")
    assert gateway_spacy.find_model(place, {}) is None


def test_nothing_of_the_library_is_imported_to_find_and_check(trained: Path) -> None:
    program = (
        "import sys; from pathlib import Path; import gateway_spacy\n"
        "from gateway.directories.discovery import discover\n"
        "from gateway.plugins import Plugins\n"
        "(spec,) = discover([Path(sys.argv[1])], Plugins.load()).specs\n"
        "print(spec.format, spec.served_by, spec.batching.size, list(gateway_spacy.check_model(spec)))\n"
        "assert not {'spacy', 'thinc', 'numpy'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", program, trained.parent]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout == "spacy spacy 32 []\n", done.stderr


# ── served ──


@pytest.fixture(scope="module")
def served(trained: Path) -> Iterator[Gateway]:
    with Gateway(trained.parent, timeout=200) as gateway:
        yield gateway


def post(gateway: Gateway, body: Any) -> tuple[int, Any]:
    request = urllib.request.Request(f"{gateway.url}/v1/models/trained:predict", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=100) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_requests_share_batches_and_fail_alone(served: Gateway, trained: Path) -> None:
    nlp = spacy.load(trained)
    several = texts(30)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda text: post(served, {"text": text}), [*several, 5]))
    assert found[-1][0] == 400
    for (status, answer), text in zip(found, several, strict=False):
        assert status == 200
        assert_same(answer, nlp(text).to_json())
    with urllib.request.urlopen(f"{served.url}/v1/models/trained/schema", timeout=10) as answer:
        (example,) = json.load(answer)["input_schema"]["examples"]
    assert post(served, example)[0] == 200
