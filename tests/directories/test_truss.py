from __future__ import annotations

from pathlib import Path

import pytest

from gateway import ConfigError
from gateway.directories.describe import UNLIMITED
from gateway.directories.python import find_model as find_python_model
from gateway.directories.truss import find_model

MODEL = "class Model:\n    def predict(self, inputs):\n        return inputs\n"


def truss(path: Path, config: str = "", files: dict[str, str] | None = None) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.yaml").write_text(config)
    for name, text in ({"model/model.py": MODEL} if files is None else files).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


def test_a_truss_is_found(tmp_path: Path) -> None:
    spec = find_model(truss(tmp_path / "echo"), {})

    assert spec is not None
    assert (spec.name, spec.target, spec.format) == ("echo", "model.model:Model", "truss")


def test_where_the_class_is_can_be_configured(tmp_path: Path) -> None:
    config = "model_module_dir: src\nmodel_class_filename: main.py\nmodel_class_name: Echo\n"
    spec = find_model(truss(tmp_path, config, {"src/main.py": "class Echo:\n  def predict(self, x): ..."}), {})

    assert spec is not None
    assert spec.target == "src.main:Echo"


def test_a_directory_without_config_yaml_is_not_a_truss(tmp_path: Path) -> None:
    assert find_model(tmp_path, {}) is None


def test_a_missing_model_py_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No module class file found: model/model\.py"):
        find_model(truss(tmp_path, files={}), {})


def test_a_model_py_at_the_top_is_left_to_the_python_format(tmp_path: Path) -> None:
    assert find_model(truss(tmp_path, files={"model.py": MODEL}), {}) is None


def test_config_yml_is_claimed_and_refused(tmp_path: Path) -> None:
    path = truss(tmp_path)
    (path / "config.yaml").rename(path / "config.yml")
    with pytest.raises(ConfigError, match="Did you mean to rename it"):
        find_model(path, {})


@pytest.mark.parametrize("place", ["model/model.py", "model.py"])
@pytest.mark.parametrize("source", [None, "class Model(:", "class Other: ..."])
def test_a_transport_that_cannot_be_served_is_said_before_anything_else(
    tmp_path: Path, place: str, source: str | None
) -> None:
    config = "resources: {cpu: lots}\nruntime: {transport: {kind: grpc}}\n"
    path = truss(tmp_path, config, {place: source} if source is not None else {})
    with pytest.raises(ConfigError) as caught:
        find_model(path, {}) or find_python_model(path, {})
    assert str(caught.value).startswith(f"{path}/config.yaml:2: this model speaks gRPC")


def test_a_docker_server_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        find_model(truss(tmp_path, "docker_server:\n  start_command: vllm serve\n", {}), {})
    assert len(str(caught.value).splitlines()) == 1
    assert "docker_server" in str(caught.value)


@pytest.mark.parametrize("module_dir", ["../other", "/etc"])
def test_the_class_must_lie_inside_the_directory(tmp_path: Path, module_dir: str) -> None:
    with pytest.raises(ConfigError, match="must lie inside"):
        find_model(truss(tmp_path / "m", f"model_module_dir: {module_dir}"), {})


def test_a_syntax_error_is_found_without_a_worker(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model/model\.py:1: syntax error"):
        find_model(truss(tmp_path, files={"model/model.py": "class Model"}), {})


def test_a_missing_class_is_found_without_a_worker(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no class Model in model\.py \(have: Modl\)"):
        find_model(truss(tmp_path, files={"model/model.py": "class Modl: ..."}), {})


@pytest.mark.parametrize(
    ("source", "slots"),
    [
        (MODEL, 1),
        ("class Model:\n  async def websocket(self, websocket): ...\n", UNLIMITED),
        ("from base import Base\nclass Model(Base):\n  def load(self): ...\n", UNLIMITED),  # it may inherit one
        ("from base import Base\nclass Model(Base):\n  def predict(self, x): ...\n", 1),
        ("from other import Model\n", UNLIMITED),
    ],
)
def test_a_websocket_transport_counts_no_connections_of_a_class_that_may_have_the_method(
    tmp_path: Path, source: str, slots: int
) -> None:
    config = "runtime: {transport: {kind: websocket}}\n"
    spec = find_model(truss(tmp_path, config, {"model/model.py": source}), {})
    assert spec is not None
    assert spec.limits.slots == slots


def test_connections_of_a_websocket_model_are_not_counted_unless_it_says_so(tmp_path: Path) -> None:
    files = {"model/model.py": "class Model:\n  async def websocket(self, websocket): ...\n"}

    spec = find_model(truss(tmp_path, files=files), {})
    assert spec is not None
    assert spec.limits.slots == UNLIMITED

    spec = find_model(truss(tmp_path, "runtime: {predict_concurrency: 2}", files), {})
    assert spec is not None
    assert spec.limits.slots == 2


@pytest.mark.parametrize("source", ["hf://nobody/such-a-model", "https://127.0.0.1:1/a.bin", "s3://bucket/model"])
def test_weights_that_are_not_here_yet_have_to_say_who_serves_them(source: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"weights:\n- source: {source}\n")
    with pytest.raises(ConfigError, match=r"not on this machine yet, .* write framework: transformers"):
        find_model(tmp_path, {})
