"""Find files in a sentence-transformers folder that do not affect its vectors, although they may be meant to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gateway_checkpoints.weights import two_saves

from gateway import peek_json

MODULE = re.compile(r"\d+_[A-Z]\w*")  # the library's names for module folders
SHOWN = 5  # names in one message


def left_out(place: Path | None) -> Iterator[str]:
    """Yield warnings about a classification head, unlisted modules, and a second save."""
    if place is None or not place.is_dir():
        return
    heads = sorted(file.name for file in place.glob("model_head.*"))
    if heads or (place / "config_setfit.json").is_file():  # of SetFit, whose body gives vectors
        head = f"its head ({', '.join(heads)})" if heads else "its head"
        what = f"a model of SetFit: its body is served and gives embeddings, {head} is not"
        yield f"{what}; for its classes, write a model.py whose class loads it with setfit and has a method classify"
    if spare := _unlisted(place):
        what = f"modules.json does not list {_few(spare)}, so vectors are computed without"
        yield f"{what}: list what belongs to the model, and move the rest away"
    for folder in (place, *sorted(place.glob("*_Transformer"))):
        if told := two_saves(folder):
            yield told


def other_heads(place: Path | None) -> Iterator[str]:
    """Yield notes about heads such as those of BGE-M3, which compute something other than the served vector."""
    heads = sorted(file.name for file in place.glob("*_linear.pt")) if place is not None and place.is_dir() else []
    if heads:
        what = f"heads next to the encoder are not used ({_few(heads)}): only its dense vector is served"
        fix = "write a model.py whose class loads it with FlagEmbedding and has a method embeddings"
        yield f"{what}, without weights of words (sparse) or vectors of each word (colbert); for these {fix}"


def _unlisted(place: Path) -> list[str]:
    try:
        listed = {str(each["path"]).partition("/")[0] for each in peek_json(place / "modules.json")}
    except (OSError, ValueError, LookupError, TypeError):
        return []  # it does not exist, or the load reports its error
    folders = (file.parent.name for file in place.glob("*/*") if file.name in ("config.json", "model.safetensors"))
    return sorted({name for name in folders if MODULE.fullmatch(name)} - listed)


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "")
