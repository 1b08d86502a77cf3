"""Vectors and ratings of GGUF files on llama.cpp, compared with the same weights in transformers."""

from __future__ import annotations

import asyncio
import base64
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("xllamacpp")
pytest.importorskip("torch")
pytest.importorskip("gguf")

import gguf_encoders as made
import httpx
import numpy as np
import torch
from gguf_models import loaded, words_of_tiny_chat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import BadRequest, ConfigError
from gateway.testing import Gateway

TEXTS = ["the cat sat on a mat", "What do cats eat?", "x", "A red apple is not a pear. " * 3, ""]
NEAR = 4e-3  # llama.cpp reads GELU from a table of half precision


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def bert() -> Any:
    return made.bert()


@pytest.fixture(scope="module")
def place(bert: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    made.write_bert(folder / "bert.gguf", bert)
    return folder


@pytest.fixture(scope="module")
def model(place: Path) -> Iterator[Any]:
    with loaded(place, "llamacpp", options={"prompts": {"query": "search the ", "document": ""}}) as model:
        yield model


def embed(model: Any, texts: list[str], **fields: Any) -> tuple[Any, int]:
    found = asyncio.run(model.embeddings({"input": texts, **fields}))
    return found["embeddings"], found["prompt_tokens"]


def mean_of(bert: Any, ids: list[int]) -> Any:
    with torch.no_grad():
        return bert(torch.tensor([ids])).last_hidden_state[0].mean(0).numpy()


def unit(vector: Any) -> Any:
    return vector / np.linalg.norm(vector)


def random_texts(count: int, longest: int = 30) -> list[str]:
    source = random.Random(5)
    pieces = [*made.WORDS, "é", "?", "12", "Äpfel", "zzz", "\n", "[SEP]"]
    return [" ".join(source.choice(pieces) for _ in range(source.randint(1, longest))) for _ in range(count)]


# ── vectors ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_vectors_are_those_of_transformers(model: Any, bert: Any) -> None:
    tokenizer = made.bert_tokenizer()
    texts = [*TEXTS, *random_texts(200, 12)]
    ids = [tokenizer(text)["input_ids"] for text in texts]
    found, tokens = embed(model, texts)
    wanted = np.stack([unit(mean_of(bert, each)) for each in ids])
    assert np.abs(found - wanted).max() < NEAR and found.dtype == np.float32
    assert tokens == sum(map(len, ids))
    raw, _ = embed(model, texts[:3], normalize=False)
    assert np.abs(raw - np.stack([mean_of(bert, each) for each in ids[:3]])).max() < 10 * NEAR


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_header_says_how_a_vector_is_made(pooling: str, bert: Any, tmp_path: Path) -> None:
    made.write_bert(tmp_path / "a.gguf", bert, pooling)
    ids = made.bert_tokenizer()(TEXTS[0])["input_ids"]
    with torch.no_grad():
        hidden = bert(torch.tensor([ids])).last_hidden_state[0]
    wanted = hidden[0] if pooling == "cls" else hidden.mean(0)
    with loaded(tmp_path, "llamacpp") as model:
        assert np.abs(embed(model, TEXTS[:1])[0][0] - unit(wanted.numpy())).max() < NEAR


def test_an_encoder_without_a_pooling_has_the_mean_and_a_warning(
    bert: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made.write_bert(tmp_path / "a.gguf", bert, None)
    with loaded(tmp_path, "llamacpp") as model:
        found, _ = embed(model, TEXTS[:1])
    said = capsys.readouterr().out
    assert "warning: a.gguf does not say how a vector is computed: it is the mean" in said
    ids = made.bert_tokenizer()(TEXTS[0])["input_ids"]
    assert np.abs(found[0] - unit(mean_of(bert, ids))).max() < NEAR
    with loaded(tmp_path, "llamacpp", options={"pooling": "cls"}) as model:
        assert np.abs(embed(model, TEXTS[:1])[0] - found).max() > 0.01
    assert "warning" not in capsys.readouterr().out


def test_a_decoder_gives_the_last_token_in_a_cache_of_one_text(tmp_path: Path) -> None:
    """Many texts of up to the longest length, which never share more cells than there are."""
    network = made.qwen3()
    made.write_qwen3(tmp_path / "a.gguf", network)
    with words_of_tiny_chat(), loaded(tmp_path, "llamacpp") as model:
        assert model.size.length == 255 and model.size.cells <= 1024
        texts = random_texts(200, 60)
        ids = [each.ids for each in model.tokenizer.encode_batch(texts)]
        fitting = [text for text, each in zip(texts, ids, strict=True) if len(each) <= 255]
        assert len(fitting) > 150 and all(each[-1] == 2 for each in ids)
        found, tokens = embed(model, fitting)
        with torch.no_grad():
            wanted = [
                unit(network(torch.tensor([each])).last_hidden_state[0, -1].numpy()) for each in ids if len(each) <= 255
            ]
        assert np.abs(found - np.stack(wanted)).max() < NEAR
        assert tokens == sum(len(each) for each in ids if len(each) <= 255)


def test_prompts_and_tasks_are_those_of_the_options(model: Any) -> None:
    plain, _ = embed(model, ["search the cat"])
    assert np.array_equal(embed(model, ["cat"], input_type="query")[0], plain)
    assert np.array_equal(embed(model, ["cat"], prompt_name="query")[0], plain)
    assert np.array_equal(embed(model, ["cat"], prompt="search the ")[0], plain)
    assert not np.array_equal(embed(model, ["cat"], input_type="document")[0], plain)
    with pytest.raises(BadRequest, match="no prompt 'rag'"):
        embed(model, ["cat"], prompt_name="rag")


def test_a_text_that_is_too_long_is_refused_or_cut_as_asked(model: Any) -> None:
    words = "the cat sat on a mat".split()
    long = " ".join(words[place % len(words)] for place in range(200))
    with pytest.raises(
        BadRequest, match=r"maximum context length is 96 tokens\. However, input\[1\] has more"
    ) as caught:
        embed(model, ["x", long])
    assert caught.value.code == "context_length_exceeded"
    ends, starts = long.split(), long.split()
    for fields, same, count in (
        ({"truncate": True}, " ".join(ends[:94]), 96),
        ({"truncate_prompt_tokens": 12}, " ".join(ends[:10]), 12),
        ({"truncate": "START"}, " ".join(starts[-94:]), 96),
        ({"truncate_prompt_tokens": 7, "truncation_side": "left"}, " ".join(starts[-5:]), 7),
    ):
        found, tokens = embed(model, [long], **fields)
        assert tokens == count, fields
        assert np.allclose(found, embed(model, [same])[0], atol=1e-6), fields
    kept, tokens = embed(model, [long], input_type="query", truncate_prompt_tokens=9, truncation_side="left")
    assert tokens == 9
    assert np.allclose(kept, embed(model, ["search the " + " ".join(starts[-5:])])[0], atol=1e-6)
    for count in (2, 97, 0):
        with pytest.raises(BadRequest, match="truncate_prompt_tokens must be"):
            embed(model, ["x"], truncate_prompt_tokens=count)


def test_dimensions_are_the_model_s_or_fewer_where_its_options_say_so(model: Any, place: Path) -> None:
    assert embed(model, ["x"], dimensions=made.WIDTH)[0].shape == (1, made.WIDTH)
    with pytest.raises(BadRequest, match="this model only gives 64 dimensions"):
        embed(model, ["x"], dimensions=8)
    with loaded(place, "llamacpp", options={"matryoshka": True}) as nested:
        assert embed(nested, ["x"], dimensions=8)[0].shape == (1, made.WIDTH)  # the gateway cuts it
        assert nested.capabilities["matryoshka"] is True


def test_callers_share_calls_and_those_that_left_stop_nobody(model: Any) -> None:
    wanted, _ = embed(model, TEXTS)

    async def run() -> list[Any]:
        calls = [asyncio.create_task(model.embeddings({"input": TEXTS})) for _ in range(30)]
        await asyncio.sleep(0)
        for call in calls[::3]:
            call.cancel()
        return await asyncio.gather(*calls, return_exceptions=True)

    found = asyncio.run(run())
    answered = [each for each in found if isinstance(each, dict)]
    assert len(answered) >= 20
    assert all(np.allclose(each["embeddings"], wanted, atol=NEAR) for each in answered)


FIELDS = "input_type prompt prompt_name normalize truncate truncation truncate_prompt_tokens truncation_side dimensions"
ODD = st.sampled_from([None, True, False, 0, 1, -1, 3, 64, "", "x", "query", "left", "END", [], {}, "é", 1e9])


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.text(max_size=60), max_size=4), st.dictionaries(st.sampled_from(FIELDS.split()), ODD, max_size=3))
def test_any_request_is_answered_or_refused(model: Any, texts: list[str], fields: dict[str, Any]) -> None:
    try:
        found, _ = embed(model, texts, **fields)
    except BadRequest:
        return
    assert found.shape == (len(texts), made.WIDTH) and np.isfinite(found).all()


# ── ratings ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def rate(model: Any, query: str, texts: list[str], **fields: Any) -> list[Any]:
    return model.rerank_batch([{"query": query, "document": text, **fields} for text in texts])


@pytest.fixture(scope="module")
def judge() -> Any:
    return made.bert(1)


@pytest.fixture(scope="module")
def ranking(judge: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("rank")
    made.write_bert(folder / "rank.gguf", judge, "rank")
    with loaded(folder, "llamacpp") as model:
        yield model


def test_ratings_are_those_of_transformers_without_token_types(ranking: Any, judge: Any) -> None:
    tokenizer = made.bert_tokenizer()
    texts = [text.replace("[SEP]", "") or "x" for text in (*random_texts(200, 8), *random_texts(400, 9)[200:])]
    pairs = list(zip(texts[:200], texts[200:], strict=True))
    wanted = []
    for pair in pairs:
        inputs = tokenizer(*pair, return_tensors="pt")
        inputs["token_type_ids"] *= 0
        with torch.no_grad():
            wanted.append(float(torch.sigmoid(judge(**inputs).logits[0, 0])))
    found = ranking.score_batch([{"text_1": one, "text_2": other} for one, other in pairs])
    assert np.abs(np.array(found) - wanted).max() < NEAR
    assert rate(ranking, pairs[0][0], [pairs[0][1]]) == pytest.approx(found[:1], abs=NEAR)


def test_the_end_of_a_text_cannot_be_written_into_a_pair(ranking: Any) -> None:
    """llama.cpp takes it for text, and it is counted as such."""
    text = "the cat " + "[SEP] " * 16
    assert ranking._count("x", text) > 80 > len(ranking.tokenizer.encode(text).ids)
    assert isinstance(rate(ranking, "x", [text])[0], float)
    assert isinstance(rate(ranking, "x", [text * 2])[0], BadRequest)


def test_a_model_that_was_trained_with_token_types_is_warned_about(
    judge: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made.write_bert(tmp_path / "a.gguf", judge, "rank")
    with loaded(tmp_path, "llamacpp"):
        assert "warning: llama.cpp does not tell this model which of the two texts" in capsys.readouterr().out


def test_pairs_that_are_too_long_are_refused_one_by_one_or_cut(ranking: Any) -> None:
    long = "the cat " * 80
    short, refused = rate(ranking, "what do cats eat?", ["the cat", long])
    assert isinstance(short, float) and isinstance(refused, BadRequest)
    assert refused.code == "context_length_exceeded" and refused.param == "document"
    room = ranking.size.length - ranking._count("what do cats eat?", "")
    (cut,) = rate(ranking, "what do cats eat?", [long], truncate=True)
    (same,) = rate(ranking, "what do cats eat?", [" ".join(long.split()[:room])])
    assert cut == pytest.approx(same, abs=1e-6)
    (odd,) = rate(ranking, "x", ["y"], truncate=7)
    assert isinstance(odd, BadRequest) and odd.param == "truncate"
    (odd,) = rate(ranking, "x", ["y"], instruction="judge")
    assert isinstance(odd, BadRequest) and odd.code == "unsupported_value"
    (alone,) = rate(ranking, long, ["y"], truncate=True)
    assert isinstance(alone, BadRequest) and alone.param == "query"


def test_a_decoder_rates_with_its_template(tmp_path: Path) -> None:
    network = made.qwen3()
    said = {
        "qwen3__classifier__output_labels": ["yes", "no"],
        "tokenizer__chat_template__rerank": "Is {document} for {query}?",
    }
    torch.manual_seed(3)
    words = torch.randn(2, made.WIDTH)
    made.write_qwen3(tmp_path / "a.gguf", network, "rank", {"cls.output.weight": words}, **said)
    letters = "abcdefghij"  # of which llama.cpp, too, makes one token each
    with words_of_tiny_chat(), loaded(tmp_path, "llamacpp") as model:
        found = rate(model, "a", list(letters))
        for letter, score in zip(letters, found, strict=True):
            ids = model.tokenizer.encode(f"Is {letter} for a?", add_special_tokens=False).ids
            with torch.no_grad():
                last = network(torch.tensor([ids])).last_hidden_state[0, -1]
            assert score == pytest.approx(float(torch.softmax(words @ last, 0)[0]), abs=NEAR)


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_language_model_gives_vectors_where_its_pooling_is_named(tmp_path: Path) -> None:
    network = made.qwen3()
    made.write_qwen3(tmp_path / "a.gguf", network, None)
    with words_of_tiny_chat(), loaded(tmp_path, "llamacpp", options={"pooling": "last"}) as model:
        ids = model.tokenizer.encode("One two").ids
        with torch.no_grad():
            wanted = network(torch.tensor([ids])).last_hidden_state[0, -1].numpy()
        assert np.abs(embed(model, ["One two"])[0][0] - unit(wanted)).max() < NEAR


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pooling": "sum"}, "options.pooling is 'sum', which is none of mean, cls, last, rank"),
        ({"max_model_len": 97}, "options.max_model_len is 97, but the model reads at most 96 tokens"),
        ({"max_model_len": "x"}, "options.max_model_len must be a whole number"),
        ({"truncate": 1}, "options.truncate must be true or false"),
        ({"prompts": ["x"]}, "options.prompts must be an object"),
        ({"default_prompt": "x"}, r"options.default_prompt is 'x' \(have: none\)"),
        ({"matryoshka": "x"}, "options.matryoshka must be true or false"),
    ],
)
def test_options_are_checked_by_name(options: dict[str, Any], says: str, place: Path) -> None:
    with pytest.raises(ConfigError, match=says), loaded(place, "llamacpp", options=options):
        pytest.fail("it was loaded")


def test_only_llama_cpp_serves_such_a_file(place: Path) -> None:
    with pytest.raises(ConfigError, match=r"bert\.gguf is an embedding model, .*only llama\.cpp serves that"):
        loaded(place, "torch").__enter__()
    with pytest.raises(ConfigError, match=r"computed on the CPU here: give it no GPU"):
        loaded(place, "llamacpp", gpus=1).__enter__()


ENDED = """
import sys
from pathlib import Path
from gateway_llamacpp.server import Shape, open_server
for _ in range(20):
    open_server(Path(sys.argv[1]), Shape(16, 512, 512, 1), 1)
"""


def test_servers_that_end_without_a_request_end(place: Path) -> None:
    subprocess.run([sys.executable, "-c", ENDED, place / "bert.gguf"], check=True, timeout=100, stderr=subprocess.PIPE)


# ── through the gateway ──────────────────────────────────────────────────────────────────────────────────────────────


def test_routes_answer_as_clients_expect(bert: Any, judge: Any, tmp_path: Path) -> None:
    for name in ("vectors", "ratings"):
        (tmp_path / name).mkdir()
    made.write_bert(tmp_path / "vectors" / "bert.gguf", bert)
    made.write_bert(tmp_path / "ratings" / "rank.gguf", judge, "rank")
    tokenizer = made.bert_tokenizer()
    with Gateway(tmp_path) as running, httpx.Client(base_url=running.url, timeout=60) as gateway:
        found = gateway.post("/v1/embeddings", json={"model": "vectors", "input": TEXTS}).json()
        packed = gateway.post(
            "/v1/embeddings", json={"model": "vectors", "input": TEXTS, "encoding_format": "base64"}
        ).json()
        for one, other in zip(found["data"], packed["data"], strict=True):
            assert np.allclose(one["embedding"], np.frombuffer(base64.b64decode(other["embedding"]), "<f4"), atol=NEAR)
        assert found["usage"]["prompt_tokens"] == sum(len(tokenizer(text)["input_ids"]) for text in TEXTS)
        long = gateway.post("/v1/embeddings", json={"model": "vectors", "input": "the cat " * 60})
        assert (long.status_code, long.json()["error"]["code"]) == (400, "context_length_exceeded")
        tokens = gateway.post("/tokenize", json={"model": "vectors", "prompt": TEXTS[1]}).json()
        assert tokens["tokens"] == tokenizer(TEXTS[1])["input_ids"]
        asked = {"model": "ratings", "query": "what do cats eat?", "documents": TEXTS}
        results = gateway.post("/v1/rerank", json=asked).json()["results"]
        scores = [each["relevance_score"] for each in results]
        assert (
            sorted(scores, reverse=True) == scores and len(scores) == len(TEXTS) and 0 < min(scores) < max(scores) < 1
        )
        long = gateway.post("/v1/rerank", json={**asked, "documents": ["x", "the cat " * 60]})
        assert (long.status_code, long.json()["error"]["code"]) == (400, "context_length_exceeded")
