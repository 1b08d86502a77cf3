"""What links of a model directory lead to is no matter of the directory: no word of it is told, by anybody."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway import ordinary
from gateway.cli import cli
from gateway.formats.config import read_config
from gateway.hub import Hub
from gateway.inventory import Inventory, take_inventory
from gateway.placeholders import placeholder
from gateway.remarks import told_at_start
from gateway.roots import look_again
from gateway.settings import load_settings

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
    changes = await look_again(hub, "somebody")
    routes = [hub.routes(model) for model in hub.models.values()]
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
    monkeypatch.setattr("gateway.formats.config.SETTLED", 0.0)  # what was read is remembered at once
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
