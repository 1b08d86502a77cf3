"""Describe the architecture named in a config.json, and what would serve it.

Plugins use it through `peek_architecture` if config.yaml chose them for a checkpoint that they may not know. The names
are those of transformers and sentence-transformers; neither is imported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .file_headers import begin_of
from .files import json_of
from .kinds import CLASS

JUDGE = "ForSequenceClassification"
MOST_NAMES = 16  # architectures of one checkpoint that are looked at; it has one
# The end of an architecture's name, a description, and the method that would serve it.
KNOWN = (
    ("GitForCausalLM", "a model that describes images", "predict"),
    ("TrOCRForCausalLM", "the half of a reader of images that writes", "predict"),
    ("WhisperForCausalLM", "the half of a model of speech that writes", "transcriptions, see docs/audio.md"),
    ("MusicgenForCausalLM", "the half of a model that makes music", "speech, see docs/audio.md"),
    ("MusicgenMelodyForCausalLM", "the half of a model that makes music", "speech, see docs/audio.md"),
    ("MoshiForCausalLM", "the half of a model that hears and speaks", "speech, see docs/audio.md"),
    (JUDGE, "a classifier of pages with places or images", "classify or rerank, see docs/rerank.md"),
    ("ForTokenClassification", "a classifier of words with places or images", "predict"),
    ("ForQuestionAnswering", "a finder of answers on pages or in sound", "predict"),
    ("ForMultipleChoice", "a classifier of choices", "predict"),
    ("ForNextSentencePrediction", "a classifier of pairs of texts", "predict"),
    ("RewardModel", "a model that gives texts a score", "classify or rerank, see docs/rerank.md"),
    ("ForObjectDetection", "a detector of objects", "predict"),
    ("ForSpeechSeq2Seq", "a model of speech", "transcriptions, see docs/audio.md"),
    ("ForCTC", "a model of speech", "transcriptions, see docs/audio.md"),
    ("ForTextToSpeech", "a model that speaks", "speech, see docs/audio.md"),
    ("VitsModel", "a model that speaks", "speech, see docs/audio.md"),
    ("BarkModel", "a model that speaks", "speech, see docs/audio.md"),
    ("MTModel", "a translator", "predict"),
    ("DoubleHeadsModel", "a language model with a second head, which chooses", "predict"),
    ("DiscriminatorModel", "a model that finds words that were replaced", "predict"),
)
# The end of an architecture's name, a description, and the task with which the pipelines plugin serves it.
PIPELINES_OF_TEXTS = (
    ("ForTokenClassification", "a classifier of words", "token-classification"),
    ("ForQuestionAnswering", "a finder of answers in texts", "question-answering"),
    ("ForMaskedLM", "a model that fills gaps in texts", "fill-mask"),
)
PIPELINES_OF_SIGNALS = (
    ("ForImageClassification", "a classifier of images", "image-classification"),
    ("ForAudioClassification", "a classifier of sound", "audio-classification"),
)
# Heads used only for training; sentence-transformers ignores them.
TRAINED = (
    ("ForMaskedLM", "a model that fills gaps"),
    ("ForPreTraining", "a model to be trained further"),
)
OLDER = ("LMHeadModel", "ModelWithLMHead")  # former names of language models
# Of these, models whose attention has no cache that the language model plugin could share among requests.
UNSHARED = ("OpenAIGPTLMHeadModel", "ReformerModelWithLMHead", "XLMWithLMHeadModel", "XLNetLMHeadModel")
TEXT_TO_TEXT = re.compile(
    r"(M|UM|Long)?T5(Gemma)?|SwitchTransformers|(M|PL)?Bart|Mvp|(BigBird)?Pegasus(X)?|Blenderbot(Small)?|M2M100|NllbMoe|"
    r"LED|ProphetNet|FSMT"
)
# Words in a name; parts of other words do not count: Overdraft, or DraftingForCausalLM, which drafts texts.
DRAFT = re.compile(
    r"(?<![A-Za-z])(?:eagle|medusa|draft(?:er)?|speculator|dflash|mtp|nextn)(?![a-z])"
    r"|(?:Eagle|EAGLE|Medusa|MEDUSA|Draft(?:er)?|DRAFT(?:ER)?|Speculator|DFlash)(?![a-z])|(?:MTP|NextN|Nextn)(?:Model)?$"
)
TASK = re.compile(r"For(?!CausalLM|ConditionalGeneration)[A-Z]\w+$")  # a classifier, whatever else is in its name
DRAFT_KEYS = {"draft_vocab_size", "eagle_config", "medusa_num_heads", "speculators_model_type", "dflash_config"}
DIFFUSION = re.compile(r"(?i)(dream|llada|sdar|diffu\w*|bd3lm|mdlm|fast_?dllm)(?![a-z]*image)")
SENSES = {"vision_config", "audio_config", "image_token_id", "image_token_index"}
SOUNDS = {"conv_dim", "sampling_rate", "num_mel_bins"}
SIGNALS = {"image_size", "patch_size", "audio_encoder", *SOUNDS}
PLACES = {"max_2d_position_embeddings"}  # of the words on a page
OF_NO_TEXT = {"prediction_length", "context_length", "backbone", "backbone_config", "num_queries", "num_channels"}
JUDGES = "the plugin classifiers serves it, with classify or rerank: write framework: classifiers into config.yaml"
WHISPER = (
    "the plugin whisper serves it, with transcriptions and translations: write framework: whisper into config.yaml"
)
PIPELINES = "the plugin pipelines serves it, with predict: write framework: pipelines into config.yaml"
EMBEDDINGS = (
    "for embeddings save it with sentence-transformers, which writes modules.json, or, where the mean of its tokens is "
    "right, write framework: sentence-transformers into a config.yaml"
)
SAVED = "sentence-transformers"
OTHER_MODULES = {
    b".sparse_encoder.": "SparseEncoder",
    b".cross_encoder.": "CrossEncoder",
    b".multi_vector_encoder.": "MultiVectorEncoder",
}


@dataclass(frozen=True, slots=True)
class Architecture:
    name: str  # from config.json, or the class of sentence-transformers
    what: str
    fix: str  # advice on how to serve it
    writes: bool = False  # generates text token by token, so the transformers plugin serves it
    gives_vectors: bool = False  # gives a vector for each token, from which sentence-transformers can make one
    is_saved_by: str = "transformers"
    judges: bool = False  # classifies texts or scores pairs of them, so the classifiers plugin serves it
    task: str | None = None  # of transformers' pipelines, with which the plugin pipelines or whisper serves it

    def __str__(self) -> str:
        return f"{self.name}, {self.what}: {self.fix}"


COLBERT = Architecture(
    "ColBERT",
    "a model of PyLate that gives many vectors of a text, one for each of its words",
    f"{CLASS} with pylate and has a method rerank, see docs/rerank.md",
    is_saved_by="pylate",
)
STATIC_KEYS = ({"apply_pca", "apply_zipf"}, {"normalize", "embedding_dtype"})  # as written by its different versions
STATIC = Architecture(
    "StaticModel",
    "a table of vectors of words (model2vec) without modules.json",
    "get its modules.json, or save it again with model2vec, which writes one: "
    "StaticModel.from_pretrained(folder).save_pretrained(folder)",
    is_saved_by="model2vec",
)


def peek_architecture(place: Path) -> Architecture | None:
    """Return the architecture of the checkpoint in a folder; None if its files do not reveal it."""
    return other_encoder(place) or describe_architecture(json_of(place / "config.json"))


def other_encoder(place: Path) -> Architecture | None:
    """Return a model saved by sentence-transformers that does not give one vector per text."""
    if b'"pylate.' in begin_of(place / "modules.json"):
        return COLBERT
    kind = json_of(place / "config_sentence_transformers.json").get("model_type")
    if kind in (None, "SentenceTransformer"):  # older folders only reveal it by their modules
        modules = begin_of(place / "modules.json")
        kind = next((what for module, what in OTHER_MODULES.items() if module in modules), None)
    if kind is None:
        return None
    if kind == "CrossEncoder":
        inside = describe_architecture(json_of(place / "config.json"))
        if inside is not None and inside.judges:
            return replace(inside, name=kind, what="a cross encoder of sentence-transformers", is_saved_by=SAVED)
    if kind == "SparseEncoder" and b"SpladePooling" in begin_of(place / "modules.json"):
        inside = describe_architecture(json_of(place / "config.json"))
        if inside is not None and inside.task == "fill-mask":
            what = "a sparse encoder of sentence-transformers"
            return Architecture(kind, what, PIPELINES, is_saved_by=SAVED, task="sparse-encoding")
    method = "rerank, see docs/rerank.md" if kind == "CrossEncoder" else "embeddings"
    fix = f"{CLASS} with sentence_transformers and has a method {method}"
    what = "a sentence-transformers model that does not give one vector per text"
    return Architecture(str(kind), what, fix, is_saved_by=SAVED)


def describe_architecture(config: Mapping[str, Any]) -> Architecture | None:
    """Return the first architecture in a config.json, or one that generates text; None if there are none."""
    if config.get("model_type") == "model2vec" or any(config.keys() >= keys for keys in STATIC_KEYS):
        return STATIC  # its config.json names a class of model2vec, or none
    found = config.get("architectures")
    names = [str(name) for name in found] if isinstance(found, Sequence) and not isinstance(found, str) else [found]
    if not names or not names[0]:
        return None
    told = [_describe(str(name), config) for name in names[:MOST_NAMES]]
    return next((each for each in told if each.writes), told[0])


def _describe(name: str, config: Mapping[str, Any]) -> Architecture:
    parts = config.keys() & SENSES
    with_class = f"{CLASS} with transformers and has a method"
    is_assistant = str(config.get("model_type")).endswith("_assistant")  # transformers' suffix for those of Gemma 4
    if (DRAFT.search(name) or is_assistant or config.keys() & DRAFT_KEYS) and not parts and not TASK.search(name):
        what = "a draft model, which guesses tokens for a larger model (speculative decoding) and cannot be used alone"
        return Architecture(name, what, "serve the model that it was made for, or both with a server that takes drafts")
    if DIFFUSION.match(name) and not parts:
        what = "a diffusion language model, which does not generate text token by token"
        return Architecture(name, what, f"{with_class} chat_completions")
    if name.endswith(JUDGE) and not config.keys() & (SENSES | SIGNALS | PLACES):
        return Architecture(name, "a classifier of texts", JUDGES, judges=True)
    if found := _of_pipelines(name, config):
        return found
    for ending, what, method in KNOWN:
        if name.endswith(ending):
            return Architecture(name, what, f"{with_class} {method}")
    for ending, what in TRAINED:
        if name.endswith(ending):
            fix = f"{EMBEDDINGS}; for what it does itself {with_class} predict"
            return Architecture(name, what, fix, gives_vectors=True)
    if name.endswith("ForCausalLM"):
        return Architecture(name, "a language model", "the plugin transformers serves it", True, True)
    if name in UNSHARED:
        what = "a language model whose attention has no cache to share among requests"
        return Architecture(name, what, f"{with_class} chat_completions or completions")
    if name.endswith(OLDER):
        fix = "framework: transformers in config.yaml"
        return Architecture(name, "a language model by an older name", fix, True, True)
    return _without_a_table(name, config, with_class)


def _of_pipelines(name: str, config: Mapping[str, Any]) -> Architecture | None:
    if name == "WhisperForConditionalGeneration":
        return Architecture(name, "a model of speech", WHISPER, task="automatic-speech-recognition")
    if name.endswith(JUDGE) and config.keys() & SOUNDS and not config.keys() & (SENSES | PLACES):
        return Architecture(name, "a classifier of sound", PIPELINES, task="audio-classification")
    reads_texts = not config.keys() & (SENSES | SIGNALS | PLACES)
    for ending, what, task in (*(PIPELINES_OF_TEXTS if reads_texts else ()), *PIPELINES_OF_SIGNALS):
        if name.endswith(ending):
            gives_vectors = task == "fill-mask"
            fix = f"{PIPELINES}; {EMBEDDINGS}" if gives_vectors else PIPELINES
            return Architecture(name, what, fix, gives_vectors=gives_vectors, task=task)
    return None


def _without_a_table(name: str, config: Mapping[str, Any], with_class: str) -> Architecture:
    parts = config.keys() & SENSES
    if "Whisper" in name:
        return Architecture(name, "a model of speech", f"{with_class} transcriptions, see docs/audio.md")
    if name.endswith("ForConditionalGeneration"):
        writes_from_text = config.get("is_encoder_decoder") is True or TEXT_TO_TEXT.match(name)
        if writes_from_text and not parts and not config.keys() & SIGNALS:
            what = "a model that writes one text from another, with an encoder and a decoder"
            return Architecture(name, what, f"{with_class} predict", gives_vectors=True)
    elif name.endswith("Model"):
        return _base(name, config, with_class)
    if name.endswith("ForConditionalGeneration") or parts:
        what = "a multimodal model; the plugin transformers only serves text"
        return Architecture(name, what, f"{with_class} chat_completions")
    what = "an architecture that no plugin serves"
    return Architecture(name, what, f"{with_class} predict", gives_vectors=not parts)


def _base(name: str, config: Mapping[str, Any], with_class: str) -> Architecture:
    """Describe a network without a head. Only one that reads tokens is of use to sentence-transformers."""
    if config.keys() & SENSES:
        what = "an encoder of images or sound, and maybe of texts"
        return Architecture(name, what, f"{with_class} embeddings", gives_vectors=True)
    if config.keys() & SIGNALS:
        return Architecture(name, "an encoder of images or sound", f"{with_class} predict")
    if config.keys() & OF_NO_TEXT:
        return Architecture(name, "a network without a head", f"{with_class} predict")
    return Architecture(name, "an encoder, or a language model, without a head", EMBEDDINGS, gives_vectors=True)
