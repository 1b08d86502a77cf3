"""Small models of Keras with weights by a seed, and forged copies of them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gateway_keras
import numpy as np
import pytest
import torch
from gateway_keras.model import KerasModel

from gateway import BadRequest

torch.set_num_threads(1)


def network() -> Any:
    """Two inputs, several kinds of layers, and two outputs."""
    import keras

    keras.utils.set_random_seed(0)
    rows, words = keras.Input((4,), name="x"), keras.Input((3,), dtype="int32", name="words")
    hidden = keras.layers.Dense(5, activation="gelu", kernel_regularizer="l2")(rows)
    hidden = keras.ops.tanh(hidden * 2.0) + keras.layers.LSTM(5)(keras.layers.Embedding(7, 5)(words))
    hidden = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(hidden))
    outputs = {
        "kind": keras.layers.Dense(3, activation=keras.activations.softmax, name="kind")(hidden),
        "score": keras.layers.Dense(1, name="score")(hidden),
    }
    model = keras.Model({"x": rows, "words": words}, outputs)
    model.compile("adam", loss={"kind": "categorical_crossentropy", "score": "mse"})
    return model


def images() -> Any:
    import keras

    keras.utils.set_random_seed(0)
    layers = [keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 16), keras.layers.Conv2D(4, 3), keras.layers.Flatten()]
    return keras.Sequential([*layers, keras.layers.Dense(10, "softmax", name="digit")])


def saved(place: Path, model: Any = None) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    (network() if model is None else model).save(place / "model.keras")
    return place


def inputs(count: int, seed: int = 0) -> dict[str, Any]:
    chance = np.random.default_rng(seed)
    return {"x": chance.normal(size=(count, 4)).astype("float32"), "words": chance.integers(0, 7, (count, 3))}


def rewritten(place: Path, change: Callable[[str, bytes], bytes | None], **added: bytes) -> Path:
    """Change the files in a model; None removes one."""
    file = place / "model.keras"
    with zipfile.ZipFile(file) as old:
        parts = {name: change(name, old.read(name)) for name in old.namelist()}
    with zipfile.ZipFile(file, "w") as new:
        for name, content in {**parts, **added}.items():
            if content is not None:
                new.writestr(name, content)
    return place


def forged(place: Path, change: Callable[[Any], Any]) -> Path:
    """Change config.json of a model."""

    def changed(name: str, content: bytes) -> bytes:
        if name != "config.json":
            return content
        found = json.loads(content)
        change(found)
        return json.dumps(found).encode()

    return rewritten(place, changed)


def problems(place: Path) -> list[str]:
    try:
        spec = gateway_keras.find_model(place, {})
    except Exception as error:
        return [str(error)]
    assert spec is not None, f"{place} is not recognised"
    return [problem.what for problem in gateway_keras.check_model(spec)]


def loaded(place: Path, monkeypatch: pytest.MonkeyPatch) -> KerasModel:
    spec = gateway_keras.find_model(place, {})
    assert spec is not None, f"{place} is not recognised"
    monkeypatch.chdir(place)
    model = KerasModel(spec.config)
    model.load()
    return model


def refusal(model: Any, body: Any) -> str:
    try:
        model.predict(body)
    except BadRequest as error:
        assert 0 < len(error.message) < 2000
        return error.message
    raise AssertionError(f"{body} was answered")
