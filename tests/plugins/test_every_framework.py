"""What the commands that read directories say of those of each framework: whole, damaged, or without their library.
None of them imports it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path += [str(HERE / f"gateway_{name}") for name in ("spacy", "fasttext", "diffusers", "torch", "keras", "onnx")]
DEMOS = HERE.parent.parent / "models"
# Each kind of directory: the framework that serves it, and files whose damage `gateway check` has to notice.
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "sklearn": ("sklearn", ("model.skops",)),
    "xgboost": ("xgboost", ("model.ubj",)),
    "lightgbm": ("lightgbm", ("model.txt",)),
    "catboost": ("catboost", ("model.cbm",)),
    "onnx": ("onnx", ("model.onnx", "weights.bin")),
    "classifiers": ("classifiers", ("model.safetensors", "config.json", "tokenizer.json")),
    "pipelines": ("pipelines", ("model.safetensors", "config.json", "tokenizer.json")),
    "sentence-transformers": ("sentence-transformers", ("model.safetensors", "config.json", "modules.json")),
    "transformers": ("transformers", ("model.safetensors", "config.json", "tokenizer.json")),
    "llamacpp": ("llamacpp", ("model.gguf",)),
    "whisper": ("whisper", ("model.safetensors", "config.json", "tokenizer.json")),
    "ctranslate2": ("whisper", ("model.bin", "config.json", "tokenizer.json")),
    "exported": ("torch", ("model.pt2",)),
    "scripted": ("torch", ("model.pt",)),
    "keras": ("keras", ("model.keras",)),
    "spacy": ("spacy", ("config.cfg", "meta.json")),
    "fasttext": ("fasttext", ("model.bin",)),
    "diffusers": ("diffusers", ("model_index.json", "unet/diffusion_pytorch_model.safetensors", "unet/config.json")),
}
LIBRARIES = (
    *(
        "sklearn",
        "skops",
        "xgboost",
        "lightgbm",
        "catboost",
        "onnx",
        "onnxruntime",
        "transformers",
        "torch",
        "gguf",
        "diffusers",
    ),
    *("sentence_transformers", "xllamacpp", "ctranslate2", "faster_whisper", "keras", "spacy", "fasttext"),
)
# The checks of these import their library, in a process apart: skops says which types are in a file. See its own tests.
ASKED = ("sklearn",)
# What may be read: weights of any values, and a text that is no model of LightGBM.
GOOD = {("zeros", "weights.bin"), ("zeros", "model.txt"), ("a_page", "model.txt")}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A function that runs `gateway` in this process, in an empty directory."""
    from click.testing import CliRunner

    from gateway.cli import cli

    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(cli, arguments, prog_name="gateway")


@pytest.fixture(scope="module")
def whole(checkpoint: Path, embedder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of each kind."""
    for module in ("catboost", "onnx", "keras", "spacy", "fasttext", "diffusers", "ctranslate2"):
        pytest.importorskip(module)
    import catboost
    import fasttext_files
    import graphs
    import keras_models
    import pipelines
    import programs
    import tiny_pipelines
    from classifier_folders import save
    from gguf_models import write
    from pipeline_folders import save_texts
    from whisper_folders import convert, save_whisper

    root = tmp_path_factory.mktemp("whole")
    for name, file in {
        "sklearn": "digits/model.skops",
        "xgboost": "wine/model.ubj",
        "lightgbm": "diabetes/model.txt",
    }.items():
        (root / name).mkdir()
        shutil.copy(DEMOS / file, root / name)
    (root / "catboost").mkdir()
    rows, numbers = [[1.0], [2.0], [3.0], [4.0]], [0.0, 1.0, 0.0, 1.0]
    fitted = catboost.CatBoostRegressor(iterations=2, thread_count=1, verbose=False, allow_writing_files=False)
    fitted.fit(rows, numbers).save_model(str(root / "catboost" / "model.cbm"))
    graphs.save(graphs.external(), root / "onnx")
    (root / "onnx" / "weights.bin").write_bytes(bytes(8))
    save(root / "classifiers")
    save_texts(root / "pipelines", "AutoModelForMaskedLM")
    shutil.copytree(embedder, root / "sentence-transformers")
    shutil.copytree(checkpoint, root / "transformers")
    (root / "llamacpp").mkdir()
    write(root / "llamacpp" / "model.gguf")
    save_whisper(root / "whisper", window=30)
    convert(root / "whisper", root / "ctranslate2")
    programs.exported(root / "exported")
    programs.scripted(root / "scripted")
    (root / "scripted" / "config.yaml").unlink()  # options of its inputs, which a load does not need
    keras_models.saved(root / "keras")
    pipelines.train(root / "spacy")
    fasttext_files.trained(root / "fasttext")
    tiny_pipelines.save(root / "diffusers")
    return root


def gateway(*arguments: object, cwd: Path, without: str = "") -> Any:
    """Run a command that reads directories, in a process where importing a library fails; `without` some, as if they
    were not installed."""
    program = (
        "import builtins, sys\n"
        f"libraries, absent = {set(LIBRARIES)}, {set(without.split())}\n"
        "real = builtins.__import__\n"
        "def refused(name, globals=None, locals=None, fromlist=(), level=0):\n"
        "    assert level or name.partition('.')[0] not in libraries, f'{name} is imported'\n"
        "    return real(name, globals, locals, fromlist, level)\n"
        "builtins.__import__ = refused\n"
        "import importlib.util\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name in absent else found(name, *more)\n"
        "from gateway.cli import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", program, *map(str, arguments), "--json"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout and "is imported" not in done.stderr, done.stderr
    return json.loads(done.stdout)


def test_whole_directories_have_no_findings(whole: Path, tmp_path: Path) -> None:
    others = [whole / kind for kind in KINDS if kind not in ASKED]
    assert [each for each in gateway("check", *others, cwd=tmp_path) if each["level"] != "note"] == []
    served = {row["name"]: row["format"] for row in gateway("models", "--models", whole, cwd=tmp_path)}
    assert served == {name: framework for name, (framework, _) in KINDS.items()}


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def zeros(data: bytes) -> bytes:
    return bytes(len(data))


def a_page(data: bytes) -> bytes:
    return b"<!doctype html><html><body>Not found</body></html>"


def damaged(whole: Path, root: Path, how: Callable[[bytes], bytes]) -> Iterator[tuple[str, str]]:
    """Write a directory for each file of each kind, with that file damaged; yield its name and that of the file."""
    for kind, (_, files) in KINDS.items():
        for number, file in enumerate(files if kind not in ASKED else ()):
            name = f"{kind}-{number}"
            shutil.copytree(whole / kind, root / name)
            (root / name / file).write_bytes(how((root / name / file).read_bytes()))
            yield name, file


@pytest.mark.parametrize("how", [cut, zeros, a_page])
def test_every_damaged_file_is_told(how: Callable[[bytes], bytes], whole: Path, tmp_path: Path) -> None:
    of_files = dict(damaged(whole, tmp_path / "models", how))
    told: dict[str, list[str]] = {name: [] for name in of_files}
    for each in gateway("check", tmp_path / "models", cwd=tmp_path):
        name = each["model"] or Path(each["where"]).name
        if each["level"] != "note" and each["code"] != "plugin" and name in told:
            told[name].append(each["what"])
    silent = {(how.__name__, of_files[name]) for name, found in told.items() if not found}
    assert silent - GOOD == set()


def test_every_file_that_is_missing_beside_the_others_is_told(whole: Path, tmp_path: Path) -> None:
    beside = {kind: file for kind, (_, files) in KINDS.items() for file in files[1:] if kind != "sentence-transformers"}
    for kind, file in beside.items():
        shutil.copytree(whole / kind, tmp_path / "models" / kind)
        (tmp_path / "models" / kind / file).unlink()
    found = gateway("check", tmp_path / "models", cwd=tmp_path)
    told = {each["model"] or Path(each["where"]).name for each in found if each["level"] != "note"}
    assert set(beside) - told == set()


def test_a_missing_library_is_told_with_its_command(whole: Path, tmp_path: Path) -> None:
    formats = {row["name"]: row for row in gateway("formats", cwd=tmp_path)["formats"]}
    absent = " ".join({*LIBRARIES, *(name for row in formats.values() for name in row["needs"])})
    found = gateway("check", whole, cwd=tmp_path, without=absent)
    fixes = {each["model"] or Path(each["where"]).name: f"{each['what']} {each['fix']}" for each in found}
    for kind, (framework, _) in KINDS.items():
        # without llama.cpp, a GGUF file is a matter of torch
        command = formats["transformers" if framework == "llamacpp" else framework]["install"]
        assert command in fixes.get(kind, ""), (kind, fixes.get(kind))
    rows = gateway("formats", cwd=tmp_path, without=absent)["formats"]
    assert {row["name"] for row in rows if row["installed"]} == {row["name"] for row in rows if not row["needs"]}


@pytest.mark.parametrize("kind", KINDS)
def test_weights_elsewhere_become_a_model_directory(kind: str, whole: Path, run: Any) -> None:
    result = run("new", "models/mine", "--from", str(whole / kind))
    assert result.exit_code == 0, result.output
    assert f"a model of {KINDS[kind][0]}" in result.stdout
    (row,) = json.loads(run("models", "--json").stdout)
    assert (row["name"], row["format"]) == ("mine", KINDS[kind][0])
    assert run("check").exit_code == 0
