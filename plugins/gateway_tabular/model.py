"""`TabularModel`: what is common to the classes of all plugins of models on tables. A plugin opens and computes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from gateway import BadRequest, ConfigError, GatewayError, HTTPError, peek_weights, question_text

from . import arrow_rows
from .columns import Columns, short
from .mlflow import fields_of
from .questions import answers, row_of
from .rows import Asked, Lines, Reader

log = logging.getLogger(__name__)
LONGEST = 300  # characters of a library's own message
# Errors of a library that are not caused by the values in a request.
NOT_THE_INPUTS = (MemoryError, ImportError, OSError, GatewayError)
FLAG = {"type": "boolean", "default": False}
OPTIONS = {
    "explain": {**FLAG, "description": "also return what each column contributes to each prediction"},
    "by_name": {**FLAG, "description": "probabilities by class, contributions by column"},
}


@dataclass(frozen=True, slots=True)
class Scores:
    """For each row of a matrix a prediction, and for a classifier with them a probability for each class."""

    predictions: list[Any]
    probabilities: list[list[float]] | None = None


@dataclass(frozen=True, slots=True)
class Contributions:
    """For each row, or for each row and class: a number for each column. With `bias` they add up to the raw score."""

    values: list[Any]
    bias: list[Any]


class TabularModel:
    """A subclass defines `open`, `compute` and, if the library can, `contributions`."""

    body_readers: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("text/csv", "application/csv"), "read_csv"),
        **dict.fromkeys((arrow_rows.STREAM, arrow_rows.FILE), "read_arrow"),
    }
    columns: Columns
    classes: Sequence[Any] = ()
    dtype = "float64"
    decide: Callable[[Mapping[str, Any]], dict[str, Any]]

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.options: Mapping[str, Any] = config.get("options") or {}
        self.input_schema: dict[str, Any] | None = None
        self.output_schema: dict[str, Any] | None = None

    def open(self, root: Path) -> None:
        """Load the model of a directory, and set `columns`, and for a classifier `classes`."""
        raise NotImplementedError

    def compute(self, table: Any) -> Scores:
        raise NotImplementedError

    def contributions(self, table: Any) -> Contributions:
        raise BadRequest("this model cannot explain its predictions", param="explain", code="unsupported_value")

    def load(self) -> None:
        self.open(Path.cwd())
        if not self.columns.has_names:
            self.columns = self.columns.named(signature_names(Path.cwd(), self.columns.width))
        self.reader = self.make_reader()
        self.input_schema, self.output_schema = self.make_input_schema(), self._output_schema()
        if self.gives_probabilities():
            self.decide = self._decide  # a method that the class lacks, so that other models have no such route

    def make_reader(self) -> Any:
        """Return what reads requests: a `Reader`, or an object with the methods `read`, `csv` and `arrow`."""
        return Reader(self.columns, self.dtype)

    def make_input_schema(self) -> dict[str, Any]:
        return self.columns.schema(OPTIONS)

    def read_csv(self, body: bytes, content_type: str) -> Lines:
        return self.reader.csv(body, content_type)

    def read_arrow(self, body: bytes, content_type: str) -> Lines:
        return self.reader.arrow(body)

    def predict(self, inputs: dict[str, Any] | Lines) -> dict[str, Any]:
        return self._alone(self.reader.read(inputs))

    def predict_batch(self, inputs: list[Any]) -> list[Any]:
        """Return the answers to several requests, computed together; an exception is the error of its request."""
        answers: list[Any] = [_caught(self.reader.read, each) for each in inputs]
        together = [place for place, asked in enumerate(answers) if isinstance(asked, Asked) and self.shares(asked)]
        scores = self._together([answers[place] for place in together]) if len(together) > 1 else None
        if scores is not None:
            start = 0
            for place in together:
                asked = answers[place]
                part = slice(start, start := start + len(asked.table))
                probabilities = None if scores.probabilities is None else scores.probabilities[part]
                answers[place] = self._answer(asked, Scores(scores.predictions[part], probabilities), None)
        return [_caught(self._alone, each) if isinstance(each, Asked) else each for each in answers]

    def gives_probabilities(self) -> bool:
        """Return whether the answers have one probability for each class."""
        return bool(self.classes)

    def row_of(self, text: str) -> Any:
        """Return the body of a predict for the row in a text: JSON, or a line of CSV."""
        text = text.strip()
        found = row_of(text)
        return self.read_csv(text.encode("utf-8", "surrogatepass"), "text/csv") if found is None else found

    def _decide(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Answer questions about one row, from the probabilities of the classes."""
        try:
            asked = self.reader.read(self.row_of(question_text(inputs["input"])))
            if len(asked.table) != 1:
                raise BadRequest(f"it holds {len(asked.table)} rows: send one")
            if asked.explain:
                raise BadRequest("explanations are for predict", code="unsupported_value")
            scores = self._refusing(self.compute, asked.table, asked)
        except (BadRequest, HTTPError) as error:
            raise BadRequest(
                f"input is one row of this model: {error.message}", param="input", code=error.code
            ) from error
        if scores.probabilities is None:
            raise BadRequest("this model gives no probabilities", code="unsupported_value")
        labels = [label(each) for each in self.classes]
        return {"answers": answers(inputs["questions"], labels, scores.predictions[0], scores.probabilities[0])}

    def shares(self, asked: Asked) -> bool:
        """Return whether the rows of a request may be computed together with those of others."""
        return not asked.explain

    def _together(self, asked: Sequence[Asked]) -> Scores | None:
        """Return what is computed for the rows of several requests; None if the library refuses those of any."""
        try:
            return self._refusing(self.compute, joined([each.table for each in asked]), None)
        except BadRequest:
            return None

    def _alone(self, asked: Asked) -> dict[str, Any]:
        scores = self._refusing(self.compute, asked.table, asked)
        contributions = self._refusing(self.contributions, asked.table, asked) if asked.explain else None
        return self._answer(asked, scores, contributions)

    def _refusing(self, compute: Callable[[Any], Any], table: Any, asked: Asked | None) -> Any:
        """Return what is computed for a table. Raises `BadRequest` if the library cannot."""
        try:
            return compute(table)
        except NOT_THE_INPUTS:
            raise
        except Exception as error:  # a library has errors of its own for values that it cannot handle
            log.debug("refused inputs", exc_info=True)
            raise BadRequest(self.complaint(error, asked), param="inputs") from error

    def complaint(self, error: Exception, asked: Asked | None) -> str:
        """Say why the library refused rows: those that were asked for, or None for those of several requests."""
        words = short(str(error).splitlines()[0][:LONGEST]) if str(error) else type(error).__name__
        return f"the model refused these inputs: {words}"

    def _answer(self, asked: Asked, scores: Scores, contributions: Contributions | None) -> dict[str, Any]:
        answer: dict[str, Any] = {"predictions": scores.predictions}
        if scores.probabilities is not None:
            answer["probabilities"] = self._by_class(scores.probabilities) if asked.by_name else scores.probabilities
        if self.classes and not asked.by_name:
            answer["classes"] = list(self.classes)
        if contributions is not None:
            answer |= self._explained(contributions, asked.by_name)
        return answer

    def _by_class(self, rows: list[list[float]]) -> list[dict[str, float]]:
        names = [label(each) for each in self.classes]
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _explained(self, found: Contributions, by_name: bool) -> dict[str, Any]:
        if not by_name:
            return {"contributions": found.values, "bias": found.bias, "columns": list(self.columns.names)}
        return {"contributions": self._by_column(found.values), "bias": found.bias}

    def _by_column(self, values: list[Any]) -> Any:
        if values and isinstance(values[0], list):
            return [self._by_column(each) for each in values]
        return dict(zip(self.columns.names, values, strict=True))

    def labels(self, count: int) -> list[Any]:
        """Return the labels of a classifier: `classes` of the options, or numbers from 0 on.

        Raises:
            ConfigError: there is another number of labels.
        """
        given = self.options.get("classes")
        if given is None:
            return list(range(count))
        if not isinstance(given, list) or len(given) != count or len({label(each) for each in given}) != count:
            raise ConfigError(f"config.yaml: options: classes has to be a list of {count} different labels")
        return given

    def threads(self) -> int:
        """The number of threads for one call: `threads` of the options, or one, since calls run at once."""
        given = self.options.get("threads", 1)
        if type(given) is not int or given < 1:
            raise ConfigError("config.yaml: options: threads has to be a whole number from 1 on")
        return min(given, os.cpu_count() or 1)

    def _output_schema(self) -> dict[str, Any]:
        prediction: dict[str, Any] = {"enum": list(self.classes)} if self.classes else {}
        properties: dict[str, Any] = {"predictions": {"type": "array", "items": prediction}}
        if self.classes:
            properties["probabilities"] = {"type": "array"}
            properties["classes"] = {"const": list(self.classes)}
        properties["contributions"] = {"type": "array"}
        properties["bias"] = {"type": "array"}
        return {"type": "object", "properties": properties, "required": ["predictions"]}


def signature_names(root: Path, width: int) -> Sequence[str]:
    """Return the names of columns in MLflow's signature of the model in a directory; none if it has not so many."""
    fields = fields_of(place) if (place := peek_weights(root)) else ()
    names = [field.name for field in fields]
    return names if len(names) == len(set(names)) == width else ()


def label(value: Any) -> str:
    """Return a class as the name of a field: JSON's words for true and false."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _caught(function: Callable[[Any], Any], value: Any) -> Any:
    """Return what a function returns, or the `BadRequest` that it raises."""
    try:
        return function(value)
    except BadRequest as error:
        return error


def joined(tables: Sequence[Any]) -> Any:
    """Return the rows of several tables: matrices, or lists."""
    if isinstance(tables[0], list):
        return [row for table in tables for row in table]
    import numpy

    return numpy.concatenate(tables)
