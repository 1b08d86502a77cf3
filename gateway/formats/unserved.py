"""Directories that hold a model which nobody serves: what it is, and what would serve it.

Asked when every plugin has said no. Looks at names, at small JSON files, at the text of Python files for the mark of a
Truss Chain, and at nothing of a model itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGEST = 1 << 20  # bytes of a JSON file that is looked at: a config is a few thousand
CLASS = "write a model.py whose class loads it"
SAFE = "convert it: model.save_pretrained(folder) of transformers writes model.safetensors"


@dataclass(frozen=True, slots=True)
class Unserved:
    what: str
    fix: str
    is_sure: bool = True  # False: files that may lie about, above directories with models in them


def find_unserved(path: Path) -> Unserved | None:
    """What model the directory, or the file, holds; None when it looks like none."""
    if path.is_file():
        return _files(path.parent, frozenset([path.name]))
    try:
        names = frozenset(child.name for child in path.iterdir())
    except OSError:
        return None
    return next((found for look in LOOKS if (found := look(path, names)) is not None), None)


# ── directories that say what they are ───────────────────────────────────────────────────────────────────────────────


def _adapter(path: Path, names: frozenset[str]) -> Unserved | None:
    if not names & {"adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"}:
        return None
    about = _json(path / "adapter_config.json")
    kind, base = about.get("peft_type"), about.get("base_model_name_or_path")
    what = f"{'an' if kind is None else f'a {kind}'} adapter{f' of {base}' if base else ''}, not a whole model"
    merge = "merge it into its base (peft: merge_and_unload, then save_pretrained)"
    return Unserved(what, f"{merge}, or {CLASS} with the base")


def _diffusers(path: Path, names: frozenset[str]) -> Unserved | None:
    if "model_index.json" not in names:
        return None
    kind = _json(path / "model_index.json").get("_class_name", "pipeline")
    return Unserved(f"a diffusers {kind}", f"{CLASS} with diffusers and has a method images, see docs/images.md")


def _tensorflow(path: Path, names: frozenset[str]) -> Unserved | None:
    if not names & {"saved_model.pb", "saved_model.pbtxt"}:
        return None
    return Unserved("a TensorFlow SavedModel", f"{CLASS} with tensorflow and has a method predict")


def _marked(path: Path, names: frozenset[str]) -> Unserved | None:
    """Kinds of directories that one file tells."""
    for name, (what, library) in MARKS.items():
        if name in names:
            return Unserved(what, f"{CLASS} with {library} and has a method predict")
    return None


MARKS = {
    "MLmodel": ("an MLflow model", "mlflow.pyfunc"),
    "config.pbtxt": ("a model of Triton's repository", "the library of its framework"),
    "openvino_model.xml": ("an OpenVINO model", "openvino"),
    "inference.pdmodel": ("a Paddle model", "paddle"),
}


def _spacy(path: Path, names: frozenset[str]) -> Unserved | None:
    if not {"meta.json", "config.cfg"} <= names:
        return None
    return Unserved("a spaCy pipeline", f"{CLASS} with spacy and has a method predict")


# ── checkpoints of transformers and sentence-transformers ────────────────────────────────────────────────────────────


def _sentence_transformers(path: Path, names: frozenset[str]) -> Unserved | None:
    kind = _json(path / "config_sentence_transformers.json").get("model_type")
    if kind in (None, "SentenceTransformer"):
        return None
    what = f"a {kind} of sentence-transformers, which gives no vectors of texts"
    method = "rerank, see docs/rerank.md" if kind == "CrossEncoder" else "embeddings"
    return Unserved(what, f"{CLASS} with sentence_transformers and has a method {method}")


# The end of an architecture's name → what it is, and the method that would answer for it.
ARCHITECTURES = (
    ("ForSequenceClassification", "a classifier of texts", "classify or rerank, see docs/rerank.md"),
    ("ForTokenClassification", "a classifier of words", "predict"),
    ("ForQuestionAnswering", "a finder of answers in texts", "predict"),
    ("ForMultipleChoice", "a classifier of choices", "predict"),
    ("ForMaskedLM", "a model that fills gaps in texts", "predict"),
    ("ForPreTraining", "a model to be trained further", "predict"),
    ("ForImageClassification", "a classifier of images", "predict"),
    ("ForObjectDetection", "a detector of objects", "predict"),
    ("ForAudioClassification", "a classifier of sound", "predict"),
    ("ForSpeechSeq2Seq", "a model of speech", "transcriptions, see docs/audio.md"),
    ("ForCTC", "a model of speech", "transcriptions, see docs/audio.md"),
    ("ForTextToSpeech", "a model that speaks", "speech, see docs/audio.md"),
)


def _checkpoint(path: Path, names: frozenset[str]) -> Unserved | None:
    if "config.json" not in names:
        return None
    config, failure = _read(path / "config.json")
    weights = _weights(names)
    if failure is not None:
        if not weights and not names & {"tokenizer.json", "tokenizer_config.json"}:
            return None  # some other program's
        return Unserved(f"a checkpoint whose config.json {failure}", "get the file again")
    architectures = config.get("architectures")
    if not architectures:
        return _without_architecture(config, weights)
    named = [str(name) for name in architectures] if isinstance(architectures, list) else [str(architectures)]
    name = named[0]
    if any(one.endswith("ForCausalLM") for one in named):
        return _language_model(name, names, weights)
    if name.endswith("LMHeadModel") and weights != "safetensors":
        return _language_model(name, names, weights)
    what, method = _described(name, config)
    return Unserved(f"{name}, {what}", f"{CLASS} with transformers and has a method {method}")


def _without_architecture(config: Mapping[str, Any], weights: str | None) -> Unserved | None:
    kind = config.get("model_type")
    if kind is None and weights is None:
        return None  # some other program's
    what = "a checkpoint whose config.json names no architectures, so that nobody knows what it does"
    chat = "a language model: write framework: transformers into a config.yaml beside it"
    return Unserved(what + (f" (its model_type is {kind})" if kind else ""), f"if it is {chat}; otherwise {CLASS}")


def _language_model(name: str, names: frozenset[str], weights: str | None) -> Unserved | None:
    if weights is None:
        what = f"{name}, without its weights: there is no *.safetensors"
        return Unserved(what, "get the files that are missing")
    if weights == "pytorch":
        what = f"{name}, whose weights are a pickle, which runs code when it is opened"
        return Unserved(f"{what}; only *.safetensors are served", SAFE)
    return Unserved(f"{name}, whose weights are not *.safetensors but those of {weights}", SAFE)


def _described(name: str, config: Mapping[str, Any]) -> tuple[str, str]:
    """What a model of this architecture is, and the method by which a class could serve it."""
    for ending, what, method in ARCHITECTURES:
        if name.endswith(ending):
            return what, method
    if "Whisper" in name:
        return "a model of speech", "transcriptions, see docs/audio.md"
    parts = config.keys() & {"vision_config", "audio_config", "image_token_id", "image_token_index"}
    if name.endswith("ForConditionalGeneration") or parts:
        if config.get("is_encoder_decoder") is True and not parts:
            return "a model with an encoder and a decoder", "predict"
        return "a model of more than texts; the plugin transformers serves texts alone", "chat_completions"
    if name.endswith("LMHeadModel"):
        return "a language model by an older name, served with framework: transformers in config.yaml", "completions"
    if name.endswith("Model"):
        return (
            "an encoder without a head; saved by sentence-transformers (with modules.json) it would give embeddings",
            "embeddings",
        )
    return "an architecture that no plugin serves", "predict"


def _weights(names: frozenset[str]) -> str | None:
    """What the weights are written for: "safetensors", "pytorch", "TensorFlow", "Flax"; None when there are none."""
    if any(name.endswith(".safetensors") for name in names):
        return "safetensors"
    if any(name.endswith(".bin") or Path(name).suffix in (".pt", ".pth") for name in names):
        return "pytorch"
    if any(name.endswith(".h5") for name in names):
        return "TensorFlow"
    return "Flax" if any(name.endswith(".msgpack") for name in names) else None


# ── single files ─────────────────────────────────────────────────────────────────────────────────────────────────────

PICKLED = "which runs code when it is opened"
FILES: Mapping[str, tuple[str, str]] = {
    ".onnx": ("an ONNX model", f"{CLASS} with onnxruntime and has a method predict"),
    ".pt": (f"PyTorch weights or a pickled model, {PICKLED}", f"{CLASS} with torch.load(…, weights_only=True)"),
    ".pth": (f"PyTorch weights or a pickled model, {PICKLED}", f"{CLASS} with torch.load(…, weights_only=True)"),
    ".ckpt": (f"a checkpoint of a training, {PICKLED}", f"{CLASS} with torch.load(…, weights_only=True)"),
    ".torchscript": ("a program of TorchScript", f"{CLASS} with torch.jit.load"),
    ".pt2": ("a program exported by torch.export", f"{CLASS} with torch.export.load"),
    ".keras": ("a Keras model", f"{CLASS} with keras.models.load_model and has a method predict"),
    ".h5": ("a Keras model or its weights", f"{CLASS} with keras.models.load_model and has a method predict"),
    ".hdf5": ("a Keras model or its weights", f"{CLASS} with keras.models.load_model and has a method predict"),
    ".tflite": ("a TensorFlow Lite model", f"{CLASS} with ai-edge-litert and has a method predict"),
    ".litertlm": ("a LiteRT language model", "get the model as *.safetensors or as a GGUF file"),
    ".task": ("a MediaPipe model", f"{CLASS} with mediapipe and has a method predict"),
    ".pmml": ("a PMML model", f"{CLASS} with pypmml and has a method predict"),
    ".pb": ("a frozen TensorFlow graph", f"{CLASS} with tensorflow and has a method predict"),
    ".pkl": (f"a pickle, {PICKLED}", "save a scikit-learn model as model.skops (skops.io.dump), or " + CLASS),
    ".pickle": (f"a pickle, {PICKLED}", "save a scikit-learn model as model.skops (skops.io.dump), or " + CLASS),
    ".joblib": (f"a pickle, {PICKLED}", "save a scikit-learn model as model.skops (skops.io.dump), or " + CLASS),
    ".dill": (f"a pickle, {PICKLED}", CLASS),
    ".cloudpickle": (f"a pickle, {PICKLED}", CLASS),
    ".safetensors": ("weights without a config.json that says of what", "get the other files of the checkpoint"),
    ".ubj": ("an XGBoost model", f"{CLASS} with xgboost and has a method predict"),
    ".xgb": ("an XGBoost model", f"{CLASS} with xgboost and has a method predict"),
    ".lgb": ("a LightGBM model", f"{CLASS} with lightgbm and has a method predict"),
    ".cbm": ("a CatBoost model", f"{CLASS} with catboost and has a method predict"),
    ".ftz": ("a fastText model", f"{CLASS} with fasttext and has a method predict"),
    ".engine": ("a TensorRT engine", f"{CLASS} with tensorrt and has a method predict"),
    ".plan": ("a TensorRT engine", f"{CLASS} with tensorrt and has a method predict"),
    ".mlmodel": ("a Core ML model", f"convert it, or {CLASS}"),
    ".mlpackage": ("a Core ML model", f"convert it, or {CLASS}"),
    ".nemo": ("a NeMo model", f"{CLASS} with nemo_toolkit"),
    ".pte": ("a program of ExecuTorch", f"{CLASS} with executorch and has a method predict"),
    ".mar": ("an archive of TorchServe", f"unpack it (it is a zip file), and {CLASS}"),
    ".llamafile": ("a llamafile", "take the GGUF file out of it (it is a zip file)"),
    ".ggml": ("a GGML file, older than GGUF", "get the model as a GGUF file"),
    ".npz": ("arrays of NumPy", f"{CLASS} with numpy.load"),
    ".gguf": ("no model but what belongs to one: a projector, an adapter, a matrix", "add the model's own GGUF file"),
    ".bin": ("weights of a kind that only a config would tell", f"get the other files of the checkpoint, or {CLASS}"),
}


UNFINISHED = (".part", ".partial", ".incomplete", ".crdownload", ".download", ".aria2")
ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")


def _files(path: Path, names: frozenset[str]) -> Unserved | None:
    if found := sorted(
        name for name in names if name.endswith(UNFINISHED) and Path(name[: name.rindex(".")]).suffix in FILES
    ):
        return Unserved(f"a download that is not finished ({found[0]})", "get the file again", is_sure=False)
    for suffix, (what, fix) in FILES.items():
        if found := sorted(name for name in names if Path(name).suffix.lower() == suffix):
            listed = ", ".join(found[:3]) + (" …" if len(found) > 3 else "")
            return Unserved(f"{what} ({listed})", fix, is_sure=False)
    if found := sorted(name for name in names if name.startswith("model") and name.endswith(ARCHIVES)):
        return Unserved(f"an archive ({found[0]})", "unpack it here", is_sure=False)
    return None


def _chain(path: Path, names: frozenset[str]) -> Unserved | None:
    for name in sorted(name for name in names if name.endswith(".py")):
        try:
            with (path / name).open("rb") as file:
                text = file.read(LARGEST)
        except OSError:
            continue
        if b"truss_chains" in text and b"mark_entrypoint" in text:
            what = f"a Truss Chain ({name}), whose parts are deployed each by itself"
            fix = "write a model.py, or a Truss, for each part that computes; a part may call another by its URL"
            return Unserved(what, fix, is_sure=False)
    return None


LOOKS: tuple[Callable[[Path, frozenset[str]], Unserved | None], ...] = (
    _adapter,
    _diffusers,
    _tensorflow,
    _marked,
    _spacy,
    _sentence_transformers,
    _checkpoint,
    _chain,
    _files,
)


def _json(path: Path) -> Mapping[str, Any]:
    return _read(path)[0]


def _read(path: Path) -> tuple[Mapping[str, Any], str | None]:
    """The object in the file, and why there is none."""
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(LARGEST))
    except OSError as error:
        return {}, f"cannot be read: {error.strerror}"
    except (ValueError, RecursionError) as error:
        return {}, f"is no JSON ({error})"
    return (data, None) if isinstance(data, dict) else ({}, "holds no JSON object")
