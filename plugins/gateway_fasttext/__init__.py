"""Serve a file of fastText, `.bin` or `.ftz`: labels of texts, and vectors of words and sentences.

The hooks are here, and import the other modules when they are called. `structure` checks a file before the library gets
it, because that trusts every number in it. `FastTextClassifier` and `FastTextEmbedder` in `model` answer, with
`requests`, which reads the fields of a request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway import ConfigError, Format, ModelSpec, Problem, describe, hookimpl, peek_weights

FRAMEWORK = "fasttext"
TARGETS = {
    "classifier": "gateway_fasttext.model:FastTextClassifier",
    "embedder": "gateway_fasttext.model:FastTextEmbedder",
}
SAVE = "save_model of fastText, as model.bin"
FORMAT = Format(
    files="*.bin, *.ftz",
    routes=("predict", "/v1/classify", "/v1/decisions", "/v1/embeddings"),
    needs=("fasttext", "numpy"),
    install="pip install 'model-gateway[fasttext]'",
)
SLOTS = 4  # a loaded model is only read


@hookimpl
def register_formats(register: Callable[[str, Format], None]) -> None:
    register(FRAMEWORK, FORMAT)


@hookimpl
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    from gateway_tabular.files import is_ours, model_file

    from .structure import is_classifier, is_model

    if not is_ours(path, FRAMEWORK, is_model):
        return None
    kind = "classifier"
    if place := peek_weights(path):
        kind = "classifier" if is_classifier(model_file(place, path, FRAMEWORK, is_model, SAVE)) else "embedder"
    return describe(
        path,
        target=TARGETS[kind],
        format=FRAMEWORK,
        overrides=overrides,
        slots=SLOTS,
        needs=FORMAT.needs,
        install=FORMAT.install,
    )


@hookimpl
def check_model(spec: ModelSpec) -> Iterator[Problem]:
    """Report a file that is damaged. fastText is not imported."""
    from gateway_tabular.files import model_file

    from .structure import check_file, is_model

    if spec.target not in TARGETS.values() or (place := peek_weights(spec.root)) is None:
        return
    try:
        check_file(model_file(place, spec.root, FRAMEWORK, is_model, SAVE))
    except ConfigError as error:
        yield Problem(where=str(spec.root), what=str(error), code="unloadable", model=spec.name)
