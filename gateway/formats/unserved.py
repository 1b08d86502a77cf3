"""Directories that hold a model which nobody serves: what it is, and what would serve it.

Asked when every plugin has said no. Looks at names, at small JSON files and at the beginning of others: the kinds that
one file tells are in `unserved_kinds`.
"""

from __future__ import annotations

import bz2
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from shlex import quote
from typing import Any

from .. import archives, ordinary
from ..placeholders import placeholder
from .config import is_of_another_program
from .unserved_gguf import GGUFS
from .unserved_kinds import BEGINNINGS, CLASS, COMPRESSED, DIRECTORIES, FILES, NO_MODEL, PACKED, WEIGHTS, Kind

LARGEST = 1 << 20  # bytes of a JSON file that is looked at: a config is a few thousand
BESIDE = r"(?i)(readme|license|notice)\b"  # what lies beside a model
UNSERVED = "unserved"  # the code of the problem that a directory with a model is nobody's
TOO_DEEP = "too_deep"  # that of the problem that something lies too deep to be searched
BEGINNING = 1 << 18  # bytes of a file that are searched for what tells its kind
SAFE = "convert it: model.save_pretrained(folder) of transformers writes model.safetensors"


@dataclass(frozen=True, slots=True)
class Unserved:
    what: str
    fix: str
    is_sure: bool = True  # False: files that may lie about, above directories with models in them
    tells_depth: bool = False  # that what is in it lies too deep to be searched

    @property
    def says_of_parts(self) -> frozenset[str]:
        """The codes of problems of the directories in it which this one says better."""
        return frozenset({UNSERVED, TOO_DEEP} if self.is_sure else {TOO_DEEP} if self.tells_depth else ())


def find_unserved(path: Path) -> Unserved | None:
    """What model the directory, or the file, holds; None when it looks like none."""
    if path.is_file():
        return _files(path.parent, frozenset([path.name]))
    try:
        names = frozenset(child.name for child in path.iterdir())
    except OSError:
        return None
    found = next((found for look in LOOKS if (found := look(path, names)) is not None), None)
    return _with_placeholders(path, names, found)


def _with_placeholders(path: Path, names: frozenset[str], found: Unserved | None) -> Unserved | None:
    """What was found, and that one of the files is not there itself, which comes first in what to do."""
    name, there = next(((name, it) for name in sorted(names) if (it := placeholder(path / name))), ("", None))
    if there is None:
        return found
    what = f"{name} {there.what}"
    if found is None:
        return Unserved(what, there.fix, is_sure=False)
    if not there.is_pointer and not found.is_sure and f"({name})" in found.what:  # its name was all that told the kind
        return replace(found, what=what, fix=there.fix)
    return replace(found, what=f"{found.what}; {what}", fix=f"{there.fix}, and then: {found.fix}")


def find_loose(path: Path, models: Iterable[Path]) -> Unserved | None:
    """What the files are that lie beside the directories of `models` and are nothing but weights.

    None where a model has their names in its code or its config.yaml: then they are its own.
    """
    try:
        names = frozenset(child.name for child in path.iterdir() if _suffix(child.name) in WEIGHTS and child.is_file())
    except OSError:
        return None
    texts = [_begin(file) for model in models for kind in CODE_OF_A_MODEL for file in sorted(model.glob(kind))]
    names = frozenset(name for name in names if not any(os.fsencode(name) in text for text in texts))
    found = names and (_gguf(path, names) or _files(path, names))
    if not found:
        return None
    return replace(found, what=f"{found.what}, beside directories of models", fix=f"{OWN_DIRECTORY}, and {found.fix}")


CODE_OF_A_MODEL = ("*.py", "model/*.py", "config.yaml", "config.yml")
OWN_DIRECTORY = "if it is to be served, move it into a directory of its own"


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


def _directories(path: Path, names: frozenset[str]) -> Unserved | None:
    return _first(DIRECTORIES, path, names, is_sure=True)


def _ollama(path: Path, names: frozenset[str]) -> Unserved | None:
    """A Modelfile names the model that it changes; a store of Ollama keeps models under their sums."""
    if {"blobs", "manifests"} <= names:
        fix = "copy the blob that `ollama show --modelfile NAME` names into a directory of its own, as model.gguf"
        return Unserved("a store of Ollama", fix)
    file = next((name for name in sorted(names) if name.lower() == "modelfile"), None)
    if file is None:
        return None
    match = re.search(rb"(?im)^[ \t]*+FROM[ \t]++(\S+)", _begin(path / file))
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
    about = next((_begin(file) for file in sorted(path.glob("metadata/part-*"))), b"")
    if b"org.apache.spark.ml" not in about:
        return None
    return Unserved("a model of Spark ML", f"{CLASS} with pyspark, or convert it to ONNX")


def _hub_cache(path: Path, names: frozenset[str]) -> Unserved | None:
    """What huggingface_hub keeps; told where no snapshot in it is a model, or where none was searched: it lies deep."""
    if not path.name.startswith("models--") or not names & {"snapshots", "blobs", "refs"}:
        return None
    name = path.name.removeprefix("models--").replace("--", "/", 1)
    fix = f"write a config.yaml elsewhere, with framework: transformers and weights: - source: hf://{name}"
    if not any(file.exists() for file in path.glob("snapshots/*/*")):
        return Unserved(f"the Hugging Face cache of {name}, without a whole snapshot", fix, is_sure=False)
    what = f"the Hugging Face cache of {name}: its snapshots lie too deep to be searched, or are no model known here"
    return Unserved(what, f"give --models a directory nearer to it, or {fix}", is_sure=False, tells_depth=True)


def _bare(path: Path, names: frozenset[str]) -> Unserved | None:
    """A clone or a download that brought no files."""
    others = [name for name in names if not name.startswith(".") and not re.match(BESIDE, name)]
    if others or not names - {".gitkeep", ".DS_Store"}:
        return None
    what = "a clone without the files of a model" if ".git" in names else "no model, but what lies beside one"
    listed = ", ".join(sorted(names)[:3])
    return Unserved(f"{what} ({listed})", "get its files: git checkout, git lfs pull, or hf download", is_sure=False)


def _other_program(path: Path, names: frozenset[str]) -> Unserved | None:
    if not names & {"config.yaml", "config.yml"} or not is_of_another_program(path):
        return None
    what = "the config.yaml of another program, with none of the keys of a Truss, and no model that is known here"
    return Unserved(what, f"if it is a model: {CLASS}", is_sure=False)


# ── GGUF files, whatever a config.json beside them says ─────────────────────────────────────────────────────────────

PIECE = re.compile(r"(?i)(.+\.gguf)([._-](?:part|split)[._-]?|[._-](?=a[a-z]$|0\d+$))(\d+|[a-z]{1,2})(?:-?of-?(\d+))?")


def _cut(path: Path, names: frozenset[str]) -> Unserved | None:
    """Pieces that were cut by hand, with the command that joins those of the first file."""
    pieces = [match for name in sorted(names) if (match := PIECE.fullmatch(name))]
    if not pieces:
        return None
    whole, cut, of = pieces[0].group(1, 2, 4)
    own = sorted((each for each in pieces if each[1] == whole), key=lambda each: (len(each[3]), each[3]))
    listed = ", ".join(each[0] for each in own[:3]) + (" …" if len(own) > 3 else "")
    fix = f"join the pieces, in their order: {_cat(whole, whole + cut, [each[0] for each in own], names)}"
    if of and len(own) < int(of):
        fix = (
            f"get the pieces that are missing (there are {len(own)} of {int(of)}); this line then says how to join them"
        )
    if len(own) < len(pieces):
        fix += "; the others likewise, each in a directory of its own"
    return Unserved(f"a GGUF file that was cut by hand ({listed})", fix, is_sure=False)


def _cat(whole: str, start: str, pieces: list[str], names: frozenset[str]) -> str:
    """The shortest command whose patterns stand for the pieces alone, and in their order: part10 comes after part2."""
    sizes = sorted({len(piece) for piece in pieces})
    for ends in (["*"], ["?" * (size - len(start)) for size in sizes]):
        if [name for end in ends for name in sorted(names) if fnmatchcase(name, escape(start) + end)] == pieces:
            return f"cat {' '.join(quote(start) + end for end in ends)} > {quote(whole)}"
    return f"cat {' '.join(map(quote, pieces))} > {quote(whole)}"


def _gguf(path: Path, names: frozenset[str]) -> Unserved | None:
    """GGUF files of no language model: beside a config.json too they are what the directory holds."""
    files = frozenset(name for name in names if name.lower().endswith(".gguf"))
    if not files or _weights(names):
        return None
    is_checkpoint = "config.json" in names and "adapter_config.json" not in names
    return _first(GGUFS, path, files, is_sure=False) or (
        _first(FILES, path, files, is_sure=False) if is_checkpoint else None
    )


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
    ("VitsModel", "a model that speaks", "speech, see docs/audio.md"),
    ("BarkModel", "a model that speaks", "speech, see docs/audio.md"),
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
        return _language_model(path, name, names, weights)
    if name.endswith("LMHeadModel") and weights != "safetensors":
        return _language_model(path, name, names, weights)
    if weights is None and all(_is_beside(path, each) for each in names):
        return _without_weights(path, name, names)
    what, method = _described(name, config)
    return Unserved(f"{name}, {what}", f"{CLASS} with transformers and has a method {method}")


def _without_architecture(config: Mapping[str, Any], weights: str | None) -> Unserved | None:
    kind = config.get("model_type")
    if kind is None and weights is None:
        return None  # some other program's
    if kind is None:
        what = "a checkpoint whose config.json has neither architectures nor a model_type, so that transformers cannot"
        return Unserved(f"{what} read it", f"{CLASS} with the library that it was made for")
    what = "a checkpoint whose config.json names no architectures, so that nobody knows what it does (its model_type is"
    safe = "" if weights == "safetensors" else f"{SAFE}, then "
    chat = f"a language model: {safe}write framework: transformers into a config.yaml beside it"
    return Unserved(f"{what} {kind})", f"if it is {chat}; otherwise {CLASS}")


def _language_model(path: Path, name: str, names: frozenset[str], weights: str | None) -> Unserved | None:
    if weights is None:
        return _without_weights(path, name, names)
    if weights == "pytorch":
        what = f"{name}, whose weights are a pickle, which runs code when it is opened"
        return Unserved(f"{what}; only *.safetensors are served", SAFE)
    return Unserved(f"{name}, whose weights are not *.safetensors but those of {weights}", SAFE)


def _without_weights(path: Path, name: str, names: frozenset[str]) -> Unserved:
    fetched = [file.name for file in path.glob(".cache/huggingface/download/*.incomplete")]
    half = _unfinished([*names, *fetched])
    why = f"{half} is not finished" if half else "there is no *.safetensors"
    # a training keeps its checkpoints below, others their files for one library
    return Unserved(f"{name}, without its weights: {why}", "get the files that are missing", is_sure=False)


def _is_beside(path: Path, name: str) -> bool:
    """Whether it is none of the files that may hold weights."""
    words = r"(?i)tokenizer|spiece|sentencepiece|vocab|merges"
    return bool(
        name.startswith(".")
        or re.match(BESIDE, name)
        or re.match(words, name)
        or _suffix(name) in NO_MODEL
        or (path / name).is_dir()
    )


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
    if name.endswith("Model") and config.keys() & {"image_size", "patch_size", "conv_dim", "sampling_rate"}:
        return "an encoder of images or sound", "predict"
    if name.endswith("Model"):
        return (
            "an encoder without a head; saved by sentence-transformers (with modules.json) it would give embeddings",
            "embeddings",
        )
    return "an architecture that no plugin serves", "predict"


OTHER_WEIGHTS = (
    (".h5", "TensorFlow"),
    (".msgpack", "Flax"),
    (".pdparams", "Paddle"),
    (".npz", "MLX"),
    (".onnx", "ONNX"),
    (".neuron", "AWS Neuron"),
    (".ot", "Rust (tch)"),
)


def _weights(names: frozenset[str]) -> str | None:
    """What the weights are written for: "safetensors", "pytorch", "Flax" and others; None when there are none."""
    if any(name.endswith(".safetensors") for name in names):
        return "safetensors"
    if any(name.endswith(".bin") or Path(name).suffix in (".pt", ".pth") for name in names):
        return "pytorch"
    return next((what for end, what in OTHER_WEIGHTS if any(name.endswith(end) for name in names)), None)


# ── single files ─────────────────────────────────────────────────────────────────────────────────────────────────────

UNFINISHED = (".incomplete", ".crdownload", ".aria2", "-partial")
MAYBE_UNFINISHED = (".part", ".partial", ".download")  # of files that would be models
ARCHIVES = tuple(".tar.gz .tgz .tar .zip .tar.bz2 .tar.xz .tar.zst .txz .7z .rar .gguf.gz .gguf.zst .bin.gz".split())


def _files(path: Path, names: frozenset[str]) -> Unserved | None:
    if found := _unfinished(names):
        return Unserved(f"a download that is not finished ({found})", "get the file again", is_sure=False)
    if known := _first(FILES, path, names, is_sure=False):
        return known
    lasting = [name for name in names if not name.startswith(".") and not re.match(BESIDE, name)]
    if model := next((kind for name in sorted(lasting) if (kind := _packed(path / name))), None):
        return model
    all_are = all(name.lower().endswith(ARCHIVES) for name in lasting)
    if listed := sorted(
        name for name in lasting if name.lower().endswith(ARCHIVES) and (all_are or name.startswith("model"))
    ):
        return Unserved(f"an archive ({listed[0]})", "unpack it here", is_sure=False)
    if packed := [name for name in sorted(lasting) if name.startswith("model") and _suffix(name) in COMPRESSED]:
        return Unserved(f"a compressed file ({packed[0]})", "unpack it here", is_sure=False)
    return _by_beginning(path, names)


def _packed(file: Path) -> Unserved | None:
    """A model that is a zip file, by what is in it."""
    if _suffix(file.name) != "zip":
        return None
    try:
        names = [name.lower() for name in archives.names(file)]
    except OSError:
        return None
    kind = next((kind for kind in PACKED if any(_is_called(name, kind) for name in names)), None)
    return None if kind is None else _listed(kind, [file.name], is_sure=False)


MOST = 64  # files that are opened to see what they begin with


def _by_beginning(path: Path, names: frozenset[str]) -> Unserved | None:
    """A model by a name that tells nothing."""
    candidates = sorted(names, key=lambda name: (name.startswith(".") or _suffix(name) in NO_MODEL, name))[:MOST]
    begins = {name: begin for name in candidates if (begin := _begin(path / name, 512))}
    for kind in BEGINNINGS:
        if found := [name for name, begin in begins.items() if _may_be(name, begin) and re.search(kind.holds, begin)]:
            return _listed(kind, found, is_sure=False)
    return None


def _may_be(name: str, begin: bytes) -> bool:
    return begin[:1] == b"\x80" or not (name.startswith(".") or _suffix(name) in NO_MODEL)


def _suffix(name: str) -> str:
    return Path(name).suffix[1:].lower()


def _unfinished(names: Iterable[str]) -> str | None:
    for name in sorted(names):
        inner = name.rpartition(".")[0].lower()
        if name.endswith(UNFINISHED) or (
            name.endswith(MAYBE_UNFINISHED) and any(_is_called(inner, kind) for kind in FILES if not kind.holds)
        ):
            return name
    return None


def _first(kinds: Iterable[Kind], path: Path, names: frozenset[str], *, is_sure: bool) -> Unserved | None:
    lowered = {name: name.lower() for name in sorted(names)}
    begins: dict[str, bytes] = {}
    for kind in kinds:
        found = [name for name, low in lowered.items() if _is_called(low, kind)]
        if kind.holds:
            for name in found:
                begins.setdefault(name, _begin(path / name))
            found = [name for name in found if re.search(kind.holds, begins[name])]
        if found:
            return _listed(kind, found, is_sure=is_sure)
    return None


def _listed(kind: Kind, names: list[str], *, is_sure: bool) -> Unserved:
    listed = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
    return Unserved(f"{kind.what} ({listed})", kind.fix, is_sure=is_sure, tells_depth=kind.tells_depth)


def _is_called(name: str, kind: Kind) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in kind.names.split())


def _begin(file: Path, size: int = BEGINNING) -> bytes:
    """What a file begins with; of one that was compressed, what was."""
    try:
        with ordinary.opened(file) as opened:
            begin = opened.read(size)
    except OSError:
        return b""
    return next((inner for look in UNCOMPRESS if (inner := look(begin))), begin)


def _gzip(begin: bytes) -> bytes:
    return _inner(zlib.decompressobj(zlib.MAX_WBITS | 16).decompress, begin) if begin[:2] == b"\x1f\x8b" else b""


def _zlib(begin: bytes) -> bytes:
    return _inner(zlib.decompressobj().decompress, begin) if begin[:1] == b"\x78" else b""


def _bz2(begin: bytes) -> bytes:
    return _inner(bz2.BZ2Decompressor().decompress, begin) if begin[:3] == b"BZh" else b""


def _lzma(begin: bytes) -> bytes:
    is_one = begin[:6] == b"\xfd7zXZ\0" or begin[:3] == b"\x5d\0\0"
    return _inner(lzma.LZMADecompressor(memlimit=LARGEST_MEMORY).decompress, begin) if is_one else b""


def _inner(decompress: Callable[[bytes, int], bytes], begin: bytes) -> bytes:
    try:
        return decompress(begin, BEGINNING)
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return b""


LARGEST_MEMORY = 1 << 28  # bytes; what the strongest common setting needs is a quarter of it
UNCOMPRESS = (_gzip, _zlib, _bz2, _lzma)


LOOKS: tuple[Callable[[Path, frozenset[str]], Unserved | None], ...] = (
    _cut,
    _gguf,
    _adapter,
    _diffusers,
    _directories,
    _spark,
    _sentence_transformers,
    _checkpoint,
    _ollama,
    _hub_cache,
    _files,
    _bare,
    _other_program,
)


def _json(path: Path) -> Mapping[str, Any]:
    return _read(path)[0]


def _read(path: Path) -> tuple[Mapping[str, Any], str | None]:
    """The object in the file, and why there is none."""
    try:
        with ordinary.opened(path) as file:
            data = ordinary.parse_json(file.read(LARGEST))
    except OSError as error:
        return {}, f"cannot be read: {error.strerror}"
    except ValueError as error:
        return {}, f"is no JSON ({error})"
    return (data, None) if isinstance(data, dict) else ({}, "holds no JSON object")
