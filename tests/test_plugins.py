from __future__ import annotations

import importlib
import types
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway import ConfigError, Endpoint, ModelSpec, hookimpl, plugins
from gateway.access.callers import Caller
from gateway.devices.device import Device
from gateway.dialects.base import Dialect
from gateway.dialects.plugin_dialects import completed
from gateway.errors import GatewayError, Unauthorized
from gateway.plugins import BUILTINS, Plugins


def module(name: str, **functions: Callable[..., Any]) -> types.ModuleType:
    found = types.ModuleType(name)
    for function in functions.values():
        hookimpl(function)
    vars(found).update(functions)
    return found


def load(*modules: types.ModuleType) -> Plugins:
    loaded = Plugins()
    for plugin in modules:
        loaded.register(plugin, plugin.__name__, source="test")
    return loaded


def spec(name: str, **details: Any) -> ModelSpec:
    return ModelSpec(name=name, target="a:B", root=Path("/"), **details)


def explode(*_: Any, **__: Any) -> Any:
    raise ValueError("boom")


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The entry points of packages, none unless a test adds some: what is installed here is not the question."""
    points: list[Any] = []
    monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == "gateway" else [])
    return points


# ── loading ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_built_ins_load_without_a_problem_and_formats_are_asked_last() -> None:
    loaded = Plugins.load()

    assert loaded.problems == ()
    assert [name for name, _ in loaded._of("find_model")][-2:] == ["truss", "python"]


@pytest.mark.parametrize("name", BUILTINS)
def test_every_built_in_exists(name: str) -> None:
    importlib.import_module(BUILTINS[name])


def test_files_come_before_entry_points_and_those_before_built_ins(tmp_path: Path, installed: list[Any]) -> None:
    dist = types.SimpleNamespace(name="some-dist", version="1.2")
    installed.append(types.SimpleNamespace(name="packaged", load=lambda: module("packaged"), dist=dist))
    (tmp_path / "mine.py").write_text("__version__ = '3'\n")

    rows = Plugins.load([tmp_path / "mine.py"]).describe()

    assert [row.name for row in rows][:2] == ["mine", "packaged"]
    assert [row.name for row in rows][-2:] == ["truss", "python"]
    assert (rows[0].source, rows[0].version) == (str(tmp_path / "mine.py"), "3")
    assert (rows[1].source, rows[1].version) == ("package some-dist", "1.2")
    assert (rows[-1].source, rows[-1].hooks) == ("built-in", ("find_model", "register_formats"))


def test_blocked_plugins_are_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("1 / 0\n")

    loaded = Plugins.load([tmp_path / "mine.py"], block=["mine", "python"])

    assert not {"mine", "python"} & {row.name for row in loaded.describe()}
    assert loaded.problems == ()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("1 / 0", "plugin mine: load: ZeroDivisionError: division by zero"),
        ("import nothing_of_this_name", "plugin mine: load: ModuleNotFoundError: No module named"),
        ("def (", "plugin mine: load: SyntaxError"),
        (
            "from gateway import hookimpl\n@hookimpl\ndef find_modl(path): ...",
            "plugin mine: find_modl: no such hook (did you mean find_model?)",
        ),
        (
            "def find_model(path): ...",
            "plugin mine: find_model: it is not marked with @hookimpl, so it is never called",
        ),
        ("from gateway import hookimpl\n@hookimpl\ndef zebra(path): ...", "no such hook (have: find_model, "),
        ("from gateway import hookimpl\n@hookimpl\ndef find_model(path, nothing): ...", "plugin mine: load: "),
        (
            "from gateway import hookimpl\n@hookimpl(wrapper=True)\ndef authorize(scope):\n  return (yield)",
            "hook wrappers are not supported",
        ),
    ],
)
def test_a_broken_plugin_is_a_problem_and_the_others_work(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "mine.py").write_text(text)

    loaded = Plugins.load([tmp_path / "mine.py"])

    assert what in str(loaded.problems[0])
    assert {"truss", "python"} <= {row.name for row in loaded.describe()}


def test_a_package_that_cannot_be_imported_is_a_problem(installed: list[Any]) -> None:
    installed.append(types.SimpleNamespace(name="packaged", load=explode, dist=None, value="some_module"))
    assert [str(problem) for problem in Plugins.load().problems] == ["plugin packaged: load: ValueError: boom"]


def test_a_missing_plugin_file_is_a_problem() -> None:
    (problem,) = Plugins.load(["/nowhere/mine.py"]).problems
    assert "/nowhere/mine.py does not exist" in str(problem)


def test_of_two_plugins_of_one_name_the_first_counts() -> None:
    loaded = load(module("a"), module("a"))
    assert "a plugin of this name is loaded already" in str(loaded.problems[0])


# ── find_model ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_plugin_registered_first_is_asked_first() -> None:
    asked: list[str] = []

    def finder(name: str, answer: ModelSpec | None) -> types.ModuleType:
        def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
            asked.append(name)
            return answer

        return module(name, find_model=find_model)

    loaded = load(finder("a", None), finder("b", spec("b")), finder("c", spec("c")))

    found = loaded.find_model(Path("/x"), {})
    assert found is not None
    assert found.name == "b"
    assert asked == ["a", "b"]


def test_tryfirst_and_trylast_are_obeyed() -> None:
    early, late, plain = (types.ModuleType(name) for name in ("early", "late", "plain"))
    early.find_model = hookimpl(tryfirst=True)(lambda path: spec("early"))  # type: ignore[attr-defined]
    late.find_model = hookimpl(trylast=True)(lambda path: spec("late"))  # type: ignore[attr-defined]
    plain.find_model = hookimpl(lambda path: spec("plain"))  # type: ignore[attr-defined]

    assert [name for name, _ in load(late, plain, early)._of("find_model")] == ["early", "plain", "late"]


def test_a_plugin_that_crashes_is_passed_over_and_told_once() -> None:
    loaded = load(
        module("broken", find_model=lambda path: explode()),
        module("good", find_model=lambda path: spec("good")),
    )

    for _ in range(3):
        found = loaded.find_model(Path("/x"), {})
        assert found is not None
        assert found.name == "good"

    (problem,) = loaded.problems
    assert str(problem) == "plugin broken: find_model of /x: ValueError: boom"


def test_a_config_error_says_that_the_directory_is_taken() -> None:
    def find_model(path: Path) -> None:
        raise ConfigError("broken here")

    loaded = load(module("a", find_model=find_model), module("b", find_model=lambda path: spec("b")))

    with pytest.raises(ConfigError, match="broken here"):
        loaded.find_model(Path("/x"), {})
    assert loaded.problems == ()


def test_what_is_no_spec_is_a_problem() -> None:
    loaded = load(module("a", find_model=lambda path: {"name": "a"}))

    assert loaded.find_model(Path("/x"), {}) is None
    assert "returned a dict; expected a gateway.ModelSpec or None" in str(loaded.problems[0])


def test_the_target_of_a_plugin_file_is_its_path(tmp_path: Path) -> None:
    (tmp_path / "my_plugin.py").write_text(
        "from gateway import ModelSpec, hookimpl\n"
        "@hookimpl\n"
        "def find_model(path, overrides):\n"
        "    return ModelSpec(name=path.name, target='my_plugin:Mine', root=path)\n"
    )
    found = Plugins.load([tmp_path / "my_plugin.py"]).find_model(tmp_path, {})

    assert found is not None
    assert found.target == f"{tmp_path}/my_plugin.py:Mine"


IRIS = {"needs": ("sklearn", "no_such_module_here"), "install": "pip install 'model-gateway[sklearn]'"}


@pytest.mark.parametrize(
    ("details", "told"),
    [
        (IRIS, "looks like scikit-learn; run: pip install 'model-gateway[sklearn]'"),
        ({"needs": ("no_such.module",), "install": "pip install it"}, "looks like no_such.module; run: pip install it"),
        ({"needs": ("json", "no_such_one")}, "looks like json; it needs json, no_such_one"),
    ],
)
def test_a_module_that_a_plugin_needs_and_that_is_not_here_is_an_error_with_the_line_that_installs_it(
    details: Any, told: str
) -> None:
    loaded = load(module("a", find_model=lambda path: spec("iris", **details)))

    with pytest.raises(ConfigError) as caught:
        loaded.find_model(Path("models/iris"), {})
    assert str(caught.value) == f"models/iris {told}"


def test_a_model_with_an_interpreter_of_its_own_needs_no_module_here() -> None:
    loaded = load(module("a", find_model=lambda path: spec("iris", python="/other/python", **IRIS)))
    assert loaded.find_model(Path("models/iris"), {}) is not None


def test_a_spec_says_which_plugin_it_is_of() -> None:
    loaded = load(
        module("a", find_model=lambda path: None),
        module("b", find_model=lambda path: spec("x", needs=("json",), served_by="somebody else")),
    )
    found = loaded.find_model(Path("x"), {})
    assert found is not None and found.served_by == "b"


# ── what plugins register ────────────────────────────────────────────────────────────────────────────────────────

DIALECTS = {"a": Dialect(), "b": Dialect()}
RUNNERS: dict[str, Any] = {"a": lambda launch: None, "b": lambda launch: None}
CHAT = Endpoint(path="/v1/chat/completions", method="chat_completions", dialect="openai_chat")


def test_endpoints_dialects_and_runners_come_in_registration_order_with_their_plugin() -> None:
    def provider(name: str, endpoint: Endpoint) -> types.ModuleType:
        return module(
            name,
            register_endpoints=lambda register: register(endpoint),
            register_dialects=lambda register: register(f"dialect-{name}", DIALECTS[name]),
            register_runners=lambda register: register("process", RUNNERS[name]),
        )

    loaded = load(
        provider("a", replace(CHAT, dialect="dialect-a")),
        provider("b", replace(CHAT, path="/v1/other", dialect="dialect-b")),
    )

    assert [endpoint.path for endpoint in loaded.endpoints()] == ["/v1/chat/completions", "/v1/other"]
    assert list(loaded.dialects().items()) == [("dialect-a", DIALECTS["a"]), ("dialect-b", DIALECTS["b"])]
    assert loaded.runners() == {"process": RUNNERS["a"]}
    first, second = loaded.describe()
    assert first.provides == ("POST /v1/chat/completions", "dialect dialect-a", "runner process")
    assert second.provides == ("POST /v1/other", "dialect dialect-b")
    assert loaded.problems == ()


def test_a_plugin_replaces_a_built_ins_endpoint() -> None:
    mine = replace(CHAT, method="talk", dialect="mine")  # another method too, for a path is served once
    loaded = load(
        module(
            "mine",
            register_endpoints=lambda register: register(mine),
            register_dialects=lambda register: register("mine", Dialect()),
        ),
        module(
            "built-in",
            register_endpoints=lambda register: register(CHAT),
            register_dialects=lambda register: register("openai_chat", Dialect()),
        ),
    )
    assert loaded.endpoints() == [mine]


def test_an_endpoint_of_an_unknown_dialect_is_a_problem_and_the_next_one_serves() -> None:
    loaded = load(
        module("mine", register_endpoints=lambda register: register(replace(CHAT, dialect="opanai"))),
        module(
            "built-in",
            register_endpoints=lambda register: register(CHAT),
            register_dialects=lambda register: register("openai_chat", Dialect()),
        ),
    )
    assert loaded.endpoints() == [CHAT]
    assert loaded.endpoints() == [CHAT]  # told once
    assert [str(problem) for problem in loaded.problems] == [
        "plugin mine: register_endpoints: /v1/chat/completions is not served: unknown dialect 'opanai'"
        " (have: openai_chat)"
    ]


def test_a_name_registered_twice_by_one_plugin_is_a_problem() -> None:
    def register_dialects(register: Callable[[str, Any], None]) -> None:
        register("x", DIALECTS["a"])
        register("x", DIALECTS["b"])

    loaded = load(module("a", register_dialects=register_dialects))

    assert loaded.dialects() == {"x": DIALECTS["a"]}
    assert "dialect x is registered twice" in str(loaded.problems[0])


def test_a_path_registered_twice_by_one_plugin_is_a_problem() -> None:
    def register_endpoints(register: Callable[[Endpoint], None]) -> None:
        register(CHAT)
        register(replace(CHAT, method="talk", verb="GET"))

    known = module("b", register_dialects=lambda register: register("openai_chat", Dialect()))
    loaded = load(module("a", register_endpoints=register_endpoints), known)

    assert loaded.endpoints() == [CHAT]
    (problem,) = loaded.problems
    told = "register_endpoints: /v1/chat/completions is registered twice; the first one counts"
    assert str(problem) == f"plugin a: {told}"


def test_what_was_registered_before_a_crash_counts() -> None:
    def register_endpoints(register: Callable[[Endpoint], None]) -> None:
        register(CHAT)
        explode()

    known = module("b", register_dialects=lambda register: register("openai_chat", Dialect()))
    loaded = load(module("a", register_endpoints=register_endpoints), known)

    assert loaded.endpoints() == [CHAT]
    assert len(loaded.problems) == 1


ONE, TWO = Device(id="one", total=1), Device(id="two", total=2)


def test_devices_of_all_plugins_are_added_up() -> None:
    loaded = load(
        module("a", find_devices=lambda: [ONE]),
        module("b", find_devices=explode),
        module("c", find_devices=lambda: None),
        module("d", find_devices=lambda: (device for device in [TWO])),
    )
    assert loaded.find_devices() == [ONE, TWO]
    assert [problem.where for problem in loaded.problems] == ["plugin b"]


# ── what is wrong with it ────────────────────────────────────────────────────────────────────────────────────────


class Bare:
    """A dialect that extends nothing of ours."""

    def read(self, body: dict[str, Any], method: str) -> Any: ...

    def encoder(self, prepared: Any, context: Any) -> Any: ...


class Raising(Dialect):
    @property
    def request_schema(self) -> dict[str, Any]:  # type: ignore[override]
        raise RuntimeError("no schema today")


@pytest.mark.parametrize(
    ("hook", "given", "told"),
    [
        ("register_endpoints", "/v1/mine", "a str; expected gateway.Endpoint(path, method, dialect)"),
        ("register_endpoints", Endpoint("/x", "my method", "a"), "/x: method='my method': expected the name of a"),
        (
            "register_endpoints",
            Endpoint("/x", "_mine", "a"),
            "/x: method='_mine': expected the name of a public method",
        ),
        ("register_endpoints", Endpoint("/x", "mine", Dialect()), "expected a string"),  # type: ignore[arg-type]
        ("register_endpoints", Endpoint("/x", "mine", "a", verb="PUT"), "verb='PUT': expected 'POST' or 'GET'"),  # type: ignore[arg-type]
        ("register_dialects", Dialect, "dialect 'x' is the class Dialect; expected an instance of it: Dialect()"),
        (
            "register_dialects",
            None,
            "dialect 'x' is None without read and encoder; expected an instance of a gateway.D",
        ),
        ("register_runners", "process", "runner 'x' is a str; expected a class or a function: Launch → Replica"),
    ],
)
def test_what_is_registered_and_is_not_what_is_expected_is_a_problem_that_says_both(
    hook: str, given: Any, told: str
) -> None:
    def one(register: Callable[..., None]) -> None:
        register(given) if hook == "register_endpoints" else register("x", given)

    loaded = load(module("mine", **{hook: lambda register: one(register)}))

    assert loaded.endpoints() == [] and loaded.dialects() == {} and loaded.runners() == {}
    (problem,) = loaded.problems
    assert problem.where == "plugin mine" and str(problem).startswith(f"plugin mine: {hook}: ")
    assert told in str(problem)


def test_a_name_that_is_none_is_a_problem() -> None:
    loaded = load(module("mine", register_dialects=lambda register: register(Dialect(), "x")))
    assert loaded.dialects() == {}
    assert "expected the name of the dialect, a string" in str(loaded.problems[0])


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"id": "one"}, "returned a dict; expected a list of gateway.Device"),
        (ONE, "returned a Device; expected a list of gateway.Device"),
        ([ONE, "GPU-0"], "a str in the list; expected a gateway.Device"),
        ([ONE, replace(ONE, id="")], "a Device with id=''; expected a string that names it"),
        ([ONE, replace(TWO, total="80GiB")], "Device 'two': total='80GiB'; expected its memory in bytes"),
        ([ONE, ONE], "Device 'one' is listed twice; the first one counts"),
    ],
)
def test_what_is_no_device_is_a_problem_and_the_others_are_found(found: Any, told: str) -> None:
    loaded = load(module("mine", find_devices=lambda: found))

    assert loaded.find_devices() == ([ONE] if isinstance(found, list) else [])
    assert str(loaded.problems[0]).startswith("plugin mine: find_devices: ")
    assert str(loaded.problems[0]).endswith(told)


def test_what_check_model_gives_and_is_no_problem_is_one() -> None:
    loaded = load(module("mine", check_model=lambda spec: ["it is broken"]))
    assert loaded.check_model(spec("x")) == []
    assert str(loaded.problems[0]) == "plugin mine: check_model: gave a str; expected gateway.Problem"


def test_a_dialect_that_extends_nothing_is_served_with_what_it_leaves_out() -> None:
    dialect = completed(Bare())
    assert (dialect.request_schema, dialect.ping) == (Dialect.request_schema, Dialect.ping)
    assert load(module("mine", register_dialects=lambda register: register("x", Bare()))).dialects().keys() == {"x"}


@pytest.mark.parametrize(
    ("attribute", "value", "told"),
    [
        ("request_schema", {1: object()}, "is not a JSON schema of an object"),
        ("event_schema", None, "is not a JSON schema of an object"),
        ("ping", ": ping", "is a str; expected a bytes"),
        ("body", "xml", "is 'xml'; expected 'json' or 'form'"),
    ],
)
def test_what_a_dialect_says_of_itself_that_nobody_can_use_is_told_and_left_out(
    attribute: str, value: Any, told: str
) -> None:
    dialect = type("Odd", (Dialect,), {attribute: value})()
    loaded = load(module("mine", register_dialects=lambda register: register("x", dialect)))

    assert loaded.dialects() == {"x": dialect}
    assert str(loaded.problems[0]) == (
        f"plugin mine: register_dialects: {attribute} of dialect 'x' {told}; it is served without"
    )
    assert getattr(completed(dialect), attribute) == getattr(Dialect, attribute)


def test_a_schema_that_raises_is_told_and_left_out() -> None:
    loaded = load(module("mine", register_dialects=lambda register: register("x", Raising())))
    assert loaded.dialects().keys() == {"x"}
    assert "request_schema of dialect 'x' raised RuntimeError: no schema today" in str(loaded.problems[0])
    assert completed(Raising()).request_schema == Dialect.request_schema


# ── access and observers ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_plugin_that_knows_the_caller_decides() -> None:
    loaded = load(
        module("a", authorize=lambda scope: None),
        module("b", authorize=lambda scope: "alice"),
        module("c", authorize=explode),
    )
    assert loaded.has("authorize")
    assert loaded.authorize({}) == Caller("alice", scopes=("infer",), models=("*",))


def test_nobody_knows_the_caller() -> None:
    assert load(module("a", authorize=lambda scope: None)).authorize({}) is None
    assert not load().has("authorize")


def test_a_plugin_may_refuse() -> None:
    def authorize(scope: Mapping[str, Any]) -> None:
        raise Unauthorized("Incorrect API key provided")

    with pytest.raises(Unauthorized):
        load(module("a", authorize=authorize)).authorize({})


def test_a_plugin_that_breaks_lets_nobody_in() -> None:
    loaded = load(module("a", authorize=lambda scope: explode()), module("b", authorize=lambda scope: "alice"))

    with pytest.raises(GatewayError) as caught:
        loaded.authorize({})
    assert caught.value.status == 500
    assert "boom" not in caught.value.message
    assert len(loaded.problems) == 1


@pytest.mark.parametrize(
    ("hook", "argument"),
    [
        ("configure_app", "config"),
        ("model_changed", "event"),
        ("call_finished", "record"),
        ("register_commands", "cli"),
    ],
)
def test_an_observer_that_raises_disables_nothing_but_itself(hook: str, argument: str) -> None:
    seen: list[Any] = []
    source = f"def {hook}({argument}): act({argument})"

    def observer(name: str, act: Callable[[Any], Any]) -> types.ModuleType:
        namespace: dict[str, Any] = {"act": act}
        exec(source, namespace)
        return module(name, **{hook: namespace[hook]})

    loaded = load(observer("a", explode), observer("b", seen.append))

    getattr(loaded, hook)({"x": 1})
    getattr(loaded, hook)({"x": 2})

    assert seen == [{"x": 1}, {"x": 2}]
    assert [problem.where for problem in loaded.problems] == ["plugin a"]


def test_problems_do_not_grow_without_bound() -> None:
    count = iter(range(10_000))

    def call_finished(record: Mapping[str, Any]) -> None:
        raise ValueError(next(count))

    loaded = load(module("a", call_finished=call_finished))
    for _ in range(1000):
        loaded.call_finished({})
    assert len(loaded.problems) == 200


def test_the_hot_path_can_skip_hooks_that_nobody_has() -> None:
    assert not load().has("call_finished")
    assert load(module("a", call_finished=lambda record: None)).has("call_finished")
