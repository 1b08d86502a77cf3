"""Small files of models of which a library would make what takes any memory or time."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from gateway_checkpoints import loadable, pickles, tensor_names, weights

from gateway import ConfigError
from gateway.cli import cli
from gateway.inspection import check

ECHO = "class Model:\n    def predict(self, inputs):\n        return inputs\n"
PLUGIN = """
import os, signal, time
from gateway import Problem, hookimpl

kept = []
LONG = 60  # seconds that a model takes which is given up long before


@hookimpl
def check_model(spec):
    if spec.name == "b-large":
        kept.append(b"x" * (96 << 20))
        time.sleep(LONG)
    if spec.name == "c-slow":
        time.sleep(LONG)
    if spec.name == "d-dies":
        os.kill(os.getpid(), signal.SIGKILL)
    return [Problem(where=str(spec.root), what=f"{spec.name} was looked at", level="note")]
"""


def test_a_model_whose_files_take_too_much_is_told_and_the_others_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(check, "MEMORY", 48 << 20)
    monkeypatch.setattr(check, "SECONDS", 6.0)
    Path("dear.py").write_text(PLUGIN)
    Path("gateway.toml").write_text('[gateway]\nplugins = ["dear.py"]\n')
    names = ("a-good", "b-large", "c-slow", "d-dies", "e-good")
    for name in names:
        Path("models", name).mkdir(parents=True)
        Path("models", name, "model.py").write_text(ECHO)
    result = CliRunner().invoke(cli, ["check", "--json"])
    found = {each["model"]: each for each in json.loads(result.output) if each["code"] != "device"}
    lost = {name: each["what"].rpartition(": ")[2] for name, each in found.items() if each["code"] == "unlooked"}
    assert lost == {
        "b-large": "not within 48 MB of memory",
        "c-slow": "not within 6 s",
        "d-dies": "the process that did was ended by SIGKILL",
    }
    assert {found[name]["what"] for name in ("a-good", "e-good")} == {"a-good was looked at", "e-good was looked at"}
    assert result.exit_code == 1


def test_the_keys_of_a_pickle_are_read_without_making_them(tmp_path: Path) -> None:
    """One that is tuples within tuples has as many parts as a power of two when it is hashed, or written."""
    steps = b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01"
    for depth in range(1, 20):
        steps += b"h%c\x86q%c" % (depth, depth + 1)
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w") as file:
        file.writestr("archive/data.pkl", steps + b"K\x01sX\x01\x00\x00\x00bK\x02s.")
        file.writestr("archive/version", "3\n")
    assert weights.shapes(tmp_path) == {"b": []}


@pytest.mark.parametrize("cut", [b"", b".", b"s.", b"h\x07.", b"(.", b"0.", b"\x80\x02}(X\x01\x00\x00\x00au", b"\xff"])
def test_a_pickle_that_is_none_has_no_keys(cut: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.bin", "w") as file:
        file.writestr("archive/data.pkl", cut)
    assert pickles.names(tmp_path / "m.bin") == []


@pytest.mark.parametrize("inner", [False, True])
def test_a_config_with_more_layers_than_any_model_has_is_refused(inner: bool, tmp_path: Path) -> None:
    """Before a library is asked, which makes something of each."""
    config: dict[str, object] = {"model_type": "qwen2"}
    for layers, told in ((20_000, "20,000 layers, which no model has"), (1000, "it has no weights")):
        config["num_hidden_layers"] = layers
        (tmp_path / "config.json").write_text(
            json.dumps({"model_type": "qwen2", "text_config": config} if inner else config)
        )
        with pytest.raises(ConfigError, match=told):
            loadable.say_unloadable(tmp_path)


def test_a_config_with_far_more_layers_than_tensors_is_refused(tmp_path: Path) -> None:
    table = {f"model.{name}": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in ("a", "b")}
    header = json.dumps(table).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ConfigError, match="2,000 layers, and its weights have 2 tensors"):
        tensor_names.say_names(tmp_path, {"num_hidden_layers": 2000, "model_type": "llama"})
    tensor_names.say_names(tmp_path, {"num_hidden_layers": 24, "model_type": "llama"})
