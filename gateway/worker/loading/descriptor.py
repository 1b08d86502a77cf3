"""Inspect the user's class once: its methods, their parameters, and how to run them.

Rules and messages are Truss's (model_wrapper.py), with three improvements: a second parameter *named* `request` needs
no annotation, string annotations are resolved, and a class without `predict` is valid. `truss_parity = "strict"` turns
these off, and types every method as Truss does: by the first step of predict.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from ...near_names import NONE, SMALLEST
from ...spec import Capabilities, MethodInfo
from ...wording import whole_body
from ..bodies.failures import say
from . import misspelt_methods

if TYPE_CHECKING:
    from ..batching.runner import Batcher

HOOKS = ("preprocess", "predict", "postprocess")
OTHERS = ("load", "unload", "is_healthy", "setup_environment", "websocket")  # also called by the worker
LONGEST = 2**53  # tokens; larger numbers cannot be real counts
TRUSS = frozenset({"chat_completions", "completions", "embeddings", "messages", "responses"})
# `derived_methods.py` handles methods with these names.
COUNTING = frozenset({"count_tokens", "tokenize", "detokenize", "tokenizer_info"})

Kind = Literal["sync", "async", "generator", "async_generator"]
Takes = Literal["nothing", "inputs", "request", "inputs_and_request"]


class ModelDefinitionError(TypeError):
    """A class that cannot be served; the text is for its author."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method, bound to the instance."""

    name: str
    function: Callable[..., Any]
    kind: Kind
    takes: Takes
    input_type: type | None = None  # the Pydantic model that annotates the first argument
    returns: Any = None  # the return annotation
    parses: bool = True  # whether it needs the decoded body
    derived: bool = False  # the class itself has no such method
    needs_slot: bool = True
    looks: bool = False  # it checks its Request for a disconnect, see `disconnect_checks.py`
    # Methods of the class that read a body which is neither JSON nor msgpack, by its content type.
    readers: Mapping[str, Callable[[bytes, str], Any]] = field(default_factory=dict)  # of `body_readers`

    @property
    def wants_inputs(self) -> bool:
        return self.takes in ("inputs", "inputs_and_request")

    @property
    def wants_request(self) -> bool:
        return self.takes in ("request", "inputs_and_request")

    def arguments(self, inputs: Any, request: Any) -> tuple[Any, ...]:
        if self.takes == "inputs":
            return (inputs,)
        if self.takes == "inputs_and_request":
            return (inputs, request)
        return (request,) if self.takes == "request" else ()


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Everything a call needs to know about the model, so that the request path never inspects anything."""

    methods: dict[str, Method]  # serving methods: predict and the endpoint methods
    preprocess: Method | None
    postprocess: Method | None
    is_healthy: Method | None
    setup_environment: Callable[..., Any] | None
    websocket: Callable[..., Any] | None
    strict: bool = False
    asked: tuple[misspelt_methods.Asked, ...] = ()  # questions to the author about likely mistakes
    batcher: Batcher | None = None  # the batches of its methods, if it has methods for batches

    @property
    def has_hooks(self) -> bool:
        return self.preprocess is not None or self.postprocess is not None

    @property
    def pipeline_input(self) -> Method | None:
        """The method whose first parameter defines the type of a predict's body."""
        return self.preprocess or self.methods.get("predict")

    def typed(self, method: Method) -> Method:
        """Return the method with the type of its body: its own, or predict's for strict parity."""
        first, predict = self.pipeline_input, self.methods.get("predict")
        if not self.strict:
            return method
        only_requests = predict is not None and {predict.takes, (first or predict).takes} == {"request"}
        return replace(method, input_type=first.input_type if first is not None else None, parses=not only_requests)


def describe(
    model: Any,
    endpoint_methods: frozenset[str],
    strict: bool = False,
    batched: frozenset[str] = frozenset(),
    known: frozenset[str] = frozenset(),
) -> Descriptor:
    """Inspect an instance. `endpoint_methods` are the method names of all routes; `strict` follows Truss exactly.

    `batched` are the methods that its batch methods serve. They are in the descriptor after `batching.install`. `known`
    are further names that a misspelt method may have been meant for.

    Raises:
        ModelDefinitionError: with Truss's message.
    """

    def find(name: str) -> Method | None:
        function = getattr(model, name, None)
        return _method(name, function, strict) if callable(function) else None

    for name in OTHERS:
        if told := misspelt_methods.cannot_be_called(name, getattr(model, name, None)):
            raise ModelDefinitionError(told)
    preprocess, predict, postprocess = (None if name in batched else find(name) for name in HOOKS)
    if _takes_arguments(getattr(model, "is_healthy", None)):
        raise ModelDefinitionError("`is_healthy` must have only one argument: `self`.")
    healthy = find("is_healthy")
    websocket = getattr(model, "websocket", None)
    if websocket is not None:
        _check_websocket(websocket, any((preprocess, predict, postprocess)) or "predict" in batched)
    methods = dict(_serving(endpoint_methods - COUNTING - batched, find))
    if predict is not None:
        methods["predict"] = predict
    serving = [*methods, *batched, *(["websocket"] if websocket is not None else [])]
    asked = () if strict else tuple(misspelt_methods.asked(model, endpoint_methods | known, have=serving))
    if websocket is None and (predict is None if strict else not (methods or batched)):
        raise ModelDefinitionError(
            "Truss model must have a `predict` or `websocket` method."
            if strict
            else f"{NONE}; {' '.join(each.text for each in asked) or SMALLEST}"
        )
    for name in dict.fromkeys((*OTHERS, *HOOKS, *methods)):
        if told := misspelt_methods.without_self(name, getattr(model, name, None)):
            asked += (misspelt_methods.Asked(name, told),)
    for each in asked:
        say(f"WARNING gateway: {each.text}")
    if preprocess is not None and predict is not None and predict.takes == "request":
        raise ModelDefinitionError(
            "When using `preprocess`, the predict method cannot only have the request argument "
            "(because the result of `preprocess` would be  discarded)."
        )
    if postprocess is not None and postprocess.takes == "request":
        raise ModelDefinitionError(
            "The `postprocess` method cannot only have the request argument "
            "(because the result of `predict` would be discarded)."
        )
    setup = getattr(model, "setup_environment", None)
    found = Descriptor(methods, preprocess, postprocess, healthy, setup, websocket, strict, asked)
    typed = {name: found.typed(method) for name, method in methods.items()}
    first = found.typed(preprocess) if preprocess is not None else None
    if not strict and (readers := readers_of(model)):
        if first is not None:
            first = replace(first, readers=readers)
        elif "predict" in typed:
            typed["predict"] = replace(typed["predict"], readers=readers)
    return replace(found, methods=typed, preprocess=first)


def readers_of(model: Any) -> dict[str, Callable[[bytes, str], Any]]:
    """Return the methods that read bodies of other content types: `body_readers` names them.

    Raises:
        ModelDefinitionError: it does not.
    """
    given = getattr(model, "body_readers", None)
    if given is None:
        return {}
    found: dict[str, Callable[[bytes, str], Any]] = {}
    for kind, name in (given if isinstance(given, Mapping) else {"": given}).items():
        function = getattr(model, name, None) if isinstance(name, str) else None
        if not isinstance(kind, str) or kind != kind.lower() or "/" not in kind or not callable(function):
            text = "`body_readers` must map content types, in lower case, to the names of methods"
            raise ModelDefinitionError(f"{text}. Got: {given!r}")
        found[kind] = function
    return found


def _serving(names: frozenset[str], find: Callable[[str], Method | None]) -> Iterator[tuple[str, Method]]:
    """Yield the endpoint methods that the class has.

    A method whose name Truss does not serve, such as `score`, may be an unrelated helper. If its parameters do not fit,
    this is logged and the model is served without it.
    """
    for name in sorted(names):
        try:
            method = find(name)
        except ModelDefinitionError as error:
            if name in TRUSS:
                raise
            say(f"{str(error).strip().rstrip('.')}. It is not served.")
            continue
        if method is not None:
            yield name, method


def capabilities(model: Any, descriptor: Descriptor) -> Capabilities:
    """Return what the gateway needs to know about the model."""
    given = getattr(model, "capabilities", None)
    extra = dict(given) if isinstance(given, Mapping) else {}
    longest = extra.pop("max_model_len", None)
    inputs, outputs, streaming = _schema(model, descriptor)
    infos = [
        MethodInfo(
            name=method.name,
            kind=method.kind,
            wants_request=_needs_request(descriptor, method),
            derived=method.derived,
            needs_slot=method.needs_slot,
        )
        for method in descriptor.methods.values()
    ]
    if descriptor.websocket is not None:
        infos.append(MethodInfo(name="websocket", kind="async", wants_request=True))
    return Capabilities(
        methods=tuple(infos),
        has_hooks=descriptor.has_hooks,
        has_health_check=descriptor.is_healthy is not None,
        input_schema=inputs,
        output_schema=outputs,
        supports_streaming=streaming,
        max_model_len=_length(longest),
        supports_n=bool(extra.pop("supports_n", False)),
        prefill=bool(extra.pop("prefill", False)),
        asked={each.meant: each.text for each in descriptor.asked},
        extra=extra,
    )


def _length(given: Any) -> int | None:
    """Return the number of tokens; None for values that mean "no limit", such as the 1e30 of some tokenizers."""
    return None if given is None or (length := int(given)) > LONGEST else length


def kind_of(function: Callable[..., Any]) -> Kind:
    if inspect.isasyncgenfunction(function):
        return "async_generator"
    if inspect.iscoroutinefunction(function):
        return "async"
    return "generator" if inspect.isgeneratorfunction(function) else "sync"


def _method(name: str, function: Callable[..., Any], strict: bool = False) -> Method:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a builtin: assume that it takes the inputs
        if told := misspelt_methods.cannot_be_called(name, function):
            raise ModelDefinitionError(told) from None
        return Method(name, function, "sync", "inputs")
    parameters = list(signature.parameters.values())
    hints = {} if strict else hints_of(function)  # Truss does not resolve strings

    def is_request(parameter: inspect.Parameter) -> bool:
        hint = hints.get(parameter.name, parameter.annotation)
        request = getattr(sys.modules.get("starlette.requests"), "Request", None)
        return request is not None and isinstance(hint, type) and issubclass(hint, request)

    takes: Takes
    if not parameters:
        takes = "nothing"
    elif len(parameters) == 1:
        takes = "request" if is_request(parameters[0]) else "inputs"
    elif len(parameters) > 2:
        text = f"`{name}` method cannot have more than two arguments. Got: {signature}"
        raise ModelDefinitionError(text + ("" if strict else _in_the_body(parameters, " ")))
    elif is_request(parameters[0]):
        raise ModelDefinitionError(
            f"`{name}` method with two arguments is not allowed to have request as first argument, "
            f"request must be second. Got: {signature}"
        )
    elif is_request(parameters[1]) or (not strict and _is_untyped_request(parameters[1])):
        takes = "inputs_and_request"
    else:
        text = f"`{name}` method with two arguments must have request as second argument (type annotated). "
        text += f"Got: {signature} "
        raise ModelDefinitionError(text + ("" if strict else _in_the_body(parameters)))
    has_inputs = takes in ("inputs", "inputs_and_request")
    typed = hints.get(parameters[0].name, parameters[0].annotation) if has_inputs else None
    returns = hints.get("return", signature.return_annotation)
    return Method(name, function, kind_of(function), takes, typed if _is_pydantic(typed) else None, returns, has_inputs)


def _in_the_body(parameters: list[inspect.Parameter], before: str = "") -> str:
    is_plain = all(one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in parameters)
    return f"{before}({whole_body(one.name for one in parameters)})" if is_plain else ""


def _is_untyped_request(parameter: inspect.Parameter) -> bool:
    plain = parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD and parameter.default is inspect.Parameter.empty
    return plain and parameter.name == "request" and parameter.annotation is inspect.Parameter.empty


def _check_websocket(websocket: Callable[..., Any], has_pipeline: bool) -> None:
    if has_pipeline:
        raise ModelDefinitionError(
            "Truss model cannot have both `websocket` and any of `predict`, `preprocess`, or `postprocess methods."
        )
    if len(inspect.signature(websocket).parameters) != 1:
        raise ModelDefinitionError("`websocket` must have only one argument: `websocket`.")
    if not inspect.iscoroutinefunction(websocket):
        raise ModelDefinitionError("`websocket` endpoints must be async function definitions.")


def _takes_arguments(function: Any) -> bool:
    try:
        return callable(function) and bool(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return False


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations with strings resolved one by one; those that cannot be resolved are left out."""
    try:
        return typing.get_type_hints(function)
    except Exception:
        pass
    plain = inspect.unwrap(getattr(function, "__func__", function))
    names = getattr(plain, "__globals__", {})
    found = {}
    for name, hint in getattr(plain, "__annotations__", {}).items():
        try:
            found.update(typing.get_type_hints(SimpleNamespace(__annotations__={name: hint}), names))
        except Exception:
            continue
    return found


def _is_pydantic(hint: Any) -> bool:
    base = getattr(sys.modules.get("pydantic"), "BaseModel", None)
    return base is not None and isinstance(hint, type) and issubclass(hint, base)


def _needs_request(descriptor: Descriptor, method: Method) -> bool:
    if method.name != "predict":
        return method.wants_request
    pipeline = (descriptor.preprocess, method, descriptor.postprocess)
    return any(step is not None and step.wants_request for step in pipeline)


def _schema(model: Any, descriptor: Descriptor) -> tuple[dict[str, Any] | None, dict[str, Any] | None, bool | None]:
    """Return input schema, output schema, and streaming, from annotations or from attributes of the class."""
    given = getattr(model, "input_schema", None), getattr(model, "output_schema", None)
    if any(isinstance(schema, dict) for schema in given):
        return given[0], given[1], False
    first = descriptor.pipeline_input
    last = descriptor.postprocess or descriptor.methods.get("predict")
    if first is None or last is None:
        return None, None, None
    inputs = _json_schema(first.input_type) if first.input_type is not None else None
    outputs, streaming = _output_schema(last.returns)
    return inputs, outputs, streaming


def _json_schema(cls: Any) -> dict[str, Any] | None:
    """Return the JSON schema, or None if the type has none; the model is served without it."""
    try:
        schema: dict[str, Any] = cls.model_json_schema()
    except Exception:
        return None
    return schema


def _output_schema(hint: Any) -> tuple[dict[str, Any] | None, bool | None]:
    if _is_pydantic(hint):
        return _json_schema(hint), False
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Generator, AsyncGenerator, Iterator, AsyncIterator):
        return None, True
    if origin is Awaitable and _is_pydantic(arguments[0]):
        return _json_schema(arguments[0]), False
    if origin is typing.Union and len(arguments) == 2:
        one, other = (_output_schema(argument) for argument in arguments)
        if one[1] is False and other[1] is True:
            return one[0], True
        if one[1] is True and other[1] is False:
            return other[0], True
    return None, None
