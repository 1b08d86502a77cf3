"""Serve a sentence-transformers directory: texts in, one vector each out.

`find_model` recognises the directory, `SentenceTransformerModel` answers /v1/embeddings, `Batcher` merges the texts of
all callers into passes through the network. What a request may ask for is `gateway_st_fields`, the tokenizer and the
network are `gateway_st_encoder`. `usage` counts the tokens that were computed, without padding.

    options:
      truncate: true      # texts that are longer than the model reads are cut, where a request does not say; else 400
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from gateway import (
    BadRequest,
    ConfigError,
    HTTPError,
    ModelSpec,
    Problem,
    check_ordinary,
    describe,
    has_code,
    hookimpl,
    peek_architecture,
    peek_config,
    peek_json,
    peek_weights,
    weights_path,
)

if TYPE_CHECKING:
    from gateway_st_encoder import Encoder, Shape
    from gateway_st_fields import Ask

FRAMEWORK = "sentence-transformers"
TARGET = "gateway_sentence_transformers:SentenceTransformerModel"
MADE_OF = ("modules.json", "1_Pooling/config.json")  # one without the other is refused by the load


@hookimpl
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    from gateway_st_left_out import left_out, other_heads

    if not _is_ours(path):
        return None
    spec = describe(
        path,
        target=TARGET,
        format=FRAMEWORK,
        overrides=overrides,
        slots=64,  # callers whose texts may share a pass; they wait, they do not compute side by side
        extra=FRAMEWORK,
    )
    # Not among the options, which config.yaml may set too: only the operator lets a directory bring code.
    place = peek_weights(path)
    spec = replace(spec, notes=(*spec.notes, *left_out(place)), asides=(*spec.asides, *other_heads(place)))
    return replace(spec, config={**spec.config, "trust_remote_code": bool(overrides.get("trust_remote_code"))})


@hookimpl
def check_model(spec: ModelSpec) -> Iterator[Problem]:
    """What the load would say before it reads the weights, and of tokenizers that know no words."""
    import gateway_st_loadable

    if spec.target != TARGET or spec.python is not None or (place := peek_weights(spec.root)) is None:
        return  # other environments may have another version of the library
    try:
        gateway_st_loadable.check(place, trusted=bool(spec.config.get("trust_remote_code")))
    except ConfigError as error:
        where, _, what = str(error).partition(": ")  # a folder in it, perhaps
        yield Problem(where=where, what=what, code="unloadable", model=spec.name)
        return
    if note := gateway_st_loadable.assumed(place):
        yield Problem(where=str(spec.root), what=note, level="warning", code="assumed_pooling", model=spec.name)


def _is_ours(path: Path) -> bool:
    config = peek_config(path)
    if "framework" in config:  # beats detection
        return bool(config["framework"] == FRAMEWORK)
    weights = peek_weights(path)
    if weights is None or has_code(path):
        return False
    about = weights / "config_sentence_transformers.json"
    if not (about.is_file() or any((weights / name).is_file() for name in MADE_OF)):
        return False
    try:
        if about.is_file() and not isinstance(peek_json(about), dict):
            raise ValueError("it is a list, or a bare value")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{about} is not a JSON object ({error}); get the model's files again") from error
    found = peek_architecture(weights)
    return found is None or found.is_saved_by == "transformers"  # cross and sparse encoders give no such vectors


class SentenceTransformerModel:
    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.capabilities: dict[str, Any] = {}

    def load(self) -> None:
        import gateway_st_loadable as loadable
        from gateway_st_encoder import Encoder
        from gateway_st_fields import Known
        from gateway_st_left_out import left_out, other_heads

        path = weights_path(self.config, Path.cwd())
        check_ordinary(path)
        trusted = bool(self.config.get("trust_remote_code", False))
        cuts = (self.config.get("options") or {}).get("truncate", False)
        if not isinstance(cuts, bool):
            raise ConfigError(f"options.truncate must be true or false, not {cuts!r}")
        loadable.say_unloadable(path, trusted=trusted)
        model = self._model(path, trusted=trusted)
        try:
            encoder = Encoder(model)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            what = f"its modules make no vector of a text ({type(error).__name__}: {error})"
            raise loadable.unloadable(path, what) from error
        for note in (*left_out(path), *other_heads(path), *filter(None, [loadable.assumed(path)])):
            print(f"warning: {note}")
        self.known = Known(encoder.prompts, encoder.default_prompt, encoder.dimensions, cuts)
        self.capabilities = {"max_model_len": encoder.max_tokens, "dimensions": encoder.dimensions}
        self.batcher = Batcher(encoder, encoder.shape)

    def _model(self, path: Path, *, trusted: bool) -> Any:
        import gateway_st_loadable as loadable
        from sentence_transformers import SentenceTransformer

        try:
            model = SentenceTransformer(str(path), local_files_only=True, trust_remote_code=trusted)
        except MemoryError:
            raise
        except Exception as error:  # of whatever kind, by the module that it comes from
            loadable.check(path, trusted=trusted)  # which may say it better
            raise loadable.unloadable(path, error) from error
        loadable.say_wrong(path, model)
        return model

    def is_healthy(self) -> bool:
        return not self.batcher.closed

    def unload(self) -> None:
        self.batcher.close()

    async def embeddings(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        from gateway_st_fields import read

        texts, ask = _texts(inputs), read(inputs, self.known)
        vectors, tokens = await self.batcher.encode(texts, ask)
        return {"embeddings": vectors, "prompt_tokens": tokens}


def _texts(inputs: Mapping[str, Any]) -> list[str]:
    texts = inputs.get("input")
    if not isinstance(texts, list) or not texts:
        raise BadRequest("input must be a text or a list of texts, and not empty", param="input")
    if not all(isinstance(text, str) for text in texts):
        raise BadRequest(
            "input holds token ids, which mean nothing to this model's tokenizer: send texts (with LangChain, "
            "OpenAIEmbeddings(check_embedding_ctx_length=False))",
            param="input",
        )
    return texts


# ── many callers, one network ────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True, eq=False)
class Call:
    """The texts of one caller on their way to vectors."""

    ask: Ask
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
    tokens: Any = None  # `Tokens`, from the time it comes into a window

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


def _of_one_kind(window: Sequence[Text]) -> list[Text]:
    """The first text, and those that the network takes along with it."""
    return [text for text in window if text.tokens.kind == window[0].tokens.kind]


HOLD = 0.002  # seconds; about half of what a pass on a CPU costs before its first token


class Batcher:
    """Merges the texts of many callers into passes of one engine, on one thread.

    1. A text that arrives while the engine rests goes at once; others gather while it computes.
    2. Callers take turns text by text, so that a request of one text passes a request of a thousand.
    3. A pass holds the text whose turn it is and those near it in length, see `choose_pass`, of its kind.
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

    async def encode(self, texts: list[str], ask: Ask) -> tuple[Any, int]:
        """The vectors of these texts as one float32 array, and the number of their tokens."""
        self.loop = asyncio.get_running_loop()  # the same for all callers: a worker has one
        call = Call(ask, self.loop.create_future(), [None] * len(texts), len(texts))
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
            for ask in {text.call.ask: None for text in fresh}:
                self._attempt(self._tokenize, [text for text in fresh if text.call.ask == ask])
            window = [text for text in window if text.tokens is not None]
        batch = choose_pass(_of_one_kind(window), self.shape) if window else []
        chosen = set(batch)
        self.waiting[:size] = [text for text in window if text not in chosen]
        if batch:
            self.turn = window[0].turn
        return batch

    def _tokenize(self, texts: Sequence[Text]) -> None:
        found = self.engine.tokenize([text.text for text in texts], texts[0].call.ask)
        for text, tokens in zip(texts, found, strict=True):
            if tokens.limit is None:
                text.tokens = tokens
            else:
                self._fail(text.call, _too_long(text.index, tokens.limit))

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


def _too_long(place: int, limit: int) -> BadRequest:
    """The first words are OpenAI's: clients know by them that a text does not fit."""
    return BadRequest(
        f"This model's maximum context length is {limit} tokens. However, input[{place}] has more, counted with the "
        "model's prompt. Send a shorter text, or truncate_prompt_tokens: -1 to have it cut.",
        param="input",
        code="context_length_exceeded",
    )
