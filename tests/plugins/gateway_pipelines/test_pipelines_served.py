"""Tasks over HTTP: directories of weights, asked by Hugging Face's own client and with bodies that a program made."""

from __future__ import annotations

import base64
import io
import json
import random
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("PIL")
pytest.importorskip("soundfile")
from classifier_folders import save, texts
from huggingface_hub import InferenceClient
from openai import OpenAI
from PIL import Image
from pipeline_folders import ENTITIES, named, near, save_images, save_sounds, save_texts

from gateway.testing import Gateway

NLI = {0: "contradiction", 1: "neutral", 2: "entailment"}
MODELS = ("entities", "gaps", "answers", "images", "sounds", "anything")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Path]]:
    root = tmp_path_factory.mktemp("models")
    save_texts(root / "entities", "AutoModelForTokenClassification", **named(ENTITIES))
    save_texts(root / "gaps", "AutoModelForMaskedLM")
    save_texts(root / "answers", "AutoModelForQuestionAnswering")
    save_texts(root / "vectors", "AutoModel")
    (root / "vectors" / "config.yaml").write_text("framework: pipelines\n")
    save_images(root / "images")
    save_sounds(root / "sounds")
    save(root / "anything", labels=NLI)
    with Gateway(root, timeout=300) as gateway:
        yield gateway, root


def post(gateway: Gateway, path: str, body: Any, kind: str = "application/json") -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{gateway.url}{path}", data, {"content-type": kind})
    try:
        with urllib.request.urlopen(request, timeout=100) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def hub(gateway: Gateway, name: str) -> InferenceClient:
    return InferenceClient(model=f"{gateway.url}/v1/models/{name}:predict", timeout=100)


def test_the_client_of_hugging_face_asks_for_each_task(served: tuple[Gateway, Path], tmp_path: Path) -> None:
    from transformers import pipeline

    gateway, root = served
    text = "good film a b c d e f"
    found = hub(gateway, "entities").token_classification(text, aggregation_strategy="simple")
    wanted = pipeline("token-classification", model=str(root / "entities"), aggregation_strategy="simple")(text)
    assert [(each.entity_group, each.start, each.end) for each in found] == [
        (each["entity_group"], each["start"], each["end"]) for each in wanted
    ]
    (filled,) = hub(gateway, "gaps").fill_mask("a [MASK] film", top_k=1)
    (best,) = pipeline("fill-mask", model=str(root / "gaps"))("a [MASK] film", top_k=1)
    assert (filled.token, filled.sequence) == (best["token"], best["sequence"])
    answer: Any = hub(gateway, "answers").question_answering(question="good?", context="a film of b")
    assert answer.answer == "a film of b"[answer.start : answer.end] and 0 < answer.score <= 1
    vectors = hub(gateway, "vectors").feature_extraction(text)
    wanted_vectors = pipeline("feature-extraction", model=str(root / "vectors"))(text)
    assert near(vectors.tolist(), wanted_vectors, 1e-4)
    picture = tmp_path / "it.png"
    Image.new("RGB", (20, 30), "red").save(picture)
    labels = hub(gateway, "images").image_classification(str(picture))
    wanted = pipeline("image-classification", model=str(root / "images"))(str(picture))
    assert near([{"label": each.label, "score": each.score} for each in labels], wanted)
    labels = hub(gateway, "images").image_classification(str(picture), top_k=1)
    assert near([{"label": each.label, "score": each.score} for each in labels], wanted[:1])
    (example,) = schema(gateway, "sounds")["examples"]
    recording = tmp_path / "it.wav"
    recording.write_bytes(base64.b64decode(example["inputs"].partition(",")[2]))
    heard = hub(gateway, "sounds").audio_classification(str(recording))
    assert near([{"label": each.label, "score": each.score} for each in heard], predict(gateway, "sounds", example)[1])
    chosen = hub(gateway, "anything").zero_shot_classification(text, candidate_labels=["film", "food"])
    assert {each.label for each in chosen} == {"film", "food"}


def predict(gateway: Gateway, name: str, body: Any) -> tuple[int, Any]:
    return post(gateway, f"/v1/models/{name}:predict", body)


def schema(gateway: Gateway, name: str) -> Any:
    with urllib.request.urlopen(f"{gateway.url}/v1/models/{name}/schema", timeout=100) as answer:
        found = json.load(answer)
    return found.get("input_schema", found.get("input", found))


def test_the_example_of_each_schema_works_when_pasted(served: tuple[Gateway, Path]) -> None:
    gateway, _ = served
    for name in (*MODELS, "vectors"):
        (example,) = schema(gateway, name)["examples"]
        status, answer = predict(gateway, name, example)
        assert status == 200 and answer, (name, answer)


def test_an_image_is_classified_as_a_body_and_as_a_data_url(served: tuple[Gateway, Path]) -> None:
    gateway, _ = served
    file = io.BytesIO()
    Image.new("RGB", (9, 9), "blue").save(file, "JPEG")
    status, ranked = post(gateway, "/v1/models/images:predict", file.getvalue(), "image/jpeg")
    assert status == 200
    url = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    status, answer = post(gateway, "/v1/classify", {"model": "images", "input": [url, url]})
    assert status == 200 and [each["label"] for each in answer["data"]] == [ranked[0]["label"]] * 2
    assert max(answer["data"][0]["probs"]) == pytest.approx(ranked[0]["score"], abs=1e-5)
    choices: Any = [{"value": each} for each in ("cat", "dog", "fish")]
    question: Any = {"type": "choice", "instructions": "The animal.", "choices": choices}
    client = OpenAI(base_url=f"{gateway.url}/v1", api_key="unused")
    decision: Any = client.decisions.create(model="images", input=url, questions=[question])
    assert decision.answers[0].choice == ranked[0]["label"]
    assert post(gateway, "/v1/models/images:predict", b"no image", "image/jpeg")[0] == 400


def test_small_requests_share_batches(served: tuple[Gateway, Path]) -> None:
    gateway, _ = served
    inputs = [text for text in texts(64, seed=5) if "\x00" not in text]
    _, whole = predict(gateway, "entities", {"inputs": inputs, "parameters": {"truncate": True}})
    with ThreadPoolExecutor(16) as pool:
        bodies = [{"inputs": text, "parameters": {"truncate": True}} for text in inputs]
        answers = list(pool.map(lambda body: predict(gateway, "entities", body), bodies))
    assert all(status == 200 and near(answer, one) for (status, answer), one in zip(answers, whole, strict=True))
    with urllib.request.urlopen(f"{gateway.url}/metrics") as metrics:
        text = metrics.read().decode()
    count = re.search(r'gateway_batch_size_count\{model="entities"\} (\S+)', text)
    total = re.search(r'gateway_batch_size_sum\{model="entities"\} (\S+)', text)
    assert count and total and float(total[1]) > float(count[1])


def generated(of: random.Random) -> Any:
    """A body with right and wrong parts."""
    words = ["good [MASK]", "a", "", "é" * 9, "data:image/png;base64,iVBORw0KGgo=", "AAAA", "\x00", "x " * 99]
    value: Any = of.choice([*words, 5, None, True, [], {}, 1e9, -1, ["a", "[MASK]"], {"question": "a", "context": "b"}])
    names = ["top_k", "targets", "stride", "aggregation_strategy", "truncate", "candidate_labels", "multi_label"]
    more = ["hypothesis_template", "function_to_apply", "doc_stride", "max_seq_len", "max_answer_len", "other"]
    values = [1, 0, -5, 10**30, "a", "simple", "none", "{} {0}", True, None, ["a", "b"], [1], {"a": {}}, 0.5]
    parameters = {of.choice(names + more): of.choice(values) for _ in range(of.randrange(3))}
    body = {"inputs": of.choice([value, [value], [value, "a"]]), "parameters": parameters}
    return of.choice([body, body, body, {"inputs": value, **parameters}, value, [body]])


def test_no_generated_body_is_a_mistake_of_ours(served: tuple[Gateway, Path]) -> None:
    gateway, _ = served
    of = random.Random(7)
    bodies = [(of.choice(MODELS), generated(of)) for _ in range(2000)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda each: predict(gateway, *each), bodies))
    wrong = [(body, answer) for body, answer in zip(bodies, answers, strict=True) if answer[0] not in (200, 400)]
    assert wrong == []
    assert {status for status, _ in answers} == {200, 400}
