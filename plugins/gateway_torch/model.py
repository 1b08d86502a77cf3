"""`ExportedModel` and `ScriptModel`: predict of a program, from named tensors to named tensors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway_tensors.schema import example, schema, with_example
from gateway_tensors.types import Type, Value
from gateway_tensors.values import Inputs
from gateway_tensors.with_torch import device, named, refusal, words

from gateway import BadRequest, ConfigError, InvalidOutput, weights_path

from .archives import TorchArchive
from .detection import model_file
from .loadable import broken, check_file, program_of, script_of
from .signature import declared_inputs, output_names, script_type

# Without it, the library reads the pickles of a program in full where it cannot read them as weights.
WEIGHTS_ONLY, NOT_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


class _Program:
    """A loaded program. `compute` gets the arrays of a request by input."""

    inputs: Inputs

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.options = config.get("options") or {}
        self.input_schema: dict[str, Any] | None = None
        self.output_schema: dict[str, Any] | None = None

    def _file(self) -> Path:
        root = Path.cwd()
        file = model_file(weights_path(self.config, root), root, self.options)
        check_file(file, self.options)
        self._names = output_names(self.options)
        os.environ[WEIGHTS_ONLY] = "1"
        os.environ.pop(NOT_ONLY, None)
        self._device = device()
        return file

    def _takes(self, request: dict[str, Any]) -> bool:
        try:
            self.predict(request)
        except (BadRequest, MemoryError):
            return False
        return True

    def _schemas(self, values: list[Value]) -> None:
        request = example(values, self._takes)
        self.input_schema = with_example(schema(values), request)

    def compute(self, feed: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    def predict(self, inputs: Any) -> dict[str, Any]:
        import torch

        feed = self.inputs.read(inputs)
        try:
            with torch.no_grad():
                found = self.compute(feed)
        except Exception as error:
            raise refusal(error) from error
        try:
            return named(found, self._names)
        except ValueError as error:
            names = f"{len(self._names or ())} names, but the program returns another number of results"
            raise InvalidOutput(f"config.yaml: options: outputs has {names}") from error

    def tensor(self, value: Any, is_brain: bool = False) -> Any:
        """Return what the program gets for an array, or for a list of arrays."""
        import torch

        if isinstance(value, list):
            return [self.tensor(each, is_brain) for each in value]
        found = torch.from_numpy(value if value.flags.writeable else value.copy())
        return found.to(device=self._device, dtype=torch.bfloat16 if is_brain else None)


class ExportedModel(_Program):
    def load(self) -> None:
        import torch
        from torch.export.passes import move_to_device_pass

        file = self._file()
        self._program = program_of(file, TorchArchive(file), self.options)
        wrong = self._program.devices - {"cpu", "meta"}
        if wrong and self._device == "cpu":
            names = ", ".join(sorted(wrong))
            raise ConfigError(f"{file} was exported on {names}: give the model a GPU, or export it on a CPU")
        try:
            found = torch.export.load(str(file))
        except Exception as error:
            raise ConfigError(f"{file} cannot be loaded by PyTorch {torch.__version__}: {words(error)}") from error
        if self._device != "cpu":
            found = move_to_device_pass(found, self._device)
        self._spec = found.call_spec.in_spec
        self._module = found.module(check_guards=False)  # these are source code; shapes are compared all the same
        values = self._program.values
        self.inputs = Inputs(values, divides=self._program.divides)
        outputs = self._program.outputs
        if self._names is not None:
            if len(self._names) != len(outputs):
                raise ConfigError(f"config.yaml: options: outputs has to have {len(outputs)} names")
            outputs = tuple(Value(name, each.type) for name, each in zip(self._names, outputs, strict=True))
        self.output_schema = schema(outputs, of_outputs=True)
        self._schemas(values)

    def compute(self, feed: Mapping[str, Any]) -> Any:
        from torch.utils._pytree import tree_unflatten

        leaves = []
        for each in self._program.inputs:
            if each.type is None:
                leaves.append(each.value)
            elif each.is_number:
                leaves.append(feed[each.name].item())
            else:
                leaves.append(self.tensor(feed[each.name], each.is_brain))
        args, keywords = tree_unflatten(leaves, self._spec)
        return self._module(*args, **keywords)


class ScriptModel(_Program):
    def load(self) -> None:
        import torch

        file = self._file()
        divides = script_of(file, TorchArchive(file), self.options)
        try:
            self._module = torch.jit.load(str(file), map_location=self._device).eval()
            arguments = self._module.forward.schema.arguments[1:]
        except Exception as error:
            raise ConfigError(f"{file} cannot be loaded by PyTorch {torch.__version__}: {words(error)}") from error
        declared = declared_inputs(self.options)
        have = [each.name for each in arguments]
        if unknown := sorted(declared.keys() - set(have)):
            raise ConfigError(f"config.yaml: options: inputs: the program has no {unknown[0]!r} (have: {have})")
        values, self._brains = [], {name for name, (_, is_brain) in declared.items() if is_brain}
        self._numbers = set()
        for each in arguments:
            if (kind := _typed(str(each.type), declared.get(each.name))) is None:
                if each.has_default_value():
                    continue
                raise broken(file, ValueError(f"its argument {each.name} is a {each.type}, which JSON cannot have"))
            if "Tensor" not in str(each.type):
                self._numbers.add(each.name)
            values.append(Value(each.name, kind, each.has_default_value()))
        self.inputs = Inputs(values, divides=divides)
        self._schemas(values)

    def compute(self, feed: Mapping[str, Any]) -> Any:
        found = {
            name: value.tolist() if name in self._numbers else self.tensor(value, name in self._brains)
            for name, value in feed.items()
        }
        for name, value in self.inputs.values.items():  # what may be null has no default in TorchScript
            if name not in found and not value.has_default:
                found[name] = None
        return self._module(**found)


def _typed(text: str, declared: tuple[Type, bool] | None) -> Type | None:
    """Return the type of an argument of TorchScript, with the type and shape that the options give to its tensor."""
    found = script_type(text)
    if found is None or declared is None:
        return found
    return _within(found, declared[0])


def _within(kind: Type, tensor: Type) -> Type:
    return tensor if kind.inner is None else Type(kind.kind, inner=_within(kind.inner, tensor))
