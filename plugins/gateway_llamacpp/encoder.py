"""Tokens of texts, and their vectors by llama.cpp. `gateway_embedding_batches` decides which texts share a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from gateway_embedding_fields import WHOLE, Ask
from gateway_language.engines import EngineFailed

from gateway import BadRequest

FLOAT = 4  # bytes


@dataclass(frozen=True, slots=True)
class Tokens:
    """A tokenized text."""

    ids: list[int]
    normalize: bool
    limit: int | None = None  # set if it is longer than this, and may not be cut
    kind: None = None  # all texts may share a call

    @property
    def count(self) -> int:
        return len(self.ids)


class TextEncoder:
    """Computes vectors on a server of llama.cpp. `tokenizer` is one of the tokenizers library."""

    def __init__(self, server: Any, tokenizer: Any, length: int) -> None:
        self.server, self.length = server, length
        self._tokenizer = tokenizer
        whole, plain = (tokenizer.encode("a", add_special_tokens=special).ids for special in (True, False))
        self._before = next(at for at in range(len(whole)) if whole[at : at + len(plain)] == plain)
        self._around = len(whole) - len(plain)

    def tokenize(self, texts: Sequence[str], ask: Ask) -> list[Tokens]:
        """Return the tokens of each text after its prompt. Raises `BadRequest` for what the model does not support."""
        if ask.keep is not None and ask.keep != WHOLE and not self._around < ask.keep <= self.length:
            what = f"truncate_prompt_tokens must be from {self._around + 1} to {self.length} for this model, or -1"
            raise BadRequest(what, param="truncate_prompt_tokens")
        prompt = ask.prompt or ""
        found = [each.ids for each in self._tokenizer.encode_batch([prompt + text for text in texts])]
        return [self._fitted(ids, ask) for ids in found]

    def _fitted(self, ids: list[int], ask: Ask) -> Tokens:
        if not ids:
            raise BadRequest("input has an empty text, of which this model makes no token", param="input")
        normalize = ask.normalize is not False
        keep = self.length if ask.keep in (None, WHOLE) else ask.keep
        assert keep is not None
        if len(ids) <= keep:
            return Tokens(ids, normalize)
        if ask.keep is None:
            return Tokens(ids, normalize, self.length)
        after = self._around - self._before
        end = len(ids) - after
        if ask.side != "left":
            return Tokens([*ids[: keep - after], *ids[end:]], normalize)
        # its start is what comes after the prompt
        prompt = len(self._tokenizer.encode(ask.prompt, add_special_tokens=False).ids) if ask.prompt else 0
        begun = min(self._before + prompt, keep - after - 1)
        return Tokens([*ids[:begun], *ids[end - (keep - after - begun) : end], *ids[end:]], normalize)

    def encode(self, batch: Sequence[Tokens]) -> Any:
        """Return a float32 array with a row for each text."""
        import base64

        import numpy

        body = {"input": [text.ids for text in batch], "encoding_format": "base64", "embd_normalize": -1}
        found = answer(self.server.handle_embeddings, body)
        rows = {each["index"]: base64.b64decode(each["embedding"]) for each in found["data"]}
        vectors = numpy.stack([numpy.frombuffer(rows[at], "<f4") for at in range(len(batch))])
        lengths = numpy.linalg.norm(vectors, axis=1, keepdims=True)
        wished = numpy.array([text.normalize for text in batch])[:, None]
        return numpy.where(wished, vectors / numpy.maximum(lengths, 1e-12), vectors).astype("f4")


def answer(function: Callable[[bytes], bytes], body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a function of llama.cpp's server answers. Raises `EngineFailed` for an error in it."""
    found = msgspec.json.decode(function(msgspec.json.encode(body)))
    if "error" in found:
        raise EngineFailed(f"llama.cpp failed: {found['error'].get('message', found['error'])}")
    return dict(found)
