"""A class that was written for another server says so, and what a model has in the place of its methods."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.directories.code.frameworks import written
from gateway.directories.code.source import inspect_source
from gateway.directories.discovery import discover
from gateway.plugins import Plugins

# The file of a model for each server, and words of the line about it.
FILES = {
    "Triton": (
        "import triton_python_backend_utils as pb_utils\nclass TritonPythonModel:\n  def initialize(self, args): ...\n"
        "  def execute(self, requests): ...\n",
        "TritonPythonModel is written for Triton's Python backend: .*load in place of initialize, predict",
    ),
    "TorchServe": (
        "from ts.torch_handler.base_handler import BaseHandler\nclass ImageClassifier(BaseHandler):\n"
        "  def initialize(self, context): ...\n  def handle(self, data, context): ...\n",
        "ImageClassifier is a handler of TorchServe: .*load in place of initialize",
    ),
    "a subclass": (
        "from ts.torch_handler import base_handler as it\nclass Base(it.BaseHandler): ...\nclass Mine(Base): ...\n",
        "Mine is a handler of TorchServe",
    ),
    "a network": (
        "from torchvision.models.resnet import ResNet, BasicBlock\nclass ImageClassifier(ResNet):\n"
        "  def __init__(self): ...\n",
        r"ImageClassifier is a network of PyTorch: write a class Model whose load creates it.*predict.inputs. calls it",
    ),
    "BentoML": (
        "import bentoml\n@bentoml.service(resources={})\nclass Sum:\n  @bentoml.api\n  def predict(self, text): ...\n",
        "Sum is a service of BentoML: .*@bentoml.api",
    ),
    "LitServe": (
        "import litserve as ls\nclass MyAPI(ls.LitAPI):\n  def setup(self, device): ...\n  def predict(self, x): ...\n",
        "MyAPI is an API of LitServe: .*load in place of setup",
    ),
    "MLServer": (
        "from mlserver import MLModel\nclass Mine(MLModel):\n  async def load(self): ...\n"
        "  async def predict(self, payload): ...\n",
        "Mine is written for MLServer: ",
    ),
    "KServe": (
        "import kserve\nclass Mine(kserve.Model):\n  def predict(self, payload, headers=None): ...\n",
        "Mine is written for KServe: ",
    ),
    "Ray Serve": (
        "from ray import serve\n@serve.deployment(num_replicas=2)\nclass Mine:\n  def __call__(self, request): ...\n",
        "Mine is a deployment of Ray Serve: .*__call__",
    ),
    "mosec": ("from mosec import Worker as W\nclass Mine(W):\n  def forward(self, data): ...\n", "a worker of mosec: "),
    "Cog": (
        "from cog import BasePredictor, Input\nclass Predictor(BasePredictor):\n  def setup(self): ...\n"
        "  def predict(self, prompt: str = Input()): ...\n",
        "Predictor is a predictor of Cog: .*load in place of setup",
    ),
    "MLflow": ("import mlflow.pyfunc\nclass Mine(mlflow.pyfunc.PythonModel): ...\n", "Mine is an MLflow PythonModel: "),
    "Modal": ("import modal\napp = modal.App()\n@app.cls(gpu='L4')\nclass Mine: ...\n", "Mine is a class of Modal"),
    "endpoints": ("class EndpointHandler:\n  def __call__(self, data): ...\n", "a handler of Hugging Face's endpoints"),
    "Seldon": ("from seldon_core.user_model import SeldonComponent\nclass M(SeldonComponent): ...\n", "for Seldon: "),
}


@pytest.mark.parametrize("kind", FILES)
def test_another_name_is_not_advised_where_the_class_was_written_for_something_else(kind: str, tmp_path: Path) -> None:
    source, says = FILES[kind]
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.py").write_text(source)
    (problem,) = discover([tmp_path], Plugins.load()).problems
    assert "no class Model in model.py" in problem.what
    text = f"{problem.what} {problem.fix}"
    assert re.search(says, text), text
    assert "model_class_name" not in text


@pytest.mark.parametrize(
    ("source", "level"),
    [
        ("import litserve as ls\nclass Model(ls.LitAPI):\n  def predict(self, x): ...\n", "warning"),
        ("from kserve import Model as M\nclass Model(M):\n  def predict(self, payload): ...\n", "warning"),
        ("from mosec import Worker\nclass Model(Worker):\n  def forward(self, data): ...\n", "error"),
    ],
)
def test_a_class_by_the_right_name_that_another_server_calls_is_told(source: str, level: str, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(source)
    (problem,) = inspect_source(tmp_path / "model.py", "Model")
    assert (problem.code, problem.level) == ("other_framework", level)
    assert problem.fix.startswith("write a class Model: load")


@pytest.mark.parametrize(
    "source",
    [
        "from torch import nn\nclass Model(nn.Module):\n  def predict(self, x): ...\n",
        "import bentoml\nclass Model:\n  def predict(self, x): ...\n",
        "from .base import Worker\nclass Model(Worker):\n  def predict(self, x): ...\n",
        "import modal\n@cached.cls\nclass Other: ...\nclass Model:\n  def predict(self, x): ...\n",
    ],
)
def test_a_class_that_is_a_models_own_is_left_alone(source: str, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(source)
    assert inspect_source(tmp_path / "model.py", "Model") == []


def test_a_class_of_a_models_kind_beside_a_foreign_one_is_the_one_that_is_named(tmp_path: Path) -> None:
    text = FILES["LitServe"][0] + "class Sentiment:\n  def predict(self, inputs): ...\n"
    (tmp_path / "model.py").write_text(text)
    (problem,) = inspect_source(tmp_path / "model.py", "Model")
    assert problem.fix == "rename Sentiment to Model, or write model_class_name: Sentiment into config.yaml"


def test_a_function_that_another_server_calls_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("def model_fn(model_dir): ...\ndef predict_fn(data, model): ...\n")
    (problem,) = inspect_source(tmp_path / "model.py", "Model")
    assert problem.fix == "write class Model with a method predict that calls predict_fn"


BASES = st.sampled_from(["A", "B", "B.C", "ts.X", "f()", "f().x", "x[1]", "(lambda: 0)", "1", "*z", "A[B].c()"])


@given(
    st.lists(st.tuples(st.sampled_from("ABC"), st.lists(BASES, max_size=3), st.lists(BASES, max_size=2)), max_size=4)
)
def test_any_bases_and_decorators_are_looked_at(classes: list[tuple[str, list[str], list[str]]]) -> None:
    marks = ("".join(f"@{each.lstrip('*')}\n" for each in decorators) for _, _, decorators in classes)
    lines = [
        f"{mark}class {name}({', '.join(bases)}): ..." for mark, (name, bases, _) in zip(marks, classes, strict=True)
    ]
    module = ast.parse("import ts\n" + "\n".join(lines))
    for node in module.body:
        if isinstance(node, ast.ClassDef):
            found = written(module, node)
            assert found is None or found.what == "a handler of TorchServe"
