"""What links of a model directory lead to is no matter of the directory: no word of it is told, by anybody."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway import ConfigError, weights_path
from gateway.access.callers import everybody
from gateway.cli import cli
from gateway.directories.config.config import read_config
from gateway.directories.model_warnings import told_at_start
from gateway.files import integrity, ordinary
from gateway.files.placeholders import placeholder
from gateway.hosting.hub import Hub
from gateway.hosting.model_roots import look_again
from gateway.inspection import check
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
    """In a process of its own, which is not asked where a link is there already, and opens none made later."""
    modules = [{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
    root = place("odd", {"modules.json": json.dumps(modules), "config_sentence_transformers.json": "{}"})
    (root / "1_Pooling").mkdir()
    secret.write_text('{"pooling_mode": "hunter2"}')
    (root / "1_Pooling/config.json").symlink_to(secret)
    said = told()
    assert "leads out of the model directory" in said
    assert "hunter2" not in said
    found = take_inventory(load_settings(environ={}), with_devices=False)
    said = str([check._plugins_say(found, number) for number in range(len(found.specs))])
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


WEIGHTS = Path(__file__).parents[2] / "models"
# A file of weights elsewhere that is a link, and the demo model whose file it replaces.
OF_WEIGHTS = {
    "chat_template.jinja": "tiny-chat",
    "config.json": "tiny-chat",
    "tokenizer.json": "tiny-chat",
    "model.skops": "digits",
    ".hidden/anything": "digits",
}


@pytest.mark.parametrize("link", OF_WEIGHTS)
def test_no_link_in_weights_elsewhere_leads_out_of_them(secret: Path, link: str) -> None:
    """Of a folder that somebody downloaded and made a model of, by `gateway new --from` or a config.yaml."""
    folder = secret.parent / "download"
    if link == "config.json":
        secret.write_text('{"model_type": "hunter2", "architectures": ["Hunter2Thing"]}')
    shutil.copytree(WEIGHTS / OF_WEIGHTS[link], folder)
    (folder / link).unlink(missing_ok=True)
    (folder / link).parent.mkdir(exist_ok=True)
    (folder / link).symlink_to(secret)
    made = CliRunner().invoke(cli, ["new", "models/odd", "--from", str(folder)])
    assert made.exit_code == 1 and "leads out of the folder of the weights" in made.output
    assert not Path("models/odd").exists()
    place("odd", {"config.yaml": f"weights: [{{source: 'file://{folder}'}}]\n"})
    said = told()
    assert "leads out of the folder of the weights" in said or link == "model.skops"  # which alone made it a model
    assert "hunter2" not in (said + made.output).lower() and "correcthorse" not in said.lower()
    with pytest.raises(ConfigError, match="leads out of the folder of the weights"):
        weights_path(read_config(Path("models/odd")).data, Path("models/odd"))


def test_no_library_is_asked_about_a_model_with_a_link_out(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would follow the link."""
    plugin = "from gateway import Problem, hookimpl\n\n\n@hookimpl\ndef check_model(spec):\n"
    Path("asking.py").write_text(f"{plugin}    return [Problem(where=spec.name, what=spec.name + ' was looked at')]\n")
    Path("gateway.toml").write_text('[gateway]\nplugins = ["asking.py"]\n')
    (place("odd", {"model.py": ECHO}) / "link").symlink_to(secret)
    said = CliRunner().invoke(cli, ["check"]).output
    assert "good was looked at" in said and "odd was looked at" not in said


def test_links_in_weights_elsewhere_are_followed_where_they_are_allowed(secret: Path) -> None:
    folder = secret.parent / "download"
    shutil.copytree(WEIGHTS / "tiny-chat", folder)
    (folder / "config.json").rename(secret)
    (folder / "config.json").symlink_to(secret)
    Path("gateway.toml").write_text("[models.odd]\nallow_links = true\n")
    made = CliRunner().invoke(cli, ["new", "models/odd", "--from", str(folder)])
    assert made.exit_code == 0, made.output
    assert "leads out" not in told()
    Path("gateway.toml").unlink()
    assert "leads out of the folder of the weights" in told()


def test_a_file_of_weights_may_be_a_link_and_no_file_beside_it(secret: Path) -> None:
    """Whoever names a file knows what it is; what lies beside it nobody named."""
    folder = secret.parent / "download"
    folder.mkdir()
    secret.write_text("{}")
    for name in ("named.json", "beside.json"):
        (folder / name).symlink_to(secret)
    with ordinary.within(secret.parent / "models/good", allow_links=False):
        assert ordinary.peek_json(folder / "beside.json") == {}  # before it is known that the model has weights here
        ordinary.confine(folder / "named.json")
        assert ordinary.peek_json(folder / "named.json") == {}
        with pytest.raises(OSError, match="leads out"):
            ordinary.peek_json(folder / "beside.json")
    assert ordinary.peek_json(folder / "beside.json") == {}  # for another model


@pytest.mark.parametrize("below", ["", "onnx"])
def test_a_snapshot_of_weights_has_its_blobs_and_those_of_no_other(secret: Path, below: str) -> None:
    repository = secret.parent / "hub/models--owner--name"
    snapshot, own = repository / "snapshots/0a1b", repository / "blobs/00"
    for each in (snapshot / below, own.parent, secret.parent / "hub/models--owner--other/blobs"):
        each.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(WEIGHTS / "digits/model.skops", own)
    (snapshot / below / "model.skops").symlink_to(os.path.relpath(own, snapshot / below))
    config = {"weights": [{"source": f"file://{snapshot / below}"}]}
    place("odd", {"config.yaml": json.dumps(config)})
    assert weights_path(config, Path("models/odd")) == snapshot / below
    found = {spec.name: spec for spec in take_inventory(load_settings(environ={}), with_devices=False).specs}
    assert found["odd"].format == "sklearn" and not list(check._contents(found["odd"]))
    (snapshot / below / "more.json").symlink_to(secret.parent / "hub/models--owner--other/blobs")
    with pytest.raises(ConfigError, match="leads out of the folder of the weights"):
        weights_path(config, Path("models/odd"))


def test_links_of_very_many_weights_are_not_looked_at_without_end(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrity, "MOST", 50)
    folder = secret.parent / "many"
    for number in range(60):
        (folder / f"{number // 10}").mkdir(parents=True, exist_ok=True)
        (folder / f"{number // 10}/{number}").touch()
    with pytest.raises(ConfigError, match=r"more than 50 files: name the folder that has the weights only"):
        weights_path({"weights": [{"source": f"file://{folder}"}]}, Path("models/odd"))


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
        told = (
            "leads out of the directory",
            *(["link_out"] if way == "link" else []),
        )  # no library is asked about a link
        assert any(each in result.output for each in told)
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
