"""`Embedder` and `Reranker`: vectors of texts, and ratings of pairs, by a GGUF file on llama.cpp."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway_embedding_batches import Batcher, Shape
from gateway_embedding_fields import Ask, Known, read
from gateway_language.gguf.header import Header
from gateway_language.gguf.kinds import ARCHITECTURES, ENCODER, NO_POOLING, POOLINGS, Task
from gateway_language.options import whole
from gateway_language.tokenizer import FileTokenizer
from gateway_rating_fields import cuts

from gateway import BadRequest, ConfigError

from . import server
from .encoder import TextEncoder, answer
from .opening import find_file, free_memory, say_engine, thread_count
from .sizes import STEP, plan_texts

SLOTS = 16  # texts that llama.cpp computes in one step
NAMES = {number: name for name, number in POOLINGS.items()}
# Texts of all lengths share a step: llama.cpp does not pad.
PASSES = Shape(budget=STEP, overhead=1 << 40, window=64)


class _Texts:
    """A GGUF file whose model reads whole texts."""

    task: Task

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.options: Mapping[str, Any] = config.get("options") or {}
        self.capabilities: dict[str, Any] = {}

    def load(self) -> None:
        self.cuts = self.options.get("truncate", False)
        if not isinstance(self.cuts, bool):
            raise ConfigError(f"options.truncate must be true or false, not {self.cuts!r}")
        file, self.header = find_file(self.config, self.task)
        pooling = pooling_of(file, self.header, self.options)
        self.size = plan_texts(
            self.header,
            is_last=pooling == POOLINGS["last"],
            length=whole(self.options, "max_model_len"),
            memory=free_memory(file),
        )
        self.tokenizer = FileTokenizer(self.header.metadata).backend_tokenizer  # answers tokenize and count_tokens
        threads = thread_count()
        shape = server.Shape(SLOTS, self.size.cells, self.size.batch, pooling)
        self.server = server.open_server(file, shape, threads)
        self.capabilities = {"max_model_len": self.size.length}
        say_engine(self.config)
        cache = f", cache {self.size.bytes / 2**20:,.0f} MiB" if self.size.bytes else ""
        print(f"pooling: {NAMES[pooling]}, tokens of a text: {self.size.length}{cache}; threads: {threads}")

    def unload(self) -> None:
        self.server = None


def pooling_of(file: Path, header: Header, options: Mapping[str, Any]) -> int:
    """Return llama.cpp's number for the pooling of a file: as options.pooling says, or its header, or the mean."""
    said = header.metadata.get(f"{header.architecture}.pooling_type", NO_POOLING[0])
    if (asked := options.get("pooling")) is not None:
        return POOLINGS[asked]
    if said in NO_POOLING and ARCHITECTURES.get(header.architecture) is ENCODER:
        print(f"warning: {file.name} does not say how a vector is computed: it is the mean of the tokens; see pooling")
        return POOLINGS["mean"]
    if said not in NAMES:
        have = ", ".join(POOLINGS)
        raise ConfigError(f"{file.name}: its pooling_type is {said!r}, which llama.cpp does not know (have: {have})")
    return int(said)


class Embedder(_Texts):
    """Answers embeddings."""

    task = "embeddings"

    def load(self) -> None:
        prompts = self.options.get("prompts") or {}
        if not isinstance(prompts, dict) or not all(isinstance(text, str) for each in prompts.items() for text in each):
            raise ConfigError("options.prompts must be an object of texts by their names, such as query: 'search: '")
        default = self.options.get("default_prompt")
        if default is not None and default not in prompts:
            raise ConfigError(f"options.default_prompt is {default!r} (have: {', '.join(prompts) or 'none'})")
        if not isinstance(nested := self.options.get("matryoshka", False), bool):
            raise ConfigError(f"options.matryoshka must be true or false, not {nested!r}")
        super().load()
        encoder = TextEncoder(self.server, self.tokenizer, self.size.length)
        dimensions = encoder.encode(encoder.tokenize(["a"], Ask())).shape[1]
        self.known = Known(prompts, prompts.get(default), dimensions, self.cuts, nested)
        self.capabilities |= {"dimensions": dimensions, **({"matryoshka": True} if nested else {})}
        self.batcher = Batcher(encoder, PASSES)

    def is_healthy(self) -> bool:
        return not self.batcher.closed

    def unload(self) -> None:
        self.batcher.close()
        self.batcher.engine.server = None  # type: ignore[attr-defined]
        super().unload()

    async def embeddings(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        texts, ask = inputs.get("input"), read(inputs, self.known)
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise BadRequest("input must be a string or a list of strings, and not empty", param="input")
        vectors, tokens = await self.batcher.encode(texts, ask)
        return {"embeddings": vectors, "prompt_tokens": tokens}


class Reranker(_Texts):
    """Answers rerank and score. Methods named `_batch` get the pairs of several calls."""

    task = "rerank"

    def load(self) -> None:
        super().load()
        self.plain = FileTokenizer(self.header.metadata).backend_tokenizer
        self.plain.encode_special_tokens = True  # llama.cpp takes "[SEP]" in a text of a pair for text
        self.template = self.header.metadata.get("tokenizer.chat_template.rerank")
        # Qwen's rate with the words yes and no, of which llama.cpp makes a probability
        self.is_probability = self.header.architecture.startswith("qwen3")
        self._rate("a", ["a"])  # a file without its parts for ratings fails here, not in requests
        if note := segments(self.header):
            print(f"warning: {note}")

    def rerank_batch(self, inputs: list[Mapping[str, Any]]) -> list[Any]:
        return self._scores(inputs, "query", "document")

    def score_batch(self, inputs: list[Mapping[str, Any]]) -> list[Any]:
        return self._scores(inputs, "text_1", "text_2")

    def _scores(self, inputs: Sequence[Mapping[str, Any]], first: str, second: str) -> list[Any]:
        results: list[Any] = [None] * len(inputs)
        asked: dict[str, list[tuple[int, str, int]]] = {}  # query → places, documents and their tokens
        for place, each in enumerate(inputs):
            try:
                query, (text, count) = each[first], self._fitted(each, first, second)
                asked.setdefault(query, []).append((place, text, count))
            except Exception as error:  # of this pair only
                results[place] = error
        for query, texts in asked.items():
            while texts:
                step = self._step(texts)
                try:
                    scores = self._rate(query, [text for _, text, _ in step])
                except Exception as error:
                    scores = [error] * len(step)
                for (place, _, _), score in zip(step, scores, strict=True):
                    results[place] = score
        return results

    def _step(self, texts: list[tuple[int, str, int]]) -> list[tuple[int, str, int]]:
        """Take the texts of the next call: as many as the cache holds."""
        step = [texts.pop(0)]
        used = step[0][2]
        while texts and len(step) < SLOTS and used + texts[0][2] <= max(self.size.length, STEP):
            used += texts[0][2]
            step.append(texts.pop(0))
        return step

    def _rate(self, query: str, texts: list[str]) -> list[Any]:
        found = answer(self.server.handle_rerank, {"query": query, "documents": texts})
        scores: list[Any] = [None] * len(texts)
        for each in found["results"]:
            scores[each["index"]] = self._score(float(each["relevance_score"]))
        return scores

    def _score(self, value: float) -> float | Exception:
        if not math.isfinite(value):
            return ValueError("the model computed NaN or infinity")
        if self.is_probability:
            return value
        return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))

    def _fitted(self, each: Mapping[str, Any], first: str, second: str) -> tuple[str, int]:
        """Return the second text, cut if that is asked for, and the tokens of the pair."""
        query, text, is_cut = each[first], each[second], cuts(each, self.cuts)
        count = self._count(query, text)
        if count <= self.size.length:
            return text, count
        if not is_cut:
            raise BadRequest(
                f"This model's maximum context length is {self.size.length} tokens. However, {first} and {second} "
                f"together have {count}. Send a shorter text, or truncate: true to have it cut.",
                param=second,
                code="context_length_exceeded",
            )
        ends = self.plain.encode(text, add_special_tokens=False).offsets
        kept = len(ends) - (count - self.size.length)
        while kept > 0:
            cut = text[: ends[kept - 1][1]]
            if (count := self._count(query, cut)) <= self.size.length:
                return cut, count
            kept -= 1
        raise BadRequest(f"{first} alone is longer than what this model reads", param=first)

    def _count(self, query: str, text: str) -> int:
        if self.template is not None:
            filled = self.template.replace("{query}", query).replace("{document}", text)
            return len(self.tokenizer.encode(filled).ids)
        return len(self.plain.encode(query).ids) + len(self.plain.encode(text).ids)


def segments(header: Header) -> str | None:
    """Return a warning for a model that was trained to tell the two texts apart by a number, which llama.cpp omits."""
    kinds = next((info.shape[0] for info in header.tensors if info.name == "token_types.weight"), 1)
    if kinds < 2:
        return None
    return (
        "llama.cpp does not tell this model which of the two texts a token belongs to (token types), as it was trained "
        "with: its ratings differ from those of transformers, which serves the checkpoint itself"
    )
