"""`SklearnModel`: a fitted estimator, and its predictions."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway_tabular.mlflow import is_mlflow
from gateway_tabular.model import OPTIONS, Contributions, Scores, TabularModel, label, signature_names
from gateway_tabular.rows import Asked

from gateway import BadRequest, ConfigError, check_ordinary, weights_path

from .columns import missing, read_by
from .model_file import PICKLES, check_file, left_out
from .opening import open_file
from .rows import Given, Rows
from .skops_objects import SWITCHES, no_predict
from .words import columns_of, schema_of


class SklearnModel(TabularModel):
    def open(self, root: Path) -> None:
        file = check_file(weights_path(self.config, root), root, self.config)
        check_ordinary(file)
        if file.suffix in PICKLES:  # it is allowed to run code, and its classes may be in a module next to it
            homes = [root, file.parent / "code"] if is_mlflow(file.parent) else [root]
            sys.path += [str(home) for home in homes if str(home) not in sys.path]
        model = open_file(file, self.config)
        if not hasattr(model, "predict"):
            off = next((name for name in SWITCHES if getattr(_last(model), name, None) is False), None)
            raise ConfigError(no_predict(file, type(model).__name__, off))
        _check_fitted(model, file)
        for note in left_out(root, bool(self.config.get("allow_pickle"))):
            print(f"warning: {note}")
        self.model = model
        reads = read_by(model)
        if not reads.names and not reads.chooses and reads.width is not None:
            reads = replace(reads, names=tuple(signature_names(root, reads.width)), makes_frames=False)
        self.reads = reads
        if (package := missing(reads)) is not None:
            raise ConfigError(f"{file.name} works on tables with names; run: pip install {package}")
        # Without pandas, columns are matched by position; a filter around each call would not be thread-safe.
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        self.columns = columns_of(reads)
        self.outputs = [_plain(part) for part in _parts(model.classes_)] if hasattr(model, "classes_") else []
        self.classes = self._each_output(self.outputs) if self.outputs else ()
        self.has_probabilities = hasattr(model, "predict_proba")

    def make_reader(self) -> Rows:
        return Rows(self.reads)

    def make_input_schema(self) -> dict[str, Any]:
        return schema_of(self.reads, OPTIONS)

    def compute(self, table: Any) -> Scores:
        predictions = _plain(self.model.predict(table))
        probabilities = self._probabilities(table)
        if probabilities is None:
            return Scores(predictions)
        return Scores(predictions, self._each_output([_plain(part) for part in _parts(probabilities)]))

    def gives_probabilities(self) -> bool:
        return self.has_probabilities and len(self.outputs) == 1

    def row_of(self, text: str) -> Any:
        if self.reads.kind in ("texts", "items"):
            return {"inputs": [text]}
        found = super().row_of(text)
        return {"inputs": [found]} if self.reads.kind == "objects" else found

    def contributions(self, table: Any) -> Contributions:
        what = "scikit-learn's models give no contributions of columns"
        raise BadRequest(what, param="explain", code="unsupported_value")

    def shares(self, asked: Asked) -> bool:
        """Return whether the rows may be computed together with those of others: not tables of pandas."""
        table = asked.table
        is_matrix = hasattr(table, "dtype") and table.dtype == float and table.shape[1:] == (self.reads.width,)
        is_alike = (is_matrix or isinstance(table, list)) and len(table) > 0  # of none, it may say that there are none
        return super().shares(asked) and is_alike and len(self.outputs) < 2

    def complaint(self, error: Exception, asked: Asked | None) -> str:
        if not isinstance(asked, Given):
            return super().complaint(error, asked)
        return self.reader.complaints.of(asked.rows, asked.names, asked.where, error)

    def _probabilities(self, table: Any) -> Any:
        if not self.has_probabilities:
            return None
        try:
            return self.model.predict_proba(table)
        except (AttributeError, NotImplementedError):  # it has the method, but its inner estimator does not
            return None

    def _by_class(self, rows: list[Any]) -> list[Any]:
        """Return probabilities by class, in a list for each output if there are several.

        A chain of classifiers has only the probability of the second class for each output, which stays a list.
        """
        if rows and isinstance(rows[0], list) and rows[0] and isinstance(rows[0][0], list):
            return [_named(classes, part) for classes, part in zip(self.outputs, rows, strict=True)]
        return _named(self.classes, rows) if len(self.outputs) == 1 else rows

    def _each_output(self, parts: list[Any]) -> Any:
        """Return a list for a model with several outputs, otherwise its only element."""
        return parts if len(parts) > 1 else parts[0]

    def _output_schema(self) -> dict[str, Any]:
        # For a classifier with several labels per row, the classes are labels, and a prediction is a list.
        several = len(self.outputs) != 1 or _gives_several(self.model)
        prediction: dict[str, Any] = {} if several else {"enum": self.classes}
        properties: dict[str, Any] = {"predictions": {"type": "array", "items": prediction}}
        if self.has_probabilities:
            properties["probabilities"] = {"type": "array", "items": {"type": ["array", "object"]}}
        if self.outputs:
            properties["classes"] = {"const": self.classes}
        return {"type": "object", "properties": properties, "required": list(properties)}


def _named(classes: Sequence[Any], rows: list[list[float]]) -> list[dict[str, float]]:
    names = [label(each) for each in classes]
    return [dict(zip(names, row, strict=True)) for row in rows]


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
