from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.directories.config import safe_yaml
from gateway.directories.config.safe_yaml import Document, YAMLError, parse


def test_every_key_has_its_line() -> None:
    document = parse(b"a: 1\nb:\n  c: 2\nd:\n  - e: 3\n")

    assert document.data == {"a": 1, "b": {"c": 2}, "d": [{"e": 3}]}
    assert document.lines[("b", "c")] == 3
    assert document.lines[("d", 0, "e")] == 5


def test_of_duplicate_keys_the_last_wins_and_is_named() -> None:
    document = parse(b"a: 1\nb: {c: 1, c: 2}\na: 3\n")

    assert document.data == {"a": 3, "b": {"c": 2}}
    assert set(document.duplicates) == {("a", 3), ("b.c", 2)}


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"---\n...\n", b"\xef\xbb\xbf"])
def test_an_empty_document_is_none(content: bytes) -> None:
    assert parse(content).data is None


def test_aliases_and_merge_keys_work() -> None:
    document = parse(b"a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\n")

    assert document.data["b"] == {"x": 1, "y": 3}
    assert document.data["c"] == {"x": 1, "y": 2}


def test_a_bomb_of_aliases_is_refused_at_once() -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    before = time.process_time()

    with pytest.raises(YAMLError, match="aliases") as caught:
        parse("\n".join(lines).encode())

    assert time.process_time() - before < 0.2
    assert caught.value.line


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"a: &a [*a]", "aliases"),
        (b"a: &a {b: *a}", "aliases"),
        (b"[" * 70, "nested deeper"),
        (b"[" * 400_000, "nested deeper"),
        (b"- " * 100_000, "nested deeper"),
        (b"a: " + b"x" * 1_000_001, "longer than 1000000 bytes"),
        (b"{" + b",".join(b"k%d: 1" % at for at in range(10_000)) + b"}", "more than 20000 keys and values"),
        (b"a:\n" + b"- {}\n" * 20_000, "more than 20000 keys and values"),
        (b"a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
        (b"a: !!python/name:os.system", "could not determine a constructor"),
        (b"a: !mine 1", "could not determine a constructor"),
        (b"a: \xff", "not UTF-8"),
        (b"a: \x00", "control characters"),
        (b"a: 1\n---\nb: 2", "single document"),
        (b"a: 2001-99-99", "invalid value"),
        (b"a: !!int x", "invalid value"),
        (b"a: !!float x", "invalid value"),
        (b"a: !!bool x", "invalid value"),
        (b"a: !!timestamp x", "invalid value"),
        (b"? {a: 1}\n: 2", "unhashable"),
        (b"a: [1, 2", "flow sequence"),
        (b"a: *nothing", "undefined alias"),
        (b"a: " + b"9" * 5000, "beyond 64 bits"),
        (b"a: 18446744073709551616", "beyond 64 bits"),
        (b"a: -9223372036854775809", "beyond 64 bits"),
    ],
)
def test_what_is_not_one_small_safe_document_is_an_error(content: bytes, what: str) -> None:
    with pytest.raises(YAMLError, match=what):
        parse(content)


def test_an_integer_with_very_many_digits_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """With base 60, the time to read it grows with the square of its length."""

    def read(*_: Any) -> int:
        raise AssertionError("it was read")

    monkeypatch.setattr(safe_yaml._Base, "construct_yaml_int", read)
    with pytest.raises(YAMLError, match="beyond 64 bits"):
        parse(b"a: 1" + b":1" * 100)


def test_an_error_names_its_line() -> None:
    with pytest.raises(YAMLError) as caught:
        parse(b"a: 1\nb: [1,\nc: }\n")
    assert caught.value.line == 3

    with pytest.raises(YAMLError) as caught:
        parse(b"a: 1\nb: \xff\n")
    assert caught.value.line == 2


def test_reading_works_without_the_c_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_yaml, "_Loader", safe_yaml.yaml.SafeLoader)
    assert parse(b"a: [1, {b: 2}]").data == {"a": [1, {"b": 2}]}


YAMLISH = st.text(alphabet="abc:-[]{}&*!<>|#\"'%@,?~0123456789.\n \t", max_size=60)


@given(st.one_of(st.binary(max_size=60), YAMLISH.map(str.encode)))
@example(b"? - a\n: 1")
@example(b"<<: 1")
@example(b"a: !!set {x, y}")
@example(b"=: 1")
def test_any_bytes_are_a_document_or_a_yaml_error(content: bytes) -> None:
    try:
        assert isinstance(parse(content), Document)
    except YAMLError as error:
        assert error.what
