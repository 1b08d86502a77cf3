"""Serve a scikit-learn model that was saved with skops: rows in, predictions out.

`find_model` recognises the directory, `SklearnModel` answers predict and knows its schema. What an estimator reads is
found by `gateway_sklearn_columns`, and JSON made that by `gateway_sklearn_rows`. Pickles (.joblib, .pkl) run code when
they are opened: only the operator can allow one.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway import (
    BadRequest,
    ConfigError,
    ModelSpec,
    Problem,
    describe,
    distinct,
    has_code,
    hookimpl,
    peek_config,
    peek_mismatch,
    peek_patterns,
    peek_weights,
    placeholder,
    weights_path,
)

log = logging.getLogger(__name__)
TARGET = "gateway_sklearn:SklearnModel"
PICKLES = (".joblib", ".pkl", ".pickle")
ARRAYS = ("npy", "npz")
KEPT = ("h5", "json", "onnx", "pt", "pth", "safetensors", "tflite", "yaml", "yml")
# Words for what is done before a model, or after it.
STEP = re.compile(
    r"(?<![a-z])(scal(e|es|er|ers|ing)|(pre|post)_?-?proc\w*|\w*encod(er|ers|ing|ings)|(tfidf)?vectori[sz]\w*|"
    r"(de)?normali[sz]\w*|standardi[sz]\w*|imput\w*|means?|stds?|stddevs?|transform(s|er)?|thresholds?|calibrat\w*)"
    r"(?![a-z])"
)
MOST_NAMED = 5  # files in a line
MOST_FILES = 16  # that are looked into for the one that predicts
# What an estimator raises when something else is wrong than the values it was given.
NOT_THE_INPUTS = (MemoryError, ImportError, OSError)
NOT_THE_FILE = (MemoryError, ImportError, OSError, ConfigError)
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
        _check(place, path, trust)
    spec = describe(
        path,
        target=TARGET,
        format="sklearn",
        overrides=overrides,
        # A fitted estimator is only read, so calls may share it; its Python holds the GIL, so more than a few win
        # nothing. Four have the next call at hand when one ends, and a large table does not stop the small ones.
        slots=4,
        extra="sklearn",
    )
    return replace(spec, config={**spec.config, **trust}, notes=(*spec.notes, *_left_out(path)))


def _left_out(path: Path) -> Iterator[str]:
    """A scaler or an encoder that was saved beside its model: what it does is not done here."""
    place = peek_weights(path)
    if place is None or not place.is_dir() or (served := _model_file(place, path)) is None:
        return
    suffixes = (".skops", *PICKLES)
    chosen = peek_patterns(path) or _any_file
    there = [file for file in sorted(place.iterdir()) if file.suffix in suffixes and file.stem != served.stem]
    steps = [file for file in sorted(place.iterdir()) if _is_step(file.name) and not file.name.startswith(".")]
    others = distinct([served, *there, *steps])[1:]
    if others := [file.name for file in others if chosen(file.name)]:
        listed = ", ".join(others[:MOST_NAMED]) + (" …" if len(others) > MOST_NAMED else "")
        what = f"{served.name} is served alone, without {listed}"
        fix = "save a scaler or an encoder that runs before it with it, as one Pipeline"
        yield f"{what}: {fix}; a model of its own needs a directory of its own"


def _is_step(name: str) -> bool:
    """Whether a file beside a model, which no estimator is in, may hold what has to be done to its input or output."""
    stem, _, ending = name.lower().rpartition(".")
    return ending in ARRAYS or (ending in KEPT and STEP.search(stem) is not None)


@hookimpl
def check_model(spec: ModelSpec) -> Iterator[Problem]:
    """The types in a skops file that somebody has to trust, and what cannot predict. No object of any is made."""
    from gateway_sklearn_saved import useless

    if spec.target != TARGET or (place := peek_weights(spec.root)) is None:
        return
    try:
        file = _check(place, spec.root, spec.config)
        if file.suffix != ".skops":
            return
        if reason := useless(file):  # then it is no use to trust its types
            yield Problem(where=str(spec.root), what=reason, code="unloadable", model=spec.name)
            return
        _check_types(file, spec.config)
    except ConfigError as error:
        yield Problem(where=str(spec.root), what=str(error), code="untrusted_types", model=spec.name)


def _is_ours(path: Path) -> bool:
    config = peek_config(path)
    if "framework" in config:  # beats detection
        return bool(config["framework"] == "sklearn")
    if has_code(path):
        return False
    place = peek_weights(path)
    return place is not None and _model_file(place, path) is not None


def _any_file(name: str) -> bool:
    return True


def _model_file(place: Path, root: Path) -> Path | None:
    """The file with the model of the directory `root`, whose weights lie at `place`: the one that `weights:` names, or
    model.skops, or the only *.skops, or a pickle. Patterns of the weights choose among them.
    """
    if place.is_file():
        return place if place.suffix in (".skops", *PICKLES) else None
    chosen = peek_patterns(root) or _any_file
    found = [file for file in sorted(place.glob("[!.]*.skops")) if chosen(file.name)]
    found = [file for file in found if file.name == "model.skops"] or distinct(sorted(found, key=Path.is_symlink))
    if 1 < len(found) <= MOST_FILES:
        found = _those_that_predict(found, place)
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        there = f"give its source in config.yaml allow_patterns: [{found[0].name}]"
        fix = "name it model.skops" if place.name == root.absolute().name else there
        raise ConfigError(f"{place}: several models ({names}); one directory holds one: {fix}")
    pickles = (place / f"model{suffix}" for suffix in PICKLES)
    return found[0] if found else next((file for file in pickles if file.is_file() and chosen(file.name)), None)


def _those_that_predict(files: list[Path], place: Path) -> list[Path]:
    """Without the scalers and encoders that were saved beside a model. Raises `ConfigError` where that leaves none."""
    from gateway_sklearn_saved import prepares

    found = [file for file in files if not prepares(file)]
    if not found:
        names = ", ".join(file.name for file in files)
        what = f"nothing here predicts ({names}), for these are steps before a model"
        raise ConfigError(f"{place}: {what}; save the model with {SAVE}, with them in one Pipeline")
    return found


def _check(place: Path, root: Path, trust: Mapping[str, Any]) -> Path:
    file = _model_file(place, root)
    if file is None and (told := peek_mismatch(place, "sklearn")):
        raise ConfigError(f"{root}: {told}")
    if file is None:
        raise ConfigError(f"{root}: no model.skops; save the model with {SAVE}")
    if there := placeholder(file):
        raise ConfigError(f"{root}: {file.name} {there.what}: {there.fix}")
    if file.suffix in PICKLES and not trust.get("allow_pickle"):
        raise ConfigError(
            f"{root}: {file.name} is a pickle, which runs code when it is opened; save the model with {SAVE} instead, "
            f"or trust the file: [models.NAME] allow_pickle = true in gateway.toml"
        )
    return file


class SklearnModel:
    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.input_schema: dict[str, Any] | None = None
        self.output_schema: dict[str, Any] | None = None

    def load(self) -> None:
        import warnings

        from gateway_sklearn_columns import missing, read_by
        from gateway_sklearn_rows import Rows
        from gateway_sklearn_saved import SWITCHES, no_predict

        root = Path.cwd()
        file = _check(weights_path(self.config, root), root, self.config)
        if file.suffix in PICKLES and str(root) not in sys.path:
            sys.path.append(str(root))  # it is code that was allowed, and its classes may be in a module beside it
        model = _open(file, self.config)
        if not hasattr(model, "predict"):
            off = next((name for name in SWITCHES if getattr(_last(model), name, None) is False), None)
            raise ConfigError(no_predict(file, type(model).__name__, off))
        _check_fitted(model, file)
        for note in _left_out(root):
            print(f"warning: {note}")
        self.model = model
        reads = read_by(model)
        if (package := missing(reads)) is not None:
            raise ConfigError(f"{file.name} works on tables with names; run: pip install {package}")
        # Columns go by place where pandas is missing; a filter around each call would not be safe in threads.
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
        except Exception as error:  # whatever comes out of an estimator for values that it cannot take
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
        except (AttributeError, NotImplementedError):  # it has the method, and the one inside it has not
            return None

    def _each_output(self, parts: list[Any]) -> Any:
        """A model with several outputs has a list of everything; others have the one thing."""
        return parts if len(parts) > 1 else parts[0]

    def _output_schema(self) -> dict[str, Any]:
        # Of a classifier that gives several labels to a row, the classes are labels, and a prediction is a list.
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
    if not type(last).__module__.startswith("sklearn."):  # it need not show what it has learned
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
    """Lists of Python's own values, out of arrays, sparse matrices, tables, and lists of these."""
    if getattr(getattr(value, "dtype", None), "kind", "") in ("m", "M") and "[ns]" in str(value.dtype):
        value = value.astype(str(value.dtype).replace("ns", "us"))  # nanoseconds would become bare numbers
    if hasattr(value, "toarray"):
        value = value.toarray()
    elif hasattr(value, "to_numpy"):
        value = value.to_numpy()
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) if isinstance(item, (list, tuple)) or hasattr(item, "tolist") else item for item in value]
    return value


def _open(file: Path, trust: Mapping[str, Any]) -> Any:
    """The estimator in the file.

    Raises:
        ConfigError: it is broken, or needs code that is not where it was when the file was saved.
    """
    import joblib
    import skops.io
    from gateway_sklearn_saved import useless

    is_pickle = file.suffix in PICKLES
    if not is_pickle and (reason := useless(file)):  # before anybody is asked to trust its types
        raise ConfigError(reason)
    trusted = [] if is_pickle else _check_types(file, trust)
    try:
        return joblib.load(file) if is_pickle else skops.io.load(file, trusted=trusted)
    except NOT_THE_FILE:
        raise
    except Exception as error:
        if "__main__" in str(error):
            raise ConfigError(
                f"{file.name} needs code of the script or notebook that saved it ({error}): put that into a module "
                f"beside {file.name}, import it from there, and save the model again"
            ) from error
        what = f"{file.name} cannot be read ({type(error).__name__}: {error})"
        raise ConfigError(f"{what}: it is broken, or was saved with other versions of what it is made of") from error


def _check_types(file: Path, trust: Mapping[str, Any]) -> list[str]:
    """The types that the operator trusts, when that is enough to open the file."""
    from gateway_sklearn_files import untrusted_types

    trusted = list(trust.get("trusted_types") or ())
    try:
        unknown = [each for each in untrusted_types(file) if each not in trusted]
    except FileNotFoundError as error:
        raise ConfigError(f"{file} is not there, or a link to nothing: get it again") from error
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file} is no skops file, or a broken one ({error}); save the model with {SAVE}") from error
    if unknown:
        raise ConfigError(
            f"{file.name} holds types that skops does not know to be harmless: {', '.join(unknown)}; if you trust "
            f"them: [models.NAME.options] trusted_types = {[*trusted, *unknown]} in gateway.toml"
        )
    return trusted
