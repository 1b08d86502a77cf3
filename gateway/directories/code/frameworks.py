"""Recognise classes that were written for another server, and name the corresponding methods of a model.

Renaming such a class does not make it a model: its methods have other names. Values and syntax trees only.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Written:
    """One row. Such classes are recognised by a base, a decorator or, if both are empty, by their own name."""

    what: str  # "written for LitServe"
    packages: str  # packages that provide the base or the decorator
    names: str  # names of bases and decorators; empty means any of these packages
    own: str  # names of the class itself
    instead: str  # the corresponding methods of a model

    @property
    def is_network(self) -> bool:
        """Return whether it is a neural network that a model uses: its class may have a model's methods too."""
        return self.instead == _NETWORK


_MODEL = "write a class Model"
_NETWORK = f"{_MODEL} whose load creates it with its weights, and whose predict(inputs) calls it"

WRITTEN = (
    Written(
        "written for Triton's Python backend",
        "triton_python_backend_utils",
        "",
        "TritonPythonModel",
        f"{_MODEL}: load in place of initialize, predict(inputs) for one request of execute, unload of finalize",
    ),
    Written(
        "a handler of TorchServe",
        "ts",
        "",
        "BaseHandler",
        f"{_MODEL}: load in place of initialize, predict(inputs) of handle, preprocess and postprocess as they are",
    ),
    Written(
        "a service of BentoML",
        "bentoml",
        "service Runnable Service",
        "",
        f"{_MODEL}: load in place of __init__, predict(inputs) of a method under @bentoml.api",
    ),
    Written(
        "an API of LitServe",
        "litserve",
        "LitAPI LitSpec",
        "",
        f"{_MODEL}: load in place of setup, predict(inputs) of decode_request, predict and encode_response",
    ),
    Written(
        "written for MLServer",
        "mlserver",
        "",
        "",
        f"{_MODEL}: load(self), not async, and predict(inputs), which gets the body unchanged, not an InferenceRequest",
    ),
    Written(
        "written for KServe",
        "kserve kfserving",
        "",
        "",
        f"{_MODEL}: load(self), and predict(inputs), which gets the body and no headers as a second argument",
    ),
    Written(
        "a deployment of Ray Serve",
        "ray",
        "deployment ingress",
        "",
        f"{_MODEL}: load in place of __init__, predict(inputs) of __call__",
    ),
    Written(
        "a worker of mosec",
        "mosec",
        "Worker TypedMsgPackMixin SSEWorker",
        "",
        f"{_MODEL}: load in place of __init__, predict(inputs) of deserialize, forward and serialize",
    ),
    Written(
        "a predictor of Cog",
        "cog",
        "BasePredictor BaseRunner",
        "",
        f"{_MODEL}: load in place of setup, predict(inputs), which gets one object, not an argument for each field",
    ),
    Written(
        "an MLflow PythonModel",
        "mlflow",
        "PythonModel",
        "",
        f"{_MODEL}: load in place of load_context, predict(inputs) of predict(context, model_input)",
    ),
    Written(
        "a part of a Truss Chain",
        "truss_chains",
        "",
        "",
        f"{_MODEL}: load in place of __init__, predict(inputs) of run_remote",
    ),
    Written(
        "a predictor of Vertex AI",
        "google",
        "Predictor",
        "",
        f"{_MODEL}: load in place of load(artifacts_uri), preprocess, predict and postprocess as they are",
    ),
    Written(
        "an executor of Jina", "jina", "Executor", "", f"{_MODEL}: load in place of __init__, predict of @requests"
    ),
    Written(
        "written for Seldon",
        "seldon_core",
        "",
        "",
        f"{_MODEL}: load, and predict(inputs), which gets no names and no meta",
    ),
    Written(
        "a class of Modal",
        "modal",
        "cls",
        "",
        f"{_MODEL}: load in place of what @modal.enter marks, predict(inputs) of what @modal.method marks",
    ),
    Written(
        "a handler of Hugging Face's endpoints",
        "",
        "",
        "EndpointHandler",
        f"{_MODEL}: load in place of __init__, predict(inputs) of __call__",
    ),
    Written("a network of PyTorch", "torch torchvision timm lightning pytorch_lightning", "", "", _NETWORK),
    Written("a network of TensorFlow", "tensorflow keras", "", "", _NETWORK),
    Written("a network of JAX", "flax equinox haiku", "", "", _NETWORK),
    Written("a model of transformers", "transformers", "", "", _NETWORK),
)


def written(module: ast.Module, node: ast.ClassDef) -> Written | None:
    """Return what the class was written for, if its source or that of a base class in the same file tells."""
    classes = {item.name: item for item in ast.walk(module) if isinstance(item, ast.ClassDef)}
    sources = dict(_sources(module))
    line, seen = [node], {node.name}
    for here in line:  # grows inside the loop
        if found := _row(here, sources):
            return found
        bases = [classes[base.id] for base in here.bases if isinstance(base, ast.Name) and base.id in classes]
        line += [base for base in bases if base.name not in seen]
        seen |= {base.name for base in bases}
    return None


def _row(node: ast.ClassDef, sources: Mapping[str, str]) -> Written | None:
    marks = [node_of for each in (*node.bases, *node.decorator_list) if (node_of := _dotted(each))]
    packages = {source.partition(".")[0] for source in sources.values()}
    for row in WRITTEN:
        if node.name in row.own.split():
            return row
        for mark in marks:
            first, _, rest = mark.partition(".")
            full = f"{sources[first]}.{rest}".rstrip(".") if first in sources else mark
            is_there = full.partition(".")[0] in row.packages.split()
            if not is_there and first not in sources and rest:  # an attribute of an object from the package: @app.cls
                is_there = bool(row.names) and bool(packages & set(row.packages.split()))
            if is_there and (not row.names or full.rpartition(".")[2] in row.names.split()):
                return row
    return None


def _sources(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield names and where they were imported from."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                yield name, alias.name if alias.asname else name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _dotted(node: ast.expr) -> str:
    """Return `a.b` for `a.b`, `a.b(…)` and `a.b[…]`; "" for anything else."""
    while isinstance(node, (ast.Call, ast.Subscript)):
        node = node.func if isinstance(node, ast.Call) else node.value
    if isinstance(node, ast.Attribute):
        inner = _dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return node.id if isinstance(node, ast.Name) else ""
