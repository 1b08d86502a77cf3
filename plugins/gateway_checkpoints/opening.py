"""Open the tokenizer and the network of a checked checkpoint, in the worker: no code of it, and only *.safetensors."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from gateway import ConfigError

from . import unloadable, wordless
from .loadable import say_factors


def open_tokenizer(place: Path) -> Any:
    _offline()
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises nothing more specific
        raise wordless.no_tokenizer(place, error) from error
    wordless.say_wordless(place, tokenizer, wordless.rows(place))
    return tokenizer


def open_model(place: Path, kind: str, *, may_lack: str = "") -> Any:
    """Return the network on the GPU of this worker, or else on the CPU as float32.

    `kind` is the class of transformers that opens it. `may_lack` is a pattern of tensors whose absence does not matter;
    the library fills them with random numbers.

    Raises:
        ConfigError: it cannot be loaded, or lacks tensors.
    """
    _offline()
    import torch
    import transformers
    from safetensors import SafetensorError
    from transformers.utils import logging

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model, told = getattr(transformers, kind).from_pretrained(
            place,
            dtype=torch.float32 if device == "cpu" else "auto",
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, ImportError, TypeError, AttributeError) as error:
        raise unloadable(place, error) from error
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):  # a device error, which may not recur
            raise
        raise unloadable(place, error) from error
    except SafetensorError as error:
        raise ConfigError(f"{place}: a *.safetensors is damaged ({error}): download the file again") from error
    say_factors(place, told["unexpected_keys"])
    missing = sorted(name for name in told["missing_keys"] if not (may_lack and re.search(may_lack, name)))
    if missing:  # the library fills these with random numbers
        what = (
            f"the checkpoint lacks {len(missing)} of the tensors of a {type(model).__name__}, {missing[0]} among them"
        )
        raise ConfigError(f"{place}: {what}: it is incomplete, or of another kind")
    return model.to(device).eval()


def _offline() -> None:
    """All files are local: nothing may wait for the network."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
