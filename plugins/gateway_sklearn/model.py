"""`SklearnModel`: a fitted estimator, and its predictions."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway import BadRequest, ConfigError, weights_path

from .columns import missing, read_by
from .model_file import PICKLES, check_file, left_out
from .opening import open_file
from .rows import Rows
from .skops_objects import SWITCHES, no_predict

log = logging.getLogger(__name__)
# Errors of an estimator that are not caused by its input values.
NOT_THE_INPUTS = (MemoryError, ImportError, OSError)


class SklearnModel:
    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.input_schema: dict[str, Any] | None = None
        self.output_schema: dict[str, Any] | None = None

    def load(self) -> None:
        root = Path.cwd()
        file = check_file(weights_path(self.config, root), root, self.config)
        if file.suffix in PICKLES and str(root) not in sys.path:
            sys.path.append(str(root))  # it is allowed to run code, and its classes may be in a module next to it
        model = open_file(file, self.config)
        if not hasattr(model, "predict"):
            off = next((name for name in SWITCHES if getattr(_last(model), name, None) is False), None)
            raise ConfigError(no_predict(file, type(model).__name__, off))
        _check_fitted(model, file)
        for note in left_out(root):
            print(f"warning: {note}")
        self.model = model
        reads = read_by(model)
        if (package := missing(reads)) is not None:
            raise ConfigError(f"{file.name} works on tables with names; run: pip install {package}")
        # Without pandas, columns are matched by position; a filter around each call would not be thread-safe.
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        self.rows = Rows(reads)
        self.classes = [_plain(part) for part in _parts(model.classes_)] if hasattr(model, "classes_") else []
        self.has_probabilities = hasattr(model, "predict_proba")
        self.input_schema, self.output_schema = self.rows.schema(), self._output_schema()

    def predict(self, inputs: Any) -> dict[str, Any]:
        rows, names = self.rows.read(inputs)
        try:
            table = self.rows.table(rows, names)
            predictions = self.model.predict(table)
            probabilities = self._probabilities(table)
        except NOT_THE_INPUTS:
            raise
        except Exception as error:  # any error of an estimator for values that it cannot handle
            log.debug("refused inputs", exc_info=True)
            raise BadRequest(self.rows.complaint(rows, names, error), param="inputs") from error
        answer = {"predictions": _plain(predictions)}
        if probabilities is not None:
            answer["probabilities"] = self._each_output([_plain(part) for part in _parts(probabilities)])
        if self.classes:
            answer["classes"] = self._each_output(self.classes)
        return answer

    def _probabilities(self, table: Any) -> Any:
        if not self.has_probabilities:
            return None
        try:
            return self.model.predict_proba(table)
        except (AttributeError, NotImplementedError):  # it has the method, but its inner estimator does not
            return None

    def _each_output(self, parts: list[Any]) -> Any:
        """Return a list for a model with several outputs, otherwise its only element."""
        return parts if len(parts) > 1 else parts[0]

    def _output_schema(self) -> dict[str, Any]:
        # For a classifier with several labels per row, the classes are labels, and a prediction is a list.
        several = len(self.classes) != 1 or _gives_several(self.model)
        prediction: dict[str, Any] = {} if several else {"enum": self.classes[0]}
        properties: dict[str, Any] = {"predictions": {"type": "array", "items": prediction}}
        if self.has_probabilities:
            properties["probabilities"] = {"type": "array", "items": {"type": "array"}}
        if self.classes:
            properties["classes"] = {"const": self._each_output(self.classes)}
        return {"type": "object", "properties": properties, "required": list(properties)}


def _check_fitted(model: Any, file: Path) -> None:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    last = _last(model)
    if not type(last).__module__.startswith("sklearn."):  # it need not show whether it is fitted
        return
    try:
        check_is_fitted(last)
    except NotFittedError as error:
        what = f"{file.name} holds an estimator of type {type(last).__name__} that was not fitted; fit it, then save it"
        raise ConfigError(what) from error


def _last(model: Any) -> Any:
    while hasattr(model, "steps"):
        model = model.steps[-1][1]
    return model


def _gives_several(model: Any) -> bool:
    model = _last(getattr(_last(model), "best_estimator_", model))
    label = getattr(getattr(model, "_label_binarizer", None), "y_type_", "")
    return bool(getattr(model, "multilabel_", False)) or "multilabel" in label


def _parts(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _plain(value: Any) -> Any:
    """Convert arrays, sparse matrices, tables, and lists of these to lists of plain Python values."""
    if getattr(getattr(value, "dtype", None), "kind", "") in ("m", "M") and "[ns]" in str(value.dtype):
        value = value.astype(str(value.dtype).replace("ns", "us"))  # nanoseconds would become plain numbers
    if hasattr(value, "toarray"):
        value = value.toarray()
    elif hasattr(value, "to_numpy"):
        value = value.to_numpy()
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) if isinstance(item, (list, tuple)) or hasattr(item, "tolist") else item for item in value]
    return value
