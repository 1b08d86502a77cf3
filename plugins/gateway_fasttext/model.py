"""`FastTextClassifier` and `FastTextEmbedder`: labels of texts, and vectors of words and sentences."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway_embedding_fields import Known, read
from gateway_tabular.files import model_file

from gateway import BadRequest, ConfigError, HTTPError, weights_path

from . import FRAMEWORK, SAVE
from .requests import SCHEMA, Unit, line, read_classify, read_predict, read_unit
from .structure import check_file, is_model

PREFIX = "__label__"  # of labels, by default
ALL = -1  # labels
SPACES = re.compile(r"[ \t\n\v\f\r]+")  # between words, in the library


class FastTextEmbedder:
    """Answers embeddings."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.capabilities: dict[str, Any] = {}

    def load(self) -> None:
        import fasttext

        root = Path.cwd()
        file = model_file(weights_path(self.config, root), root, FRAMEWORK, is_model, SAVE)
        structure = check_file(file)
        try:
            self.inner = fasttext.FastText._FastText(model_path=str(file))  # load_model prints an advertisement
        except (ValueError, RuntimeError, MemoryError) as error:
            raise ConfigError(f"{file} cannot be loaded by fastText: {error}") from error
        self._reads_words = not structure.is_classifier  # of a sentence, one after the other
        self._no_words = frozenset(self.inner.f.getLabels("replace")[0])
        self.known = Known({}, None, structure.dimensions)
        self.capabilities = {"dimensions": structure.dimensions}
        print(f"{structure.words:,} words, {structure.labels:,} labels, {structure.dimensions} dimensions")

    def embeddings(self, inputs: Mapping[str, Any]) -> list[Any]:
        unit = read_unit(inputs)
        asked = read({name: value for name, value in inputs.items() if name != "unit"}, self.known)
        if asked.normalize is False or asked.keep is not None or asked.prompt or asked.task:
            asked = self._unused(inputs, asked)
        given = inputs.get("input")
        texts = [given] if isinstance(given, str) else given if isinstance(given, list) else None
        if not texts:
            raise BadRequest("input must be a string or a list of strings, and not empty", param="input")
        one = self.inner.get_word_vector if unit == "word" else self.inner.get_sentence_vector
        lines = [line(text, f"input[{place}]", "input") for place, text in enumerate(texts)]
        for place, each in enumerate(lines):
            self._check_words(each, unit, place)
        return [_finite(one(each), normalized=bool(asked.normalize)) for each in lines]

    def _check_words(self, text: str, unit: Unit, place: int) -> None:
        """Refuse labels in place of words: for these the library (0.10.4) returns memory behind its matrix."""
        words = [text] if unit == "word" else SPACES.split(text) if self._reads_words else []
        if not self._no_words.isdisjoint(words):
            raise BadRequest(f"input[{place}] has a label of the model, which is no word", param="input")

    def _unused(self, inputs: Mapping[str, Any], asked: Any) -> Any:
        """Accept wishes that mean nothing here: a vector is of any length of text, and the model has no prompts."""
        if asked.prompt:
            raise BadRequest("this model has no prompts", param="prompt", code="unsupported_value")
        if isinstance(inputs.get("truncate_prompt_tokens"), int) and inputs["truncate_prompt_tokens"] > 0:
            what = "this model does not support truncate_prompt_tokens: it reads texts of any length"
            raise BadRequest(what, param="truncate_prompt_tokens", code="unsupported_value")
        return asked


class FastTextClassifier(FastTextEmbedder):
    """Answers predict and classify, and thereby decisions; also embeddings."""

    def load(self) -> None:
        super().load()
        self.input_schema = SCHEMA
        try:
            self.labels = self.inner.get_labels()
        except UnicodeDecodeError as error:
            raise ConfigError("a label of the model is not UTF-8: it cannot be sent as JSON") from error

    def predict(self, inputs: Any) -> dict[str, Any]:
        ask = read_predict(inputs)
        found = [self._labels(text, ask.k, ask.threshold) for text in ask.texts]
        return found[0] if ask.is_one else {"predictions": found}

    def classify(self, inputs: Mapping[str, Any]) -> list[dict[str, float]]:
        return [self._every(text) for text in read_classify(inputs)]

    def _labels(self, text: str, k: int, threshold: float) -> dict[str, Any]:
        labels, numbers = self.inner.predict(text, min(k, len(self.labels)), threshold)
        return {"labels": [bare(label) for label in labels], "probabilities": [_probability(it) for it in numbers]}

    def _every(self, text: str) -> dict[str, float]:
        """Return the probability of each label, in the order of the file."""
        labels, numbers = self.inner.predict(text, ALL, 0.0)
        if not labels:
            raise BadRequest("a text has no word that the model knows, so it has no class", param="input")
        found = {label: _probability(number) for label, number in zip(labels, numbers, strict=True)}
        return {bare(label): found.get(label, 0.0) for label in self.labels}


def bare(label: str) -> str:
    return label.removeprefix(PREFIX)


def _probability(number: float) -> float:
    """Return a probability; the library's are up to 0.00001 larger than 1."""
    if not math.isfinite(number):
        raise _infinite()
    return min(float(number), 1.0)


def _finite(vector: Any, *, normalized: bool) -> Any:
    import numpy

    if not numpy.isfinite(vector).all():
        raise _infinite()
    length = float(numpy.linalg.norm(vector)) if normalized else 0.0
    return vector / length if length else vector


def _infinite() -> HTTPError:
    return HTTPError(500, "the model computed NaN or infinity", code="invalid_model_output")
