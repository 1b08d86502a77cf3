"""`KerasModel`: predict of a model of Keras, from named tensors to named tensors, computed by PyTorch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway_tabular.files import model_file
from gateway_tensors.schema import example, schema, with_example
from gateway_tensors.types import Type, Value
from gateway_tensors.values import Inputs
from gateway_tensors.with_torch import named, refusal, words

from gateway import BadRequest, ConfigError, weights_path

from . import FRAMEWORK, SAVE
from .structure import check_file, is_model

ELEMENTS = frozenset("float16 float32 float64 int8 int16 int32 int64 uint8 bool".split())


class KerasModel:
    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.input_schema: dict[str, Any] | None = None
        self.output_schema: dict[str, Any] | None = None

    def load(self) -> None:
        root = Path.cwd()
        file = model_file(weights_path(self.config, root), root, FRAMEWORK, is_model, SAVE)
        check_file(file)
        keras = _library()
        self._packed = keras.tree.pack_sequence_as  # inputs, as the model has them: in lists or dictionaries
        check_weights(file)
        try:
            self._model = keras.models.load_model(str(file), compile=False, safe_mode=True)
        except Exception as error:  # the library has many classes
            raise ConfigError(f"{file} cannot be loaded by Keras {keras.__version__}: {words(error)}") from error
        if not self._model.inputs:
            raise ConfigError(
                f"{file} does not say what it takes: give the first layer a keras.Input, and save it again"
            )
        self._structure = getattr(self._model, "input", self._model.inputs[0])  # a Sequential has one input
        values = [_value(file, each) for each in self._model.inputs]
        self.inputs = Inputs(values)
        self._names = [each.name for each in values]
        outputs = self._model.outputs
        # A Sequential has no names of outputs.
        names = getattr(self._model, "output_names", None) or [self._model.layers[-1].name]
        self._outputs = _distinct(list(names), len(outputs))
        pairs = zip(self._outputs, outputs, strict=True)
        self.output_schema = schema([Value(name, _type(each)) for name, each in pairs], of_outputs=True)
        self.input_schema = with_example(schema(values), example(values, self._takes))

    def _takes(self, request: dict[str, Any]) -> bool:
        try:
            self.predict(request)
        except (BadRequest, MemoryError):
            return False
        return True

    def predict(self, inputs: Any) -> dict[str, Any]:
        import torch

        feed = self.inputs.read(inputs)
        try:
            with torch.no_grad():
                leaves = [feed[name] for name in self._names]
                found = self._model(self._packed(self._structure, leaves), training=False)
        except Exception as error:
            raise refusal(error) from error
        return named(found if isinstance(found, Mapping) else list(_leaves(found)), self._outputs)


def _leaves(found: Any) -> Any:
    return found if isinstance(found, (tuple, list)) else (found,)


def _library() -> Any:
    """Return Keras, which computes with PyTorch whatever the settings of the user say, and writes none there."""
    os.environ["KERAS_BACKEND"] = "torch"
    os.environ["KERAS_HOME"] = os.path.join(os.environ.get("TMPDIR", "/tmp"), "keras")
    import keras

    if keras.backend.backend() != "torch":
        raise ConfigError(f"Keras computes with {keras.backend.backend()} here, and the gateway serves it with torch")
    return keras


def check_weights(file: Path) -> None:
    """Check that the weights are in the file itself: HDF5 can refer to other files of this machine.

    Raises:
        ConfigError: they are not, or are damaged.
    """
    import zipfile

    import h5py

    try:
        with zipfile.ZipFile(file) as archive, archive.open("model.weights.h5") as packed, h5py.File(packed) as found:
            _check_group(file, found)
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{file} cannot be served: its weights are damaged ({words(error)})") from error


def _check_group(file: Path, group: Any) -> None:
    import h5py

    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise ConfigError(f"{file} cannot be served: its weights refer to another place ({name[:60]!a})")
        part = group[name]
        if isinstance(part, h5py.Group):
            _check_group(file, part)
        elif part.external or part.is_virtual:
            raise ConfigError(f"{file} cannot be served: its weights are in another file ({name[:60]!a})")


def _value(file: Path, tensor: Any) -> Value:
    kind = _type(tensor)
    if kind.element not in ELEMENTS:
        raise ConfigError(f"{file}: its input {tensor.name} is {tensor.dtype}, which is not served")
    return Value(tensor.name, kind)


def _type(tensor: Any) -> Type:
    """Return the type of a tensor; bfloat16 is sent and returned as float32."""
    element = "float32" if tensor.dtype == "bfloat16" else str(tensor.dtype)
    return Type("tensor", element, tuple(tensor.shape))


def _distinct(names: list[str], count: int) -> list[str]:
    """Return names for the outputs; the library gives one name to several results of one layer."""
    if len(names) == count and len(set(names)) == count:
        return names
    return ["output"] if count == 1 else [f"output_{place}" for place in range(count)]
