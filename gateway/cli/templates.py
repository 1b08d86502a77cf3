"""The files that `gateway new` writes, and what to do next. `{name}` is the name of the directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Template:
    about: str
    files: Mapping[str, str]
    before: tuple[str, ...] = ()  # commands to run before the model can be served; {path} is the directory
    ask: str = ""  # a command that tries the model


CHAT = '''\
class Model:
    """Repeats the last message, one word at a time."""

    def load(self):
        self.greeting = "You said:"  # do slow work here: load weights, open connections

    def chat_completions(self, body):
        said = body["messages"][-1]["content"]
        yield self.greeting
        for word in str(said).split():
            yield f" {word}"
'''

PREDICT = """\
from pydantic import BaseModel


class Input(BaseModel):
    text: str = "Hello there"


class Model:
    def load(self):
        self.vowels = set("aeiou")  # do slow work here: load weights, open connections

    def predict(self, inputs: Input) -> dict:
        text = inputs.text
        return {"words": len(text.split()), "vowels": sum(letter in self.vowels for letter in text.lower())}
"""

EMBEDDINGS = '''\
import math
import zlib

DIMENSIONS = 64


class Model:
    """Hashes words into 64 dimensions: texts that share words get similar vectors."""

    def embeddings(self, body):
        return [self.embed(text) for text in body["input"]]

    def embed(self, text):
        vector = [0.0] * DIMENSIONS
        for word in text.lower().split():
            vector[zlib.crc32(word.encode()) % DIMENSIONS] += 1.0
        length = math.hypot(*vector) or 1.0
        return [value / length for value in vector]
'''

TRUSS_CONFIG = """\
model_name: {name}
runtime:
  predict_concurrency: 1
requirements: []
resources:
  cpu: "1"
  memory: 1Gi
"""

TRUSS = """\
class Model:
    def __init__(self, **kwargs):
        self._config = kwargs["config"]
        self._secrets = kwargs["secrets"]
        self._data_dir = kwargs["data_dir"]

    def load(self):
        self._name = self._config["model_name"]

    def predict(self, model_input):
        return {"model": self._name, "input": model_input}
"""

SKLEARN = '''\
"""Train the model of this directory: python train.py"""

from pathlib import Path

import skops.io
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

flowers, kinds = load_iris(return_X_y=True)
model = LogisticRegression(max_iter=1000).fit(flowers, kinds)
skops.io.dump(model, Path(__file__).parent / "model.skops")
'''

SKLEARN_CONFIG = """\
model_name: {name}
framework: sklearn
"""

TRANSFORMERS_CONFIG = """\
model_name: {name}
framework: transformers
weights:
  - source: hf://HuggingFaceTB/SmolLM2-135M-Instruct
"""

TEMPLATES: Mapping[str, Template] = {
    "chat": Template("a class whose chat_completions yields text", {"model.py": CHAT}, ask="gateway chat {name} hello"),
    "predict": Template(
        "a class whose predict takes a Pydantic model",
        {"model.py": PREDICT},
        ask="gateway predict {name} -i text=hello",
    ),
    "embeddings": Template(
        "a class that turns texts into vectors",
        {"model.py": EMBEDDINGS},
        ask="""curl {url}/v1/embeddings {key}-d '{{"model": "{name}", "input": "hello"}}'""",
    ),
    "truss": Template(
        "a Truss: config.yaml and model/model.py",
        {"config.yaml": TRUSS_CONFIG, "model/__init__.py": "", "model/model.py": TRUSS},
        ask="gateway predict {name} -i text=hello",
    ),
    "sklearn": Template(
        "a scikit-learn model, and the script that trains it",
        {"config.yaml": SKLEARN_CONFIG, "train.py": SKLEARN},
        before=("pip install 'model-gateway[sklearn]'", "python {path}/train.py"),
        ask="""gateway predict {name} -d '{{"inputs": [[5.1, 3.5, 1.4, 0.2]]}}'""",
    ),
    "transformers": Template(
        "a language model by its name, without code",
        {"config.yaml": TRANSFORMERS_CONFIG},
        before=("pip install 'model-gateway[transformers]'",),
        ask="gateway chat {name} hello",
    ),
}
