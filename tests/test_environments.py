"""Environments of their own: what makes them one, and what a failed build says. Building one is in tests/e2e."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway import environments
from gateway.errors import ConfigError
from gateway.spec import ModelSpec


def spec(root: Path, **config: Any) -> ModelSpec:
    return ModelSpec(name="m", target="model.model:Model", root=root, own_code=True, config=config)


def test_the_same_requirements_share_an_environment_and_others_do_not(tmp_path: Path) -> None:
    one, same = spec(tmp_path / "a", requirements=["six==1.16.0"]), spec(tmp_path / "b", requirements=["six==1.16.0"])
    assert environments.key_of(one) == environments.key_of(same)
    assert environments.key_of(one) != environments.key_of(spec(tmp_path, requirements=["six==1.17.0"]))


def test_a_changed_requirements_file_makes_another_environment(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("six\n")
    model = spec(tmp_path, requirements_file="requirements.txt")
    before = environments.key_of(model)
    (tmp_path / "requirements.txt").write_text("six>1\n")
    assert environments.key_of(model) != before


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("./wheels/x-1-py3-none-any.whl", "wheels/x-1-py3-none-any.whl"),
        ("x @ file://{root}/wheels/x.whl", "wheels/x.whl"),
        ("x @ ./src ; python_version > '3'", "src/x/__init__.py"),
        ("./src[extra]", "src/x/__init__.py"),
        ("-e src", "src/x/__init__.py"),
        ("-r more.txt", "more.txt"),
        ("--constraint=more.txt", "more.txt"),
        ("-r more.txt", "wheels/deep.whl"),
    ],
)
def test_other_files_behind_the_same_requirements_make_another_environment(
    line: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_CACHE_DIR", str(tmp_path / "cache"))
    root = tmp_path / "model"
    for name in (file, "more.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("./wheels/deep.whl\n-r more.txt\n")
    model = spec(root, requirements=[line.format(root=root)])
    before = environments.key_of(model)
    assert environments.key_of(model) == before
    (root / file).write_text("./wheels/deep.whl\n-r more.txx\n")
    assert environments.key_of(model) != before


def test_another_index_makes_another_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = spec(tmp_path, requirements=["six"])
    before = environments.key_of(model)
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://example.com/simple")
    assert environments.key_of(model) != before


def test_two_gateways_of_one_cache_give_their_workers_each_its_own_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = environments.import_path(tmp_path)
    (tmp_path / "other" / "gateway").mkdir(parents=True)
    monkeypatch.setattr(environments, "__file__", str(tmp_path / "other" / "gateway" / "environments.py"))
    theirs = environments.import_path(tmp_path)
    assert (theirs / "gateway").resolve() == tmp_path / "other" / "gateway"
    assert (ours / "gateway").resolve() != (theirs / "gateway").resolve()


def test_dependencies_of_a_pyproject_are_requirements(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1"\ndependencies = ["six", "attrs"]\n')
    assert environments.requirements_of(spec(tmp_path, requirements_file="pyproject.toml")) == ["six", "attrs"]


def test_a_requirements_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.txt: requirements_file does not exist"):
        environments.requirements_of(spec(tmp_path, requirements_file="nowhere.txt"))


def test_without_uv_the_pip_line_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"pip install 'model-gateway\[isolated\]'"):
        asyncio.run(environments.ensure(spec(tmp_path), print, tmp_path))


def test_a_failed_build_says_the_last_lines_and_is_never_half_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = tmp_path / "uv"
    uv.write_text('#!/bin/sh\n[ "$1" = venv ] && exit 0\necho first line\necho no solution found\nexit 2\n')
    uv.chmod(0o755)
    monkeypatch.setattr(environments, "find_uv", lambda: str(uv))
    lines: list[str] = []
    model = spec(tmp_path, requirements=["nothing"])
    for _ in range(2):  # the second time it is tried again
        with pytest.raises(ConfigError, match="could not be built:\nfirst line\nno solution found"):
            asyncio.run(environments.ensure(model, lines.append, tmp_path))
    assert lines.count("no solution found") == 2


def test_a_worker_in_an_environment_of_its_own_finds_our_package_and_no_other(tmp_path: Path) -> None:
    directory = environments.import_path(tmp_path)
    assert [path.name for path in directory.iterdir()] == ["gateway"]
    assert (directory / "gateway" / "wire.py").is_file()
    assert environments.import_path(tmp_path) == directory
