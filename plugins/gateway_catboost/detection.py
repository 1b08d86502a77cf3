"""Recognise a model of CatBoost by the name and the beginning of its file, and tell whether the file is whole."""

from __future__ import annotations

import json
import os
import re
import struct
from pathlib import Path

from gateway import ConfigError, opened

NAMED = (".cbm",)  # only CatBoost has files of this name
MAYBE = (".json", ".bin", ".model")
MAGIC = b"CBM1"
JSON = re.compile(rb'\A\{\s*"(features_info|oblivious_trees|ctr_data|trees|scale_and_bias|model_info)"')
LARGEST = 1 << 30  # bytes of JSON
SAVE = 'model.save_model("model.cbm")'


def is_model(name: str, begin: bytes) -> bool:
    """Return whether a file is a model of CatBoost; without a beginning, whether it may be one."""
    low = name.lower()
    if low.endswith(NAMED):
        return True
    return low.endswith(MAYBE) and (not begin or begin.startswith(MAGIC) or JSON.search(begin) is not None)


def check_whole(file: Path) -> str:
    """Return the format of a file: cbm or json.

    Raises:
        ConfigError: it is no model, or cut.
    """
    try:
        with opened(file) as found:
            begin = found.read(8)
            size = os.fstat(found.fileno()).st_size
            if begin.startswith(MAGIC):
                if len(begin) < 8 or size < 8 + struct.unpack("<I", begin[4:])[0]:
                    raise ValueError("it ends too early")
                return "cbm"
            if size > LARGEST:
                raise ValueError(f"it has more than {LARGEST:,} bytes")
            document = json.loads(begin + found.read())
            if not isinstance(document, dict) or not {"features_info", "model_info"} <= document.keys():
                raise ValueError("it lacks features_info or model_info")
            return "json"
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        what = f"{file} is not a model of CatBoost, or is damaged ({error})"
        raise ConfigError(f"{what}: get it again, or save it with {SAVE}") from error
