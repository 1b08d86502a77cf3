"""What is said about a module that is not there: the right distribution, and never a name that was made up."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.directories.config import safe_yaml  # noqa: F401  (tests take PyYAML away, which this imports)
from gateway.directories.describe import describe
from gateway.environments import distributions
from gateway.wire import plain
from gateway.worker import server
from gateway.worker.loading import advice
from gateway.worker.loading.advice import about_missing, about_taken, is_missing


def said(root: Path, statement: str, config: str = "", python: str | None = None) -> str:
    """What is said when the model's file has this statement, and nothing of the sort is installed.

    Without what follows every install: no file of the model has changed then, so that `--reload` sees nothing of it.
    """
    (root / "model").mkdir(exist_ok=True)
    source = root / "model" / "model.py"
    source.write_text(f"{statement}\n")
    (root / "config.yaml").write_text(config)
    spec = describe(root, target="model.model:Model", format="truss", overrides={})
    model: dict[str, Any] = {**plain.from_spec(spec), "python": python}
    try:
        exec(compile(f"{statement}\n", str(source), "exec"), {})
    except ImportError as error:
        assert is_missing(error)
        told, then = about_missing(error, model), f", then: gateway reload {spec.name}"
        assert told.endswith(then) == ("run: pip install" in told or "and install it" in told)
        return told.removesuffix(then)
    raise AssertionError(f"{statement} worked")


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIL", "cv2", "skimage", "sklearn", "yaml", "google", "azure", "ruamel", "requests", "torch", "jwt"):
        monkeypatch.setitem(sys.modules, name, None)  # so that an import of it fails
    monkeypatch.setattr(distributions, "is_installed", lambda name: False)
    monkeypatch.setattr(distributions, "packages_distributions", dict)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("from PIL import Image", "; run: pip install pillow"),
        ("import cv2", "; run: pip install opencv-python-headless"),
        ("from skimage.transform import resize", "; run: pip install scikit-image"),
        ("import sklearn.svm", "; run: pip install scikit-learn"),
        ("import yaml as y", "; run: pip install pyyaml"),
        ("from google.cloud import storage", "; run: pip install google-cloud-storage"),
        ("from google.cloud import (\n    vision_v1,\n    storage,\n)", "; run: pip install google-cloud-vision"),
        ("from google.oauth2 import service_account", "; run: pip install google-auth"),
        ("from azure.storage.blob import BlobServiceClient as B", "; run: pip install azure-storage-blob"),
        ("from azure import identity", "; run: pip install azure-identity"),
        ("from ruamel.yaml import YAML", "; run: pip install ruamel-yaml"),
        ("import google.protobuf.message", "; run: pip install protobuf"),
        ("import requests", "; run: pip install requests"),
        ("import torch", "; run: pip install torch"),
        ("import jwt", "; run: pip install pyjwt"),
    ],
)
def test_the_distribution_is_named_and_not_the_module(tmp_path: Path, statement: str, expected: str) -> None:
    assert said(tmp_path, statement) == expected


@pytest.mark.parametrize(
    ("statement", "requirement"),
    [
        ("import cv2", "opencv-contrib-python==4.10.0.84"),
        ("import skimage", "Scikit_Image>=0.2"),
        ("import yaml", "PyYAML"),
        ("import oddlib", "python-oddlib"),
        ("import oddlib", "oddlib @ https://example.com/oddlib.zip"),
        ("import oddlib", "git+https://example.com/x.git#egg=oddlib"),
        ("import torch", "torch==2.1.0+cu118; sys_platform == 'linux'"),
    ],
)
def test_what_the_requirements_say_comes_first(tmp_path: Path, statement: str, requirement: str) -> None:
    config = f'requirements: ["wheel", "{requirement}"]\n'
    assert said(tmp_path, statement, config) == f"; run: pip install '{requirement}', as its requirements say"
    (tmp_path / "req.txt").write_text(f"# these\n{requirement}\n")
    in_file = said(tmp_path, statement, "requirements_file: req.txt\n")
    assert in_file == f"; run: pip install '{requirement}', as its requirements say"


@pytest.mark.parametrize(
    "statement",
    ["import helpers.stuff", "from utils import run", "import config", "import lib", "import src.model", "import x"],
)
def test_nobody_is_told_to_install_what_may_be_a_file_of_the_model(tmp_path: Path, statement: str) -> None:
    told = said(tmp_path, statement, "requirements: [numpy]\n")
    assert "pip install" not in told
    assert "if it is your own code, put " in told and "into packages/ of the model" in told


def test_a_file_of_nearly_that_name_is_pointed_at(tmp_path: Path) -> None:
    (tmp_path / "packages" / "helper").mkdir(parents=True)
    assert said(tmp_path, "import helpers") == "; the model has helper, and no helpers"


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("import numpyy as np", "; did you mean numpy?"),
        ("from sklean.svm import SVC", "; did you mean sklearn? (pip install scikit-learn)"),
        ("import jsonn", "; did you mean json?"),
        ("from colections import deque", "; did you mean collections?"),
        ("import jsno", "; did you mean json?"),
        ("import tiem", "; did you mean time?"),
        ("import Json", "; did you mean json?"),
        ("import OS", "; did you mean os?"),
        ("import nupmy", "; did you mean numpy?"),
        ("import pil", "; did you mean PIL? (pip install pillow)"),
    ],
)
def test_a_misspelt_module_is_told_what_it_may_have_meant_and_never_to_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str, expected: str
) -> None:
    monkeypatch.setattr(distributions, "packages_distributions", lambda: {"numpy": ["numpy"], "_numpyy": ["other"]})
    assert said(tmp_path, statement) == expected


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            "from starlette.request import Request",
            "starlette exists but has no module request; {} starlette.requests?",
        ),
        ("import numpy.lingalg", "numpy exists but has no module lingalg; {} numpy.linalg?"),
        ("import pydantic.feilds", "pydantic exists but has no module feilds; {} pydantic.fields?"),
        ("import collections.abcd", "collections exists but has no module abcd; {} collections.abc?"),
        ("import os.pth", "os exists but has no module pth; {} os.path?"),
        ("import xml.etree.ElementTee", "xml.etree exists but has no module ElementTee; {} xml.etree.ElementTree?"),
        ("import json.no_such_thing", "json exists but has no module no_such_thing"),
        ("import os.no_such_thing", "os exists but has no module no_such_thing"),
    ],
)
def test_a_misspelt_submodule_of_what_is_there_is_nothing_to_install_or_to_write(
    tmp_path: Path, statement: str, expected: str
) -> None:
    assert said(tmp_path, statement, "requirements: [starlette, numpy]\n") == f"; {expected.format('did you mean')}"


def test_what_a_library_imports_is_of_another_version_and_not_misspelt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributions, "packages_distributions", lambda: {"starlette": ["starlette"]})
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "a_library.py").write_text("import starlette.request\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    (tmp_path / "m").mkdir()
    told = said(tmp_path / "m", "import a_library", "requirements: [starlette<1]\n")
    assert told.startswith("; starlette ")
    assert told.endswith(" has no such module: another version may (its requirements say starlette<1)")


def test_a_misspelt_file_of_the_models_own_is_answered_with_the_one_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "packages" / "tools").mkdir(parents=True)
    (tmp_path / "packages" / "tools" / "hammer.py").touch()
    (tmp_path / "packages" / "nails.py").touch()
    told = said(tmp_path, "import tools.hamer")
    assert told == f"; {tmp_path}/packages/tools has no such module; did you mean tools.hammer?"
    assert said(tmp_path, "import nails.rusty") == "; nails exists but has no module rusty"


def test_what_lies_elsewhere_in_the_model_is_said(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "helpers.py").touch()
    assert said(tmp_path, "import helpers") == "; it is next to the model's file: import it as model.helpers"
    assert said(tmp_path, "from helpers import f") == "; it is next to the model's file: import it as model.helpers"
    (tmp_path / "packages" / "tools").mkdir(parents=True)
    assert said(tmp_path, "import tools.hammer") == f"; {tmp_path}/packages/tools has no such module"


def test_a_module_of_the_models_package_that_is_missing_is_not_beside_itself(tmp_path: Path) -> None:
    assert said(tmp_path, "from model.helpers import f") == f"; {tmp_path}/model has no such module"


def test_what_a_shared_namespace_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site" / "google" / "cloud" / "vision").mkdir(parents=True)
    for name in ("google", "google.cloud"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    told = said(tmp_path, "from google.cloud import vision, storage")
    assert told == "; run: pip install google-cloud-storage"
    for name in ("google", "google.cloud", "google.cloud.vision"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_in_an_environment_of_its_own_the_requirements_are_to_be_mended(tmp_path: Path) -> None:
    assert said(tmp_path, "import cv2", python="/p") == "; add opencv-python-headless to the model's requirements"
    config = "requirements: [opencv-python]\n"
    assert said(tmp_path, "import cv2", config, python="/p") == "; it should have been installed with opencv-python"


def test_a_module_that_the_installed_version_lacks_is_no_package_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributions, "packages_distributions", lambda: {"click": ["click"]})
    monkeypatch.setattr(distributions, "is_installed", lambda name: True)
    told = said(tmp_path, "from click.no_such_module import nothing")
    assert told.startswith("; click ") and told.endswith("is installed and has no such module: another version may")


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("import sklearn.svm", "; run: pip install 'model-gateway[sklearn]'"),
        ("import requests", "; run: pip install requests"),
        ("import helpers", "; if it is your own code, put helpers.py"),
    ],
)
def test_an_extra_of_ours_is_told_for_what_it_brings_and_for_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str, expected: str
) -> None:
    monkeypatch.setitem(sys.modules, "helpers", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        exec(statement, {})
    model = {
        "name": "m",
        "root": str(tmp_path),
        "target": "gateway_sklearn.model:SklearnModel",
        "needs": ["sklearn", "skops"],
        "install": "pip install 'model-gateway[sklearn]'",
    }
    assert about_missing(caught.value, model).startswith(expected)


def test_a_file_that_was_forgotten_goes_beside_the_model_where_that_works(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("import helpers\n")
    spec = describe(tmp_path, target="model:Model", format="python", overrides={})
    error = ModuleNotFoundError("No module named 'helpers'", name="helpers")
    told = about_missing(error, {**plain.from_spec(spec), "python": None})
    assert told.startswith("; if it is your own code, put helpers.py or a directory helpers beside model.py; ")


def test_a_name_that_a_module_lacks_is_answered_with_those_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_helpers.py").write_text("import os\n_private = 1\ndef greet(): ...\ndef wave(): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for statement, told in (
        ("from my_helpers import g", " (have: greet, wave)"),
        ("from my_helpers import gret", " (did you mean greet?)"),
        ("from json import dumsp", " (did you mean dump?)"),
    ):
        with pytest.raises(ImportError) as caught:
            exec(statement, {})
        assert not is_missing(caught.value) and about_taken(caught.value) == told
    monkeypatch.delitem(sys.modules, "my_helpers")
    assert about_taken(ImportError("libcuda.so: no such file")) == ""


def test_a_failed_load_is_told_whatever_its_advice_trips_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def trips(*given: object) -> str:
        raise OSError("File name too long")

    monkeypatch.setattr(advice, "about_missing", trips)
    hello: Any = SimpleNamespace(model={"name": "m"}, taken_ports=())
    failure = server.Server.__new__(server.Server)._load_failure(ModuleNotFoundError("No module named 'a'"), hello, ())
    assert "No module named 'a'" in failure.reason and failure.fatal
