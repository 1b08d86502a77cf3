"""Recognise GGUF files that are not chat language models by the keys of their header, and those that llama.cpp serves.

The keys are those of llama.cpp's converter and of related programs. Reads no file, imports nothing. The gateway has its
own table for directories that only contain such files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Task = Literal["chat", "embeddings", "rerank"]

CLASS = "write a model.py whose class loads it"
ANOTHER_FORM = "get it as a folder of sentence-transformers (modules.json, *.safetensors)"
BY_LLAMACPP = "llama.cpp serves it, in its own directory and without engine or framework in config.yaml"


@dataclass(frozen=True, slots=True)
class Other:
    what: str
    fix: str
    why: str = ""  # the key that reveals it
    task: Task | None = None  # what llama.cpp does with it


EMBEDDER = Other("an embedding model, which gives vectors and writes no text", BY_LLAMACPP, task="embeddings")
ENCODER = Other("an encoder, which gives vectors and writes no text", BY_LLAMACPP, task="embeddings")
T5_ENCODER = Other("an encoder, which gives vectors and writes no text", ANOTHER_FORM)
RERANKER = Other("a reranker, which rates texts and writes none", BY_LLAMACPP, task="rerank")
CLASSIFIER = Other(
    "a classifier, which rates texts and writes none", f"{CLASS} and has a method classify, see docs/rerank.md"
)
BOTH_WAYS = Other(
    "a model that does not generate text token by token, such as encoders and diffusion language models",
    f"{CLASS} with the library that it was made for",
)
DIFFUSION = Other(
    "a diffusion language model, which does not generate text token by token",
    f"{CLASS} with transformers and has a method chat_completions",
)
ENCODER_DECODER = Other(
    "a model with an encoder and a decoder", f"{CLASS} with transformers, from *.safetensors, and has a method predict"
)
IMAGES = Other("a model of images", f"{CLASS} with diffusers and has a method images, see docs/images.md")
SEEING = Other("a model that looks at images", f"{CLASS} with the library that it was made for")
SPEECH = Other("a model of speech", f"{CLASS} and has a method transcriptions, see docs/audio.md")
SOUND = Other("a model that makes sound", f"{CLASS} and has a method speech, see docs/audio.md")
PROJECTOR = Other("a projector of images or sound", "the plugin transformers only serves text, and does not use it")
MATRIX = Other("an importance matrix", "it is read when a model is quantized, and has no part in serving")
ADAPTER = Other(
    "a LoRA adapter", "name it in options.lora of its model, for llama.cpp, or merge it (llama-export-lora)"
)
STEERING = Other("a control vector", "it steers another model, and is not used here")
DRAFT = Other("a draft model", "it makes another model faster, and is not used here")
UNFINISHED = Other("an unfinished download", "get the file again")
NAMELESS = Other(
    "a file that names no architecture (general.architecture)",
    f"convert the model again, or, if it is for another program, {CLASS} with its library",
)
VOCABULARY = Other("a vocabulary without a model", "get the file with the weights too")

ARCHITECTURES: Mapping[str, Other] = {
    **dict.fromkeys(
        "bert nomic-bert nomic-bert-moe jina-bert-v2 jina-bert-v3 modern-bert neo-bert eurobert gemma-embedding"
        " llama-embed".split(),
        ENCODER,
    ),
    "t5encoder": T5_ENCODER,
    **dict.fromkeys("t5 umt5".split(), ENCODER_DECODER),
    **dict.fromkeys("dream llada llada-moe rnd1".split(), DIFFUSION),
    **dict.fromkeys(
        "flux sd1 sd2 sd3 sdxl aura auraflow lumina2 hidream qwen_image ltxv hyvid wan cosmos mochi pixart chroma"
        " omnigen pig".split(),
        IMAGES,
    ),
    **dict.fromkeys("mobile-sam sam birefnet depthanything esrgan migan yolov9t yolo".split(), SEEING),
    **dict.fromkeys("whisper wav2vec2 parakeet moonshine sensevoice".split(), SPEECH),
    **dict.fromkeys(
        "wavtokenizer-dec bark encodec snac kokoro parler-tts dia orpheus csm outetts vibevoice musicgen".split(), SOUND
    ),
    "clip": PROJECTOR,
    "eagle3": DRAFT,
    "controlvector": STEERING,
}
TYPES = {
    "mmproj": PROJECTOR,
    "imatrix": MATRIX,
    "adapter": ADAPTER,
    "vocab": VOCABULARY,
    "controlvector": STEERING,
}
LONGEST = 80  # characters of a file's text in a message
# Prefixes of tensors in files that image programs write without other information.
DRAWN = re.compile(
    r"(model\.diffusion_model|diffusion_model|first_stage_model|cond_stage_model|conditioner|control_model|vae|"
    r"text_encoders|(double|single|joint|double_stream|input|output|transformer|down|up)_blocks|"
    r"(noise|context)_refiner|[xt]_embedder)\."
)
# Words in a file's name and tags that reveal another purpose of a model that generates text.
RATES, ENCODES = (
    re.compile(words)
    for words in (
        r"(?i)rerank|(?<![a-z])text-ranking",
        r"(?i)(?<![a-z])embed(?:d?(?:ing|er)s?)?(?![a-z])|sentence-(?:similarity|transformers)|feature-extraction"
        r"|\A(?:e5|bge|gte)(?![a-z0-9])",
    )
)
NO_POOLING = (0, 2**32 - 1)  # none, and unspecified
RANK = 4  # the pooling type for ratings
POOLINGS = {"mean": 1, "cls": 2, "last": 3, "rank": RANK}  # those that options.pooling may name


def doubt(said: Mapping[str, Any]) -> str | None:
    """Return a warning if a language model's name or tags show another purpose that its `pooling_type` does not."""
    texts = [str(said.get(f"general.{key}", "")) for key in ("name", "basename", "finetune", "tags")]
    for words, other in ((RATES, RERANKER), (ENCODES, EMBEDDER)):
        if text := next((text for text in texts if words.search(text)), None):
            kind = other.what.partition(",")[0]
            what = f"by its name or tags ({text[:LONGEST]}) it is {kind}, but its header has no pooling_type"
            how = f"options.pooling: {'rank' if other is RERANKER else 'last'}"
            return f"{what}: it is served as a language model, and its output may be meaningless; to correct it, {how}"
    return None


def kind_of(said: Mapping[str, Any], tensors: int, names: Iterable[str]) -> Other | None:
    """Return what a file with these keys, number of tensors and names is; None for a language model, or if unknown.

    Arrays among the values may be numbers instead: their lengths.
    """
    architecture, type_ = said.get("general.architecture", ""), said.get("general.type", "")
    pooling = said.get(f"{architecture}.pooling_type", 0)
    if type_ in TYPES:
        return replace(TYPES[type_], why=f"its general.type is {type_}")
    if "adapter.type" in said:
        return replace(ADAPTER, why=f"its adapter.type is {said['adapter.type']}")
    labels = said.get(f"{architecture}.classifier.output_labels", 0)
    if pooling == RANK and _length(labels) > 1 and not str(architecture).startswith("qwen3"):  # whose are yes and no
        return replace(CLASSIFIER, why=f"its {architecture}.pooling_type is {pooling}, and it has several labels")
    if pooling not in NO_POOLING:
        return replace(RERANKER if pooling == RANK else EMBEDDER, why=f"its {architecture}.pooling_type is {pooling}")
    if (key := f"{architecture}.classifier.output_labels") in said:
        return replace(CLASSIFIER, why=f"it has {key}")
    if architecture in ARCHITECTURES:
        return replace(ARCHITECTURES[architecture], why=f"its architecture is {architecture}")
    if key := next((key for key in said if key.startswith("diffusion.")), None):
        return replace(DIFFUSION, why=f"it has {key}")
    if said.get(key := f"{architecture}.attention.causal", True) in (False, 0):
        return replace(BOTH_WAYS, why=f"its {key} is false")
    if not architecture and (name := next((name for name in names if DRAWN.match(name)), None)):
        return replace(IMAGES, why=f"it has the tensor {name}")
    if tensors == 0 and "tokenizer.ggml.model" in said and not said.get("split.count"):
        return replace(VOCABULARY, why="it has no tensors")
    return None


def _length(value: Any) -> int:
    return value if isinstance(value, int) else len(value) if isinstance(value, list) else 0
