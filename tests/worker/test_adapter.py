"""The user's class is looked at once, by Truss's rules and in Truss's words, with the listed improvements."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Optional, Union

import pytest
from pydantic import BaseModel
from starlette.requests import Request

from gateway.worker.loading.descriptor import Descriptor, Method, ModelDefinitionError, capabilities, describe

if TYPE_CHECKING:
    from somewhere import Unknown

ENDPOINTS = frozenset({"chat_completions", "completions", "embeddings", "messages", "responses"})


class In(BaseModel):
    value: int


class Out(BaseModel):
    value: int


class SubRequest(Request):
    pass


def look_at(**methods: Any) -> Descriptor:
    """The descriptor of a class with these methods."""
    return describe(type("Model", (), methods)(), ENDPOINTS)


def predict_of(function: Any) -> Method:
    return look_at(predict=function).methods["predict"]


def plain(self: Any, x: Any) -> Any:
    return x


# ── what a method takes ──────────────────────────────────────────────────────────────────────────────────────────────


def nothing(self: Any) -> Any: ...


def inputs(self: Any, anything: Any) -> Any: ...


def request_only(self: Any, r: Request) -> Any: ...


def subclass_only(self: Any, r: SubRequest) -> Any: ...


def both(self: Any, x: Any, r: Request) -> Any: ...


def both_by_name(self, x, request): ...  # type: ignore[no-untyped-def]


def both_by_string(self: Any, x: Any, r: "Request") -> Any: ...  # noqa: UP037


def one_unresolvable(self: Any, x: "Unknown", r: "Request") -> "Unknown": ...  # noqa: UP037


def untyped_alone(self, request): ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    ("function", "takes"),
    [
        (nothing, "nothing"),
        (inputs, "inputs"),
        (request_only, "request"),
        (subclass_only, "request"),
        (both, "inputs_and_request"),
        (both_by_name, "inputs_and_request"),
        (both_by_string, "inputs_and_request"),
        (one_unresolvable, "inputs_and_request"),
        (untyped_alone, "inputs"),
    ],
)
def test_parameters_say_what_a_method_is_given(function: Any, takes: str) -> None:
    method = predict_of(function)
    assert method.takes == takes
    given = {"nothing": (), "inputs": ("i",), "request": ("r",), "inputs_and_request": ("i", "r")}
    assert method.arguments("i", "r") == given[takes]
    assert method.parses == ("inputs" in takes)
    assert method.wants_request == ("request" in takes)


def test_a_pydantic_annotation_types_the_input_even_as_a_string() -> None:
    def typed(self: Any, x: In) -> Any: ...

    def typed_and_request(self: Any, x: "In", request: Request) -> Any: ...  # noqa: UP037

    typed.__annotations__ = {"x": In}
    assert predict_of(typed).input_type is In
    assert predict_of(typed_and_request).input_type is In
    assert predict_of(plain).input_type is None


def test_each_method_has_its_own_type() -> None:
    def typed(self: Any, x: In) -> Any: ...

    found = look_at(predict=typed, chat_completions=plain)
    assert found.methods["predict"].input_type is In
    assert found.methods["chat_completions"].input_type is None


def test_methods_assigned_in_the_constructor_count() -> None:
    class Model:
        def __init__(self) -> None:
            self.predict = functools.partial(plain, self)

    assert describe(Model(), ENDPOINTS).methods["predict"].takes == "inputs"


def test_a_builtin_takes_the_inputs() -> None:
    class Model:
        predict = staticmethod(max)

    assert describe(Model(), ENDPOINTS).methods["predict"].takes == "inputs"


def test_only_methods_that_a_route_maps_to_are_served() -> None:
    found = look_at(predict=plain, chat_completions=plain, helper=plain, count_tokens=plain)
    assert sorted(found.methods) == ["chat_completions", "predict"]


@pytest.mark.parametrize("method", sorted(ENDPOINTS))
def test_a_class_with_an_endpoint_method_and_no_predict_is_legal(method: str) -> None:
    assert list(look_at(**{method: plain}).methods) == [method]


# ── definition errors, word for word ─────────────────────────────────────────────────────────────────────────────────


def error_of(**methods: Any) -> str:
    with pytest.raises(ModelDefinitionError) as caught:
        look_at(**methods)
    return str(caught.value)


def test_a_second_argument_must_be_the_request() -> None:
    def wrong(self: Any, x: int, y: int) -> None: ...

    wrong.__annotations__ = {"x": int, "y": int, "return": None}
    assert error_of(predict=wrong) == (
        "`predict` method with two arguments must have request as second argument (type annotated). "
        "Got: (x: int, y: int) -> None "
        '(the body arrives whole, as the first: take one `inputs`, and of that inputs["x"] and inputs["y"])'
    )
    with pytest.raises(ModelDefinitionError, match=r"Got: \(x: int, y: int\) -> None $"):  # in Truss's words alone
        describe(type("Model", (), {"predict": wrong})(), frozenset(), strict=True)


def test_the_request_must_not_be_the_first_of_two_arguments() -> None:
    def wrong(self, r, x): ...  # type: ignore[no-untyped-def]

    wrong.__annotations__ = {"r": Request}
    assert error_of(chat_completions=wrong) == (
        "`chat_completions` method with two arguments is not allowed to have request as first argument, "
        "request must be second. Got: (r: starlette.requests.Request, x)"
    )


def test_three_arguments_are_too_many() -> None:
    def wrong(self, a, b, c): ...  # type: ignore[no-untyped-def]

    assert error_of(predict=wrong) == (
        "`predict` method cannot have more than two arguments. Got: (a, b, c) (the body arrives whole, as the first: "
        'take one `inputs`, and of that inputs["a"], inputs["b"] and inputs["c"])'
    )


@pytest.mark.parametrize("source", ["lambda self, a, b, c: 0", "lambda self, x, y=None: 0", "lambda self, x, y: 0"])
def test_a_helper_with_the_name_of_a_route_of_ours_is_no_route(source: str, capfd: pytest.CaptureFixture[str]) -> None:
    model = type("Model", (), {"predict": plain, "score": eval(source), "classify": plain})()
    assert set(describe(model, ENDPOINTS | {"score", "classify"}).methods) == {"predict", "classify"}
    assert "`score` method" in capfd.readouterr().err


@pytest.mark.parametrize("source", ["lambda self, *args, **kwargs: 0", "lambda self, x, y=None: 0"])
def test_catch_all_and_optional_second_arguments_are_refused(source: str) -> None:
    assert "must have request as second argument" in error_of(predict=eval(source))


@pytest.mark.parametrize("source", ["lambda self, x: 0", "lambda self, x, y: 0", "lambda self, *a: 0"])
def test_is_healthy_takes_nothing(source: str) -> None:
    assert error_of(predict=plain, is_healthy=eval(source)) == "`is_healthy` must have only one argument: `self`."


def test_websocket_takes_one_argument_is_async_and_stands_alone() -> None:
    async def good(self: Any, websocket: Any) -> None: ...

    async def two(self: Any, websocket: Any, other: Any) -> None: ...

    assert look_at(websocket=good).websocket is not None
    assert error_of(websocket=two) == "`websocket` must have only one argument: `websocket`."
    assert error_of(websocket=plain) == "`websocket` endpoints must be async function definitions."
    for hook in ("predict", "preprocess", "postprocess"):
        assert error_of(websocket=good, **{hook: plain}) == (
            "Truss model cannot have both `websocket` and any of `predict`, `preprocess`, or `postprocess methods."
        )


def test_a_class_without_any_method_to_serve_is_refused() -> None:
    assert error_of(load=nothing) == (
        "a model needs one of the methods predict, chat_completions, embeddings, … (all of them are in docs/models.md);"
        " the smallest one is `def predict(self, inputs): return inputs`"
    )


def test_hooks_whose_results_would_be_thrown_away_are_refused() -> None:
    assert error_of(preprocess=plain, predict=request_only) == (
        "When using `preprocess`, the predict method cannot only have the request argument "
        "(because the result of `preprocess` would be  discarded)."
    )
    assert error_of(predict=plain, postprocess=request_only) == (
        "The `postprocess` method cannot only have the request argument "
        "(because the result of `predict` would be discarded)."
    )


# ── how it is run ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_kinds_are_told_apart_once() -> None:
    async def coroutine(self: Any, x: Any) -> Any: ...

    def generator(self: Any, x: Any) -> Any:
        yield x

    async def async_generator(self: Any, x: Any) -> Any:
        yield x

    kinds = [predict_of(function).kind for function in (plain, coroutine, generator, async_generator)]
    assert kinds == ["sync", "async", "generator", "async_generator"]


def test_a_partial_of_a_coroutine_function_is_async() -> None:
    async def coroutine(self: Any, x: Any) -> Any: ...

    class Model:
        def __init__(self) -> None:
            self.predict = functools.partial(coroutine, self)

    assert describe(Model(), ENDPOINTS).methods["predict"].kind == "async"


# ── what the gateway is told ─────────────────────────────────────────────────────────────────────────────────────────


def told(**methods: Any) -> Any:
    model = type("Model", (), methods)()
    return capabilities(model, describe(model, ENDPOINTS))


def test_the_gateway_hears_of_methods_hooks_and_health_checks() -> None:
    found = told(predict=both, chat_completions=plain, postprocess=plain, is_healthy=nothing)
    assert [(method.name, method.kind, method.wants_request) for method in found.methods] == [
        ("chat_completions", "sync", False),
        ("predict", "sync", True),
    ]
    assert found.has_hooks
    assert found.has_health_check


def test_predict_needs_the_request_when_a_hook_takes_it() -> None:
    (method,) = told(predict=plain, preprocess=both).methods
    assert method.wants_request


def test_an_attribute_named_capabilities_adds_to_them_and_a_method_of_that_name_does_no_harm() -> None:
    found = told(predict=plain, capabilities={"max_model_len": 4096, "supports_n": True, "dimensions": 384})
    assert (found.max_model_len, found.supports_n, dict(found.extra)) == (4096, True, {"dimensions": 384})
    assert told(predict=plain, capabilities=nothing).extra == {}


def schema(hint: Any, first: Any = None) -> tuple[Any, Any, Any]:
    def function(self, x): ...  # type: ignore[no-untyped-def]

    function.__annotations__ = {"return": hint, **({"x": first} if first else {})}
    found = told(predict=function)
    return found.input_schema, found.output_schema, found.supports_streaming


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (Out, (True, False)),
        (Generator[str, None, None], (False, True)),
        (AsyncGenerator[str, None], (False, True)),
        (Iterator[str], (False, True)),
        (AsyncIterator[str], (False, True)),
        (Awaitable[Out], (True, False)),
        (Union[Out, Generator[str, None, None]], (True, True)),  # noqa: UP007
        (Union[Awaitable[Out], AsyncGenerator[str, None]], (True, True)),  # noqa: UP007
        (Out | Generator[str, None, None], (False, None)),
        (Optional[Out], (False, None)),  # noqa: UP045
        (Union[Out, In], (False, None)),  # noqa: UP007
        (str, (False, None)),
        (None, (False, None)),
    ],
    ids=str,
)
def test_the_schema_of_the_answer_follows_the_return_annotation(hint: Any, expected: tuple[bool, Any]) -> None:
    _, output, streaming = schema(hint)
    assert (output is not None, streaming) == expected
    if output is not None:
        assert output == Out.model_json_schema()


def test_the_schema_of_the_input_is_preprocesses_and_of_the_answer_postprocesses() -> None:
    def before(self: Any, x: In) -> Any: ...

    def after(self: Any, x: Any) -> Out: ...

    before.__annotations__, after.__annotations__ = {"x": In}, {"return": Out}
    found = told(preprocess=before, predict=plain, postprocess=after)
    assert found.input_schema == In.model_json_schema()
    assert found.output_schema == Out.model_json_schema()


def test_a_type_without_a_schema_serves_without_one() -> None:
    class Strange(BaseModel):
        model_config = {"arbitrary_types_allowed": True}
        thing: type[Exception] | object
        callback: Any = None

    class Stranger(BaseModel):
        model_config = {"arbitrary_types_allowed": True}
        thing: functools.partial  # type: ignore[type-arg]

    assert schema(Stranger, Stranger)[:2] == (None, None)


def test_a_class_may_name_its_schemas_itself() -> None:
    found = told(predict=plain, input_schema={"type": "string"}, output_schema={"type": "number"})
    assert (found.input_schema, found.output_schema) == ({"type": "string"}, {"type": "number"})


@pytest.mark.parametrize(
    ("given", "found"), [(4096, 4096), ("512", 512), (None, None), (int(1e30), None), (1e30, None)]
)
def test_a_length_that_stands_for_no_limit_is_none(given: Any, found: int | None) -> None:
    assert told(predict=plain, capabilities={"max_model_len": given}).max_model_len == found
