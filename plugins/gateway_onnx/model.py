"""`OnnxModel`: any graph, with predict from named inputs to named outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gateway_tabular.forms import WORDS
from gateway_tabular.mlflow import fields_of
from gateway_tabular.questions import answers, row_of
from gateway_tensors.schema import example, schema, with_example
from gateway_tensors.values import Inputs, outputs

from gateway import BadRequest, question_text, weights_path

from .decisions import chances_of, find_chances
from .detection import model_file
from .faults import check_file
from .header import Header
from .session import Session, thread_count
from .tables import Tables

DIVISIONS = {("", "Div")}


class OnnxModel:
    decide: Callable[[Mapping[str, Any]], dict[str, Any]]

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.input_schema: dict[str, Any] | None = None
        self.output_schema: dict[str, Any] | None = None

    def load(self) -> None:
        calls = int((self.config.get("runtime") or {}).get("predict_concurrency") or 1)
        opened = open_model(self.config, calls)
        header, self.session = opened.header, opened.session
        self.inputs = Inputs(header.inputs, divides=bool(header.operators & DIVISIONS))
        self.tables = Tables(header.inputs, [field.name for field in fields_of(opened.place)])
        known = {each.name: each for each in header.outputs}
        computed = [known[name] for name in self.session.outputs if name in known]
        self.output_schema = schema(computed, of_outputs=True)
        self.chances = find_chances(computed, self.config.get("options") or {})
        if self.chances is not None:
            self.decide = self._decide  # a method that the class lacks, so that other models have no such route
        self.input_schema = with_example(schema(header.inputs), example(header.inputs, self._takes))

    def _takes(self, request: dict[str, Any]) -> bool:
        try:
            self.predict(request)
        except (BadRequest, MemoryError):
            return False
        return True

    def predict(self, inputs: Any) -> dict[str, Any]:
        return outputs(self.session.outputs, self.session.run(self.inputs.read(self.tables.by_input(inputs))))

    def _decide(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Answer questions about one row, from the probabilities of the classes."""
        assert self.chances is not None
        try:
            feed = self.inputs.read(self.tables.by_input(self._row_of(question_text(inputs["input"]).strip())))
            found = chances_of(self.chances, self.session.run(feed, [self.chances.output])[0])
            if len(found) != 1:
                raise BadRequest(f"it holds {len(found)} rows: send one")
        except BadRequest as error:
            raise BadRequest(
                f"input is one row of this model: {error.message}", param="input", code=error.code
            ) from error
        return {"answers": answers(inputs["questions"], list(found[0]), None, list(found[0].values()))}

    def _row_of(self, text: str) -> Any:
        """Return the body of a predict for the row in a text: JSON, or numbers between commas."""
        found = row_of(text)
        if found is None:
            try:
                found = [float(cell) for cell in text.split(",")]
            except ValueError as error:
                raise BadRequest("send JSON, or numbers between commas", code="invalid_value") from error
        if isinstance(found, list) and not any(isinstance(each, (list, dict)) for each in found):
            found = [found]
        # The values of a record may stand for themselves, as in a table.
        return {"inputs": found} if isinstance(found, dict) and not found.keys() & WORDS else found


class Opened(NamedTuple):
    header: Header
    place: Path  # of its weights
    file: Path
    session: Session


def open_model(config: Mapping[str, Any], calls: int) -> Opened:
    """Check and load the model of a worker's directory, which answers so many calls at once."""
    root, options = Path.cwd(), config.get("options") or {}
    place, custom = weights_path(config, root), config.get("custom_ops") or ()
    file = model_file(place, root, options)
    header = check_file(file, custom=bool(custom))
    return Opened(header, place, file, Session(file, thread_count(options, calls), custom))
