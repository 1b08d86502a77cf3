"""JSON of model directories: the time that reading it takes is known before, and bounded for a file, and for many."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import pytest

from gateway import ModelSpec, json_costs, parse_json, peek_json
from gateway.directories.discovery import discover
from gateway.directories.model_warnings import told_at_start
from gateway.files import json_budget, ordinary
from gateway.files.json_budget import A_DIRECTORY, A_FILE, CHEAP
from gateway.json_costs import BY_PYTHON
from gateway.plugins import Plugins

TOO_DEAR = b"[" + b"1e308," * (A_FILE // BY_PYTHON) + b"1]"
LATE = "it would take too long to read"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was decoded, by either library."""
    found: list[bytes] = []

    def noted(decode: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def noting(text: bytes | str) -> Any:
            found.append(text if isinstance(text, bytes) else text.encode())
            return decode(text)

        return noting

    for name in ("_decode", "_by_float"):
        monkeypatch.setattr(json_costs, name, noted(getattr(json_costs, name)))
    monkeypatch.setattr(ordinary, "json", SimpleNamespace(loads=noted(json.loads)))
    return found


def test_a_file_that_would_take_too_long_is_refused_before_it_is_read(decoded: list[bytes]) -> None:
    with json_budget.of_directory():
        with pytest.raises(ValueError, match=LATE):
            parse_json(TOO_DEAR)
        assert decoded == []
        assert parse_json(TOO_DEAR.replace(b"1e308", b"1e-08"))
    assert len(parse_json(TOO_DEAR)) == A_FILE // BY_PYTHON + 1  # in a worker


@pytest.mark.parametrize("scope", ["of_directory", "of_search"])
def test_all_files_together_have_a_bound_and_small_ones_are_always_read(
    decoded: list[bytes], monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    monkeypatch.setattr(json_budget, "A_SEARCH", 2 * A_DIRECTORY)
    one_by_one = json_budget.of_directory if scope == "of_search" else nullcontext
    most = A_DIRECTORY * (2 if scope == "of_search" else 1)
    text = b"[" + b"1e308," * (A_FILE // 2 // BY_PYTHON) + b"1]"  # a bit more than half of what one may have
    assert A_FILE // 2 < json_costs.amount(text).cost < A_FILE * 0.54
    with getattr(json_budget, scope)():
        for _ in range(most // (A_FILE // 2) - 1):
            with one_by_one():
                assert parse_json(text)
        with one_by_one(), pytest.raises(ValueError, match=LATE):
            parse_json(text)
        for _ in range(100):
            assert parse_json(b"[" + b"1e308," * (CHEAP // 2 // BY_PYTHON) + b"1]")
    assert parse_json(text)


def test_what_the_slower_library_reads_may_take_as_long(decoded: list[bytes]) -> None:
    with json_budget.of_directory():
        assert parse_json(b'[NaN, 1e400, "\\ud800"]')[2] == "\ud800"
        decoded.clear()
        with pytest.raises(ValueError, match=LATE):
            parse_json(b"[" + b"0.5," * 1_000_000 + b"NaN]", most=2_000_000)
    assert len(decoded) == 1  # by the faster one, which sees at the end that it cannot


@pytest.mark.parametrize(
    "text", ["[18446744073709551616, -0, -0.0, 1E5]", '{"a": 1, "a": [NaN, -Infinity]}', '"\\ud83d\\ude00\\u0000"']
)
def test_files_are_read_as_the_standard_library_reads_them(text: str) -> None:
    assert repr(parse_json(text.encode())) == repr(json.loads(text))


def skops(place: Path) -> None:
    for name in "ab":
        with ZipFile(place / f"{name}.skops", "w", ZIP_DEFLATED) as archive:
            archive.writestr("schema.json", b'{"__class__": "SVC", "x": %b}' % TOO_DEAR)


def sentence_transformers(place: Path) -> None:
    (place / "config_sentence_transformers.json").write_bytes(b'{"x": %b}' % TOO_DEAR)
    (place / "modules.json").write_bytes(TOO_DEAR)


def transformers(place: Path) -> None:
    (place / "config.json").write_bytes(b'{"architectures": ["LlamaForCausalLM"], "x": %b}' % TOO_DEAR)
    (place / "model.safetensors.index.json").write_bytes(b'{"weight_map": %b}' % TOO_DEAR)
    (place / "model.safetensors").write_bytes(b"x")


@pytest.mark.parametrize("write", [skops, sentence_transformers, transformers])
def test_whoever_looks_at_a_directory_for_the_gateway_keeps_within_its_bounds(
    tmp_path: Path, decoded: list[bytes], write: Callable[[Path], None]
) -> None:
    place = tmp_path / "dear"
    place.mkdir()
    write(place)
    found = discover([tmp_path], Plugins.load())
    specs = found.specs or (ModelSpec(name="dear", target="", root=place, format="transformers"),)
    for spec in specs:
        told_at_start(spec)
    assert max(map(len, decoded), default=0) < len(TOO_DEAR)
    if write is sentence_transformers:
        assert f"config_sentence_transformers.json is not a JSON object ({LATE})" in str(found.problems[0])


def test_the_notes_on_a_model_keep_within_the_bounds_of_its_directory(
    tmp_path: Path, decoded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_bytes(TOO_DEAR)

    def look(*_: Any) -> list[Any]:
        with pytest.raises(ValueError, match=LATE):
            peek_json(tmp_path / "config.json")
        return []

    monkeypatch.setattr("gateway.directories.model_warnings.remarks", look)
    assert told_at_start(ModelSpec(name="m", target="", root=tmp_path)) == []
    assert decoded == []


def test_all_models_together_may_have_more_than_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[int]] = {}

    def look(path: Path) -> None:
        seen[path.name] = [each.left for each in json_budget._budgets.get()]
        parse_json(b"[" + b"1e308," * (A_FILE // 2 // BY_PYTHON) + b"1]")

    monkeypatch.setattr("gateway.directories.discovery.find_unserved", look)
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").touch()
    discover([tmp_path], Plugins())
    assert [seen[name][1] for name in "ab"] == [A_DIRECTORY] * 2
    assert A_DIRECTORY < seen["b"][0] < seen["a"][0] < json_budget.A_SEARCH
    assert json_budget._budgets.get() == ()
