from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConfigError
from gateway.settings import kinds
from gateway.settings.bind import check_bind, check_keys_file, is_loopback
from gateway.settings.load import MODEL, SECTIONS, load_settings
from gateway.settings.schema import (
    LIMIT_KINDS,
    GatewaySettings,
    ModelSettings,
    PlacementSettings,
    ResponsesSettings,
    Settings,
    WorkerSettings,
)
from gateway.settings.toml_lines import key_lines
from gateway.spec import Limits, ModelSpec


def load(path: Path, text: str = "", *, flags: dict[str, Any] | None = None, **environ: str) -> Settings:
    (path / "gateway.toml").write_text(text, "utf-8")
    return load_settings(path / "gateway.toml", flags=flags, environ=environ)


def errors(path: Path, text: str = "", **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, text, **environ)
    return str(caught.value)


# ── where values come from ───────────────────────────────────────────────────────────────────────────────────────


def test_no_file_and_no_variable_gives_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings(environ={})

    assert (settings.gateway.host, settings.gateway.port) == ("127.0.0.1", 8000)
    assert settings.gateway.limits == Limits()
    assert settings.models == {}
    assert settings.origin("gateway.port") == "default"


def test_gateway_toml_of_the_working_directory_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gateway.toml").write_text("[gateway]\nport = 1234\n")

    settings = load_settings(environ={})

    assert settings.gateway.port == 1234
    assert settings.origin("gateway.port") == "gateway.toml:2"


def test_a_byte_order_mark_is_ignored_and_lines_are_still_counted(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeff[gateway]\nport = 1234\n").gateway.port == 1234
    assert ":2" in errors(tmp_path, "\ufeff[gateway]\nporte = 1\n")


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_settings(tmp_path / "gone.toml", environ={})


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    text = "[gateway]\nport = 1\nhost = 'a'\nlog_level = 'debug'\n"
    settings = load(
        tmp_path, text, flags={"gateway.port": 3, "gateway.debug": None}, GATEWAY_PORT="2", GATEWAY_HOST="b"
    )

    assert (settings.gateway.port, settings.gateway.host, settings.gateway.log_level) == (3, "b", "debug")
    assert settings.origin("gateway.port") == "flag --port"
    assert settings.origin("gateway.host") == "environment GATEWAY_HOST"
    assert settings.origin("gateway.log_level") == f"{tmp_path}/gateway.toml:4"


def test_nested_keys_have_two_underscores_in_the_environment(tmp_path: Path) -> None:
    settings = load(
        tmp_path, GATEWAY_LIMITS__MAX_QUEUE="5", GATEWAY_PLACEMENT__HEADROOM="2GiB", GATEWAY_DEVICES="1xL4:24GiB"
    )

    assert settings.gateway.limits.max_queue == 5
    assert settings.gateway.placement.headroom == 2 * 1024**3
    assert settings.gateway.placement.devices == "1xL4:24GiB"


def test_lists_in_the_environment_are_separated_by_commas(tmp_path: Path) -> None:
    settings = load(tmp_path, GATEWAY_MODELS="a,b", GATEWAY_ALLOWED_HOSTS="one, two")

    assert settings.gateway.models == (Path("a"), Path("b"))
    assert settings.gateway.allowed_hosts == ("one", "two")


def test_an_empty_variable_is_no_value(tmp_path: Path) -> None:
    assert load(tmp_path, GATEWAY_PORT="").gateway.port == 8000


def test_paths_of_the_file_start_at_its_directory_and_others_where_you_are(tmp_path: Path) -> None:
    text = '[gateway]\nmodels = ["models", "/abs"]\nplugins = ["./my_plugin.py"]\nsecrets_dir = "secrets"\n'
    settings = load(tmp_path, text, flags={"gateway.cache_dir": "cache"})

    assert settings.gateway.models == (tmp_path / "models", Path("/abs"))
    assert settings.gateway.plugins == (tmp_path / "my_plugin.py",)
    assert settings.gateway.secrets_dir == tmp_path / "secrets"
    assert settings.gateway.cache_dir == Path("cache")


# Every setting that is a path, by what it says of itself: a new one is among them, or the first test names it.
SECTION_TYPES = {
    "gateway": GatewaySettings,
    "gateway.placement": PlacementSettings,
    "gateway.responses": ResponsesSettings,
    "gateway.worker": WorkerSettings,
}
PATH_KEYS = [
    (section, item)
    for section, settings in SECTION_TYPES.items()
    for item in fields(settings)
    if item.metadata.get("kind") in kinds.PATHS
]
PATH_KEYS_OF_MODELS = [item for item in fields(ModelSettings) if item.metadata.get("kind") in kinds.PATHS]


def written(kind: Any, place: str) -> str:
    """A path as gateway.toml has it for this kind."""
    return {
        **dict.fromkeys((kinds.file, kinds.directory), f"'{place}'"),
        kinds.paths: f"['{place}']",
        kinds.places: f"{{'/app/x' = '{place}'}}",
    }[kind]


def read(kind: Any, place: Path) -> Any:
    return {kinds.file: place, kinds.directory: place, kinds.paths: (place,), kinds.places: {"/app/x": place}}[kind]


def test_whatever_holds_a_path_is_a_setting_of_a_kind_of_path() -> None:
    for settings in (*SECTION_TYPES.values(), ModelSettings):
        for item in fields(settings):
            assert ("Path" in str(item.type)) == (item.metadata.get("kind") in kinds.PATHS), item.name
    assert {*SECTION_TYPES, "gateway.limits"} == set(SECTIONS)
    assert {item.name for _, item in PATH_KEYS} >= {"models", "keys_file", "cache_dir", "path"}


@pytest.mark.parametrize("named", ["as a path", "relative to where we are"])
@pytest.mark.parametrize(("section", "item"), PATH_KEYS, ids=lambda value: getattr(value, "name", value))
def test_a_path_starts_at_the_file_that_sets_or_could_set_it_or_else_where_we_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: str, item: Any, named: str
) -> None:
    kind, key = item.metadata["kind"], f"{section}.{item.name}"
    home, here = tmp_path / "etc", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    directory = home if named == "as a path" else Path("../etc")
    file = directory / "gateway.toml"

    def of(text: str = "", *, flags: dict[str, Any] | None = None, **environ: str) -> Any:
        file.write_text(text)
        inner: Any = load_settings(file, flags=flags, environ=environ).gateway
        for part in key.split(".")[1:]:
            inner = getattr(inner, part)
        return inner

    table = f"[{section}]\n{item.name} = "
    assert of(f"{table}{written(kind, 'some/where')}\n") == read(kind, directory / "some/where")
    assert of(f"{table}{written(kind, '/abs')}\n") == read(kind, Path("/abs"))
    assert of(f"{table}{written(kind, '~/x')}\n") == read(kind, Path.home() / "x")
    assert of() == kinds.starting_at(directory, item.default)
    variable = "GATEWAY_" + key.removeprefix("gateway.").replace(".", "__").upper()
    assert of(f"{table}{written(kind, 'x')}\n", **{variable: "some/where"}) == read(kind, Path("some/where"))
    assert of(flags={key: "some/where"}) == read(kind, Path("some/where"))


@pytest.mark.parametrize("item", PATH_KEYS_OF_MODELS, ids=lambda item: item.name)
def test_a_path_of_a_model_starts_at_the_file_too(tmp_path: Path, item: Any) -> None:
    kind = item.metadata["kind"]
    settings = load(tmp_path, f"[models.a]\n{item.name} = {written(kind, 'some/where')}\n")
    assert getattr(settings.model("a"), item.name) == read(kind, tmp_path / "some/where")


def test_without_a_file_the_defaults_start_where_we_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(environ={}).gateway == GatewaySettings()


@pytest.mark.parametrize("how", ["file", "variable"])
def test_a_file_of_keys_that_is_named_and_missing_is_refused(tmp_path: Path, how: str) -> None:
    text = "[gateway]\nkeys_file = 'mine.toml'\n" if how == "file" else ""
    settings = load(tmp_path, text, **({"GATEWAY_KEYS_FILE": str(tmp_path / "mine.toml")} if how == "variable" else {}))
    with pytest.raises(
        ConfigError, match=r"mine\.toml does not exist, so no request would need a key: run `gateway keys add"
    ):
        check_keys_file(settings)

    (tmp_path / "mine.toml").touch()
    check_keys_file(settings)


@pytest.mark.parametrize("how", ["file", "variable", "default"])
@pytest.mark.parametrize(("section", "item"), PATH_KEYS, ids=lambda value: getattr(value, "name", value))
def test_a_directory_in_the_place_of_a_file_is_refused_and_the_other_way_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: str, item: Any, how: str
) -> None:
    monkeypatch.chdir(tmp_path)
    kind, key = item.metadata["kind"], f"{section}.{item.name}"
    place = tmp_path / (str(item.default) if how == "default" else "odd")
    if kind not in (kinds.file, kinds.directory) or (how == "default" and item.default is None):
        return  # what is wrong with one of several is told where it is read
    needed, other = ("file", "directory") if kind is kinds.file else ("directory", "file")
    (Path.touch if kind is kinds.directory else Path.mkdir)(place)
    text = f"[{section}]\n{item.name} = 'odd'\n" if how == "file" else ""
    variable = "GATEWAY_" + key.removeprefix("gateway.").replace(".", "__").upper()
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **({variable: str(place)} if how == "variable" else {}))
    origin = {"file": f"{tmp_path}/gateway.toml:2", "variable": f"environment {variable}", "default": "default"}[how]
    assert str(caught.value) == f"{origin}: {key} = {place} is a {other} but must be a {needed}"

    place.unlink() if kind is kinds.directory else place.rmdir()
    (Path.touch if kind is kinds.file else Path.mkdir)(place)
    load(tmp_path, text, **({variable: str(place)} if how == "variable" else {}))


def test_a_directory_that_has_the_name_of_the_settings_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gateway.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read: it is not a regular file"):
        load_settings(environ={})


def test_the_file_of_keys_that_nobody_has_named_may_be_missing(tmp_path: Path) -> None:
    check_keys_file(load(tmp_path))


def test_a_variable_that_is_no_setting_is_a_warning(tmp_path: Path) -> None:
    (problem,) = load(tmp_path, GATEWAY_PROT="1").problems

    assert str(problem) == (
        "environment GATEWAY_PROT: environment variable GATEWAY_PROT is not a setting (did you mean GATEWAY_PORT?)"
    )
    assert problem.level == "warning"


def test_what_kubernetes_sets_for_a_service_named_gateway_does_no_harm(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        GATEWAY_PORT="tcp://10.0.0.1:80",
        GATEWAY_SERVICE_HOST="10.0.0.1",
        GATEWAY_SERVICE_PORT="80",
        GATEWAY_PORT_80_TCP_ADDR="10.0.0.1",
    )

    assert settings.gateway.port == 8000
    assert [problem.code for problem in settings.problems] == ["kubernetes_variable"]


@pytest.mark.parametrize("name", ["GATEWAY_SECRET_TOKEN", "GATEWAY_INTERFACE", "GATEWAY_URL", "OTHER"])
def test_variables_of_others_are_left_alone(tmp_path: Path, name: str) -> None:
    assert load(tmp_path, **{name: "x"}).problems == ()


# ── mistakes ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[gateway]\nprot = 1", "gateway.toml:2: unknown key gateway.prot (did you mean port?)"),
        ("host = 'a'", "gateway.toml:1: unknown key host (did you mean gateway.host?)"),
        ("[gatway]\nport = 1", "gateway.toml:1: unknown key gatway (did you mean gateway?)"),
        ("[model.echo]\nslots = 1", "unknown key model (did you mean models?)"),
        ("[gateway]\nheadroom = 1", "unknown key gateway.headroom (did you mean gateway.placement.headroom?)"),
        ('[models.a]\nenvironment = {"A=B" = "x"}', "names must not be empty or contain ="),
        ("[gateway]\nzebra = 1", "unknown key gateway.zebra (have: access_log, admin_http, "),
        ("[gateway.limit]\nslots = 1", "unknown key gateway.limit (did you mean limits?)"),
        ("[gateway.limits]\nslot = 1", "unknown key gateway.limits.slot (did you mean slots?)"),
        ("[models.echo]\nslot = 1", "gateway.toml:2: unknown key models.echo.slot (did you mean slots?)"),
        ("[models.qwen2.5]\nslots = 1", 'gateway.toml:1: [models.qwen2.5] is a nested table; quote the name: '
         '[models."qwen2.5"]'),
        ("[models]\necho = 3", "[models.echo] must be a table"),
        ("models = ['models']", "models must be a table of tables; model roots are [gateway] models"),
        ("gateway = 3", "gateway must be a table"),
        ("[gateway]\nlimits = 3", "gateway.limits must be a table"),
        ("[gateway]\nport = '8000'", "gateway.toml:2: gateway.port must be a whole number from 0 to 65535, not '8000'"),
        ("[gateway]\nport = 70000", "gateway.port must be a whole number from 0 to 65535, not 70000"),
        ("[gateway]\ndebug = 1", "gateway.debug must be true or false, not 1"),
        ("[gateway]\nlog_format = 'xml'", "gateway.log_format must be text or json, not 'xml'"),
        ("[gateway.placement]\nheadroom = 'much'", "gateway.placement.headroom: size: 'much' is not a size"),
        ("[models.a]\nslots = 0", "models.a.slots must be a whole number, 1 or more, not 0"),
        ("[models.a]\nslots = 1\npredict_concurrency = 1", "slots and predict_concurrency are the same setting"),
        ("[gateway]\napi_key = 'x'", "the API key does not belong in this file"),
        ("[gateway", "gateway.toml: "),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line_and_a_way_out(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in errors(tmp_path, text)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    told = errors(tmp_path, "[gateway]\nprot = 1\nport = -1\n", GATEWAY_DEBUG="maybe").splitlines()

    assert len(told) == 3
    assert told[2] == "environment GATEWAY_DEBUG: gateway.debug must be true or false, not 'maybe'"


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_settings(tmp_path / "gateway.toml", environ={})


# ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_models_table_is_what_its_format_gets(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        """
        [gateway.limits]
        max_queue = 7
        [models."team/llama-3.1"]
        predict_concurrency = 4
        gpus = [[0], [1]]
        load = "lazy"
        allow_pickle = true
        options = {page_size = 32}
        """,
    )
    overrides = settings.overrides("team/llama-3.1")

    assert overrides.pop("limits")["max_queue"] == 7
    assert overrides == {
        "slots": 4,
        "gpus": (("0",), ("1",)),
        "load": "lazy",
        "allow_pickle": True,
        "options": {"page_size": 32},
        "truss_parity": "improved",
    }
    assert settings.origin("models.team/llama-3.1.slots").endswith("gateway.toml:5")


def test_a_model_without_a_table_has_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path)

    assert settings.model("any") == ModelSettings()
    assert settings.overrides("any").keys() == {"limits", "truss_parity"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[gateway.placement]\non_full = 'evict'\n", "gateway.placement.on_full: not supported yet: 'evict'"),
        ("[gateway.placement]\non_full = 'x'\n", "gateway.placement.on_full must be error, queue or evict, not 'x'"),
    ],
)
def test_what_nothing_acts_on_yet_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    told = errors(tmp_path, text)
    assert f"gateway.toml:2: {expected}" in told
    assert len(told.splitlines()) == 1


def test_the_default_of_what_nothing_acts_on_may_be_written(tmp_path: Path) -> None:
    text = "[gateway.placement]\non_full = 'error'\n"
    assert load(tmp_path, text).gateway == load(tmp_path).gateway


def test_parity_is_set_for_all_models_and_for_one(tmp_path: Path) -> None:
    settings = load(tmp_path, "[gateway]\ntruss_parity = 'strict'\n[models.a]\ntruss_parity = 'improved'\n")
    assert settings.overrides("a")["truss_parity"] == "improved"
    assert settings.overrides("b")["truss_parity"] == "strict"


def test_an_environment_of_its_own_is_for_models_with_code_unless_one_asks_for_it(tmp_path: Path) -> None:
    def spec(name: str, own_code: bool = True) -> ModelSpec:
        return ModelSpec(name=name, target="model.model:Model", root=tmp_path, own_code=own_code)

    settings = load(tmp_path, "[gateway]\nenv = 'isolated'\n[models.a]\nenv = 'shared'\n[models.c]\nenv = 'isolated'\n")
    assert not settings.isolates(spec("a"))
    assert settings.isolates(spec("b"))
    assert not settings.isolates(spec("b", own_code=False))
    assert settings.isolates(spec("c", own_code=False))  # which is refused when it loads
    assert not load(tmp_path).isolates(spec("b"))


def test_every_limit_can_be_set_for_all_models_and_for_one() -> None:
    names = {item.name for item in fields(Limits)}
    assert names == set(LIMIT_KINDS)
    assert names <= {item.name for item in fields(ModelSettings)}


# ── keys and binding ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_api_key_comes_from_the_environment_or_a_file_and_is_never_shown(tmp_path: Path) -> None:
    settings = load(tmp_path, GATEWAY_API_KEY=" s3cret ")
    assert settings.gateway.api_key == "s3cret"
    assert settings.origin("gateway.api_key") == "environment GATEWAY_API_KEY"
    assert "s3cret" not in repr(settings)

    (tmp_path / "key").write_text("from-a-file\n")
    assert load(tmp_path, GATEWAY_API_KEY_FILE=str(tmp_path / "key")).gateway.api_key == "from-a-file"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"GATEWAY_API_KEY": "a", "GATEWAY_API_KEY_FILE": "b"}, "both set"),
        ({"GATEWAY_API_KEY_FILE": "/nowhere/key"}, "cannot be read"),
        ({"GATEWAY_API_KEY_FILE": "/dev/null"}, "the file is empty"),
        ({"GATEWAY_API_KEY_FILE": "/dev/zero"}, "cannot be read: it is not a regular file"),
        ({"GATEWAY_API_KEY": "two words s3cret"}, "are not allowed in an HTTP header"),
        ({"GATEWAY_API_KEY": "schlüssel-s3cret"}, "are not allowed in an HTTP header"),
    ],
)
def test_a_key_that_cannot_be_used_is_an_error_that_does_not_show_it(
    tmp_path: Path, environ: dict[str, str], expected: str
) -> None:
    told = errors(tmp_path, **environ)
    assert expected in told
    assert "s3cret" not in told


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("127.0.0.1.example.org", False),
        ("example.org", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_a_public_bind_without_a_key_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError) as caught:
        check_bind(Settings(gateway=GatewaySettings(host="0.0.0.0")))

    assert len(str(caught.value).splitlines()) == 1
    assert "GATEWAY_API_KEY" in str(caught.value)
    assert "--insecure-no-auth" in str(caught.value)


@pytest.mark.parametrize(
    "gateway",
    [
        GatewaySettings(),
        GatewaySettings(debug=True),
        GatewaySettings(host="0.0.0.0", api_key="x"),
        GatewaySettings(host="0.0.0.0", insecure_no_auth=True),
    ],
)
def test_a_bind_that_is_safe_or_asked_for_is_allowed(gateway: GatewaySettings) -> None:
    check_bind(Settings(gateway=gateway))


def test_debug_is_for_loopback_only() -> None:
    with pytest.raises(ConfigError, match="loopback only"):
        check_bind(Settings(gateway=GatewaySettings(host="0.0.0.0", api_key="x", debug=True)))


# ── the file we ship ─────────────────────────────────────────────────────────────────────────────────────────────

SHIPPED = Path(__file__).parents[2] / "gateway.toml"


def uncommented() -> str:
    """The shipped file with every default switched on."""
    text = re.sub(r"^# (?=[a-z\"\[][\w\"\[.-]*\]? *(=|$|#))", "", SHIPPED.read_text("utf-8"), flags=re.MULTILINE)
    return text.replace("[models.NAME]", '[models."NAME"]')


def test_the_shipped_file_changes_nothing() -> None:
    settings = load_settings(SHIPPED, environ={})
    here = {"models": (SHIPPED.parent / "models",), "keys_file": SHIPPED.parent / "keys.toml"}
    assert settings.gateway == replace(GatewaySettings(), **here)
    assert settings.models == {}


def test_the_shipped_file_documents_exactly_the_known_keys() -> None:
    documented = {key for key in key_lines(uncommented()) if key[0] in ("gateway", "models")}
    known = {(*section.split("."), name) for section, keys in SECTIONS.items() for name in keys}
    known -= {("gateway", "api_key")}  # does not belong in the file
    known |= {("models", "NAME", name) for name in MODEL}

    tables = {("gateway",), ("models",), ("models", "NAME")}
    tables |= {tuple(section.split(".")) for section in SECTIONS}
    assert documented - tables - {("gateway", "aliases", "gpt-4o")} == known


def test_the_values_it_shows_are_the_defaults(tmp_path: Path) -> None:
    text = uncommented()
    examples = (
        r"predict_concurrency|batch_\w+|gpus|gpu_memory|default_model|\w+_dir|environment_file|admin_socket|"
        r"tls_cert|tls_key"
    )
    text = re.sub(
        rf"^({examples}|wait_for_ready|max_connections|memory_limit|path|secrets|\"gpt-4o\") =.*\n",
        "",
        text,
        flags=re.MULTILINE,
    )  # or none
    settings = load(tmp_path, text)
    shown = {**vars_of(settings.gateway), "models": (Path("models"),), "keys_file": Path("keys.toml")}

    assert shown == vars_of(GatewaySettings())
    overrides = settings.overrides("NAME")
    assert {name: overrides.pop(name, None) for name in LIMIT_KINDS} == overrides.pop("limits")
    assert overrides.pop("env") == "shared"
    assert overrides.pop("sandbox") == "basic"
    assert overrides == {"replicas": 1, "truss_parity": "improved", "environment": {}, "mounts": {}, "options": {}}


def vars_of(settings: Any) -> dict[str, Any]:
    return {item.name: getattr(settings, item.name) for item in fields(settings)}


# ── any settings ─────────────────────────────────────────────────────────────────────────────────────────────────

LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "slots": st.integers(1, 1000),
        "max_queue": st.integers(0, 1000),
        "queue_timeout": st.floats(0, 1e6, allow_nan=False),
        "max_body": st.integers(0, 2**40),
    },
)
NAMES = st.from_regex(r"[a-z0-9]{1,4}([./-][a-z0-9]{1,4}){0,2}", fullmatch=True)


@given(limits=LIMITS, models=st.dictionaries(NAMES, LIMITS, max_size=3), port=st.integers(0, 65535))
def test_what_is_written_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    limits: dict[str, Any],
    models: dict[str, dict[str, Any]],
    port: int,
) -> None:
    tables = {"gateway": {"port": port}, "gateway.limits": limits}
    tables |= {f'models."{name}"': table for name, table in models.items()}
    text = "".join(
        f"[{name}]\n" + "".join(f"{key} = {value!r}\n" for key, value in table.items())
        for name, table in tables.items()
    )

    settings = load(tmp_path_factory.mktemp("settings"), text)

    assert settings.gateway.port == port
    assert {name: getattr(settings.gateway.limits, name) for name in limits} == limits
    assert {
        name: {key: getattr(settings.models[name], key) for key in table} for name, table in models.items()
    } == models


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12))
def test_an_unknown_key_is_always_named(tmp_path_factory: pytest.TempPathFactory, key: str) -> None:
    if key not in {*SECTIONS["gateway"], "limits", "placement"}:
        told = errors(tmp_path_factory.mktemp("settings"), f"[gateway]\n{key} = 1\n")
        assert f"gateway.toml:2: unknown key gateway.{key} (" in told


# ── patterns ─────────────────────────────────────────────────────────────────────────────────────────────────────────

PATTERNS = """
[models."*"]
load = "lazy"
slots = 2
max_queue = 7

[models."team/*"]
slots = 3
queue_timeout = 5

[models."team/big-*"]
slots = 4

[models."team/big-one"]
load = "eager"
"""


def test_of_several_tables_the_one_that_says_most_of_a_model_counts_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(PATTERNS)
    settings = load_settings(tmp_path / "gateway.toml", environ={})
    found = {
        name: (mine.load, mine.slots, mine.max_queue, mine.queue_timeout)
        for name in ("other", "team/a", "team/deep/a", "team/big-two", "team/big-one")
        if (mine := settings.model(name))
    }
    assert found == {
        "other": ("lazy", 2, 7, None),
        "team/a": ("lazy", 3, 7, 5.0),
        "team/deep/a": ("lazy", 3, 7, 5.0),
        "team/big-two": ("lazy", 4, 7, 5.0),
        "team/big-one": ("eager", 4, 7, 5.0),  # its own table wins with a value that is the default too
    }
    assert settings.overrides("team/a")["slots"] == 3
    assert settings.origin("models.team/big-one.slots") == f"{tmp_path}/gateway.toml:12"
    assert settings.origin("models.team/big-one.load") == f"{tmp_path}/gateway.toml:15"
    assert settings.origin("models.other.required") == "default"


def test_of_patterns_that_say_as_much_the_later_counts(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text('[models."a*"]\nslots = 2\n[models."*b"]\nslots = 3\n')
    settings = load_settings(tmp_path / "gateway.toml", environ={})
    assert (settings.model("ab").slots, settings.model("ac").slots) == (3, 2)


def test_an_alias_of_several_models_is_refused(tmp_path: Path) -> None:
    assert "an alias must name one" in errors(tmp_path, '[models."*"]\naliases = ["gpt"]\n')
