"""Render chat templates as transformers does, without it: the same environment, names and filters.

Templates come with the weights, so they run in Jinja's sandbox and only see plain JSON values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

THOUGHTS = ("reasoning_content", "thinking", "reasoning")  # names of a message's thoughts; templates read any of them
MARK = "END_OF_WHAT_IS_CONTINUED "  # the blank shows whether the template strips the text

Json = dict[str, Any]


def render(template: str, messages: list[Json], **values: Any) -> str:
    """Return the text of a template. Raises `TemplateError`, or `TypeError` for values that it cannot handle."""
    text: str = _compiled(template).render(messages=[_with_thoughts(message) for message in messages], **values)
    return text


def render_continued(template: str, messages: list[Json], name: str, **values: Any) -> str:
    """Return the text up to the end of field `name` of the last message. Raises `ValueError` if it is not there."""
    *before, last = [_with_thoughts(message) for message in messages]
    said = last.get(name)
    if said is None:
        raise ValueError(f"the last message has no {name}")
    # thoughts have several names: the template may read any of them
    marked = [each for each in THOUGHTS if last.get(each) == said] if name in THOUGHTS else [name]
    last = {**last, **dict.fromkeys(marked, said + MARK)}
    text: str = _compiled(template).render(messages=[*before, last], **values)
    at = text.rfind(MARK.strip())
    if at < 0 or said.strip() not in text:
        raise ValueError(f"the template leaves out {name} of the last message")
    return text[:at] if text.startswith(MARK, at) else text[:at].rstrip()


def _with_thoughts(message: Mapping[str, Any]) -> Json:
    """Return a message without nulls, whose thoughts have all names that templates read."""
    said = {name: value for name, value in message.items() if value is not None}
    thought = next((said[name] for name in THOUGHTS if name in said), None)
    return said if thought is None else {"thinking": thought, **said, "reasoning_content": thought}


@lru_cache(maxsize=16)  # a model has one, or a few
def _compiled(template: str) -> Any:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(raise_exception=_refuse, strftime_now=_now, dict=_Dict(), namespace=_Namespace)
    return environment.from_string(template)


class _Generation(Extension):
    """Accepts {% generation %}, with which templates mark the assistant's text for training."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's own attribute)

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _Dict:
    """`dict`, without the attributes of the type."""

    def __call__(self, *args: Any, **values: Any) -> Json:
        return dict(*args, **values)

    def fromkeys(self, *args: Any) -> Json:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """`namespace`, which refuses names that lead to the interpreter."""

    def __init__(*args: Any, **values: Any) -> None:
        self, *given = args
        for name in dict(*given, **values):
            _check_name(name)
        Namespace.__init__(self, *given, **values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a chat template must not set {name!r}: names may not begin with an underscore")


def _to_json(value: Any, ensure_ascii: bool = False, **how: Any) -> str:
    """Jinja's own filter would escape the signs of HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **how)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _refuse(why: str) -> None:
    raise TemplateError(why)
