"""Numbers and names of types within a sentence."""

from __future__ import annotations

import errno
import re
import uuid
from pathlib import Path

import pytest

import gateway
from gateway.access import keys
from gateway.access.permits import Permits
from gateway.dialects.single_value import what
from gateway.errors import RateLimited
from gateway.wording import (
    TOML,
    a_type,
    addressed,
    counted,
    in_state,
    instead_of,
    listed,
    table_of,
    traceback_of,
    unexpected,
    with_article,
)


@pytest.mark.parametrize(
    ("number", "expected"), [(0, "0 calls"), (1, "1 call"), (2, "2 calls"), (1_000_000, "1000000 calls")]
)
def test_a_noun_is_in_the_plural_unless_there_is_one(number: int, expected: str) -> None:
    assert counted(number, "call") == expected


def test_a_state_is_said_as_a_sentence_has_it() -> None:
    assert [in_state(state) for state in ("loading", "failed", "ready")] == ["is loading", "failed", "is ready"]


def test_a_noun_with_another_plural_has_it() -> None:
    assert [counted(number, "try", "tries") for number in (1, 2)] == ["1 try", "2 tries"]


@pytest.mark.parametrize(
    "expected",
    [
        *("an int", "an object", "an Image", "an Exception", "an _Inner", "an ndarray", "an NDArray", "an HTTPError"),
        *("a str", "a dict", "a NoneType", "a DataFrame", "a UUID", "a URLError", "a uint8", "a User", "a _Row"),
        *("an MPNet", "an RGBImage", "a Node", "an UnknownThing", "an unknown"),
    ],
)
def test_a_name_has_the_article_with_which_it_is_spoken(expected: str) -> None:
    assert with_article(expected.split()[1]) == expected


def test_a_value_is_named_by_its_type() -> None:
    assert [a_type(value) for value in (1, "1", uuid.UUID(int=1))] == ["an int", "a str", "a UUID"]


def test_a_key_that_may_make_one_call_is_told_so() -> None:
    mine = Permits(keys.create("alice", rpm=1)[0])
    mine.draw(0)

    with pytest.raises(RateLimited, match=r"this key may make 1 call a minute$"):
        mine.draw(0)


def test_a_key_that_may_have_one_call_is_told_so() -> None:
    mine = Permits(keys.create("alice", max_inflight=1)[0])
    mine.take(0)

    with pytest.raises(RateLimited, match=r"this key may have 1 call at once, and has reached that limit$"):
        mine.take(0)


def test_what_a_model_returned_is_named_with_its_article() -> None:
    assert [what(value) for value in (1, "1", object())] == ["an int", "a str", "an object"]


def test_no_name_of_a_type_has_an_article_that_was_chosen_for_another() -> None:
    root = Path(gateway.__file__).parent
    wrong = re.compile(r"\ban? \{type\(")
    found = [path.name for path in sorted(root.rglob("*.py")) if wrong.search(path.read_text("utf-8"))]
    assert found == []


def test_what_was_meant_is_said_or_what_there_is_if_it_is_little() -> None:
    assert instead_of("sklern", ["transformers", "sklearn"]) == " (did you mean sklearn?)"
    assert instead_of("x", ["b", "a"]) == " (have: a, b)"
    assert instead_of("x", map(str, range(1000))) == instead_of("x", []) == ""


def test_of_very_many_names_none_is_looked_for() -> None:
    many = [f"name {number}" for number in range(2000)]
    assert instead_of("name 5", many) == "" and instead_of("name x", many[:1000])


def test_of_names_that_somebody_made_up_the_first_are_listed() -> None:
    assert (listed([]), listed({None: 1, 5: 2, "b": 3})) == ("", "5, None, b")
    assert listed(range(10, 20)) == ", ".join(map(str, range(10, 20)))
    assert listed(range(10, 5000)) == "10, 100, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, …"


@pytest.mark.parametrize(
    ("model", "table"), [("iris", "[models.iris]"), ("saved/iris", '[models."saved/iris"]'), ("a.b", '[models."a.b"]')]
)
def test_advice_about_a_table_has_the_id_of_the_model_as_toml_takes_it(model: str, table: str) -> None:
    assert table_of(model) == table
    assert table_of(model, "options") == f"{table[:-1]}.options]"
    assert addressed("[models.NAME] a = 1, [models.NAME.options] b = 2", model) == (
        f"{table} a = 1, {table[:-1]}.options] b = 2"
    )
    assert addressed("[models.NAME]", None) == "[models.NAME]"


def test_advice_about_the_table_of_a_model_says_what_makes_it_count() -> None:
    assert addressed("set [models.NAME] a = 1 in gateway.toml", "m") == f"set [models.m] a = 1 in {TOML}"
    assert "SIGHUP" in TOML and "--reload" in TOML
    assert addressed("cache_dir in gateway.toml", "m") == "cache_dir in gateway.toml"  # counts from a start on


def test_a_path_that_no_system_call_takes_needs_no_traceback() -> None:
    """Whose text would be the path, as long as a tree is deep."""
    error = OSError(errno.ENAMETOOLONG, "File name too long", "d/" * 4000)
    assert traceback_of(error) is None
    assert unexpected(error) == "OSError: File name too long"
    assert traceback_of(other := ValueError("x")) is other
