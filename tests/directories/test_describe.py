from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway import ConfigError, ModelSpec, describe
from gateway.directories.describe import UNLIMITED, apply_overrides, complete
from gateway.spec import MIB, Limits, Resources
from gateway.wire import plain


def spec(path: Path, text: str = "", overrides: dict[str, Any] | None = None, **details: Any) -> ModelSpec:
    (path / "config.yaml").write_text(text, "utf-8")
    return describe(path, target="plugin:Class", format="mine", overrides=overrides or {}, **details)


def test_a_directory_without_config_yaml_is_described_by_defaults(tmp_path: Path) -> None:
    found = describe(tmp_path, target="plugin:Class", format="mine", overrides={})

    assert (found.name, found.root, found.target, found.format) == (tmp_path.name, tmp_path, "plugin:Class", "mine")
    assert found.limits == Limits()
    assert found.resources == Resources()
    assert found.config["runtime"]["predict_concurrency"] == 1
    assert found.data_dir == tmp_path / "data"
    assert found.notes == ()


def test_config_yaml_fills_every_field(tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "shared").mkdir()
    found = spec(
        tmp_path,
        """
        model_name: My model
        environment_variables: {A: true}
        secrets: {token: null, other: x}
        external_package_dirs: [shared, ../gone]
        runtime: {predict_concurrency: 4, streaming_read_timeout: 200,
                  health_checks: {startup_threshold_seconds: 90}}
        resources: {accelerator: "H100:2", cpu: 500m}
        data_dir: files
        """,
        own_code=True,
    )

    assert found.display_name == "My model"
    assert found.environment == {"A": "true"}
    assert found.secrets == ("token", "other")
    assert found.import_dirs == (tmp_path / "packages", tmp_path / "shared", tmp_path / "../gone")
    assert found.limits == Limits(slots=4, gap_timeout=200, first_item_timeout=200, load_timeout=90)
    assert found.resources == Resources(gpus=2, accelerator="H100", cpu=0.5)
    assert found.data_dir == tmp_path / "files"
    assert any("../gone does not exist" in note for note in found.notes)


def test_a_short_gap_leaves_the_first_item_its_two_minutes(tmp_path: Path) -> None:
    limits = spec(tmp_path, "runtime: {streaming_read_timeout: 5}").limits
    assert (limits.gap_timeout, limits.first_item_timeout) == (5, 120)


def test_an_unset_cpu_shares_the_machine(tmp_path: Path) -> None:
    assert spec(tmp_path, "").resources.cpu is None
    assert spec(tmp_path, "resources: {cpu: 2}").resources.cpu == 2


def test_warnings_and_cloud_keys_are_notes(tmp_path: Path) -> None:
    notes = "\n".join(spec(tmp_path, "model_nam: x\nsystem_packages: [a]\n").notes)

    assert f"{tmp_path}/config.yaml:1: unknown key model_nam (did you mean model_name?)" in notes
    assert "system_packages has no effect here" in notes


def test_a_directory_that_is_only_data_sets_no_variables_and_says_so(tmp_path: Path) -> None:
    """Many name programs and libraries that are run: no list of names would be whole."""
    text = "environment_variables: {HOME: ., PATH: bin, OPENSSL_CONF: x, HARMLESS: 1}\n"
    data = spec(tmp_path, text, {"environment": {"PATH": "/operator"}})
    assert data.environment == {"PATH": "/operator"}
    assert data.config["environment_variables"] == {}
    (note,) = data.notes
    assert note == (
        f"{tmp_path}/config.yaml: environment_variables (HOME, PATH, OPENSSL_CONF, HARMLESS) of a data-only directory "
        "are ignored; set them in [models.NAME.environment] in gateway.toml"
    )
    assert spec(tmp_path, text, own_code=True).environment.keys() == {"HOME", "PATH", "OPENSSL_CONF", "HARMLESS"}


def test_a_wrong_config_yaml_is_an_error_with_every_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        spec(tmp_path, "model_name: []\nruntime: {num_workers: 3}\n")

    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{tmp_path}/config.yaml:1: model_name must be a string")
    assert second.startswith(f"{tmp_path}/config.yaml:2: num_workers must be 1")


@pytest.mark.parametrize(
    ("text", "overrides", "slots", "expected"),
    [
        ("", {}, None, 1),
        ("", {}, 16, 16),
        ("runtime: {predict_concurrency: 1}", {}, 16, 1),
        ("runtime: {predict_concurrency: 2}", {"slots": 3}, 16, 3),
        ("", {"slots": 3}, 16, 3),
        ("", {"predict_concurrency": 5}, None, 5),
        ("", {"limits": {"slots": 7}}, None, 7),
        ("", {"limits": {"slots": 7}}, 16, 16),
        ("runtime: {predict_concurrency: 2}", {"limits": {"slots": 7}}, None, 2),
        ("runtime: {is_websocket_endpoint: true}", {}, UNLIMITED, UNLIMITED),
        ("runtime: {is_websocket_endpoint: true}", {}, None, 1),
        ("runtime: {is_websocket_endpoint: true, predict_concurrency: 2}", {}, None, 2),
    ],
)
def test_slots_come_from_the_operator_then_the_file_then_the_format(
    tmp_path: Path, text: str, overrides: dict[str, Any], slots: int | None, expected: int
) -> None:
    found = spec(tmp_path, text, overrides, slots=slots)

    assert found.limits.slots == expected
    assert found.config["runtime"]["predict_concurrency"] == expected


def test_overrides_win_over_config_yaml(tmp_path: Path) -> None:
    found = spec(
        tmp_path,
        "environment_variables: {A: file, B: file}\nresources: {accelerator: L4}\n",
        {
            "replicas": 2,
            "max_body": MIB,
            "load_timeout": 5.0,
            "environment": {"A": "operator"},
            "gpu_memory": "20GiB",
            "truss_parity": "strict",
        },
        own_code=True,
    )

    assert found.replicas == 2
    assert (found.limits.max_body, found.limits.load_timeout) == (MIB, 5.0)
    assert found.environment == {"A": "operator", "B": "file"}
    assert found.resources == Resources(gpus=1, accelerator="L4", gpu_memory="20GiB")
    assert found.parity == "strict"
    assert found.derive == ()


@pytest.mark.parametrize(
    ("text", "gpus", "expected"),
    [
        ("", 2, Resources(gpus=2)),
        ("", ["0"], Resources(gpus=1, pin=(("0",),))),
        ("", [0, 1], Resources(gpus=2, pin=(("0", "1"),))),
        ("", [["0"], ["1"]], Resources(gpus=1, pin=(("0",), ("1",)))),
        ("resources: {accelerator: L4}", [0, 1], Resources(gpus=1, accelerator="L4", pin=(("0", "1"),))),
        ("resources: {accelerator: 'L4:4'}", [0, 1], Resources(gpus=2, accelerator="L4", pin=(("0", "1"),))),
        ("resources: {accelerator: L4}", 0, Resources(gpus=0, accelerator="L4")),
    ],
)
def test_gpus_are_a_count_or_a_pin(tmp_path: Path, text: str, gpus: Any, expected: Resources) -> None:
    assert spec(tmp_path, text, {"gpus": gpus}).resources == expected


def test_options_reach_the_class_with_the_operators_on_top(tmp_path: Path) -> None:
    found = spec(
        tmp_path, "options: {b: file, c: file}", {"options": {"c": "operator"}}, options={"a": "format", "b": "format"}
    )
    assert found.config["options"] == {"a": "format", "b": "file", "c": "operator"}
    assert "options" not in spec(tmp_path, "").config


def test_mounts_change_where_the_model_looks(tmp_path: Path) -> None:
    found = spec(
        tmp_path,
        "weights: [{source: 'hf://a/b', mount_location: /app/weights}]",
        {"mounts": {"/app/weights": Path("/data/weights")}},
    )
    assert found.config["weights"][0]["mount_location"] == "/data/weights"


def test_only_a_class_has_places_of_the_operators_for_its_weights(tmp_path: Path) -> None:
    overrides = {"mounts": {"/app/weights": Path("/data/weights")}, "mount_roots": (Path("/srv"),)}
    text = "weights: [{source: 'hf://a/b', mount_location: /app/weights}]"
    assert spec(tmp_path, text, overrides).mount_roots == ()
    found = describe(tmp_path, target="model:Model", format="python", overrides=overrides, own_code=True)
    assert found.mount_roots == (Path("/srv"), Path("/data/weights"))


def test_a_directory_can_set_nothing_that_is_the_operators(tmp_path: Path) -> None:
    mine = "replicas: 9\nslots: 9\nmax_queue: 9\ngpus: [0]\nrunner: other\nallow_pickle: true\nhost: 0.0.0.0\n"
    found = spec(tmp_path, f"{mine}options: {{allow_pickle: true, trust_remote_code: true, mine: 1}}\n")

    assert (found.replicas, found.limits, found.resources) == (1, Limits(), Resources())
    assert found.config["options"] == {"mine": 1}
    assert sum("can only be set by the operator" in note for note in found.notes) == 2


def test_what_yaml_can_hold_reaches_the_worker(tmp_path: Path) -> None:
    text = "model_metadata: {d: 2024-01-01, s: !!set {a}, b: !!binary aGk=, n: .nan, 1: x, null: y}\n2024-01-01: z\n"
    found = spec(tmp_path, text)
    assert plain.to_spec(msgspec.msgpack.decode(msgspec.msgpack.encode(plain.from_spec(found)))).name == found.name


def test_overrides_applied_twice_are_the_same(tmp_path: Path) -> None:
    overrides = {"slots": 3, "gpus": [["0"], ["1"]], "replicas": 2, "environment": {"A": "b"}, "gpu_memory": "1GiB"}
    found = spec(tmp_path, "", overrides)
    assert apply_overrides(found, overrides) == found


def test_a_bare_spec_of_a_plugin_is_completed_from_config_yaml_and_settings(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model_name: Nice\nruntime: {predict_concurrency: 3}\n")
    bare = ModelSpec(name="x", target="mine:Class", root=tmp_path, format="mine", resources=Resources(gpus=1))

    found = complete(bare, {"replicas": 2, "limits": {"max_queue": 5}})

    assert (found.display_name, found.limits, found.replicas) == ("Nice", Limits(slots=3, max_queue=5), 2)
    assert (found.name, found.target, found.resources) == ("x", "mine:Class", Resources(gpus=1))
    assert found.config["runtime"]["predict_concurrency"] == 3


def test_what_a_plugin_decided_itself_stays(tmp_path: Path) -> None:
    bare = ModelSpec(name="x", target="mine:Class", root=tmp_path, limits=Limits(slots=9))
    assert complete(bare, {}).limits.slots == 9
    assert complete(replace(bare, config={"mine": 1}), {}).config == {"mine": 1}


@pytest.mark.parametrize("source", ["https://host/model.skops", "s3://b/c", "gs://b/c", "azure://a/b/c", "r2://a.b/c"])
@pytest.mark.parametrize("auth", ["auth_secret_name: key", "auth: {auth_method: CUSTOM_SECRET, auth_secret_name: key}"])
def test_data_has_no_secret_sent_where_it_says_unless_the_operator_lists_it(
    tmp_path: Path, source: str, auth: str
) -> None:
    hub = "{source: 'hf://a/b', auth_secret_name: hub}"
    text = f"secrets: {{key: null}}\nweights: [{hub}, {{source: '{source}', {auth}}}]"
    bare = ModelSpec(name="m", target="plugin:Class", root=tmp_path)
    for found in (lambda: spec(tmp_path, text), lambda: complete(bare, {})):
        with pytest.raises(ConfigError) as caught:
            found()
        assert str(caught.value) == (
            f"{tmp_path}/config.yaml: weights {source}: a data-only directory may not choose an address that receives "
            'the secret key; to allow it: [models.NAME] secrets = ["hub", "key"] in gateway.toml'
        )
    assert spec(tmp_path, text, {"secrets": ("hub", "key")}).secrets == ("key", "hub")
    assert spec(tmp_path, text, own_code=True).secrets == ("key", "hub")
    assert spec(tmp_path, f"weights: [{hub}, {{source: '{source}'}}]").secrets == ("hub",)


def test_the_operator_may_list_which_of_its_secrets_a_model_has(tmp_path: Path) -> None:
    text = "secrets: {token: null, other: null}\nweights: [{source: 'hf://a/b', auth_secret_name: hub}]"
    assert spec(tmp_path, text).secrets == ("token", "other", "hub")
    assert spec(tmp_path, text, {"secrets": ("hub", "token", "never_declared")}).secrets == ("token", "hub")
    assert spec(tmp_path, text.partition("weights")[0], {"secrets": ()}).secrets == ()


@pytest.mark.parametrize("own_code", [True, False])
@pytest.mark.parametrize("source", ["hf://a/b", "https://host/model.skops"])
def test_weights_that_need_a_secret_which_the_model_may_not_have_are_refused(
    source: str, own_code: bool, tmp_path: Path
) -> None:
    """Else it would get what another model fetched with it."""
    text = f"weights: [{{source: '{source}', auth_secret_name: key}}]"
    for allowed in ((), ("other",)):
        with pytest.raises(ConfigError, match=r"needs the secret key, which \[models\.NAME\] secrets"):
            spec(tmp_path, text, {"secrets": allowed}, own_code=own_code)


def test_of_very_many_directories_that_are_not_there_the_first_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"external_package_dirs: [{', '.join(f'gone{at}' for at in range(500))}]")
    notes = describe(tmp_path, target="a:B", format="truss", overrides={}, own_code=True).notes
    assert [note.rpartition(": ")[2] for note in notes if "external_package_dirs" in note] == [
        *(f"gone{at} does not exist" for at in range(10)),
        "490 more do not exist",
    ]
