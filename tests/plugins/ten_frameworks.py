"""Ten directories of weights, freshly made by their libraries, and for each of their routes a request with the answer
of the library itself.

Shared by the test that serves all of them at once and by `make test-extras`, which serves each in an environment that
has nothing but its extra. Each library is imported in its own function.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
for folder in (HERE, HERE.parent, *(HERE / f"gateway_{each}" for each in ("spacy", "fasttext", "diffusers", "torch"))):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


@dataclass(frozen=True)
class Ask:
    """A request, and the parts of the answer that the library decides."""

    path: str
    body: Mapping[str, Any]
    wanted: Any


@dataclass(frozen=True)
class Directory:
    """`save` writes the weights into a directory and returns the requests; `extra` is what serving needs."""

    extra: str
    save: Callable[[Path], list[Ask]]


def sklearn(place: Path) -> list[Ask]:
    import skops.io
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    data = load_iris()
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(data.data, data.target_names[data.target])
    skops.io.dump(model, place / "model.skops")
    rows = data.data[::50]
    return _table("sklearn", rows, model.predict(rows).tolist(), model.predict_proba(rows), model.classes_.tolist())


def xgboost(place: Path) -> list[Ask]:
    import xgboost as library
    from sklearn.datasets import load_wine

    data = load_wine()
    model = library.XGBClassifier(n_estimators=5, max_depth=3, n_jobs=1).fit(data.data, data.target)
    model.save_model(place / "model.ubj")
    rows = data.data[::60]
    return _table("xgboost", rows, model.predict(rows).tolist(), model.predict_proba(rows), [0, 1, 2])


def lightgbm(place: Path) -> list[Ask]:
    import lightgbm as library
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    settings = {"objective": "binary", "num_threads": 1, "verbose": -1}
    model = library.train(settings, library.Dataset(data.data, data.target), num_boost_round=5)
    model.save_model(place / "model.txt")
    (place / "config.yaml").write_text("options: {classes: [malignant, benign]}\n")
    rows = data.data[::200]
    benign = model.predict(rows)
    probabilities = [[1 - each, each] for each in benign]
    labels = ["benign" if each >= 0.5 else "malignant" for each in benign]
    return _table("lightgbm", rows, labels, probabilities, ["malignant", "benign"])


def onnx(place: Path) -> list[Ask]:
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    data = load_digits()
    fitted = LogisticRegression(max_iter=300).fit(data.data / 16, data.target)
    sizes = [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 64])]
    made = [
        helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 10]),
    ]
    constants = [
        helper.make_tensor(name, TensorProto.FLOAT, value.shape, value.astype(np.float32).ravel())
        for name, value in (("weights", fitted.coef_.T / 16), ("bias", fitted.intercept_))
    ]
    nodes = [
        helper.make_node("MatMul", ["pixels", "weights"], ["products"]),
        helper.make_node("Add", ["products", "bias"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=-1),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=-1, keepdims=0),
    ]
    graph = helper.make_graph(nodes, "digits", sizes, made, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (place / "model.onnx").write_bytes(model.SerializeToString())
    rows = data.data[::600].astype(np.float32)
    labels, probabilities = onnxruntime.InferenceSession(place / "model.onnx").run(None, {"pixels": rows})
    wanted = {"label": labels.tolist(), "probabilities": probabilities.tolist()}
    return [
        Ask("/v1/models/onnx:predict", {"pixels": rows.tolist()}, wanted),
        _tensors("onnx", {"pixels": ("FP32", rows)}, {"probabilities": probabilities}),
        *_decisions("onnx", json.dumps(rows[0].tolist()), "0", probabilities[0, 0]),
    ]


def pipeline(place: Path) -> list[Ask]:
    from pipeline_folders import ENTITIES, named, save_texts
    from transformers import pipeline as library

    save_texts(place, "AutoModelForTokenClassification", **named(ENTITIES))
    text = "good film a b c d e f"
    found = library("token-classification", model=str(place), device="cpu", aggregation_strategy="simple")(text)
    wanted = [{key: each[key] for key in ("entity_group", "word", "start", "end")} for each in found]
    wanted = [{**one, "score": float(each["score"])} for one, each in zip(wanted, found, strict=True)]
    return [Ask("/v1/models/pipeline:predict", {"inputs": text}, wanted)]


def cross_encoder(place: Path) -> list[Ask]:
    from classifier_folders import save
    from sentence_transformers import CrossEncoder

    save(place, labels=1)
    documents = ["a film", "good", "bad bad film!"]
    scores = CrossEncoder(str(place), device="cpu").predict([("good film", each) for each in documents]).tolist()
    ranked = sorted(range(3), key=lambda index: -scores[index])
    results = [{"index": index, "relevance_score": scores[index]} for index in ranked]
    body = {"model": "cross-encoder", "query": "good film", "documents": documents}
    pairs = {"model": "cross-encoder", "text_1": "good film", "text_2": documents}
    return [
        *(Ask(path, body, {"results": results}) for path in ("/v1/rerank", "/v2/rerank", "/rerank")),
        Ask("/v1/score", pairs, {"data": [{"score": each} for each in scores]}),
    ]


def spacy(place: Path) -> list[Ask]:
    import spacy as library
    from pipelines import train

    train(place)
    text = "Ada likes Paris . Edsger hates Rome ."
    found = library.load(place)(text).to_json()
    wanted = {key: found[key] for key in ("text", "sents", "tokens", "cats")}
    wanted["ents"] = [{key: each[key] for key in ("start", "end", "label")} for each in found["ents"]]
    assert wanted["ents"], "the pipeline has learnt nothing"
    return [Ask("/v1/models/spacy:predict", {"text": text}, wanted)]


def fasttext(place: Path) -> list[Ask]:
    import fasttext as library
    from fasttext_files import trained

    trained(place)
    text = "a lovely film"
    model = library.load_model(str(place / "model.bin"))
    labels, probabilities = model.predict(text, k=3)
    labels = [each.removeprefix("__label__") for each in labels]
    by_label = dict(zip(labels, [min(float(each), 1.0) for each in probabilities], strict=True))
    vector = [float(each) for each in model.get_sentence_vector(text)]
    probs = [by_label[each.removeprefix("__label__")] for each in model.get_labels()]
    predicted = {"labels": labels, "probabilities": [*by_label.values()]}
    return [
        Ask("/v1/models/fasttext:predict", {"text": text, "k": 3}, predicted),
        Ask("/v1/classify", {"model": "fasttext", "input": text}, {"data": [{"label": labels[0], "probs": probs}]}),
        Ask("/v1/embeddings", {"model": "fasttext", "input": text}, {"data": [{"embedding": vector}]}),
        *_decisions("fasttext", text, labels[0], by_label[labels[0]] / sum(by_label.values())),
    ]


def diffusers(place: Path) -> list[Ask]:
    import torch
    from diffusers import DiffusionPipeline
    from tiny_pipelines import save

    save(place)
    library = DiffusionPipeline.from_pretrained(place)
    library.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    (image,) = library("a cat", num_inference_steps=2, generator=generator, height=16, width=16).images
    file = io.BytesIO()
    image.save(file, "PNG")
    body = {"model": "diffusers", "prompt": "a cat", "size": "16x16", "steps": 2, "seed": 3}
    return [Ask("/v1/images/generations", body, {"data": [{"b64_json": base64.b64encode(file.getvalue()).decode()}]})]


def torch_export(place: Path) -> list[Ask]:
    import torch
    from programs import Network, exported, inputs

    exported(place)
    rows, words = inputs(3)
    with torch.no_grad():
        wanted = {name: value.numpy() for name, value in Network().eval()(rows, words).items()}
    body = {"x": rows.tolist(), "words": words.tolist()}
    given = {"x": ("FP32", rows.numpy()), "words": ("INT64", words.numpy())}
    return [
        Ask("/v1/models/torch-export:predict", body, {name: value.tolist() for name, value in wanted.items()}),
        _tensors("torch-export", given, wanted),
    ]


TEN: Mapping[str, Directory] = {
    "sklearn": Directory("sklearn", sklearn),
    "xgboost": Directory("xgboost", xgboost),
    "lightgbm": Directory("lightgbm", lightgbm),
    "onnx": Directory("onnx", onnx),
    "pipeline": Directory("pipelines", pipeline),
    "cross-encoder": Directory("transformers", cross_encoder),
    "spacy": Directory("spacy", spacy),
    "fasttext": Directory("fasttext", fasttext),
    "diffusers": Directory("diffusers", diffusers),
    "torch-export": Directory("torch", torch_export),
}


def save_all(root: Path, names: Any = TEN) -> dict[str, list[Ask]]:
    """Write a directory for each name below `root`, and return their requests."""
    asks = {}
    for name in names:
        (root / name).mkdir(parents=True)
        asks[name] = TEN[name].save(root / name)
    return asks


def _table(name: str, rows: Any, labels: list[Any], probabilities: Any, classes: list[Any]) -> list[Ask]:
    """The three routes of a classifier of tables."""
    numbers = [[float(each) for each in row] for row in probabilities]
    wanted = {"predictions": labels, "probabilities": numbers, "classes": classes}
    line = ",".join(map(repr, map(float, rows[0])))
    tensor = {"name": "inputs", "datatype": "FP64", "shape": list(rows.shape), "data": rows.ravel().tolist()}
    outputs = [{"name": "predictions", "data": labels}]
    tensors = {"inputs": [tensor], "outputs": [{"name": "predictions"}]}
    return [
        Ask(f"/v1/models/{name}:predict", {"inputs": rows.tolist()}, wanted),
        Ask(f"/v2/models/{name}/infer", tensors, {"outputs": outputs}),
        *_decisions(name, line, str(classes[1]), numbers[0][1]),
    ]


def _decisions(name: str, text: str, label: str, probability: float) -> list[Ask]:
    """How likely a label is, on both routes of decisions."""
    openai = {"model": name, "input": text, "questions": [{"type": "predicate", "instructions": label}]}
    system = {"model": name, "state": text, "questions": {"it": {"type": "noul", "instructions": label}}}
    return [
        Ask("/v1/decisions", openai, {"answers": [{"type": "predicate", "probability": float(probability)}]}),
        Ask("/v1/systemone", system, {"answers": {"it": {"type": "noul", "noul": float(probability)}}}),
    ]


def _tensors(name: str, given: Mapping[str, Any], wanted: Mapping[str, Any]) -> Ask:
    inputs = [
        {"name": each, "datatype": kind, "shape": list(value.shape), "data": value.ravel().tolist()}
        for each, (kind, value) in given.items()
    ]
    outputs = [{"name": each, "data": value.ravel().tolist()} for each, value in wanted.items()]
    asked = [{"name": each} for each in wanted]
    return Ask(f"/v2/models/{name}/infer", {"inputs": inputs, "outputs": asked}, {"outputs": outputs})
