"""What lies in a folder of sentence-transformers and has no part in its vectors, though it may be meant to have one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gateway_checkpoints import two_saves

from gateway import peek_json

MODULE = re.compile(r"\d+_[A-Z]\w*")  # how the library calls the folders of modules
SHOWN = 5  # names in a line


def left_out(place: Path | None) -> Iterator[str]:
    """A head that makes classes, modules that are not listed, and a second save."""
    if place is None or not place.is_dir():
        return
    heads = sorted(file.name for file in place.glob("model_head.*"))
    if heads or (place / "config_setfit.json").is_file():  # of SetFit, whose body gives vectors
        head = f"its head ({', '.join(heads)})" if heads else "its head"
        what = f"a model of SetFit: its body is served and gives embeddings, {head} is not"
        yield f"{what}; for its classes, write a model.py whose class loads it with setfit and has a method classify"
    if spare := _unlisted(place):
        what = f"modules.json does not list {_few(spare)}, so that vectors are made without"
        yield f"{what}: list what belongs to the model, and move the rest away"
    for folder in (place, *sorted(place.glob("*_Transformer"))):
        if told := two_saves(folder):
            yield told


def other_heads(place: Path | None) -> Iterator[str]:
    """Heads as those of BGE-M3, which make other things of a text than the one vector that is served."""
    heads = sorted(file.name for file in place.glob("*_linear.pt")) if place is not None and place.is_dir() else []
    if heads:
        what = f"heads beside the encoder are not used ({_few(heads)}): an answer is its one dense vector"
        fix = "write a model.py whose class loads it with FlagEmbedding and has a method embeddings"
        yield f"{what}, without weights of words (sparse) or vectors of each word (colbert); for these {fix}"


def _unlisted(place: Path) -> list[str]:
    try:
        listed = {str(each["path"]).partition("/")[0] for each in peek_json(place / "modules.json")}
    except (OSError, ValueError, LookupError, TypeError):
        return []  # there is none, or the load tells of it
    folders = (file.parent.name for file in place.glob("*/*") if file.name in ("config.json", "model.safetensors"))
    return sorted({name for name in folders if MODULE.fullmatch(name)} - listed)


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "")
