"""Find the ONNX file of a directory, and what it computes: from names and small JSON files, without opening it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from gateway_tabular.mlflow import file_of, flavors_of

from gateway import (
    ConfigError,
    distinct,
    has_code,
    peek_architecture,
    peek_config,
    peek_json,
    peek_mismatch,
    peek_patterns,
    peek_weights,
    placeholder,
)

FRAMEWORK = "onnx"
Task = Literal["predict", "embeddings", "classify", "rerank"]
# With one of these, a directory is a model of another kind, of which an ONNX file is a copy or a part.
OTHERS = (
    "*.skops *.gguf *.safetensors *.index.json model.pkl model.pickle model.joblib MLmodel model_index.json "
    "genai_config.json predictor.pkl adapter_config.json"
).split()
FOLDER = "onnx"  # where exports of transformers are, beside the files of the tokenizer
MODULES, POOLING = "modules.json", "1_Pooling/config.json"
MOST_NAMED = 5
Options = Mapping[str, Any]


def is_ours(path: Path) -> bool:
    config = peek_config(path)
    if "framework" in config:  # overrides detection
        return bool(config["framework"] == FRAMEWORK)
    if has_code(path) or (place := peek_weights(path)) is None:
        return False
    if place.is_file():
        return place.suffix == ".onnx"
    if flavors_of(place):
        return file_of(place, FRAMEWORK) is not None
    if not candidates(place, path) or any(next(place.glob(pattern), None) for pattern in OTHERS):
        return False
    found = peek_architecture(place)
    # A model that writes text is more than its network, and others are several networks.
    return found is None or not (found.writes or found.name.endswith("ForConditionalGeneration"))


def candidates(place: Path, root: Path) -> list[Path]:
    """Return the ONNX files of the directory `root`, whose weights are at `place`."""
    if place.is_file():
        return [place]
    if (file := file_of(place, FRAMEWORK)) is not None:
        return [file]
    chosen = peek_patterns(root)
    found = sorted(place.glob("[!.]*.onnx"))
    if not found and (place / "tokenizer.json").is_file():
        found = sorted(place.glob(f"{FOLDER}/[!.]*.onnx"))
    return [file for file in found if chosen is None or chosen(str(file.relative_to(place)))]


def model_file(place: Path, root: Path, options: Options) -> Path:
    """Return the file that is the model: the one that the option `file` names, model.onnx, or the only one.

    Raises:
        ConfigError: there is none, or several.
    """
    found = candidates(place, root)
    if (name := options.get("file")) is not None:
        named = [file for file in found if str(name) in (file.name, str(file.relative_to(place)))]
        if not named:
            have = ", ".join(file.name for file in found[:MOST_NAMED]) or "none"
            raise ConfigError(f"{root}: options: file is {name!r}, which is no ONNX file here (have: {have})")
        found = named
    found = [file for file in found if file.name == "model.onnx"] or distinct(found)
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:MOST_NAMED]) + (" …" if len(found) > MOST_NAMED else "")
        fix = f"name it model.onnx, or write options: file: {found[0].name} into config.yaml"
        raise ConfigError(f"{root}: several models ({names}); one directory serves one: {fix}")
    if not found:
        told = peek_mismatch(place, FRAMEWORK) or "no *.onnx file; export the model to model.onnx"
        raise ConfigError(f"{root}: {told}")
    if there := placeholder(found[0]):
        raise ConfigError(f"{root}: {found[0].name} {there.what}: {there.fix}")
    return found[0]


def text_task(place: Path) -> Task:
    """Return what the export of a transformer computes, beside whose tokenizer it is; otherwise "predict"."""
    if not place.is_dir() or not (place / "tokenizer.json").is_file():
        return "predict"
    if (place / MODULES).is_file() or (place / POOLING).is_file():
        return "embeddings"
    config = json_object(place / "config.json")
    names = config.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else ""
    if name.endswith("ForSequenceClassification"):
        return "rerank" if len(labels_of(config)) == 1 else "classify"
    return "embeddings" if name.endswith("Model") else "predict"


def labels_of(config: Mapping[str, Any]) -> list[str]:
    """Return the labels of a classifier; transformers calls them LABEL_0 and LABEL_1 if its config.json does not."""
    names = config.get("id2label")
    if isinstance(names, dict) and names:
        try:
            return [str(names[key]) for key in sorted(names, key=int)]
        except ValueError:
            return [str(name) for name in names.values()]
    count = config.get("num_labels", 2)
    return [f"LABEL_{place}" for place in range(count if type(count) is int and 0 < count < 100_000 else 2)]


def json_object(file: Path) -> Mapping[str, Any]:
    """Return the object in a JSON file; an empty one if there is none.

    Raises:
        ConfigError: it is there, and is no JSON object.
    """
    if not file.is_file():
        return {}
    try:
        found = peek_json(file)
        if not isinstance(found, dict):
            raise ValueError("it is a list, or a bare value")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} is not a JSON object ({error}); get the model's files again") from error
    return found
