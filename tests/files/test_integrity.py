"""Links and sums of model directories."""

from __future__ import annotations

import os
import shutil
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.environments import local_projects
from gateway.errors import ConfigError
from gateway.files import integrity
from gateway.files.integrity import check_links, links_out, listed, missing, unlisted, verify


@pytest.fixture
def model(tmp_path: Path) -> Path:
    root = tmp_path / "models/m"
    (root / "data").mkdir(parents=True)
    (root / "model.py").write_text("class Model: ...")
    (root / "data/weights.bin").write_bytes(b"weights")
    return root


def sums(root: Path, *names: str) -> str:
    """What the real program writes."""
    return subprocess.run(["sha256sum", *names], cwd=root, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret", "../../../models/other", "/proc/self/environ"])
def test_a_link_out_of_the_directory_is_refused_by_name(model: Path, target: str) -> None:
    for name in ("secret", "other"):
        (model.parent / name).touch()
    (model / "data/tokenizer.json").symlink_to(target)
    with pytest.raises(ConfigError, match=r"data/tokenizer.json: this link leads out .* allow_links = true"):
        check_links(model)


def test_a_link_out_of_the_directory_to_nothing_is_told_to_be_downloaded_again(model: Path, tmp_path: Path) -> None:
    (model / "tokenizer.json").symlink_to("/nonexistent/m")
    with pytest.raises(ConfigError, match=r"leads to /nonexistent/m, which does not exist: download the file again$"):
        check_links(model)
    snapshot = tmp_path / "models--org--tiny/snapshots/0a1b"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to("../../blobs/00")
    with pytest.raises(
        ConfigError, match=r"blobs/00, which does not exist: download it again: hf download org/tiny, or use"
    ):
        check_links(snapshot)


def test_links_that_stay_inside_are_fine(model: Path) -> None:
    (model / "data/latest.bin").symlink_to("weights.bin")
    (model / "packages").symlink_to("data")
    (model / "absolute").symlink_to(model / "model.py")
    check_links(model)


def test_the_directory_itself_may_be_a_link(model: Path, tmp_path: Path) -> None:
    (model / "data/latest.bin").symlink_to("weights.bin")
    (tmp_path / "elsewhere").symlink_to(model)
    check_links(tmp_path / "elsewhere")


def test_a_link_out_through_another_link_and_one_to_itself_are_refused(model: Path, tmp_path: Path) -> None:
    (model / "a").symlink_to("b")
    (model / "b").symlink_to(tmp_path)
    (model / "loop").symlink_to("loop")
    assert sorted(path.name for path in links_out(model)) == ["a", "b", "loop"]


@pytest.mark.parametrize("name", [".h", ".h/inner/link", "data/.h", ".venv/bin/libs", ".venv/python", ".bin/python3"])
def test_no_hidden_link_leads_out_either(model: Path, tmp_path: Path, name: str) -> None:
    """A path in its config.yaml may go through it, to what another model writes."""
    (tmp_path / "other").mkdir()
    (model / ".venv").mkdir()
    (model / ".venv/pyvenv.cfg").touch()
    (model / name).parent.mkdir(parents=True, exist_ok=True)
    (model / name).symlink_to(tmp_path / "other")
    with pytest.raises(ConfigError, match=rf"{name}: this link leads out"):
        check_links(model)


def test_a_hidden_virtual_environment_may_have_its_python_elsewhere(model: Path) -> None:
    venv.create(model / ".venv", symlinks=True, with_pip=False)
    assert (model / ".venv/bin/python3").is_symlink()
    check_links(model)


def test_a_directory_that_is_only_data_has_no_python_elsewhere(model: Path) -> None:
    venv.create(model / ".venv", symlinks=True, with_pip=False)
    with pytest.raises(ConfigError, match=r"python[\d.]*: this link leads out"):
        check_links(model, has_code=False)


def test_no_directory_and_no_data_is_a_python(model: Path, tmp_path: Path) -> None:
    """A path in a file could go through the one; the other could be a file of any kind."""
    (tmp_path / "other").mkdir()
    (tmp_path / "data").touch()
    (model / ".venv/bin").mkdir(parents=True)
    (model / ".venv/pyvenv.cfg").touch()
    for target in ("other", "data", "nothing"):
        (model / ".venv/bin/python").unlink(missing_ok=True)
        (model / ".venv/bin/python").symlink_to(tmp_path / target)
        with pytest.raises(ConfigError, match="python: this link leads"):
            check_links(model)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_what_sha256sum_writes_is_read_and_kept(model: Path) -> None:
    odd = "data/a b\\c\nd"
    (model / odd).write_text("odd")
    (model / "SHA256SUMS").write_text(sums(model, "model.py", "data/weights.bin", odd) + "\n")
    assert set(listed(model) or {}) == {"model.py", "data/weights.bin", odd}
    assert verify(model) == 3


def test_where_there_is_a_list_it_lists_every_file_but_hidden_and_compiled_ones(model: Path) -> None:
    (model / "SHA256SUMS").write_text(sums(model, "model.py"))
    for name in ("extra.py", "data/more/row", ".git/config", ".hidden", "__pycache__/model.pyc"):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("")
    (model / "again").symlink_to("data")
    (model / "data/more/up").symlink_to("..")
    below = ["more/row", "weights.bin"]
    assert unlisted(model) == [*(f"again/{name}" for name in below), *(f"data/{name}" for name in below), "extra.py"]
    with pytest.raises(ConfigError, match=r"again/more/row and 4 more: not listed in SHA256SUMS"):
        verify(model)


@pytest.mark.parametrize(
    "walk", [unlisted, lambda root: list(local_projects.files(root, root / "aside", local_projects.Walk()))]
)
def test_what_nobody_could_look_through_is_refused(walk: Callable[[Path], object], tmp_path: Path) -> None:
    """Links from each of some directories to all others have more ways than can be counted."""
    (tmp_path / "SHA256SUMS").write_text("")
    for name in "abcdefghijkl":
        (tmp_path / name).mkdir()
        for other in "abcdefghijkl":
            (tmp_path / name / other).symlink_to(f"../{other}")
    with pytest.raises(ConfigError, match=r"more than 32 paths lead to this directory"):
        walk(tmp_path)


@pytest.mark.parametrize(
    "walk", [unlisted, lambda root: list(local_projects.files(root, root / "aside", local_projects.Walk()))]
)
def test_directories_deeper_than_python_recurses_are_refused(walk: Callable[[Path], object], tmp_path: Path) -> None:
    (tmp_path / "SHA256SUMS").write_text("")
    (tmp_path / "/".join("d" * 400)).mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"nested more than 100 levels deep"):
        walk(tmp_path)


def test_a_directory_that_cannot_be_looked_through_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model / "SHA256SUMS").write_text(sums(model, "model.py"))

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ConfigError, match=rf"{model}: cannot be compared with SHA256SUMS: Permission denied"):
        unlisted(model)


def test_what_a_model_writes_into_its_data_is_not_on_its_list_unless_files_there_are(model: Path) -> None:
    (model / "SHA256SUMS").write_text(sums(model, "model.py"))
    assert unlisted(model, but=model / "data") == []
    (model / "SHA256SUMS").write_text(sums(model, "model.py", "data/weights.bin"))
    (model / "data/other.bin").write_text("")
    assert unlisted(model, but=model / "data") == ["data/other.bin"]


def test_a_directory_without_a_list_is_as_it_is(model: Path) -> None:
    assert listed(model) is None
    assert unlisted(model) == []
    assert verify(model) == 0
    assert missing(model) == []


def test_a_changed_or_missing_file_is_named(model: Path) -> None:
    (model / "SHA256SUMS").write_text(sums(model, "model.py", "data/weights.bin"))
    (model / "data/weights.bin").write_bytes(b"weightS")
    with pytest.raises(ConfigError, match=r"data/weights.bin: differs from SHA256SUMS"):
        verify(model)
    (model / "data/weights.bin").unlink()
    assert missing(model) == ["data/weights.bin"]
    with pytest.raises(ConfigError, match=r"data/weights.bin: is listed in SHA256SUMS and cannot be read: No such"):
        verify(model)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("nonsense", r"SHA256SUMS:2: is not a line of sha256sum"),
        (f"{'0' * 63}  model.py", r"SHA256SUMS:2: is not a line of sha256sum"),
        (f"{'0' * 64}  ../other/model.py", r"SHA256SUMS:2: \.\./other/model.py is not in the model directory"),
        (f"{'0' * 64}  /etc/passwd", r"SHA256SUMS:2: /etc/passwd is not in the model directory"),
    ],
)
def test_a_line_that_cannot_be_meant_is_named(model: Path, line: str, what: str) -> None:
    (model / "SHA256SUMS").write_text(sums(model, "model.py") + line + "\n")
    with pytest.raises(ConfigError, match=what):
        verify(model)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_list_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    root = tmp_path_factory.mktemp("m")
    (root / "SHA256SUMS").write_bytes(data)
    try:
        found = listed(root)
    except ConfigError:
        return
    assert found is not None
    assert not any(os.path.isabs(name) or ".." in name.split("/") for name in found)


@pytest.mark.parametrize("size", [integrity.LONGEST + 1, 200_000])
def test_a_listed_name_that_no_file_can_have_is_told_with_its_line(model: Path, size: int) -> None:
    (model / "SHA256SUMS").write_text(f"{'0' * 64}  {'n' * size}\n")
    with pytest.raises(ConfigError, match=f"SHA256SUMS:1: has a name of ({size}|{size:,}) characters") as refused:
        missing(model)
    assert len(str(refused.value)) < 1000


def test_a_listed_name_that_is_longer_than_a_file_may_have_is_missing(model: Path) -> None:
    (model / "SHA256SUMS").write_text(f"{'0' * 64}  {'n' * 300}\n")
    assert missing(model) == ["n" * 300]


def test_no_step_of_reading_a_list_is_as_long_as_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step holds up the whole gateway: to split very many lines, or a very long path."""

    class Whole(bytes):
        def decode(self, *_: Any) -> str:
            raise AssertionError("it was decoded in one step")

    def split(name: str) -> Any:
        raise AssertionError("it was split")

    text = b"%b  %b\n" % (b"0" * 64, b"a/" * integrity.LONGEST + b"b")
    monkeypatch.setattr(integrity.ordinary, "content", lambda _: Whole(b"\n\n" + text))
    monkeypatch.setattr(integrity, "PurePosixPath", split)
    with pytest.raises(ConfigError, match="SHA256SUMS:3: has a name of 8193 characters, which is too long"):
        integrity.listed(tmp_path)
