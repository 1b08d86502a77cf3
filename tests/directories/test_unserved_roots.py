"""A directory that is one model which nobody serves, given as the root itself, has the line of one below a root."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from gateway.directories.discovery import discover
from gateway.plugins import Plugins

PICKLE = pickle.dumps({"a": 1})
JSON = b"{}"
# What is in the directory, and how the line about it begins. In many a plugin would take the parts for broken models.
WHOLE: dict[str, tuple[dict[str, bytes], str]] = {
    "autogluon": (
        {
            "predictor.pkl": PICKLE,
            "learner.pkl": PICKLE,
            "models/LightGBM/model.pkl": PICKLE,
            "models/trainer.pkl": b"",
        },
        "a predictor of AutoGluon (predictor.pkl)",
    ),
    "mlflow": ({"MLmodel": b"flavors: {}", "artifacts/clf/model.pkl": PICKLE}, "an MLflow model (MLmodel)"),
    "mlserver": ({"model-settings.json": JSON, "one/model.pkl": PICKLE}, "a model of MLServer"),
    "bento": ({"bento.yaml": b"service: x", "models/a/model.pkl": PICKLE}, "a Bento (bento.yaml)"),
    "savedmodel": (
        {"saved_model.pb": b"x", "variables/variables.data-00000-of-00001": b"x", "assets/a.pkl": PICKLE},
        "a TensorFlow SavedModel (saved_model.pb)",
    ),
    "kaldi": ({"am/final.mdl": b"x", "conf/mfcc.conf": b"", "ivector/final.ie": b"x"}, "a Kaldi model (am/final.mdl)"),
    "orbax": (
        {"_CHECKPOINT_METADATA": JSON, "default/manifest.ocdbt": b"x", "default/d/ab": b""},
        "a checkpoint of Orbax",
    ),
    "coreml": ({"coremldata.bin": b"x", "weights/weight.bin": b"x"}, "a Core ML model (coremldata.bin)"),
    "mlpackage": (
        {"Manifest.json": b'{"itemInfoEntries": {}}', "Data/com.apple.CoreML/weights/weight.bin": b"x"},
        "a Core ML model (Manifest.json)",
    ),
    "rasa": (
        {"metadata.json": b'{"rasa_open_source_version": "3"}', "components/train_x/model.pkl": PICKLE},
        "a model of Rasa, unpacked",
    ),
    "gluonts": ({"type.txt": b"gluonts.torch.x", "prediction_net.pt": b"x"}, "a predictor of GluonTS (type.txt)"),
    "spark": (
        {"metadata/part-00000": b"org.apache.spark.ml.PipelineModel", "stages/0/model.pkl": PICKLE},
        "a model of Spark ML",
    ),
    "diffusers": (
        {"model_index.json": b'{"_class_name": "WanPipeline"}', "unet/diffusion_pytorch_model.safetensors": b"x"},
        "a diffusers WanPipeline",
    ),
    "triton": ({"config.pbtxt": b"name: 'x'", "1/model.pkl": PICKLE}, "a model of Triton's repository"),
    "adapter": (
        {"adapter_config.json": JSON, "checkpoint-1/adapter_config.json": JSON, "checkpoint-1/model.pkl": PICKLE},
        "an adapter, not a whole model",
    ),
}


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins.load()


@pytest.mark.parametrize("kind", WHOLE)
def test_the_root_has_the_line_that_a_directory_below_it_has(kind: str, plugins: Plugins, tmp_path: Path) -> None:
    files, says = WHOLE[kind]
    root = write(tmp_path / kind, files)
    for given in (root, tmp_path):
        found = discover([given], plugins)
        (problem,) = found.problems
        assert (found.specs, problem.where, problem.code, problem.model) == ((), str(root), "unserved", kind)
        assert problem.what.startswith(says)


def test_what_says_itself_that_it_is_a_model_keeps_its_line_there(plugins: Plugins, tmp_path: Path) -> None:
    root = write(
        tmp_path, {**WHOLE["autogluon"][0], "mine/model.py": b"class Model", "own/config.yaml": b"model_name: ["}
    )
    problems = {problem.model: problem.code for problem in discover([root], plugins).problems}
    assert problems == {root.name: "unserved", "mine": "invalid_model", "own": "invalid_model"}


def test_a_file_that_may_have_been_dropped_into_a_root_takes_no_line_of_others_away(
    plugins: Plugins, tmp_path: Path
) -> None:
    root = write(tmp_path, {"face.pdmodel": b"x", "iris/model.pkl": PICKLE})
    problems = {problem.model: problem.code for problem in discover([root], plugins).problems}
    assert problems == {root.name: "unserved", "iris": "invalid_model"}
