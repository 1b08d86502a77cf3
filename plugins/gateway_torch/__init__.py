"""Serve a program of PyTorch without its code: torch.export (`.pt2`) and TorchScript; named tensors in, tensors out.

The hooks are here, and import the other modules when they are called. `detection` finds the file, `archives` reads what
is in it, `exported` and `script` check that it is only a computation, without PyTorch. `ExportedModel` and
`ScriptModel` in `model` answer predict.

Options in config.yaml: `file`, the name of the program if there are several; `inputs` of TorchScript, whose files do
not say which types and shapes they take: `inputs: {ids: "int64 [n, 8]"}`; `outputs`, names of the results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway import ConfigError, Format, ModelSpec, Problem, describe, hookimpl, peek_config, peek_weights

TARGETS = {"exported": "gateway_torch.model:ExportedModel", "script": "gateway_torch.model:ScriptModel"}
FORMAT = Format(
    files="*.pt2; *.pt, *.pth, *.torchscript, *.ts, *.jit that are TorchScript",
    routes=("predict", "/v2/models/{id}/infer"),
    needs=("torch", "numpy"),
    install="pip install 'model-gateway[torch]'",
)


@hookimpl
def register_formats(register: Callable[[str, Format], None]) -> None:
    register("torch", FORMAT)


@hookimpl
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    from .detection import FRAMEWORK, is_ours, kind_of, model_file

    if not is_ours(path):
        return None
    kind = "exported"
    if place := peek_weights(path):
        options = {**(peek_config(path).get("options") or {}), **(overrides.get("options") or {})}
        kind = kind_of(model_file(place, path, options)) or kind
    return describe(
        path,
        target=TARGETS[kind],
        format=FRAMEWORK,
        overrides=overrides,
        needs=FORMAT.needs,
        install=FORMAT.install,
    )


@hookimpl
def check_model(spec: ModelSpec) -> Iterator[Problem]:
    """Report a file that is damaged, or that is more than a computation. PyTorch is not imported."""
    from .detection import model_file
    from .loadable import check_file

    if spec.target not in TARGETS.values() or (place := peek_weights(spec.root)) is None:
        return
    try:
        options = spec.config.get("options") or {}
        check_file(model_file(place, spec.root, options), options)
    except ConfigError as error:
        yield Problem(where=str(spec.root), what=str(error), code="unloadable", model=spec.name)
