from __future__ import annotations

import importlib
import types
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway import ConfigError, Endpoint, ModelSpec, hookimpl, plugins
from gateway.callers import Caller
from gateway.errors import GatewayError, Unauthorized
from gateway.plugins import BUILTINS, EXTRAS, Plugins


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
    assert (rows[-1].source, rows[-1].hooks) == ("built-in", ("find_model",))


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
            "plugin mine: find_model: it is not marked with @hookimpl, so that nobody calls it",
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
    assert "returned dict, not a ModelSpec" in str(loaded.problems[0])


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


def test_a_missing_extra_is_an_error_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "sklearn", ("scikit-learn", ("no_such_module_here",)))
    loaded = load(module("a", find_model=lambda path: spec("iris", extra="sklearn")))

    with pytest.raises(ConfigError) as caught:
        loaded.find_model(Path("models/iris"), {})
    assert str(caught.value) == "models/iris looks like scikit-learn; run: pip install 'model-gateway[sklearn]'"


def test_a_model_with_an_interpreter_of_its_own_needs_no_extra_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "sklearn", ("scikit-learn", ("no_such_module_here",)))
    loaded = load(module("a", find_model=lambda path: spec("iris", extra="sklearn", python="/other/python")))
    assert loaded.find_model(Path("models/iris"), {}) is not None


def test_an_extra_of_a_strangers_plugin_is_its_own_business() -> None:
    loaded = load(module("a", find_model=lambda path: spec("x", extra="theirs")))
    assert loaded.find_model(Path("x"), {}) == spec("x", extra="theirs")


# ── what plugins register ────────────────────────────────────────────────────────────────────────────────────────

CHAT = Endpoint(path="/v1/chat/completions", method="chat_completions", dialect="openai_chat")


def test_endpoints_dialects_and_runners_come_in_registration_order_with_their_plugin() -> None:
    def provider(name: str, endpoint: Endpoint) -> types.ModuleType:
        return module(
            name,
            register_endpoints=lambda register: register(endpoint),
            register_dialects=lambda register: register(f"dialect-{name}", name),
            register_runners=lambda register: register("process", name),
        )

    loaded = load(
        provider("a", replace(CHAT, dialect="dialect-a")),
        provider("b", replace(CHAT, path="/v1/other", dialect="dialect-b")),
    )

    assert [endpoint.path for endpoint in loaded.endpoints()] == ["/v1/chat/completions", "/v1/other"]
    assert list(loaded.dialects().items()) == [("dialect-a", "a"), ("dialect-b", "b")]
    assert loaded.runners() == {"process": "a"}
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
            register_dialects=lambda register: register("mine", 1),
        ),
        module(
            "built-in",
            register_endpoints=lambda register: register(CHAT),
            register_dialects=lambda register: register("openai_chat", 2),
        ),
    )
    assert loaded.endpoints() == [mine]


def test_an_endpoint_of_an_unknown_dialect_is_a_problem_and_the_next_one_serves() -> None:
    loaded = load(
        module("mine", register_endpoints=lambda register: register(replace(CHAT, dialect="opanai"))),
        module(
            "built-in",
            register_endpoints=lambda register: register(CHAT),
            register_dialects=lambda register: register("openai_chat", 2),
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
        register("x", 1)
        register("x", 2)

    loaded = load(module("a", register_dialects=register_dialects))

    assert loaded.dialects() == {"x": 1}
    assert "dialect x is registered twice" in str(loaded.problems[0])


def test_what_was_registered_before_a_crash_counts() -> None:
    def register_endpoints(register: Callable[[Endpoint], None]) -> None:
        register(CHAT)
        explode()

    known = module("b", register_dialects=lambda register: register("openai_chat", 1))
    loaded = load(module("a", register_endpoints=register_endpoints), known)

    assert loaded.endpoints() == [CHAT]
    assert len(loaded.problems) == 1


def test_devices_of_all_plugins_are_added_up() -> None:
    loaded = load(
        module("a", find_devices=lambda: ["one"]),
        module("b", find_devices=explode),
        module("c", find_devices=lambda: None),
        module("d", find_devices=lambda: ["two"]),
    )
    assert loaded.find_devices() == ["one", "two"]
    assert [problem.where for problem in loaded.problems] == ["plugin b"]


# ── access and observers ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_plugin_that_knows_the_caller_decides() -> None:
    loaded = load(
        module("a", authorize=lambda scope: None),
        module("b", authorize=lambda scope: "alice"),
        module("c", authorize=explode),
    )
    assert loaded.has_authorize
    assert loaded.authorize({}) == Caller("alice", scopes=("infer",), models=("*",))


def test_nobody_knows_the_caller() -> None:
    assert load(module("a", authorize=lambda scope: None)).authorize({}) is None
    assert not load().has_authorize


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
    assert not load().has_call_finished
    assert load(module("a", call_finished=lambda record: None)).has_call_finished
