"""`OnnxModel`: any graph, with predict from named inputs to named outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gateway_tensors.schema import example, schema, with_example
from gateway_tensors.values import Inputs, outputs

from gateway import BadRequest, weights_path

from .detection import model_file
from .faults import check_file
from .header import Header
from .session import Session, thread_count

DIVISIONS = {("", "Div")}


class OnnxModel:
    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.input_schema: dict[str, Any] | None = None
        self.output_schema: dict[str, Any] | None = None

    def load(self) -> None:
        calls = int((self.config.get("runtime") or {}).get("predict_concurrency") or 1)
        opened = open_model(self.config, calls)
        header, self.session = opened.header, opened.session
        self.inputs = Inputs(header.inputs, divides=bool(header.operators & DIVISIONS))
        known = {each.name: each for each in header.outputs}
        self.output_schema = schema([known[name] for name in self.session.outputs if name in known], of_outputs=True)
        self.input_schema = with_example(schema(header.inputs), example(header.inputs, self._takes))

    def _takes(self, request: dict[str, Any]) -> bool:
        try:
            self.predict(request)
        except (BadRequest, MemoryError):
            return False
        return True

    def predict(self, inputs: Any) -> dict[str, Any]:
        return outputs(self.session.outputs, self.session.run(self.inputs.read(inputs)))


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
