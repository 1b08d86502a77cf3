"""Recognise directories with a model that no plugin serves, and say what would serve it.

Called after all plugins have declined. It reads names, small JSON files and the beginnings of others. `files.py` covers
single files, `checkpoints.py` a config.json, and `gguf.py` GGUF files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from stat import S_ISREG

from ...files.placeholders import placeholder
from ...files.same_files import distinct
from ...wording import few
from ..config.config import is_of_another_program
from .adapters import adapter
from .checkpoints import checkpoint, sentence_transformers
from .companions import companions
from .file_headers import begin_of
from .files import BESIDE, MOST, Unserved, first, json_of, likeliest, packed_model, single_files, suffix, weights_among
from .gguf import gguf_files, pieces
from .images import image_parts
from .kinds import CLASS, DIRECTORIES, FILES, KALDI, WEIGHTS, predicts
from .training import training_state


def find_unserved(path: Path) -> Unserved | None:
    """Return the model in the directory, or file; None if it does not look like one."""
    if path.is_file():
        return _of_files(path.parent, frozenset([path.name]))
    if not (names := likeliest(path)):
        return None
    found = next((found for look in LOOKS if (found := look(path, names)) is not None), None)
    return _with_empty(path, _with_others(path, names, _with_placeholders(path, names, found)))


def _with_placeholders(path: Path, names: frozenset[str], found: Unserved | None) -> Unserved | None:
    """Add that a file is only a placeholder; getting the file is then the first step of the advice."""
    name, there = next(((name, it) for name in sorted(names) if (it := placeholder(path / name))), ("", None))
    if there is None:
        return found
    what = f"{name} {there.what}"
    if found is None:
        return Unserved(what, there.fix, is_sure=False, files=(name,))
    if not there.is_pointer and not found.is_sure and f"({name})" in found.what:  # only its name revealed the kind
        return replace(found, what=what, fix=there.fix)
    return replace(found, what=f"{found.what}; {what}", fix=f"{there.fix}, and then: {found.fix}")


def _with_empty(path: Path, found: Unserved | None) -> Unserved | None:
    """Add that files are empty."""
    empty = [] if found is None else [name for name in found.files if _is_empty(path / name)]
    if found is None or not empty:
        return found
    what = f"{found.what}; {few(empty)} {'is' if len(empty) == 1 else 'are'} empty"
    return replace(found, what=what, fix=f"download the file again, and then: {found.fix}")


def _is_empty(file: Path) -> bool:
    try:
        about = file.stat()
    except OSError:
        return False
    return S_ISREG(about.st_mode) and about.st_size == 0


def _with_others(path: Path, names: frozenset[str], found: Unserved | None) -> Unserved | None:
    """Add files with weights of other kinds: a message only describes one kind."""
    if found is None or found.is_sure or not found.files:
        return found
    stems = {name.rpartition(".")[0] for name in found.files}
    others = [
        name
        for name in weights_among(path, names - {*found.files} - companions(path, names))
        if not (
            name.startswith(".") or (suffix(name) == "bin" and name[:-4] in stems)
        )  # the weights of a described file
    ]
    if others:
        begins = [begin_of(path / name) for name in found.files[:MOST]]  # an ONNX model names the file with its weights
        others = [name for name in others if not any(os.fsencode(name) in begin for begin in begins)]
    apart = distinct(path / name for name in (*found.files, *others))
    others = [name for name in others if path / name in apart]
    if not others:
        return found
    count = f"{len(others)} other{'s' if len(others) > 1 else ''}"
    what = f"{found.what}, and {count} that may hold weights: {few(sorted(others), 5)}"
    return replace(found, what=what, fix=f"{found.fix}; put other models in directories of their own")


def find_loose(path: Path, models: Iterable[Path]) -> Unserved | None:
    """Describe files next to the directories of `models` that can only be weights.

    Returns None for files that a model mentions in its code or config.yaml: they belong to it.
    """
    names = frozenset(name for name in likeliest(path) if os.path.isfile(path / name))  # False for what cannot be asked
    texts = [begin_of(file) for model in models for kind in CODE_OF_A_MODEL for file in sorted(model.glob(kind))]
    names = frozenset(name for name in names if not any(os.fsencode(name) in text for text in texts))
    names -= companions(path, names)
    found = _of_files(path, frozenset(name for name in names if suffix(name) in WEIGHTS or packed_model(path / name)))
    if (found := _with_empty(path, _with_others(path, names, found))) is None:
        return None
    return replace(found, what=f"{found.what}, next to other directories", fix=f"{OWN_DIRECTORY}, and {found.fix}")


def loose_classes(path: Path) -> list[Path]:
    """Return files with a class Model, which would be models if they were named model.py in their own directories."""
    try:
        files = sorted(file for file in path.iterdir() if file.suffix == ".py" and file.is_file())
    except OSError:
        return []
    return [file for file in files[:MOST] if re.search(rb"(?m)^class Model\b", begin_of(file))]


def _of_files(path: Path, names: frozenset[str]) -> Unserved | None:
    return (
        gguf_files(path, names) or image_parts(path, names) or single_files(path, names) or training_state(path, names)
    )


CODE_OF_A_MODEL = ("*.py", "model/*.py", "config.yaml", "config.yml")
OWN_DIRECTORY = "to serve it, move it into its own directory"


# ── directories that declare their kind ──────────────────────────────────────────────────────────────────────────────


def _diffusers(path: Path, names: frozenset[str]) -> Unserved | None:
    if "model_index.json" not in names:
        return None
    kind = json_of(path / "model_index.json").get("_class_name", "pipeline")
    return Unserved(f"a diffusers {kind}", f"{CLASS} with diffusers and has a method images, see docs/images.md")


def _autogluon(path: Path, names: frozenset[str]) -> Unserved | None:
    """Recognise a predictor; the models below it are pickles of AutoGluon's own classes."""
    if "predictor.pkl" not in names or not names & {"learner.pkl", "models"}:
        return None
    return Unserved("a predictor of AutoGluon (predictor.pkl)", predicts("autogluon"))


def _whisper_cpp(path: Path, names: frozenset[str]) -> Unserved | None:
    """Recognise a model of whisper.cpp with its encoder for Core ML or OpenVINO next to it."""
    for_core_ml = any(name.endswith("-encoder.mlmodelc") for name in names)
    if not for_core_ml and not any(name.endswith("-encoder-openvino.xml") for name in names):
        return None
    files = frozenset(name for name in names - companions(path, names) if fnmatchcase(name, "ggml-*.bin"))
    found = first(FILES, path, files, is_sure=True)
    return found and replace(
        found, what=f"{found.what}, with its encoder for {'Core ML' if for_core_ml else 'OpenVINO'}"
    )


def _vosk(path: Path, names: frozenset[str]) -> Unserved | None:
    """Recognise a Kaldi model as distributed by Vosk, with its graph next to it."""
    if not {"am", "conf"} <= names or not (path / "am" / "final.mdl").is_file():
        return None
    return Unserved("a Kaldi model (am/final.mdl)", KALDI)


def _directories(path: Path, names: frozenset[str]) -> Unserved | None:
    return first(DIRECTORIES, path, names, is_sure=True)


def _ollama(path: Path, names: frozenset[str]) -> Unserved | None:
    """Recognise a Modelfile, which names the model that it changes, or an Ollama store: models by checksum."""
    if {"blobs", "manifests"} <= names:
        fix = "copy the blob that `ollama show --modelfile NAME` names into a directory of its own, as model.gguf"
        return Unserved("a store of Ollama", fix)
    file = next((name for name in sorted(names) if name.lower() == "modelfile"), None)
    if file is None:
        return None
    match = re.search(rb"(?im)^[ \t]*+FROM[ \t]++(\S+)", begin_of(path / file))
    base = match[1].decode("utf-8", "replace") if match else "nothing"
    if base.startswith((".", "/", "~")) or base.lower().endswith(".gguf"):
        fix = f"put the GGUF file {base} here"
    elif base.startswith(("hf.co/", "huggingface.co/")):
        fix = f"write a config.yaml with weights: - source: hf://{base.partition('/')[2].partition(':')[0]}"
    else:
        fix = f"`ollama show --modelfile {base}` names the blob that is its GGUF file: copy it here, as model.gguf"
    return Unserved(f"a Modelfile of Ollama, FROM {base}, without a GGUF file", fix, is_sure=False)


def _spark(path: Path, names: frozenset[str]) -> Unserved | None:
    if "metadata" not in names:
        return None
    about = next((begin_of(file) for file in sorted(path.glob("metadata/part-*"))), b"")
    if b"com.johnsnowlabs.nlp" in about:
        return Unserved("an annotator of Spark NLP", f"{CLASS} with sparknlp")
    if b"org.apache.spark.ml" not in about:
        return None
    return Unserved("a model of Spark ML", f"{CLASS} with pyspark, or convert it to ONNX")


def _hub_cache(path: Path, names: frozenset[str]) -> Unserved | None:
    """Recognise the cache of huggingface_hub, if no snapshot in it is a model, or none was searched: it is too deep."""
    if not path.name.startswith("models--") or not names & {"snapshots", "blobs", "refs"}:
        return None
    name = path.name.removeprefix("models--").replace("--", "/", 1)
    fix = f"write a config.yaml elsewhere, with framework: transformers and weights: - source: hf://{name}"
    if not any(file.exists() for file in path.glob("snapshots/*/*")):
        return Unserved(f"the Hugging Face cache of {name}, without a complete snapshot", fix, is_sure=False)
    what = f"the Hugging Face cache of {name}: its snapshots are too deep to be searched, or of an unknown kind"
    return Unserved(what, f"give --models a directory nearer to it, or {fix}", is_sure=False, tells_depth=True)


def _bare(path: Path, names: frozenset[str]) -> Unserved | None:
    """Recognise a clone or a download without files of a model."""
    others = [name for name in names if not name.startswith(".") and not re.match(BESIDE, name)]
    if others or not names - {".gitkeep", ".DS_Store"}:
        return None
    what = "a clone without the files of a model" if ".git" in names else "only files that accompany a model"
    listed = ", ".join(sorted(names)[:3])
    return Unserved(f"{what} ({listed})", "get its files: git checkout, git lfs pull, or hf download", is_sure=False)


def _other_program(path: Path, names: frozenset[str]) -> Unserved | None:
    if not names & {"config.yaml", "config.yml"} or not is_of_another_program(path):
        return None
    what = "the config.yaml of another program, with no key of a Truss, and no known model"
    return Unserved(what, f"if it is a model: {CLASS}", is_sure=False)


LOOKS: tuple[Callable[[Path, frozenset[str]], Unserved | None], ...] = (
    pieces,
    gguf_files,
    adapter,
    _diffusers,
    _autogluon,
    _whisper_cpp,
    _vosk,
    _directories,
    _spark,
    sentence_transformers,
    checkpoint,
    _ollama,
    _hub_cache,
    image_parts,
    single_files,
    training_state,
    _bare,
    _other_program,
)
