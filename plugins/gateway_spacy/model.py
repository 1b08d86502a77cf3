"""`SpacyModel`: documents of texts, computed with `nlp.pipe` for several requests together."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway import BadRequest, ConfigError, weights_path

from .settings import CONFIG, check_pipeline, say_code
from .texts import SCHEMA, default_parts, read_request

WEIGHTS_ONLY, NOT_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


class SpacyModel:
    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.options = config.get("options") or {}
        self.input_schema = SCHEMA
        self._lock = threading.Lock()  # a memory zone is of the whole pipeline

    def load(self) -> None:
        import spacy

        place = weights_path(self.config, Path.cwd())
        trusted = bool(self.config.get("trust_remote_code"))
        self.parts = default_parts(self.options)
        disable = self.options.get("disable", [])
        if not isinstance(disable, list) or not all(isinstance(each, str) for each in disable):
            raise ConfigError("config.yaml: options: disable has to be a list of components")
        check_pipeline(place, trusted=trusted)
        if not trusted:  # components of PyTorch keep their weights in pickles
            os.environ[WEIGHTS_ONLY] = "1"
            os.environ.pop(NOT_ONLY, None)
        try:
            config = spacy.util.load_config(place / CONFIG)
            if not trusted:
                say_code(place, config.interpolate())  # references are followed now
            self.nlp = spacy.load(place)
        except ConfigError:
            raise
        except Exception as error:  # the library has many classes
            what = " ".join(str(error).split())[:300]
            raise ConfigError(f"{place} cannot be loaded by spaCy {spacy.__version__}: {what}") from error
        have = self.nlp.component_names
        if unknown := [name for name in disable if name not in have]:
            raise ConfigError(f"config.yaml: options: disable: there is no component {unknown[0]!r} (have: {have})")
        for name in disable:
            if name in self.nlp.pipe_names:
                self.nlp.disable_pipe(name)
        print(f"components: {', '.join(self.nlp.pipe_names) or 'none, only tokens'}")

    def predict_batch(self, inputs: list[Any]) -> list[Any]:
        found: list[Any] = []
        for body in inputs:
            try:
                found.append(read_request(body, self.parts, self.nlp.max_length))
            except BadRequest as error:  # of this request only
                found.append(error)
        documents = iter(self._documents([(text, it.parts) for it in found if not _failed(it) for text in it.texts]))
        for place, request in enumerate(found):
            if not _failed(request):
                mine = [next(documents) for _ in request.texts]
                found[place] = mine[0] if request.is_one else {"documents": mine}
        return found

    def _documents(self, texts: list[tuple[str, frozenset[str]]]) -> list[dict[str, Any]]:
        """Return the documents of texts, with the parts that are wanted of each.

        spaCy keeps every word that it has ever seen. In a memory zone it forgets those that were new. A text without
        words gets other categories beside texts with words (3.8), so empty ones are computed by themselves.
        """
        found: list[Any] = [None] * len(texts)
        with self._lock, self.nlp.memory_zone():
            for is_empty in (True, False):
                some = [(text, (place, parts)) for place, (text, parts) in enumerate(texts) if (not text) is is_empty]
                for document, (place, parts) in self.nlp.pipe(some, as_tuples=True):
                    found[place] = as_json(document, parts)
        return found


def as_json(document: Any, parts: frozenset[str]) -> dict[str, Any]:
    """Return a document as the library writes it, with the text of each entity."""
    found = {name: part for name, part in document.to_json().items() if name in parts}
    for entity, span in zip(found.get("ents", ()), document.ents, strict=False):
        entity["text"] = span.text
        if span.kb_id_:
            entity["kb_id"] = span.kb_id_
        if span.id_:
            entity["id"] = span.id_
    return found


def _failed(found: Any) -> bool:
    return isinstance(found, Exception)
