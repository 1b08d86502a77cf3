"""What links of a model directory lead to is no matter of the directory: no word of it is told, by anybody."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.access.callers import everybody
from gateway.cli import cli
from gateway.directories.config.config import read_config
from gateway.directories.model_warnings import told_at_start
from gateway.files import ordinary
from gateway.files.placeholders import placeholder
from gateway.hosting.hub import Hub
from gateway.hosting.model_roots import look_again
from gateway.inspection.inventory import Inventory, take_inventory
from gateway.settings.load import load_settings

ECHO = "class Model:\n    def predict(self, inputs):\n        return inputs\n"
SECRET = "hunter2-of-root: correcthorse\nclass Hunter2: correcthorse\n"
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
# A file that is a link, and what lies beside it.
LINKS = {
    "model.skops": {},
    "model.onnx": {},
    "model.gguf": {},
    "model.safetensors": {"config.json": json.dumps(CONFIG)},
    "config.json": {"model.safetensors": ""},
    "tokenizer.json": {"config.json": json.dumps(CONFIG), "model.safetensors": ""},
    "model.safetensors.index.json": {"config.json": json.dumps(CONFIG)},
    "modules.json": {"config_sentence_transformers.json": "{}"},
    "config.yaml": {"model.py": ECHO},
    "config.yml": {},
    "model.py": {},
    "model/model.py": {"config.yaml": ""},
    "own.py": {"model.py": f"import own\n{ECHO}"},
    "run.sh": {"model.py": f"import subprocess\n{ECHO}"},
    "requirements.txt": {"model.py": ECHO},
    "lines.txt": {"model.py": ECHO, "config.yaml": "requirements_file: lines.txt\n"},
    "pyproject.toml": {"model.py": ECHO, "config.yaml": "requirements_file: pyproject.toml\n"},
    "SHA256SUMS": {"model.py": ECHO},
    "Modelfile": {},
    "adapter_config.json": {"adapter_model.safetensors": ""},
    "model_index.json": {},
}


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "models/good").mkdir(parents=True)
    (tmp_path / "models/good/model.py").write_text(ECHO)
    return tmp_path / "secret"


def place(name: str, files: dict[str, str]) -> Path:
    root = Path("models", name)
    for file, text in files.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text)
    root.mkdir(exist_ok=True)
    return root


def told() -> str:
    """All that check, a start and a look again say."""
    result = CliRunner().invoke(cli, ["check", "--json"])
    assert not isinstance(result.exception, Exception), result.exception
    settings = load_settings(environ={})
    found = take_inventory(settings, with_devices=False)
    said = [*found.problems, *(each for spec in found.specs for each in told_at_start(spec))]
    return "\n".join((result.output, str(said), asyncio.run(told_again(found))))


async def told_again(found: Inventory) -> str:
    hub = Hub(found.settings, found.plugins, found.specs)
    changes = await look_again(hub, everybody, "somebody")
    routes = [hub.catalog.routes(model) for model in hub.catalog.models.values()]
    await hub.stop(0)
    return f"{changes} {routes}"


@pytest.mark.parametrize("link", LINKS)
def test_nothing_of_a_file_elsewhere_is_told_by_a_link_to_it(secret: Path, link: str) -> None:
    root = place("odd", LINKS[link])
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(secret)
    said = told()
    assert "odd" in said
    assert "hunter2" not in said.lower() and "correcthorse" not in said.lower()


def test_nothing_of_a_file_elsewhere_is_told_by_a_plugin_that_checks(secret: Path) -> None:
    """In a process of its own, which has looked at another model before."""
    modules = [{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
    root = place("odd", {"modules.json": json.dumps(modules), "config_sentence_transformers.json": "{}"})
    (root / "1_Pooling").mkdir()
    secret.write_text('{"pooling_mode": "hunter2"}')
    (root / "1_Pooling/config.json").symlink_to(secret)
    said = told()
    assert "leads out of the model directory" in said
    assert "hunter2" not in said


def test_nothing_of_a_directory_elsewhere_is_told_by_a_link_in_a_model(secret: Path) -> None:
    elsewhere = secret.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "config.yaml").write_text("hunter2: correcthorse\n")
    (elsewhere / "model.skops").write_text(SECRET)
    (elsewhere / "model.py").write_text(SECRET)
    root = place("odd", {"model.py": ECHO, "config.yaml": "model_module_dir: sub\n"})
    (root / "sub").symlink_to(elsewhere)
    assert "hunter2" not in told().lower()


@pytest.mark.parametrize("lines", ["requirements: ['-r {0}']", "requirements: ['-r link']", "requirements: ['-c {0}']"])
def test_no_line_of_requirements_elsewhere_is_told(secret: Path, lines: str) -> None:
    root = place("odd", {"model.py": ECHO, "config.yaml": lines.format(secret)})
    (root / "link").symlink_to(secret)
    assert "hunter2" not in told().lower()


def test_lines_of_requirements_in_the_directory_are(secret: Path) -> None:
    place("odd", {"model.py": ECHO, "config.yaml": "requirements: ['-r more.txt']", "more.txt": "hunter2"})
    assert "hunter2" in told()


def test_where_links_are_allowed_they_are_followed(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.directories.config.config.SETTLED", 0.0)  # what was read is remembered at once
    secret.write_text("hunter2: 1\n")
    root = place("odd", {"model.py": ECHO})
    (root / "config.yaml").symlink_to(secret)
    Path("gateway.toml").write_text("[models.odd]\nallow_links = true\n")
    assert "unknown key hunter2" in told()
    with ordinary.within(root, allow_links=False):  # though what it says is known by now
        assert [problem.code for problem in read_config(root).errors] == ["invalid_yaml"]


def test_links_within_a_directory_and_to_it_are_followed(secret: Path) -> None:
    root = place("odd", {"model.py": ECHO, "real.yaml": "hunter2: 1\n"})
    (root / "config.yaml").symlink_to("real.yaml")
    (root.parent / "other").symlink_to(root.absolute())
    said = told()
    assert said.count("unknown key hunter2") >= 2 and "leads out" not in said


def test_of_what_a_link_leads_to_no_beginning_is_told(secret: Path) -> None:
    (secret.parent / "model.onnx").symlink_to(secret)
    found = placeholder(secret.parent / "model.onnx")
    assert found is not None and "hunter2" not in found.what


# How files of a model directory name others, with a path that leads out of it in the place of `OUT`.
NAMES = {
    "a module": {
        "modules.json": '[{"path": "OUT", "type": "sentence_transformers.models.Pooling"}]',
        "config_sentence_transformers.json": "{}",
        "config.json": "{}",
    },
    "a router": {
        "modules.json": '[{"path": "", "type": "sentence_transformers.models.Router"}]',
        "router_config.json": '{"types": {"OUT": "sentence_transformers.models.Pooling"}}',
        "config_sentence_transformers.json": "{}",
    },
    "an index": {
        "config.json": json.dumps(CONFIG),
        "model-00001-of-00001.safetensors": "",
        "model.safetensors.index.json": '{"weight_map": {"a": "OUT/config.json"}}',
    },
    "an index that is looked at": {
        "config.yaml": "framework: transformers",
        "config.json": json.dumps(CONFIG),
        "model.safetensors.index.json": '{"weight_map": {"a": "OUT/config.json"}}',
    },
    "a config": {
        "config.json": json.dumps({**CONFIG, "transformers_weights": "OUT/config.json"}),
        "config.yaml": "framework: transformers",
    },
}


@pytest.mark.parametrize("way", ["..", "absolute", "link", "windows"])
@pytest.mark.parametrize("files", NAMES.values(), ids=NAMES)
def test_no_name_in_a_file_leads_out_of_the_directory(
    files: dict[str, str], way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for beside in (tmp_path / "there", tmp_path / "nowhere"):
        if beside.name == "there":
            beside.mkdir()
            (beside / "config.json").write_text('{"pooling_mode": "hunter2"}')
        up = os.path.relpath(beside, "models/m")
        out = {"..": up, "absolute": str(beside), "link": "inner", "windows": up.replace("/", "\\\\")}[way]
        root = place("m", {name: text.replace("OUT", out) for name, text in files.items()})
        if way == "link":
            (root / "inner").unlink(missing_ok=True)
            (root / "inner").symlink_to(beside)
        result = CliRunner().invoke(cli, ["check"])
        assert "leads out of the directory" in result.output
        assert not {"hunter2", "missing"} & set(result.output.replace("-", " ").split())
        assert result.exit_code == 1


def test_what_is_opened_by_a_path_with_dots_is_no_file_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_text("{}")
    (tmp_path / "model").mkdir()
    with ordinary.within(tmp_path / "model", allow_links=False):
        for path in (tmp_path / "model" / ".." / "secret", Path("model/../secret")):
            with pytest.raises(OSError, match="leads out"):
                ordinary.peek_json(path)
        with pytest.raises(FileNotFoundError):
            ordinary.peek_json(tmp_path / "model" / "x" / ".." / "secret")
