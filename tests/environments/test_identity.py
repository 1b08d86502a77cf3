"""What a build is of is what its environment is known by, whatever changes meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from identity_keys import key_of

from gateway.environments import virtualenvs
from gateway.environments.local_requirements import requirements_of
from gateway.errors import ConfigError
from gateway.files import ordinary
from gateway.spec import ModelSpec


def spec(root: Path, **config: Any) -> ModelSpec:
    return ModelSpec(name="m", target="model.model:Model", root=root, own_code=True, config=config)


# uv as far as it matters here: it keeps what it was given.
UV = """#!/bin/sh
for last; do :; done
[ "$1" = venv ] && exec mkdir -p "$last"
[ "$3" = --project ] && cp -r "$4" GIVEN/settings
sed "s:^-c \\(.*\\):cat \\1:e" "$last" > GIVEN/lines
"""


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that holds what uv was given."""
    place, uv = tmp_path / "given", tmp_path / "uv"
    place.mkdir()
    uv.write_text(UV.replace("GIVEN", str(place)))
    uv.chmod(0o755)
    monkeypatch.setattr(virtualenvs, "find_uv", lambda: str(uv))
    monkeypatch.setattr(virtualenvs, "CHANNEL", ())
    return place


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """What is done once the environment has a name, before it is built."""
    return lambda change: monkeypatch.setattr(virtualenvs, "_check_contents", lambda spec: change())


def build(model: ModelSpec, cache: Path) -> None:
    asyncio.run(virtualenvs.ensure(model, print, cache))


def test_lines_and_settings_that_change_meanwhile_are_not_those_that_are_built(
    tmp_path: Path, given: Path, meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    model = tmp_path / "m"
    model.mkdir()
    files = {
        "requirements.txt": "six\n-r more.txt\n-c all.txt\n",
        "more.txt": "attrs\n",
        "all.txt": "six<2\n",
        "uv.toml": "offline = true\n",
    }
    for name, text in files.items():
        (model / name).write_text(text)

    def change() -> None:
        for name in files:
            (model / name).write_text("other = true\n")

    meanwhile(change)
    build(spec(model, requirements_file="requirements.txt"), tmp_path / "cache")
    assert (given / "lines").read_text() == "six\nattrs\nsix<2\n"
    assert (given / "settings/uv.toml").read_text() == '"offline" = true\n'


@pytest.mark.usefixtures("given")
@pytest.mark.parametrize("line", ["./src", "./wheels/x-1-py3-none-any.whl", "-r deep/all.txt"])
def test_projects_and_wheels_that_change_meanwhile_are_not_built(
    line: str, tmp_path: Path, given: Path, meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    model = tmp_path / "m"
    files = ("src/pyproject.toml", "src/a.py", "wheels/x-1-py3-none-any.whl")
    for name in (*files, "deep/all.txt"):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("./src\n" if name.startswith("deep") else "")
    meanwhile(lambda: [(model / name).write_text("new = 1\n") for name in files])
    with pytest.raises(ConfigError, match="has changed while its environment was prepared: load the model again"):
        build(spec(model, requirements=[line]), tmp_path / "cache")
    assert not (given / "lines").exists()
    build(spec(model, requirements=[line]), tmp_path / "cache")
    assert (given / "lines").exists()


def test_a_file_that_lines_include_and_is_not_there_is_not_looked_for_again(tmp_path: Path, given: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.txt: does not exist, but requirements include it"):
        build(spec(tmp_path, requirements=["-r absent.txt"]), tmp_path / "cache")
    assert not (given / "lines").exists()


@pytest.mark.parametrize("name", [".h", ".h/inner", "shown"])
def test_requirements_are_not_read_through_a_link_that_leads_out(name: str, tmp_path: Path) -> None:
    model, other = tmp_path / "m", tmp_path / "other"
    for place in (model, other):
        place.mkdir()
    (other / "lines.txt").write_text("six\n")
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).symlink_to(other)
    linked = spec(model, requirements_file=f"{name}/lines.txt")
    with pytest.raises(ConfigError, match="leads out of the model directory"):
        virtualenvs.asked(linked)
    assert key_of(replace(linked, allow_links=True)) == key_of(spec(model, requirements=["six"]))


def test_one_item_of_several_lines_is_several_requirements(tmp_path: Path) -> None:
    items = ["six #\n./x-1-py3-none-any.whl", "attrs"]
    assert requirements_of(spec(tmp_path, requirements=items)) == ["six #", "./x-1-py3-none-any.whl", "attrs"]
    assert key_of(spec(tmp_path / "a", requirements=items)) != key_of(spec(tmp_path / "b", requirements=items))


@pytest.mark.parametrize("file", ["src/pyproject.toml", "requirements.txt", "more.txt"])
def test_what_is_too_large_to_be_read_refuses_the_build_by_name(file: str, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "requirements.txt").write_text("./src\n-r more.txt\n")
    (tmp_path / "more.txt").touch()
    (tmp_path / file).touch()
    os.truncate(tmp_path / file, ordinary.MOST + 1)
    with pytest.raises(ConfigError, match=rf"{file}: cannot be read"):
        virtualenvs.asked(spec(tmp_path, requirements_file="requirements.txt"))


@pytest.mark.parametrize("variable", ["UV_FIND_LINKS", "UV_INDEX", "UV_CONSTRAINT", "UV_CONFIG_FILE"])
@pytest.mark.parametrize("place", ["data/there", "mine=data/there", "${{PROJECT_ROOT}}/there", "file://${{X}}/there"])
def test_a_place_that_the_operator_sets_may_be_another_one_before_it_is_there(
    variable: str, place: str, tmp_path: Path
) -> None:
    variables = {variable: place}
    if variable == "UV_CONFIG_FILE":
        variables = {variable: "mine.toml"}
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.toml").touch()
    assert key_of(spec(tmp_path / "a"), variables) != key_of(spec(tmp_path / "b"), variables)


def test_the_build_of_a_strict_model_has_nothing_locked_or_removed_where_a_project_lies(tmp_path: Path) -> None:
    """It writes nowhere but to its environment."""
    (tmp_path / "src").mkdir()
    for sandbox in ("basic", "strict"):
        model = replace(spec(tmp_path, requirements=["-e ./src"]), sandbox=sandbox)
        build = virtualenvs._Build(model, virtualenvs.asked(model), tmp_path / "envs" / sandbox, {}, print)
        (tmp_path / "envs").mkdir(exist_ok=True)
        build.clear()
        lines, in_place = build.prepare(tmp_path / "cache")
        assert lines[-1] == "-e ./src"
        assert bool(in_place) is (sandbox == "basic")
