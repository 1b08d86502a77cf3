from __future__ import annotations

import difflib
import json
import os
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.directories.config.config import ModelConfig, has_code, peek_config, read_config
from gateway.directories.repeated_problems import MOST_ALIKE

# What Truss 0.18.36 makes of config.yaml files: each with what differs from EMPTY in
# yaml.safe_load(yaml.dump(TrussConfig.from_yaml(path).to_dict(verbose=True))), the `config` of its models.
CASES = Path(__file__).with_name("truss_configs.json")

# What Truss hands to a model whose config.yaml is empty.
EMPTY = """
apply_library_patches: true
base_image: null
bdn: {access: [], hotload: {enabled: false}, mounts: []}
bis_llm: null
build: {arguments: {}, model_server: TrussServer, no_cache: false, secret_to_path_mapping: {}}
build_commands: []
bundled_packages_dir: packages
cache_internal: []
data_dir: data
description: null
docker_server: null
environment_variables: {}
examples_filename: examples.yaml
external_data: null
external_package_dirs: []
input_type: Any
live_reload: false
model_cache: []
model_class_filename: model.py
model_class_name: Model
model_framework: custom
model_metadata: {}
model_module_dir: model
model_name: null
model_type: Model
python_version: py313
requirements: []
requirements_file: null
resources: {accelerator: null, cpu: "1", memory: 2Gi, use_gpu: false}
runtime:
  egress_restrictions: null
  enable_debug_logs: false
  enable_tracing_data: false
  health_checks: {restart_check_delay_seconds: null, restart_threshold_seconds: null,
                  startup_threshold_seconds: null, stop_traffic_threshold_seconds: null}
  is_websocket_endpoint: false
  oidc: {enabled: null}
  predict_concurrency: 1
  remote_ssh: {enabled: false}
  streaming_read_timeout: 60
  transport: {kind: http}
  truss_server_version_override: null
secrets: {}
spec_version: "2.0"
system_packages: []
training_checkpoints: null
trt_llm: null
use_local_src: false
weights: []
"""


def read(path: Path, text: str) -> ModelConfig:
    (path / "config.yaml").write_text(text, "utf-8")
    return read_config(path)


def texts(config: ModelConfig) -> str:
    return "\n".join(f"{problem.level} {problem}" for problem in config.problems)


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "runtime:\nresources:\nrequirements:\nmodel_name:\n"])
def test_what_is_not_said_is_trusss_default(tmp_path: Path, text: str) -> None:
    config = read(tmp_path, text)

    assert config.data == yaml.safe_load(EMPTY)
    assert not config.problems


@pytest.mark.parametrize("case", json.loads(CASES.read_text("utf-8")), ids=lambda case: case["yaml"][:60].strip())
def test_a_model_gets_the_config_that_truss_would_give_it(tmp_path: Path, case: dict[str, Any]) -> None:
    config = read(tmp_path, case["yaml"])
    expected = over(yaml.safe_load(EMPTY), case["config"])

    assert not config.errors
    assert config.data == expected
    assert types_of(config.data) == types_of(expected)  # 600 and 600.0 are equal, and no model treats them alike


def over(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return base | {
        key: over(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
        for key, value in changes.items()
    }


def types_of(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: types_of(item) for key, item in value.items()}
    return [types_of(item) for item in value] if isinstance(value, list) else type(value)


def test_a_directory_without_config_yaml_has_all_defaults(tmp_path: Path) -> None:
    config = read_config(tmp_path)

    assert config.data == yaml.safe_load(EMPTY)
    assert config.raw == {}
    assert not config.problems


def test_defaults_are_not_shared_between_models(tmp_path: Path) -> None:
    read(tmp_path, "").data["model_metadata"]["mine"] = 1
    assert read(tmp_path, "").data["model_metadata"] == {}


def test_unknown_keys_are_kept_at_every_level(tmp_path: Path) -> None:
    config = read(tmp_path, "mine: {a: [1]}\nruntime: {mine: 2, health_checks: {mine: 3}}\nresources: {mine: 4}\n")

    assert config.data["mine"] == {"a": [1]}
    assert config.data["runtime"]["mine"] == 2
    assert config.data["runtime"]["health_checks"]["mine"] == 3
    assert config.data["resources"]["mine"] == 4
    assert not config.errors


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model_nam: x", "config.yaml:1: unknown key model_nam (did you mean model_name?)"),
        ("\nruntime:\n  predict_concurency: 2", "config.yaml:3: unknown key runtime.predict_concurency (did you mean"),
        ("predict_concurrency: 2", "unknown key predict_concurrency (did you mean runtime.predict_concurrency?)"),
        ("predict_concurency: 2", "unknown key predict_concurency (did you mean runtime.predict_concurrency?)"),
        ("zebra: 1", "unknown key zebra (it is passed to the model)"),
        ("1: 2", "unknown key 1 (it is passed to the model)"),
        ("weights: [{source: 'file://a', mount: /b}]", "unknown key weights[0].mount"),
        ("model_name: a\nmodel_name: b", "config.yaml:2: model_name is set twice; the last one is used"),
        ("environment_variables: {PORT: 1}", "PORT is overwritten"),
        ("resources: {use_gpu: true}", "use_gpu is derived"),
        ("resources: {accelerator: RTX_4090}", "accelerator RTX_4090 is not a name that Truss knows"),
        ("resources: {accelerator: l4}", "did you mean L4?"),
    ],
)
def test_oddities_are_warnings_with_their_line(tmp_path: Path, text: str, expected: str) -> None:
    config = read(tmp_path, text)

    assert expected in texts(config)
    assert not config.errors


def test_more_secrets_than_anybody_declares_are_refused(tmp_path: Path) -> None:
    """Each is looked for in everything that the model prints."""
    for count, size in ((101, 1), (100, 200), (1, 17_000)):
        text = "secrets:\n" + "".join(f"  s{at}: {'x' * size}\n" for at in range(count))
        config = read(tmp_path, text)
        assert [problem.code for problem in config.errors] == ["too_many_secrets"]
        assert "declare at most 100" in str(config.errors[0].fix)
        assert config.data["secrets"] == {}
    config = read(tmp_path, "secrets:\n" + "".join(f"  s{at}: {'x' * 100}\n" for at in range(100)))
    assert not config.errors and len(config.data["secrets"]) == 100


def test_names_near_unknown_keys_are_looked_for_as_often_as_they_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []
    monkeypatch.setattr(difflib, "get_close_matches", lambda name, *_, **__: looked.append(name) or [])

    config = read(tmp_path, f"{'x' * 1000}: 1\n" + "\n".join(f"key{at}: 1" for at in range(9000)))

    assert len(looked) < 2 * MOST_ALIKE
    assert [problem.what for problem in config.problems][1:] == [
        *(f"unknown key key{at}" for at in range(MOST_ALIKE - 1)),
        f"{9001 - MOST_ALIKE} more of this kind",
    ]
    assert len(config.data) > 9000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "config.yaml:"),
        ("- a", "config.yaml:1: expected a mapping of keys"),
        ("runtime: 3", "config.yaml:1: runtime must be a mapping"),
        (
            "\nruntime:\n  predict_concurrency: many",
            "config.yaml:3: runtime.predict_concurrency must be a whole number",
        ),
        ("runtime: {predict_concurrency: 1.5}", "must be a whole number, not 1.5"),
        ("runtime: {predict_concurrency: .inf}", "must be a whole number"),
        ("runtime: {predict_concurrency: true}", "must be a whole number"),
        ("runtime: {predict_concurrency: 0}", "must be at least 1"),
        ("runtime: {num_workers: 2}", "num_workers must be 1"),
        ("runtime: {transport: {kind: grpc}}", "speaks gRPC (transport.kind), which cannot be hosted here"),
        ("runtime: {transport: {kind: carrier-pigeon}}", "must be http or websocket"),
        ("live_reload: maybe", "live_reload must be true or false, not 'maybe'"),
        ("model_name: [a]", "model_name must be a string"),
        ("requirements: numpy", "requirements must be a list of strings"),
        ("requirements: [{a: 1}]", "requirements must be a list of strings"),
        ("secrets: [token]", "secrets must be a mapping"),
        ("requirements: [a]\nrequirements_file: b", "config.yaml:2: requirements and requirements_file exclude"),
        ("model_cache: [{repo_id: a}]\nweights: [{source: 'hf://a/b'}]", "model_cache and weights exclude"),
        ("a: 1\ndata_dir: ../other", "config.yaml:2: data_dir must lie inside the model directory"),
        ("data_dir: /etc", "data_dir must lie inside"),
        ("bundled_packages_dir: a/../../b", "bundled_packages_dir must lie inside"),
        ("requirements_file: ../requirements.txt", "requirements_file must lie inside"),
        ("model_module_dir: ..", "model_module_dir must lie inside"),
        ("build: {no_cache: true}", "build.no_cache cannot be set"),
        ("resources: {cpu: lots}", "resources.cpu must be cores"),
        ("resources: {memory: 5 apples}", "resources.memory must be a size"),
        ("resources: {accelerator: 'L4:0'}", 'must be a name such as "L4" or "L4:4"'),
        ("resources: {accelerator: 'L4:x'}", 'must be a name such as "L4" or "L4:4"'),
        ("resources: {node_count: 2}", "node_count above 1"),
        ("weights: [{mount_location: /a}]", "weights[0] needs a source"),
        ("weights: [3]", "weights[0] needs a source"),
        ("weights: [{source: 'hf://a/b', mount_location: a}]", "must be an absolute path"),
        ("weights: [{source: 'hf://a/b', mount_location: /a}, {source: 'hf://a/c', mount_location: /a}]", "used twice"),
        ("weights: [{source: 'hf://a/b', auth: s}]", "weights[0].auth must be a mapping"),
        ("weights: [{source: 'hf://a/b', auth: {auth_secret_name: s}}]", "auth_method must be one of CUSTOM_SECRET, "),
        ("weights: [{source: 'hf://a/b', auth: {auth_method: KEY}}]", "auth_method must be one of CUSTOM_SECRET, "),
        ("weights: [{source: 'hf://a/b', auth: {auth_method: CUSTOM_SECRET}}]", "auth_secret_name must be given"),
        (
            "weights: [{source: a, auth_secret_name: s, auth: {auth_method: CUSTOM_SECRET, auth_secret_name: s}}]",
            "auth_secret_name is set twice",
        ),
        ("docker_server: {start_command: vllm serve}", "starts its own server in a container (docker_server)"),
        ("trt_llm: {build: {}}", "cannot be hosted here"),
        ("bis_llm: {}", "cannot be hosted here"),
        ("training_checkpoints: {artifact_references: []}", "cannot be hosted here"),
    ],
)
def test_mistakes_are_errors_with_their_line(tmp_path: Path, text: str, expected: str) -> None:
    config = read(tmp_path, text)

    assert expected in "\n".join(str(problem) for problem in config.errors)
    assert all(str(tmp_path / "config.yaml") in problem.where for problem in config.errors)


def test_config_yml_is_refused_with_trusss_words(tmp_path: Path) -> None:
    (tmp_path / "config.yml").touch()

    (problem,) = read_config(tmp_path).errors

    assert problem.what == (
        "No truss configuration file ending in .yaml but found one ending in .yml. Did you mean to rename it?"
    )


def test_environment_variables_become_texts_as_truss_makes_them(tmp_path: Path) -> None:
    config = read(tmp_path, "environment_variables: {A: true, B: False, C: 1, D: 1.5, E: null, F: x, 7: y}")

    expected = {"A": "true", "B": "false", "C": "1", "D": "1.5", "E": "None", "F": "x", "7": "y"}
    assert config.data["environment_variables"] == expected


def test_variables_that_run_code_are_the_operators_to_set(tmp_path: Path) -> None:
    names = "LD_PRELOAD LD_LIBRARY_PATH DYLD_X PYTHONPATH PYTHONSTARTUP GW_SANDBOX GATEWAY_CACHE_DIR TMPDIR".split()
    variables = "".join(f"  {name}: x\n" for name in names)
    config = read(tmp_path, f"environment_variables:\n  HF_HOME: /h\n  LDFLAGS: -lm\n{variables}")
    assert config.data["environment_variables"] == {"HF_HOME": "/h", "LDFLAGS": "-lm"}
    assert not config.errors
    for number, name in enumerate(names, 4):
        fix = f"set {name} in environment of [models.NAME] of gateway.toml"
        assert any(
            problem.where.endswith(f"config.yaml:{number}")
            and (problem.what, problem.fix) == (f"environment variable {name} may only be set by the operator", fix)
            for problem in config.warnings
        )


@pytest.mark.parametrize("entry", ['"A=B": x', '"": x', 'A: "x\\0"', '"A\\0": x'])
def test_a_variable_that_the_system_does_not_take_is_an_error_with_its_line(tmp_path: Path, entry: str) -> None:
    (error,) = read(tmp_path, f"model_name: m\nenvironment_variables:\n  B: y\n  {entry}\n").errors
    assert error.where.endswith("config.yaml:4")
    assert "cannot be set" in error.what


def test_an_accelerator_makes_it_a_gpu_model_whatever_use_gpu_says(tmp_path: Path) -> None:
    resources = read(tmp_path, "resources: {accelerator: 'L4:2', use_gpu: false, cpu: 3}").data["resources"]
    assert resources == {"accelerator": "L4:2", "use_gpu": True, "cpu": "3", "memory": "2Gi"}

    assert read(tmp_path, "resources: {use_gpu: true}").data["resources"]["use_gpu"] is False
    assert read(tmp_path, "resources: {accelerator: ''}").data["resources"]["accelerator"] is None


def test_platform_keys_appear_only_when_they_are_set(tmp_path: Path) -> None:
    config = read(tmp_path, "resources: {instance_type: L4:8x32}\nruntime: {transport: {ping_timeout_seconds: 5}}")

    assert config.data["resources"]["instance_type"] == "L4:8x32"
    assert "node_count" not in config.data["resources"]
    assert config.data["runtime"]["transport"] == {"kind": "http"}


def test_is_websocket_endpoint_means_the_websocket_transport(tmp_path: Path) -> None:
    runtime = read(tmp_path, "runtime: {is_websocket_endpoint: true}").data["runtime"]
    assert runtime["transport"]["kind"] == "websocket"


def test_hf_cache_is_the_old_name_of_model_cache(tmp_path: Path) -> None:
    config = read(tmp_path, "hf_cache: [{repo_id: a/b}]")

    assert [entry["repo_id"] for entry in config.data["model_cache"]] == ["a/b"]
    assert "hf_cache" not in config.data
    assert not config.problems


def test_keys_that_only_act_in_the_cloud_are_notes(tmp_path: Path) -> None:
    config = read(tmp_path, "system_packages: [ffmpeg]\nbase_image: {image: x}\nruntime: {enable_tracing_data: true}")

    assert set(config.notes) == {
        "system_packages has no effect here",
        "base_image has no effect here",
        "runtime.enable_tracing_data has no effect here",
    }
    assert not config.problems


def test_another_python_version_is_a_note(tmp_path: Path) -> None:
    assert read(tmp_path, "python_version: py39").notes == (
        f"python_version is py39; this gateway runs py{sys.version_info.major}{sys.version_info.minor}",
    )


def test_numbers_and_flags_may_be_written_as_texts(tmp_path: Path) -> None:
    runtime = read(tmp_path, 'runtime: {predict_concurrency: "4", enable_debug_logs: "true"}').data["runtime"]
    assert (runtime["predict_concurrency"], runtime["enable_debug_logs"]) == (4, True)


def test_an_unreadable_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe")
    assert "not UTF-8" in texts(read_config(tmp_path))


WORDS = st.text("abc:# é'\"{\n1", max_size=6)  # all of Unicode costs seconds of preparation
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from([*yaml.safe_load(EMPTY), "hf_cache", "options", "mine"])


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_any_yaml_gives_a_whole_config_or_problems(tmp_path_factory: pytest.TempPathFactory, raw: object) -> None:
    config = read(tmp_path_factory.mktemp("model"), yaml.safe_dump(raw, allow_unicode=True))

    assert set(yaml.safe_load(EMPTY)) <= set(config.data)
    assert isinstance(config.data["runtime"]["predict_concurrency"], int)
    assert all(isinstance(value, str) for value in config.data["environment_variables"].values())


# ── what a format asks before it claims a directory ──────────────────────────────────────────────────────────────────


def test_peeking_gives_what_the_file_says_and_a_copy_of_it(tmp_path: Path) -> None:
    assert peek_config(tmp_path) == {}
    (tmp_path / "config.yaml").write_text("framework: mine\nweights: [{source: 'file://w'}]\n")
    os.utime(tmp_path / "config.yaml", (1, 1))
    first = peek_config(tmp_path)
    assert first == {"framework": "mine", "weights": [{"source": "file://w"}]}
    first["weights"].clear()
    assert peek_config(tmp_path)["weights"] == [{"source": "file://w"}]
    (tmp_path / "config.yaml").write_text("framework: none\nweights: [{source: 'file://w'}]\n")  # as long as it was
    assert peek_config(tmp_path)["framework"] == "none"


@pytest.mark.parametrize(
    "text",
    [
        "[a, list]",
        "key: [unclosed",
        "a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\n"
        "c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]\n",
        "a: !!python/object:os.system x",
        "x" * 1_000_001,
    ],
    ids=["list", "broken", "expands", "tag", "long"],
)
def test_what_cannot_be_read_within_bounds_is_peeked_at_as_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    assert peek_config(tmp_path) == {}


def test_no_more_of_a_file_is_read_than_counts(tmp_path: Path) -> None:
    with (tmp_path / "config.yaml").open("wb") as file:
        file.truncate(1 << 28)  # which takes no room on the disk
    tracemalloc.start()
    try:
        assert peek_config(tmp_path) == {}
        assert tracemalloc.get_traced_memory()[1] < 1 << 23
    finally:
        tracemalloc.stop()
    assert [problem.what for problem in read_config(tmp_path).errors] == ["longer than 1000000 bytes"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"model.py": ""}, True),
        ({"model/model.py": ""}, True),
        ({"model/__init__.py": ""}, False),
        ({"config.yaml": "model_module_dir: src\nmodel_class_filename: serve.py", "src/serve.py": ""}, True),
        ({"config.yaml": "model_module_dir: src\nmodel_class_filename: [1]"}, False),
        ({"model.safetensors": ""}, False),
    ],
)
def test_a_directory_has_code_where_the_class_of_its_config_is(
    tmp_path: Path, files: dict[str, str], expected: bool
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert has_code(tmp_path) is expected
