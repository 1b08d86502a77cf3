"""Programs of PyTorch with weights by a seed, as torch.export and TorchScript save them, and forged copies of them."""

from __future__ import annotations

import importlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import gateway_torch
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from gateway import BadRequest

torch.set_num_threads(1)


class Network(nn.Module):
    """Rows of four numbers, and a word for each of them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(8, 3)
        self.layers = nn.Sequential(nn.Linear(7, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))

    def forward(self, x: Tensor, words: Tensor) -> dict[str, Tensor]:
        scores = self.layers(torch.cat([x, self.words(words)], 1))
        return {"kind": scores.argmax(1), "probabilities": scores.softmax(1)}


def inputs(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    return torch.randn(count, 4, generator=chance), torch.randint(0, 8, (count,), generator=chance)


def exported(place: Path, network: nn.Module | None = None, *args: Any, name: str = "model.pt2", **more: Any) -> Path:
    """Save a program, by default that of `Network` for any number of rows."""
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes(_default() if network is None else _saved(network, args, **more))
    return place


@cache
def _default() -> bytes:
    return _saved(Network(), inputs(3), dynamic_shapes={name: {0: Dim("rows")} for name in ("x", "words")})


def _saved(network: nn.Module, args: Any, **more: Any) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(network.eval(), args, **more), buffer)
    return buffer.getvalue()


def scripted(place: Path, network: nn.Module | None = None, name: str = "model.pt", options: str = "") -> Path:
    place.mkdir(parents=True, exist_ok=True)
    if network is None:
        network, options = Network(), options or 'options: {inputs: {x: "float32 [n, 4]", words: "int64 [n]"}}\n'
    torch.jit.script(network).save(place / name)
    if options:
        (place / "config.yaml").write_text(options)
    return place


def rewritten(file: Path, change: Callable[[str, bytes], bytes | None], **added: bytes) -> None:
    """Change the files in a program, by their names behind the first directory; None removes one."""
    with zipfile.ZipFile(file) as old:
        parts = [(name, old.read(name)) for name in old.namelist()]
    root = parts[0][0].partition("/")[0]
    with zipfile.ZipFile(file, "w") as new:
        for name, content in parts:
            if (found := change(name.partition("/")[2], content)) is not None:
                new.writestr(name, found)
        for name, content in added.items():
            new.writestr(f"{root}/{name}", content)


def forged(place: Path, change: Callable[[Any], Any], part: str = "models/model.json") -> Path:
    """Save the program of `Network` with other JSON."""

    def changed(name: str, content: bytes) -> bytes:
        if name != part:
            return content
        found = json.loads(content)
        change(found)
        return json.dumps(found).encode()

    rewritten(exported(place) / "model.pt2", changed)
    return place


def problems(place: Path, **overrides: Any) -> list[str]:
    """What discovery and the check say of a directory."""
    try:
        spec = gateway_torch.find_model(place, overrides)
    except Exception as error:
        return [str(error)]
    assert spec is not None, f"{place} is not recognised"
    return [problem.what for problem in gateway_torch.check_model(spec)]


def loaded(place: Path, monkeypatch: pytest.MonkeyPatch, **overrides: Any) -> Any:
    """The model of a directory, loaded as a worker does, without the check that comes before."""
    spec = gateway_torch.find_model(place, overrides)
    assert spec is not None, f"{place} is not recognised"
    monkeypatch.chdir(place)
    module, _, name = spec.target.partition(":")
    model = getattr(importlib.import_module(module), name)(spec.config)
    model.load()
    return model


def plain(found: Any) -> Any:
    if isinstance(found, dict):
        return {str(key): plain(each) for key, each in found.items()}
    if isinstance(found, list | tuple):
        return [plain(each) for each in found]
    return found.tolist() if hasattr(found, "tolist") else found


def refusal(model: Any, body: Any) -> str:
    try:
        model.predict(body)
    except BadRequest as error:
        assert 0 < len(error.message) < 2000
        return error.message
    raise AssertionError(f"{body} was answered")


def places(found: Any, key: str = "") -> Iterator[tuple[str, Callable[[Any], None]]]:
    """Yield the key of every text in JSON, and a function that puts another value there; names of objects as well."""
    pairs = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    for name, each in list(pairs):
        below = name if isinstance(found, dict) else key
        if isinstance(each, str):
            yield str(below), lambda value, name=name: found.__setitem__(name, value)  # type: ignore[misc]
        yield from places(each, str(below))
        if isinstance(found, dict):
            yield f"name in {key}", lambda value, name=name: found.__setitem__(value, found.pop(name))  # type: ignore[misc]
