"""Serve a sentence-transformers directory: texts in, one vector each out.

`find_model` recognises the directory, `SentenceTransformerModel` answers /v1/embeddings, `Batcher` merges the texts of
all callers into passes through the network, `Encoder` is the library's tokenizer and network. Texts beyond the model's
`max_seq_length` are cut at the end, as the library does; `usage` counts the tokens that were computed, without padding.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from gateway import BadRequest, ConfigError, HTTPError, ModelSpec, describe, hookimpl, peek_weights, weights_path

FRAMEWORK = "sentence-transformers"


@hookimpl
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    if not _is_ours(path):
        return None
    spec = describe(
        path,
        target="gateway_sentence_transformers:SentenceTransformerModel",
        format=FRAMEWORK,
        overrides=overrides,
        slots=64,  # callers whose texts may share a pass; they wait, they do not compute side by side
        extra=FRAMEWORK,
    )
    # Not among the options, which config.yaml may set too: only the operator lets a directory bring code.
    return replace(spec, config={**spec.config, "trust_remote_code": bool(overrides.get("trust_remote_code"))})


def _is_ours(path: Path) -> bool:
    config = _config(path)
    if "framework" in config:  # beats detection
        return bool(config["framework"] == FRAMEWORK)
    code = path / config.get("model_module_dir", "model") / config.get("model_class_filename", "model.py")
    weights = peek_weights(path)
    if weights is None or code.exists() or (path / "model.py").exists():
        return False
    about = weights / "config_sentence_transformers.json"
    if not about.is_file():
        return (weights / "modules.json").is_file()
    try:
        kind = json.loads(about.read_text()).get("model_type", "SentenceTransformer")
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{about} is not a JSON object ({error}); get the model's files again") from error
    return bool(kind == "SentenceTransformer")  # the library's cross and sparse encoders give no such vectors


def _config(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        config = yaml.safe_load((path / "config.yaml").read_text())
    except (OSError, ValueError, yaml.YAMLError):  # `describe` reports a broken file, with its line
        return {}
    return config if isinstance(config, dict) else {}


class SentenceTransformerModel:
    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.capabilities: dict[str, Any] = {}

    def load(self) -> None:
        from sentence_transformers import SentenceTransformer

        path = weights_path(self.config, Path.cwd())
        trusted = bool(self.config.get("trust_remote_code", False))
        encoder = Encoder(SentenceTransformer(str(path), local_files_only=True, trust_remote_code=trusted))
        self.dimensions = encoder.dimensions
        self.capabilities = {"max_model_len": encoder.max_tokens, "dimensions": encoder.dimensions}
        self.batcher = Batcher(encoder, encoder.shape)

    def is_healthy(self) -> bool:
        return not self.batcher.closed

    def unload(self) -> None:
        self.batcher.close()

    async def embeddings(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        texts = self._texts(inputs)
        vectors, tokens = await self.batcher.encode(texts)
        return {"embeddings": vectors, "prompt_tokens": tokens}

    def _texts(self, inputs: Mapping[str, Any]) -> list[str]:
        texts, dimensions = inputs.get("input"), inputs.get("dimensions")
        if not isinstance(texts, list) or not texts:
            raise BadRequest("input must be a text or a list of texts, and not empty", param="input")
        if not all(isinstance(text, str) for text in texts):
            raise BadRequest(
                "input holds token ids, which mean nothing to this model's tokenizer: send texts (with LangChain, "
                "OpenAIEmbeddings(check_embedding_ctx_length=False))",
                param="input",
            )
        if dimensions is not None and dimensions != self.dimensions:
            raise BadRequest(
                f"this model gives {self.dimensions} dimensions and no other number: leave dimensions out",
                param="dimensions",
                code="unsupported_value",
            )
        return texts


# ── the network ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a pass through the network pays, on this kind of device."""

    budget: int  # tokens of one pass, padding included: beyond, a pass takes longer and computes no faster
    overhead: int  # what any pass costs before its first token, counted in tokens
    window: int  # texts looked at when a pass is put together


# all-MiniLM-L6-v2 on one core: a pass of 32 tokens runs at 2,800 tokens/s, of 128 at 5,500, of 512 and 2,048 at 7,000;
# small passes also let callers who were answered come back while the next pass runs.
CPU = Shape(budget=512, overhead=64, window=64)
# Not measured: launching the kernels of one pass takes milliseconds, in which a GPU computes thousands of tokens.
GPU = Shape(budget=16_384, overhead=2_048, window=1_024)


@dataclass(frozen=True, slots=True)
class Tokens:
    """One tokenized text: its rows of the network's input matrices, or the text where there are no such matrices."""

    count: int
    rows: Mapping[str, Any] | str


class Encoder:
    """The library's tokenizer and network, without what `SentenceTransformer.encode` does around them.

    Tokenizing apart from computing gives the true lengths, so that texts of a length share a pass: with lengths
    between 7 and 42 tokens that computes 1.3 times as many texts as `encode` with 32 of them at a time.
    """

    def __init__(self, model: Any) -> None:
        from torch import Tensor

        self.model = model.eval()
        self.prompt = model.prompts.get(model.default_prompt_name) if model.default_prompt_name else None
        self.shape = CPU if model.device.type == "cpu" else GPU
        probe = model.preprocess(["a", "a longer text"], prompt=self.prompt)
        tensors = {name: value for name, value in probe.items() if isinstance(value, Tensor)}
        shapes = {tuple(value.shape) for value in tensors.values()}
        # Static embeddings and flattened input have no matrix of texts by tokens: those go through preprocess again.
        self.has_rows = "attention_mask" in tensors and len(shapes) == 1
        self.constants = {name: value for name, value in probe.items() if name not in tensors}
        if self.has_rows:
            self.side = model.tokenizer.padding_side
            self.padding = dict.fromkeys(tensors, 0) | {"input_ids": model.tokenizer.pad_token_id or 0}
        self.dimensions = self.encode(self.tokenize(["a", "a longer text"])).shape[1]
        self.max_tokens = model.max_seq_length

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        if not self.has_rows:
            alone = (self.model.preprocess([text], prompt=self.prompt)["input_ids"].numel() for text in texts)
            return [Tokens(count, text) for count, text in zip(alone, texts, strict=True)]
        features = self.model.preprocess(list(texts), prompt=self.prompt)
        counts = features["attention_mask"].sum(1).tolist()
        return [
            Tokens(n, {name: self._cut(features[name][i], n) for name in self.padding}) for i, n in enumerate(counts)
        ]

    def _cut(self, row: Any, count: int) -> Any:
        return row[:count] if self.side == "right" else row[len(row) - count :]

    def encode(self, batch: Sequence[Tokens]) -> Any:
        """One pass: a float32 array with a row for each text."""
        import torch
        from sentence_transformers.util import batch_to_device, truncate_embeddings

        with torch.inference_mode():
            vectors = self.model(batch_to_device(self._features(batch), self.model.device))["sentence_embedding"]
            if self.model.truncate_dim is not None:
                vectors = truncate_embeddings(vectors, self.model.truncate_dim)
            return vectors.float().cpu().numpy()

    def _features(self, batch: Sequence[Tokens]) -> dict[str, Any]:
        from torch.nn.utils.rnn import pad_sequence

        if not self.has_rows:
            return self.model.preprocess([tokens.rows for tokens in batch], prompt=self.prompt)
        features = dict(self.constants)
        for name, value in self.padding.items():
            rows = [tokens.rows[name] for tokens in batch]
            features[name] = pad_sequence(rows, batch_first=True, padding_value=value, padding_side=self.side)
        return features


# ── many callers, one network ────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True, eq=False)
class Call:
    """The texts of one caller on their way to vectors."""

    future: asyncio.Future[tuple[Any, int]]  # cancelled when the caller leaves
    vectors: list[Any]  # one a text; None until it is computed
    missing: int
    tokens: int = 0
    result: tuple[Any, int] | None = None
    error: Exception | None = None

    @property
    def is_over(self) -> bool:
        return self.error is not None or self.future.done()


@dataclass(slots=True, eq=False)
class Text:
    text: str
    call: Call
    index: int
    turn: int
    tokens: Any = None  # a Tokens, from the time it comes into a window

    @property
    def length(self) -> int:
        return max(1, self.tokens.count)


def choose_pass(window: Sequence[Text], shape: Shape) -> list[Text]:
    """The texts of the next pass: the first of the window, and those for which it pays to go along.

    By length the window falls into runs, longest first. A run ends where the budget does, or where padding the texts
    that could still join it costs more than giving them a pass of their own.
    """
    run: list[Text] = []
    by_length = sorted(window, key=attrgetter("length"), reverse=True)
    for place, text in enumerate(by_length):
        if run:
            longest = run[0].length
            joining = min(shape.budget // longest - len(run), len(by_length) - place)
            if joining <= 0 or (longest - text.length) * joining > shape.overhead:
                if window[0] in run:
                    break
                run = []
        run.append(text)
    return run


HOLD = 0.002  # seconds; about half of what a pass on a CPU costs before its first token


class Batcher:
    """Merges the texts of many callers into passes of one engine, on one thread.

    1. A text that arrives while the engine rests goes at once; others gather while it computes.
    2. Callers take turns text by text, so that a request of one text passes a request of a thousand.
    3. A pass holds the text whose turn it is and those near it in length, see `choose_pass`.
    4. A pass that fails is repeated text by text: only the caller whose text it was gets the error.
    5. A caller that left takes its texts along, but for those that are being computed.
    """

    def __init__(self, engine: Encoder, shape: Shape) -> None:
        self.engine = engine
        self.shape = shape
        self.closed = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self.inbox: SimpleQueue[tuple[Call, list[str]] | None] = SimpleQueue()
        # what follows belongs to the thread
        self.waiting: list[Text] = []  # in the order of their turns
        self.turn = 0  # of the text whose turn it was last
        self.finished: list[Call] = []
        self.hold_for, self.hold_until = 0, 0.0
        self.thread = threading.Thread(target=self._run, name="embeddings", daemon=True)
        self.thread.start()

    async def encode(self, texts: list[str]) -> tuple[Any, int]:
        """The vectors of these texts as one float32 array, and the number of their tokens."""
        self.loop = asyncio.get_running_loop()  # the same for all callers: a worker has one
        call = Call(self.loop.create_future(), [None] * len(texts), len(texts))
        self.inbox.put((call, texts))
        if self.closed:  # asked after the put, so that the last look into the inbox cannot miss a call
            call.future.cancel()
            raise _closing()
        return await call.future

    def close(self) -> None:
        """Fails those who still wait; returns when the engine has stopped."""
        self.inbox.put(None)
        self.closed = True
        self.thread.join()

    def _run(self) -> None:
        try:
            while self._gather():
                if batch := self._next_pass():
                    self._attempt(self._encode, batch)
                self._deliver()
        finally:  # closed, or a mistake in this file: nobody may wait for a thread that is gone
            self.closed = True
            while not self.inbox.empty():
                self._admit(self.inbox.get())
            for text in self.waiting:
                self._fail(text.call, _closing())
            self._deliver()

    def _gather(self) -> bool:
        """Takes what has arrived, and waits for it when there is nothing to do; False when it is time to stop.

        Callers that were just answered often come straight back, one by one, and the first of them would get a pass
        of its own. So after a small pass, for up to HOLD, it waits until as many texts are here as that pass had.
        """
        while True:
            if not self.waiting:
                arrival = self.inbox.get()
            else:
                left = self.hold_until - time.monotonic() if len(self.waiting) < self.hold_for else 0.0
                try:
                    arrival = self.inbox.get(timeout=left) if left > 0 else self.inbox.get_nowait()
                except Empty:
                    return True
            if arrival is None:
                return False
            self._admit(arrival)

    def _admit(self, arrival: tuple[Call, list[str]] | None) -> None:
        if arrival is not None:
            call, texts = arrival
            self.waiting += [Text(text, call, index, self.turn + index) for index, text in enumerate(texts)]

    def _next_pass(self) -> list[Text]:
        self.waiting.sort(key=attrgetter("turn"))  # stable, and cheap: it is nearly sorted
        size = self.shape.window
        window = [text for text in self.waiting[:size] if not text.call.is_over]
        if fresh := [text for text in window if text.tokens is None]:
            self._attempt(self._tokenize, fresh)
            window = [text for text in window if text.tokens is not None]
        batch = choose_pass(window, self.shape) if window else []
        chosen = set(batch)
        self.waiting[:size] = [text for text in window if text not in chosen]
        if batch:
            self.turn = window[0].turn
        return batch

    def _tokenize(self, texts: Sequence[Text]) -> None:
        for text, tokens in zip(texts, self.engine.tokenize([text.text for text in texts]), strict=True):
            text.tokens = tokens

    def _encode(self, batch: Sequence[Text]) -> None:
        import numpy

        vectors = self.engine.encode([text.tokens for text in batch])
        finite = numpy.isfinite(vectors).all(axis=1)
        for text, vector, is_finite in zip(batch, vectors, finite, strict=True):
            call = text.call
            if call.is_over:
                continue
            if not is_finite:
                self._fail(call, HTTPError(500, "the model computed NaN or infinity", code="invalid_model_output"))
                continue
            call.vectors[text.index] = vector
            call.tokens += text.tokens.count
            call.missing -= 1
            if not call.missing:
                call.result = numpy.stack(call.vectors), call.tokens
                self.finished.append(call)
        enough = self.shape.budget // 4  # tokens that make a pass worth running without more
        self.hold_for = min(len(batch), enough // max(text.length for text in batch))
        self.hold_until = time.monotonic() + HOLD

    def _attempt(self, work: Callable[[Sequence[Text]], None], texts: Sequence[Text]) -> None:
        try:
            work(texts)
        except Exception as error:
            if len(texts) == 1:
                self._fail(texts[0].call, error)
                return
            for text in texts:
                self._attempt(work, [text])

    def _fail(self, call: Call, error: Exception) -> None:
        if not call.is_over:
            call.error = error
            self.finished.append(call)

    def _deliver(self) -> None:
        """Wakes the callers that are done, all with one call into their loop."""
        finished, self.finished = self.finished, []
        if finished and self.loop is not None:
            try:
                self.loop.call_soon_threadsafe(_settle, finished)
            except RuntimeError:  # the loop is closed: nobody waits any more
                pass


def _settle(finished: Sequence[Call]) -> None:
    for call in finished:
        if call.future.done():  # its caller left
            continue
        if call.error is not None:
            call.future.set_exception(call.error)
        elif call.result is not None:
            call.future.set_result(call.result)


def _closing() -> HTTPError:
    return HTTPError(503, "the model is being unloaded", code="shutting_down")
