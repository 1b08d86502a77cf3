"""Find the file of a directory that is the model, check whether it may be opened, and find ignored files next to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway_tabular.files import OTHERS, names_in
from gateway_tabular.mlflow import file_of, flavors_of

from gateway import ConfigError, distinct, peek_mismatch, peek_patterns, peek_weights, placeholder

from .skops_objects import prepares

PICKLES = (".joblib", ".pkl", ".pickle")
FLAVORS = ("sklearn", "xgboost", "lightgbm", "catboost")  # of MLflow; the others have pickles of some of their models
ARRAYS = ("npy", "npz")
# With one of these, a directory is a model of another kind, and its pickle a part of it.
OTHER_KINDS = (".gguf", ".safetensors", ".onnx", ".bin", ".ubj", ".xgb", ".bst", ".lgb", ".lgbm", ".cbm", ".pt", ".pth")
KEPT = ("h5", "json", "onnx", "pt", "pth", "safetensors", "tflite", "yaml", "yml")
# Words for steps before or after a model.
STEP = re.compile(
    r"(?<![a-z])(scal(e|es|er|ers|ing)|(pre|post)_?-?proc\w*|\w*encod(er|ers|ing|ings)|(tfidf)?vectori[sz]\w*|"
    r"(de)?normali[sz]\w*|standardi[sz]\w*|imput\w*|means?|stds?|stddevs?|transform(s|er)?|thresholds?|calibrat\w*)"
    r"(?![a-z])"
)
MOST_NAMED = 5  # files named in one message
MOST_FILES = 16  # files examined to find the one that predicts
SAVE = 'skops.io.dump(model, "model.skops")'


def _any_file(name: str) -> bool:
    return True


def model_file(place: Path, root: Path, allow_pickle: bool = False) -> Path | None:
    """Return the file with the model of the directory `root`, whose weights are at `place`.

    It is the file that `weights:` names, or model.skops, or the only *.skops file, or the pickle `model`, or the only
    pickle if the operator allows them. Patterns of the weights restrict the choice.
    """
    if place.is_file():
        return place if place.suffix in (".skops", *PICKLES) else None
    if flavors_of(place):
        return _of_mlflow(place)
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
    return found[0] if found else _pickle(place, chosen, allow_pickle)


def _of_mlflow(place: Path) -> Path | None:
    """Return the file of a flavor of MLflow that is an object with the interface of scikit-learn."""
    files = (file_of(place, flavor) for flavor in FLAVORS)
    return next((file for file in files if file is not None and file.suffix in (".skops", *PICKLES)), None)


def _pickle(place: Path, chosen: Callable[[str], bool], allow_pickle: bool) -> Path | None:
    """Return the pickle of a directory that is the model. Raises `ConfigError` if several may be."""
    pickles = (place / f"model{suffix}" for suffix in PICKLES)
    if named := next((file for file in pickles if file.is_file() and chosen(file.name)), None):
        return named
    if not allow_pickle:  # a pickle of another name may be anything
        return None
    if any(name.endswith(OTHER_KINDS) or name in OTHERS for name in names_in(place)):
        return None
    found = (file for file in sorted(place.glob("[!.]*.*")) if file.suffix in PICKLES and chosen(file.name))
    likely = distinct(file for file in found if STEP.search(file.stem.lower()) is None and file.is_file())
    if len(likely) > 1:
        names = ", ".join(file.name for file in likely[:MOST_NAMED])
        fix = f"name it model{likely[0].suffix}"
        raise ConfigError(f"{place}: several pickles ({names}); one directory holds one model: {fix}")
    return likely[0] if likely else None


def _those_that_predict(files: list[Path], place: Path) -> list[Path]:
    """Return the files without scalers and encoders saved next to a model. Raises `ConfigError` if none remain."""
    found = [file for file in files if not prepares(file)]
    if not found:
        names = ", ".join(file.name for file in files)
        what = f"no file here can predict ({names}): they are steps before a model"
        raise ConfigError(f"{place}: {what}; save the model with {SAVE}, with them in one Pipeline")
    return found


def check_file(place: Path, root: Path, trust: Mapping[str, Any]) -> Path:
    allow_pickle = bool(trust.get("allow_pickle"))
    file = model_file(place, root, allow_pickle)
    if file is None and (told := peek_mismatch(place, "sklearn")):
        raise ConfigError(f"{root}: {told}")
    if file is None:
        raise ConfigError(f"{root}: no model.skops; save the model with {SAVE}")
    if there := placeholder(file):
        raise ConfigError(f"{root}: {file.name} {there.what}: {there.fix}")
    if file.suffix in PICKLES and not allow_pickle:
        raise ConfigError(
            f"{root}: {file.name} is a pickle, which runs code when it is opened; save the model with {SAVE} instead, "
            f"or trust the file: [models.NAME] allow_pickle = true in gateway.toml"
        )
    return file


def left_out(path: Path, allow_pickle: bool) -> Iterator[str]:
    """Yield a warning about a scaler or an encoder saved next to its model: its step is not applied."""
    place = peek_weights(path)
    if place is None or not place.is_dir() or (served := model_file(place, path, allow_pickle)) is None:
        return
    suffixes = (".skops", *PICKLES)
    chosen = peek_patterns(path) or _any_file
    there = [file for file in sorted(place.iterdir()) if file.suffix in suffixes and file.stem != served.stem]
    steps = [file for file in sorted(place.iterdir()) if _is_step(file.name) and not file.name.startswith(".")]
    others = distinct([served, *there, *steps])[1:]
    if others := [file.name for file in others if chosen(file.name)]:
        listed = ", ".join(others[:MOST_NAMED]) + (" …" if len(others) > MOST_NAMED else "")
        what = f"{served.name} is served without {listed}"
        fix = "save a scaler or an encoder that runs before it with it, as one Pipeline"
        yield f"{what}: {fix}; a separate model needs its own directory"


def _is_step(name: str) -> bool:
    """Return whether a file that is not an estimator may contain a step before or after the model."""
    stem, _, ending = name.lower().rpartition(".")
    return ending in ARRAYS or (ending in KEPT and STEP.search(stem) is not None)
