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
    return ModelSpec(name="m", target="model.model:Model", root=root, config=config)


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
