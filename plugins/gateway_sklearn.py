"""Serve a scikit-learn model that was saved with skops: rows in, predictions out.

`find_model` recognises the directory, `SklearnModel` answers predict and knows its schema, `Rows` turns JSON into what
the estimator takes. Pickles (.joblib, .pkl) run code when they are opened: only the operator can allow one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gateway import BadRequest, ConfigError, ModelSpec, describe, hookimpl, peek_weights, weights_path

PICKLES = (".joblib", ".pkl", ".pickle")
SAVE = 'skops.io.dump(model, "model.skops")'


@hookimpl
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    if not _is_ours(path):
        return None
    # Not taken from the options as the class sees them, which config.yaml may set too: these are the operator's.
    trust = {
        "allow_pickle": bool(overrides.get("allow_pickle")),
        "trusted_types": list((overrides.get("options") or {}).get("trusted_types", ())),
    }
    if place := peek_weights(path):
        _check(_model_file(place), path, trust)
    spec = describe(
        path,
        target="gateway_sklearn:SklearnModel",
        format="sklearn",
        overrides=overrides,
        # A fitted estimator is only read, so calls may share it; its Python holds the GIL, so more than a few win
        # nothing. Four have the next call at hand when one ends, and a large table does not stop the small ones.
        slots=4,
        extra="sklearn",
    )
    return replace(spec, config={**spec.config, **trust})


def _is_ours(path: Path) -> bool:
    config = _config(path)
    if "framework" in config:  # beats detection
        return bool(config["framework"] == "sklearn")
    code = path / str(config.get("model_module_dir", "model")) / str(config.get("model_class_filename", "model.py"))
    if code.exists() or (path / "model.py").exists():
        return False
    place = peek_weights(path)
    return place is not None and _model_file(place) is not None


def _config(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        config = yaml.safe_load((path / "config.yaml").read_text())
    except (OSError, ValueError, yaml.YAMLError):  # `describe` reports a broken file, with its line
        return {}
    return config if isinstance(config, dict) else {}


def _model_file(place: Path) -> Path | None:
    """The file with the model: the one that `weights:` names, or model.skops, or the only *.skops, or a pickle."""
    if place.is_file():
        return place if place.suffix in (".skops", *PICKLES) else None
    found = [place / "model.skops"] if (place / "model.skops").is_file() else sorted(place.glob("*.skops"))
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise ConfigError(f"{place}: several models ({names}); one directory holds one: name it model.skops")
    pickles = (place / f"model{suffix}" for suffix in PICKLES)
    return found[0] if found else next((file for file in pickles if file.is_file()), None)


def _check(file: Path | None, root: Path, trust: Mapping[str, Any]) -> Path:
    if file is None:
        raise ConfigError(f"{root}: no model.skops; save the model with {SAVE}")
    if file.suffix in PICKLES and not trust.get("allow_pickle"):
        raise ConfigError(
            f"{root}: {file.name} is a pickle, which runs code when it is opened; save the model with {SAVE} instead, "
            f"or trust the file: [models.{root.name}] allow_pickle = true in gateway.toml"
        )
    return file


class SklearnModel:
    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.input_schema: dict[str, Any] | None = None
        self.output_schema: dict[str, Any] | None = None

    def load(self) -> None:
        root = Path.cwd()
        file = _check(_model_file(weights_path(self.config, root)), root, self.config)
        model = _open_pickle(file) if file.suffix in PICKLES else _open_skops(file, root, self.config)
        if not hasattr(model, "predict"):
            raise ConfigError(f"{file.name} holds a {type(model).__name__}, which has no predict")
        self.model = model
        self.rows = Rows.of(model)
        self.classes = [part.tolist() for part in _parts(model.classes_)] if hasattr(model, "classes_") else []
        self.has_probabilities = hasattr(model, "predict_proba")
        self.input_schema, self.output_schema = self.rows.schema(), self._output_schema()

    def predict(self, inputs: Any) -> dict[str, Any]:
        rows = self.rows.read(inputs)
        try:
            table = self.rows.table(rows)
            predictions = self.model.predict(table)
            probabilities = self.model.predict_proba(table) if self.has_probabilities else None
        except (ValueError, TypeError) as error:  # what scikit-learn raises for values it cannot take
            raise BadRequest(self.rows.complaint(rows, error), param="inputs") from error
        answer = {"predictions": predictions.tolist()}
        if probabilities is not None:
            answer["probabilities"] = self._each_output([part.tolist() for part in _parts(probabilities)])
        if self.classes:
            answer["classes"] = self._each_output(self.classes)
        return answer

    def _each_output(self, parts: list[Any]) -> Any:
        """A model with several outputs has a list of everything; others have the one thing."""
        return parts if len(parts) > 1 else parts[0]

    def _output_schema(self) -> dict[str, Any]:
        prediction: dict[str, Any] = {"enum": self.classes[0]} if len(self.classes) == 1 else {}
        properties: dict[str, Any] = {"predictions": {"type": "array", "items": prediction}}
        if self.has_probabilities:
            properties["probabilities"] = {"type": "array", "items": {"type": "array"}}
        if self.classes:
            properties["classes"] = {"const": self._each_output(self.classes)}
        return {"type": "object", "properties": properties, "required": list(properties)}


def _parts(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _open_skops(file: Path, root: Path, trust: Mapping[str, Any]) -> Any:
    import skops.io

    trusted = trust.get("trusted_types") or []
    unknown = [name for name in skops.io.get_untrusted_types(file=file) if name not in trusted]
    if unknown:
        raise ConfigError(
            f"{file.name} holds types that skops does not know to be harmless: {', '.join(unknown)}; if you trust "
            f"them: [models.{root.name}.options] trusted_types = {[*trusted, *unknown]} in gateway.toml"
        )
    return skops.io.load(file, trusted=trusted)


def _open_pickle(file: Path) -> Any:
    import joblib

    return joblib.load(file)


@dataclass(frozen=True, slots=True)
class Rows:
    """What the rows of this model look like, and how JSON becomes a table of them."""

    width: int | None  # None: unknown, as with texts
    names: tuple[str, ...]  # of the columns, when the model was fitted on a table that had names
    are_texts: bool
    are_numbers: bool  # as far as the model says; it has the last word

    @classmethod
    def of(cls, model: Any) -> Rows:
        import warnings
        from importlib.util import find_spec

        from sklearn.pipeline import Pipeline
        from sklearn.utils import InputTags, get_tags

        first = model
        while isinstance(first, Pipeline):
            first = next(step for _, step in first.steps if step not in (None, "passthrough"))
        try:
            tags = get_tags(first).input_tags
        except AttributeError:  # an estimator of somebody else's, which only looks like one of scikit-learn's
            tags = InputTags()
        names = tuple(str(name) for name in getattr(model, "feature_names_in_", ()))
        mixes = bool(names) or tags.categorical or tags.string or hasattr(first, "transformers")
        if names and hasattr(first, "transformers") and find_spec("pandas") is None:
            raise ConfigError("the model picks columns of a table by name; run: pip install pandas")
        # Columns go by place where pandas is missing; a filter around each call would not be safe in threads.
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        return cls(getattr(model, "n_features_in_", None), names, tags.string and not tags.two_d_array, not mixes)

    def read(self, inputs: Any) -> Sequence[Any]:
        """The rows in a request, each a sequence of `width` values, or a text."""
        rows = inputs.get("inputs", inputs.get("instances")) if isinstance(inputs, Mapping) else None
        if rows is None:
            raise BadRequest(
                f"nothing to predict: send {self.example}", param="inputs", code="missing_required_parameter"
            )
        rows = self._as_rows(rows)
        if not len(rows):
            raise BadRequest(f"inputs is empty: send {self.example}", param="inputs")
        if self.are_texts:
            for place, row in enumerate(rows):
                if not isinstance(row, str):
                    raise BadRequest(
                        f"inputs[{place}] is {_kind(row)}, this model takes texts: send {self.example}", param="inputs"
                    )
            return rows
        return [self._row(place, row) for place, row in enumerate(rows)]

    def _as_rows(self, rows: Any) -> Sequence[Any]:
        """A single row becomes a list of one."""
        if isinstance(rows, Mapping) or (self.are_texts and isinstance(rows, str)):
            return [rows]
        if hasattr(rows, "tolist"):  # an array, from a binary body
            rows = rows.tolist()
        if not isinstance(rows, (list, tuple)):
            raise BadRequest(f"inputs is {_kind(rows)}: send {self.example}", param="inputs")
        is_single = rows and not self.are_texts and not isinstance(rows[0], (list, tuple, Mapping))
        return [rows] if is_single else rows

    def _row(self, place: int, row: Any) -> Sequence[Any]:
        where = f"inputs[{place}]"
        if isinstance(row, Mapping):
            return self._by_name(where, row)
        if not isinstance(row, (list, tuple)):
            raise BadRequest(f"{where} is {_kind(row)}, not a row: send {self.example}", param="inputs")
        if self.width is not None and len(row) != self.width:
            raise BadRequest(
                f"{where} has {len(row)} values, this model takes {self.width}{self._named}", param="inputs"
            )
        return row

    def _by_name(self, where: str, row: Mapping[str, Any]) -> Sequence[Any]:
        if not self.names:
            raise BadRequest(
                f"{where} has names, and this model knows its columns by place: send {self.example}", param="inputs"
            )
        if missing := [name for name in self.names if name not in row]:
            raise BadRequest(
                f"{where} lacks {', '.join(missing)} (this model takes {self.width}{self._named})", param="inputs"
            )
        if unknown := [str(name) for name in row if name not in self.names]:
            raise BadRequest(
                f"{where} has unknown {', '.join(unknown)} (this model takes {self.width}{self._named})", param="inputs"
            )
        return [row[name] for name in self.names]

    def table(self, rows: Sequence[Any]) -> Any:
        """The rows as the estimator takes them: numbers in a float array, anything else as it is."""
        import numpy

        if self.are_texts:
            return rows
        if any(not isinstance(value, (int, float, type(None))) for row in rows for value in row):
            array = numpy.empty((len(rows), len(rows[0])), dtype=object)
            for place, row in enumerate(rows):
                array[place, :] = row
        else:
            array = numpy.array(rows, dtype=float)  # null becomes NaN, which some models take
        if not self.names:
            return array
        try:
            import pandas
        except ImportError:
            return array
        return pandas.DataFrame(array, columns=list(self.names)).infer_objects()

    def complaint(self, rows: Sequence[Any], error: Exception) -> str:
        """What to tell about rows that the estimator refused, with the first value that it cannot have liked."""
        wants_all = "NaN" in str(error)
        for place, row in enumerate(() if self.are_texts else rows):
            for column, value in enumerate(row):
                where = f"inputs[{place}][{self.names[column]!r}]" if self.names else f"inputs[{place}][{column}]"
                if wants_all and (value is None or value != value):
                    return f"{where} is null or NaN, and this model needs every value: send a number"
                if self.are_numbers and not isinstance(value, (int, float, type(None))):
                    return f"{where} is {_kind(value)}: send a number"
        return f"the model refused these inputs: {str(error).splitlines()[0] if str(error) else type(error).__name__}"

    @property
    def _named(self) -> str:
        return f": {', '.join(self.names)}" if self.names else ""

    @property
    def example(self) -> str:
        if self.are_texts:
            return '{"inputs": ["a text", …]}'
        if self.names:
            return f'{{"inputs": [{{"{self.names[0]}": …, …}}, …]}} with a value for each of {", ".join(self.names)}'
        return f'{{"inputs": [[…], …]}} with {self.width or "all"} values in each row'

    def schema(self) -> dict[str, Any]:
        cell = {"type": "number"} if self.are_numbers else {"type": ["number", "string", "boolean", "null"]}
        by_place: dict[str, Any] = {"type": "array", "items": cell}
        if self.width is not None:
            by_place |= {"minItems": self.width, "maxItems": self.width}
        kinds, example = [by_place], [0.0] * (self.width or 1)
        if self.are_texts:
            kinds, example = [{"type": "string"}], "a text"
        if self.names:
            properties = dict.fromkeys(self.names, cell)
            by_name = {"type": "object", "properties": properties, "required": list(self.names)}
            kinds, example = [{**by_name, "additionalProperties": False}, by_place], dict.fromkeys(self.names, 0.0)
        rows = {"type": "array", "items": {"anyOf": kinds}, "minItems": 1}
        return {
            "type": "object",
            "properties": {name: {"anyOf": [rows, *kinds]} for name in ("inputs", "instances")},
            "anyOf": [{"required": ["inputs"]}, {"required": ["instances"]}],
            "examples": [{"inputs": [example]}],
        }


def _kind(value: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text", type(None): "null"}
    return names.get(type(value), "a list" if isinstance(value, (list, tuple)) else "an object")
