"""`SentenceTransformerModel`: a saved model, and its embeddings.

`usage` counts the computed tokens, without padding.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway_checkpoints import named
from gateway_embedding_batches import Batcher
from gateway_embedding_fields import Known, read

from gateway import BadRequest, ConfigError, check_ordinary, weights_path

from . import loadable
from .encoder import Encoder
from .left_out import left_out, other_heads


class SentenceTransformerModel:
    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.capabilities: dict[str, Any] = {}

    def load(self) -> None:
        path = weights_path(self.config, Path.cwd())
        check_ordinary(path)
        trusted = bool(self.config.get("trust_remote_code", False))
        cuts = (self.config.get("options") or {}).get("truncate", False)
        if not isinstance(cuts, bool):
            raise ConfigError(f"options.truncate must be true or false, not {cuts!r}")
        for kind, folder in loadable.say_unloadable(path, trusted=trusted):
            if kind in loadable.TRANSFORMERS:
                named.say_names(folder, loadable.BY, trusted=trusted, beside=Path.cwd())
        if not trusted:  # whose code may be on the Hub; otherwise nothing may wait for the network
            os.environ.setdefault("HF_HUB_OFFLINE", "1")
        model = self._model(path, trusted=trusted)
        try:
            encoder = Encoder(model)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            what = f"its modules compute no vector from a text ({type(error).__name__}: {error})"
            raise loadable.unloadable(path, what) from error
        for note in (*left_out(path), *other_heads(path), *filter(None, [loadable.assumed(path)])):
            print(f"warning: {note}")
        self.known = Known(encoder.prompts, encoder.default_prompt, encoder.dimensions, cuts)
        self.capabilities = {"max_model_len": encoder.max_tokens, "dimensions": encoder.dimensions}
        self.batcher = Batcher(encoder, encoder.shape)

    def _model(self, path: Path, *, trusted: bool) -> Any:
        from sentence_transformers import SentenceTransformer

        try:
            model = SentenceTransformer(str(path), local_files_only=True, trust_remote_code=trusted)
        except MemoryError:
            raise
        except Exception as error:  # its type depends on the module that raises it
            loadable.check(path, trusted=trusted)  # may give a clearer message
            raise loadable.unloadable(path, error) from error
        loadable.say_wrong(path, model)
        return model

    def is_healthy(self) -> bool:
        return not self.batcher.closed

    def unload(self) -> None:
        self.batcher.close()

    async def embeddings(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        texts, ask = _texts(inputs), read(inputs, self.known)
        vectors, tokens = await self.batcher.encode(texts, ask)
        return {"embeddings": vectors, "prompt_tokens": tokens}


def _texts(inputs: Mapping[str, Any]) -> list[str]:
    texts = inputs.get("input")
    if not isinstance(texts, list) or not texts:
        raise BadRequest("input must be a string or a list of strings, and not empty", param="input")
    if not all(isinstance(text, str) for text in texts):
        raise BadRequest(
            "input holds token ids, which do not match this model's tokenizer: send texts (with LangChain, "
            "OpenAIEmbeddings(check_embedding_ctx_length=False))",
            param="input",
        )
    return texts
