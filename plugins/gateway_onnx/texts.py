"""The classes for exports of transformers: they get texts, and answer embeddings, classify, or rerank and score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway_embedding_fields import WHOLE, Ask, Known, read

from gateway import BadRequest, ConfigError, HTTPError

from .encoder import Encoder, Tokens
from .model import open_model
from .pooling import normalized, pool
from .settings import SENTENCE, read_settings


class _OnnxTexts:
    """Methods named `_batch` get the texts of several calls."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.capabilities: dict[str, Any] = {}

    def load(self) -> None:
        cuts = (self.config.get("options") or {}).get("truncate", False)
        if not isinstance(cuts, bool):
            raise ConfigError(f"options.truncate must be true or false, not {cuts!r}")
        self.cuts = cuts
        opened = open_model(self.config, 1)
        self.settings = read_settings(opened.place, opened.header, opened.file)
        self.encoder = Encoder(opened.place, opened.header, opened.session, self.settings)
        self.capabilities = {"max_model_len": self.encoder.limit}

    def _logits(self, inputs: Sequence[Mapping[str, Any]], texts: Callable[[Mapping[str, Any]], Any]) -> list[Any]:
        """Return for each input the numbers that the graph computes, or an error."""
        import numpy

        results: list[Any] = [None] * len(inputs)
        for cuts in (False, True):
            places = []
            for place, each in enumerate(inputs):
                try:
                    if _cuts(each, self.cuts) is cuts:
                        texts(each)
                        places.append(place)
                except BadRequest as error:
                    results[place] = error
            found = self.encoder.whole([texts(inputs[place]) for place in places], cuts=cuts) if places else []
            whole = [(place, each) for place, each in zip(places, found, strict=True) if isinstance(each, Tokens)]
            for place, each in zip(places, found, strict=True):
                if not isinstance(each, Tokens):
                    results[place] = each
            for rows, logits, _ in self.encoder.passes([each for _, each in whole]):
                for row, values in zip(rows, numpy.asarray(logits, numpy.float32), strict=True):
                    results[whole[row][0]] = values if numpy.isfinite(values).all() else _infinite()
        return results


class OnnxEmbedder(_OnnxTexts):
    def load(self) -> None:
        super().load()
        if self.settings.is_assumed:
            print("warning: no 1_Pooling/config.json says how a vector is computed: it is the mean of the tokens")
        self.known = Known(self.settings.prompts, self.settings.default_prompt, 0, self.cuts)
        self.prompt_lengths: dict[str, int] = {}
        (probe,) = self.embeddings_batch([{"input": "a"}])
        if isinstance(probe, Exception):
            raise ConfigError(f"it computes no vector from a text: {probe}")
        dimensions = len(probe["embedding"])
        self.known = Known(self.settings.prompts, self.settings.default_prompt, dimensions, self.cuts)
        self.capabilities = {"max_model_len": self.encoder.limit, "dimensions": dimensions}

    def embeddings_batch(self, inputs: list[dict[str, Any]]) -> list[Any]:
        import numpy

        results: list[Any] = [None] * len(inputs)
        asks: dict[int, Ask] = {}
        for place, each in enumerate(inputs):
            try:
                asks[place] = self._read(each)
            except BadRequest as error:
                results[place] = error
        ids = self.encoder.tokens([(ask.prompt or "") + inputs[place]["input"] for place, ask in asks.items()])
        texts: dict[int, Tokens] = {}
        for (place, ask), each in zip(asks.items(), ids, strict=True):
            try:
                texts[place] = self._text(each, ask)
            except BadRequest as error:
                results[place] = error
        order = list(texts)
        for rows, found, mask in self.encoder.passes([texts[place] for place in order]):
            places = [order[row] for row in rows]
            vectors = self._vectors(found, mask, [asks[place] for place in places])
            for place, vector in zip(places, vectors, strict=True):
                is_finite = bool(numpy.isfinite(vector).all())
                told = {"embedding": vector, "usage": {"prompt_tokens": texts[place].count}}
                results[place] = told if is_finite else _infinite()
        return results

    def _read(self, each: Mapping[str, Any]) -> Ask:
        ask = read(each, self.known)
        if not isinstance(each.get("input"), str):
            raise BadRequest("input must be a string or a list of strings, and not empty", param="input")
        if ask.normalize is False and self.settings.output == SENTENCE:
            raise BadRequest("the graph itself computes the vector", param="normalize", code="unsupported_value")
        if ask.keep is not None and ask.keep != WHOLE and ask.keep > (most := self.encoder.limit or ask.keep):
            what = f"truncate_prompt_tokens is {ask.keep}, but this model reads at most {most} tokens"
            raise BadRequest(what, param="truncate_prompt_tokens")
        return ask

    def _text(self, ids: list[int], ask: Ask) -> Tokens:
        length = self._prompt_length(ask.prompt) if ask.prompt else 0
        keep = (self.encoder.limit or len(ids) + 64) if ask.keep == WHOLE else ask.keep
        found = self.encoder.text(ids, length, keep, ask.side)
        if not length or self.settings.includes_prompt:
            return found
        return Tokens(found.ids, found.types, min(self.encoder.before + length, found.count - 1))

    def _prompt_length(self, prompt: str) -> int:
        if prompt in self.settings.prompts.values():
            if prompt not in self.prompt_lengths:
                self.prompt_lengths[prompt] = len(self.encoder.tokens([prompt])[0])
            return self.prompt_lengths[prompt]
        return len(self.encoder.tokens([prompt])[0])

    def _vectors(self, found: Any, mask: Any, asks: Sequence[Ask]) -> Any:
        import numpy

        modes = self.settings.modes
        vectors = pool(found, mask, modes) if modes else numpy.asarray(found, numpy.float32)
        default = self.settings.normalize
        vectors = _mixed(vectors, [ask.normalize is not False and default for ask in asks])
        if self.settings.dimensions:
            vectors = vectors[:, : self.settings.dimensions]
        return _mixed(vectors, [ask.normalize is True for ask in asks])


class OnnxClassifier(_OnnxTexts):
    def classify_batch(self, inputs: list[dict[str, Any]]) -> list[Any]:
        found = self._logits(inputs, lambda each: _text(each, "input"))
        return [each if isinstance(each, Exception) else self._probabilities(each) for each in found]

    def _probabilities(self, logits: Any) -> dict[str, float]:
        values = activated(logits, self.settings.activation).tolist()
        return dict(zip(self.settings.labels, values, strict=True))


class OnnxReranker(_OnnxTexts):
    def rerank_batch(self, inputs: list[dict[str, Any]]) -> list[Any]:
        return self._scores(inputs, "query", "document")

    def score_batch(self, inputs: list[dict[str, Any]]) -> list[Any]:
        return self._scores(inputs, "text_1", "text_2")

    def _scores(self, inputs: list[dict[str, Any]], first: str, second: str) -> list[Any]:
        found = self._logits(inputs, lambda each: (_text(each, first), _text(each, second)))
        return [
            each if isinstance(each, Exception) else float(activated(each, self.settings.activation)[0])
            for each in found
        ]


def activated(logits: Any, activation: str) -> Any:
    import numpy

    if activation == "identity":
        return logits
    if activation == "sigmoid":
        return 1 / (1 + numpy.exp(-logits.astype(numpy.float64)))
    powers = numpy.exp(logits.astype(numpy.float64) - logits.max())
    return powers / powers.sum()


def _mixed(vectors: Any, wishes: Sequence[bool]) -> Any:
    """Return vectors, of length 1 where that is wished."""
    import numpy

    if not any(wishes):
        return vectors
    return (
        normalized(vectors) if all(wishes) else numpy.where(numpy.array(wishes)[:, None], normalized(vectors), vectors)
    )


def _text(each: Mapping[str, Any], name: str) -> str:
    if not isinstance(text := each.get(name), str):
        raise BadRequest(f"{name} must be a text", param=name)
    return text


def _cuts(each: Mapping[str, Any], default: bool) -> bool:
    """Return whether a text that is too long is cut; classes and scores know two ways to ask."""
    for name, yes, no in (("truncate", (True, "END"), (False, "NONE")), ("truncate_prompt_tokens", (-1,), ())):
        value = each.get(name)
        if value is None:
            continue
        if any(value == known and type(value) is type(known) for known in (*yes, *no)):
            return any(value == known for known in yes)
        raise BadRequest(f"{name} has to be {yes[0]!r} here", param=name, code="unsupported_value")
    return default


def _infinite() -> HTTPError:
    return HTTPError(500, "the model computed NaN or infinity", code="invalid_model_output")
