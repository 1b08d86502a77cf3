"""What stands in the place of a file with weights is called so, and what is the file itself never is."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.directories.unserved.unserved import find_unserved
from gateway.files.placeholders import BINARY, MIXED, POINTER, placeholder, placeholders

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
PAGES = {
    "html": b"<!DOCTYPE html>\n<html><head><title>Sign in</title>",
    "html after blanks": b"\xef\xbb\xbf\n  <HTML lang='en'>",
    "xml": b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code>',
    "refusal": b"Invalid username or password.",
    "not there": b"Entry not found",
}
OBJECTS = {"json": b'{"error":"Access to model x is restricted"}', "indented": b'{\n  "message": "Not Found"\n}'}


@pytest.mark.parametrize("suffix", sorted(BINARY | MIXED))
@pytest.mark.parametrize("page", PAGES)
def test_what_a_server_sent_instead_is_no_file(page: str, suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"model.{suffix}").write_bytes(PAGES[page])
    found = placeholder(tmp_path / f"model.{suffix}")
    assert found is not None and "instead of the file" in found.what and "download the file again" in found.fix


@pytest.mark.parametrize("suffix", sorted(BINARY))
@pytest.mark.parametrize("text", OBJECTS)
def test_a_json_text_is_none_of_what_is_never_a_text(text: str, suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"model.{suffix}").write_bytes(OBJECTS[text])
    found = placeholder(tmp_path / f"model.{suffix}")
    assert found is not None and "JSON" in found.what


@pytest.mark.parametrize(
    ("begin", "fix"), [(b"/annex/objects/MD5-s1--x\n", "git annex"), (b"# xet version 0\n", "hf down")]
)
def test_other_pointers_are_called_by_their_names(begin: bytes, fix: str, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(begin)
    found = placeholder(tmp_path / "model.pt")
    assert found is not None and fix in found.fix


def test_another_text_is_told_by_how_it_begins(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"You have been throttled.\nRetry later.\n")
    found = placeholder(tmp_path / "model.onnx")
    assert found is not None and "(it begins 'You have been throttled.')" in found.what


@pytest.mark.parametrize("name", ["model.gguf", "weights", "data.csv", "model.bin"])
def test_a_pointer_of_git_lfs_is_one_by_any_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(LFS)
    assert placeholder(tmp_path / name) == POINTER
    assert list(placeholders(tmp_path)) == [(name, POINTER)]


def test_the_files_themselves_are_left_alone(tmp_path: Path) -> None:
    table = json.dumps({"w": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}).encode()
    for size in (len(table), 0x7B, 0x227B):  # lengths whose bytes read as the beginning of a JSON text
        (tmp_path / f"{size}.safetensors").write_bytes(size.to_bytes(8, "little") + table.ljust(size))
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as file:
        file.writestr("config.json", "{}")
    (tmp_path / "m.bin").write_bytes(b'{"learner":{"attributes":{}}}')  # of XGBoost
    (tmp_path / "w.bin").write_bytes(b"3000 300\n</s> ")  # of word2vec
    (tmp_path / "p.pkl").write_bytes(pickle.dumps({"a": 1}, protocol=0))
    (tmp_path / "page.html").write_bytes(PAGES["html"])
    (tmp_path / "config.json").write_bytes(OBJECTS["json"])
    (tmp_path / "empty.onnx").touch()
    assert list(placeholders(tmp_path)) == []


@given(st.binary(max_size=40))
def test_any_beginning_is_looked_at(tmp_path_factory: pytest.TempPathFactory, begin: bytes) -> None:
    path = tmp_path_factory.mktemp("files") / "m.safetensors"
    path.write_bytes(begin)
    assert placeholder(path) is None or begin.isascii() or b"<" in begin


@pytest.mark.parametrize("name", ["model.onnx", "model.pkl", "model.safetensors", "model.bin"])
def test_the_line_of_a_directory_says_so_in_the_place_of_the_kind(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(PAGES["html"])
    found = find_unserved(tmp_path)
    assert found is not None
    assert found.what.startswith(f"{name} is an HTML or XML page") and found.fix.startswith("download the file again")
