"""Recognise GGUF files that hold no language model, or are cut into pieces, and say what would serve them.

Only reads the first keys of a header, before the vocabulary. The GGUF plugin decides which files it ignores; a test
checks that each of these has a row here.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from shlex import quote

from .checkpoints import weights_of
from .files import Unserved, first
from .kinds import CLASS, FILES, IMAGES, MAIN, MERGE, Kind, predicts

WEIGHTS = "get the file with the weights too"
FOLDER = "get it as a folder of sentence-transformers: modules.json and *.safetensors"
NO_TEXT = "as a GGUF file; only models of texts are served from GGUF"
CLASSIFY = f"{CLASS} and has a method classify, see docs/rerank.md"
SPEECH, HEARD = (f"{CLASS} and has a method {name}, see docs/audio.md" for name in ("speech", "transcriptions"))
CHAT = f"{CLASS} with transformers and has a method chat_completions"
OWN_LIBRARY = "the library that it was made for"


def _says(key: bytes, texts: str) -> bytes:
    """Return a pattern for a key of a header whose value is one of these texts."""
    values = (rb"\x%02x\0{7}" % len(text) + re.escape(text).encode() for text in texts.split())
    return key + rb"\x08\0{3}(?:" + b"|".join(values) + b")"


def _type(texts: str) -> bytes:
    return _says(rb"general\.type", texts)


def _architecture(texts: str) -> bytes:
    return _says(rb"general\.architecture", texts)


DRAWING = "flux sd1 sd2 sd3 sdxl aura auraflow lumina2 hidream qwen_image ltxv hyvid wan cosmos mochi pixart chroma"
SEEING = "mobile-sam sam birefnet depthanything esrgan migan yolov9t yolo"
HEARING = "whisper wav2vec2 parakeet moonshine sensevoice"
SPEAKING = "wavtokenizer-dec bark encodec snac kokoro parler-tts dia orpheus csm outetts vibevoice musicgen"

# Files written by image programs, with tensors and hardly any keys.
NO_ARCHITECTURE = rb"(?s)\AGGUF(?!.*general\.architecture|.*split\.count).{20}[^\0]"
DRAWN = (
    rb".*\0(model\.diffusion_model|diffusion_model|first_stage_model|cond_stage_model|conditioner|control_model|vae|"
    rb"text_encoders|(double|single|joint|double_stream|input|output|transformer|down|up)_blocks|"
    rb"(noise|context)_refiner|[xt]_embedder)\."
)

# The first matching row is used: the file's own declaration precedes its architecture.
GGUFS = tuple(
    Kind("*.gguf", what, fix, holds)
    for what, fix, holds in (
        ("a projector of images or sound", MAIN, _type("mmproj clip-vision")),
        ("an importance matrix", MAIN, _type("imatrix")),
        ("a vocabulary without a model", WEIGHTS, _type("vocab")),
        ("a control vector", MAIN, _type("controlvector")),
        ("a LoRA adapter, not a whole model", MERGE, _type("adapter")),
        ("a LoRA adapter, not a whole model", MERGE, rb"adapter\.type\x08\0{3}"),
        (f"a classifier {NO_TEXT}", CLASSIFY, rb"\.classifier\.output_labels\x09\0{3}"),
        (f"an encoder {NO_TEXT}", FOLDER, _architecture("t5encoder")),
        ("a model with an encoder and a decoder, as a GGUF file", predicts("transformers"), _architecture("t5 umt5")),
        ("a diffusion language model as a GGUF file", CHAT, _architecture("dream llada llada-moe rnd1")),
        ("a model of images as a GGUF file", IMAGES, _architecture(f"{DRAWING} omnigen pig")),
        ("a model that looks at images as a GGUF file", predicts(OWN_LIBRARY), _architecture(SEEING)),
        ("a model of speech as a GGUF file", HEARD, _architecture(HEARING)),
        ("a model that makes sound, as a GGUF file", SPEECH, _architecture(SPEAKING)),
        ("a projector of images or sound", MAIN, _architecture("clip")),
        ("a draft model", MAIN, _architecture("eagle3")),
        ("a control vector", MAIN, _architecture("controlvector")),
        ("a diffusion language model as a GGUF file", CHAT, rb"diffusion\.\w{1,40}[\0-\x0c]\0{3}"),
        (
            "a model that does not generate text token by token (attention.causal is false), as a GGUF file",
            f"{CLASS} with {OWN_LIBRARY}",
            rb"\.attention\.causal\x07\0{4}",
        ),
        ("a model of images as a GGUF file, by the names of its tensors", IMAGES, NO_ARCHITECTURE + DRAWN),
        ("a vocabulary without a model", WEIGHTS, rb"(?s)\AGGUF.{4}\0{8}"),
        (
            "a GGUF file that names no architecture",
            f"convert the model again, or, if it is for another program, {CLASS} with its library",
            NO_ARCHITECTURE,
        ),
    )
)

PIECE = re.compile(r"(?i)(.+\.gguf)([._-](?:part|split)[._-]?|[._-](?=a[a-z]$|0\d+$))(\d+|[a-z]{1,2})(?:-?of-?(\d+))?")


def pieces(path: Path, names: frozenset[str]) -> Unserved | None:
    """Recognise pieces that were cut by hand; the advice is a command that joins those of the first file."""
    found = [match for name in sorted(names) if (match := PIECE.fullmatch(name))]
    if not found:
        return None
    whole, cut, of = found[0].group(1, 2, 4)
    own = sorted((each for each in found if each[1] == whole), key=lambda each: (len(each[3]), each[3]))
    listed = ", ".join(each[0] for each in own[:3]) + (" …" if len(own) > 3 else "")
    fix = f"join the pieces, in their order: {_cat(whole, whole + cut, [each[0] for each in own], names)}"
    if of and len(own) < int(of):
        fix = f"get the missing pieces (there are {len(own)} of {int(of)}), then check again"
    if len(own) < len(found):
        fix += "; the others likewise, each in its own directory"
    files = tuple(each[0] for each in found)
    return Unserved(f"a GGUF file that was cut by hand ({listed})", fix, is_sure=False, files=files)


def _cat(whole: str, start: str, pieces: list[str], names: frozenset[str]) -> str:
    """Return the shortest command whose patterns match only the pieces, in order: part10 comes after part2."""
    sizes = sorted({len(piece) for piece in pieces})
    for ends in (["*"], ["?" * (size - len(start)) for size in sizes]):
        if [name for end in ends for name in sorted(names) if fnmatchcase(name, escape(start) + end)] == pieces:
            return f"cat {' '.join(quote(start) + end for end in ends)} > {quote(whole)}"
    return f"cat {' '.join(map(quote, pieces))} > {quote(whole)}"


def gguf_files(path: Path, names: frozenset[str]) -> Unserved | None:
    """Recognise GGUF files without a language model. They define the directory even next to a config.json."""
    files = frozenset(name for name in names if name.lower().endswith(".gguf"))
    if not files or weights_of(names):
        return None
    is_checkpoint = "config.json" in names and "adapter_config.json" not in names
    return first(GGUFS, path, files, is_sure=False) or (
        first(FILES, path, files, is_sure=False) if is_checkpoint else None
    )
