"""Projects that requirements lead to, built by the real uv and the real setuptools of what is there."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import setuptools
from identity_keys import key_of

from gateway.directories.code import requirements
from gateway.environments import build_lines, local_projects, virtualenvs
from gateway.environments.local_projects import Walk
from gateway.errors import ConfigError
from gateway.files import integrity
from gateway.spec import ModelSpec

PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "{name}"
version = "1"
dependencies = {needs}
[tool.setuptools.packages.find]
include = ["{name}*"]
"""
BACKEND = (
    f"import sys\nsys.path.append({str(Path(setuptools.__file__).parents[1])!r})\nfrom setuptools.build_meta import *\n"
)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtualenvs, "CHANNEL", ())
    monkeypatch.setenv("UV_OFFLINE", "1")


def write_project(place: Path, name: str = "odd", more: str = "", needs: str = "[]") -> None:
    (place / name).mkdir(parents=True)
    (place / name / "__init__.py").write_text("")
    (place / name / "old.py").write_text("A = 1\n")
    (place / "pyproject.toml").write_text(PROJECT.format(name=name, needs=needs) + more)
    (place / "backend.py").write_text(BACKEND)


def build(model: Path, *lines: str, **config: object) -> Path:
    """The site-packages of the model's environment."""
    asked = ModelSpec(name="m", target="m:M", root=model, own_code=True, config={"requirements": list(lines), **config})
    python = asyncio.run(virtualenvs.ensure(asked, print, model.parent / "cache"))
    assert not list((model.parent / "cache").glob("envs/*.build"))
    return next((python.parents[1] / "lib").glob("python*/site-packages"))


def there(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*") if "__pycache__" not in path.parts}


def test_an_environment_has_the_modules_that_are_there_and_no_older_ones(tmp_path: Path) -> None:
    model, package = tmp_path / "m", tmp_path / "m/src/odd"
    write_project(model / "src")
    os.utime(package / "old.py", (1e9, 1e9))
    shutil.copy2(package / "old.py", tmp_path / "kept.py")
    assert (build(model, "./src") / "odd/old.py").read_text() == "A = 1\n"
    (package / "old.py").write_text("A = 2\n")
    assert (build(model, "./src") / "odd/old.py").read_text() == "A = 2\n"
    shutil.copy2(tmp_path / "kept.py", package / "old.py")
    (package / "more.py").write_text("")
    (package / "__init__.py").rename(package / "new.py")
    built = build(model, "./src") / "odd"
    assert (built / "old.py").read_text() == "A = 1\n", "an older file with its time"
    assert {path.name for path in built.glob("*.py")} == {"old.py", "more.py", "new.py"}


def test_what_a_build_by_hand_has_left_counts_for_nothing(tmp_path: Path) -> None:
    model = tmp_path / "m"
    write_project(model / "src")
    before = build(model, "./src")
    (model / "src/build/lib/odd").mkdir(parents=True)
    (model / "src/build/lib/odd/gone.py").write_text("")
    (model / "src/odd.egg-info").mkdir()
    (model / "src/odd.egg-info/PKG-INFO").write_text("")
    assert build(model, "./src") == before
    (model / "src/odd/old.py").unlink()
    assert {path.name for path in (build(model, "./src") / "odd").glob("*.py")} == {"__init__.py"}


@pytest.mark.parametrize("line", ["-e ./src", "-r deep/all.txt", "{root}/src"])
def test_a_build_leaves_nothing_in_the_model_directory_which_loads_again_with_its_sums(
    line: str, tmp_path: Path
) -> None:
    model = tmp_path / "my m"
    write_project(model / "src")
    (model / "deep").mkdir()
    (model / "deep/all.txt").write_text("-r more.txt\n")
    (model / "deep/more.txt").write_text("./src ; python_version > '3'\n")
    done = subprocess.run(
        "find . -type f ! -name SHA256SUMS | xargs sha256sum", shell=True, cwd=model, capture_output=True, check=True
    )
    (model / "SHA256SUMS").write_bytes(done.stdout)
    before = there(model)
    first = build(model, line.format(root=model))
    assert there(model) == before
    integrity.verify(model)
    assert build(model, line.format(root=model)) == first
    editable = line.startswith("-e")
    assert (first / "odd/old.py").is_file() is not editable
    if editable:
        code = "import odd; print(odd.__file__)"
        found = subprocess.run([first.parents[2] / "bin/python", "-c", code], capture_output=True, text=True, cwd="/")
        assert found.stdout.strip() == str(model / "src/odd/__init__.py")


def test_a_build_that_failed_leaves_nothing_and_is_done_again(tmp_path: Path) -> None:
    model = tmp_path / "m"
    write_project(model / "src")
    (model / "src/setup.py").write_text(
        f"import os, setuptools\nsetuptools.setup()\nassert os.path.exists({str(tmp_path / 'mended')!r}), 'no good'\n"
    )
    before = there(model)
    for line in ("./src", "-e ./src"):
        with pytest.raises(ConfigError, match=r"no good|Error|exit"):
            build(model, line)
        assert there(model) == before
    (tmp_path / "mended").touch()
    assert (build(model, "./src") / "odd/old.py").is_file()


@pytest.mark.parametrize("options", ["", ", editable = true"])
def test_a_project_finds_those_that_it_names_beside_it_and_they_are_known_by_their_content(
    options: str, tmp_path: Path
) -> None:
    model = tmp_path / "models/m"
    source = f'[tool.uv.sources]\nlib9 = {{path = "../../lib9"{options}}}\n'
    write_project(model / "src", more=source, needs='["lib9"]')
    write_project(model.parent / "lib9", "lib9")
    before = there(tmp_path / "models/lib9") | there(model)
    first = build(model, "./src")
    code = "import lib9; print(lib9.__file__)"
    found = subprocess.run([first.parents[2] / "bin/python", "-c", code], capture_output=True, text=True, cwd="/")
    expected = model.parent / "lib9" if options else first
    assert found.stdout.strip() == str(expected / "lib9/__init__.py")
    assert there(tmp_path / "models/lib9") | there(model) == before
    asked = ModelSpec(name="m", target="m:M", root=model, config={"requirements": ["./src"]})
    before_change = key_of(asked, cache=model.parent / "cache")
    (model.parent / "lib9/lib9/old.py").write_text("A = 2\n")
    assert key_of(asked, cache=model.parent / "cache") != before_change


def test_a_project_reads_what_lies_above_it_and_behind_its_links(tmp_path: Path) -> None:
    model = tmp_path / "m"
    write_project(model / "src")
    (model / "common").mkdir()
    (model / "common/shared.py").write_text("B = 1\n")
    (model / "src/odd/common").symlink_to("../../common")
    (model / "above.txt").write_text("read")
    (model / "src/setup.py").write_text("import setuptools\nopen('../above.txt').close()\nsetuptools.setup()\n")
    first = build(model, "./src")
    assert (first / "odd/common/shared.py").read_text() == "B = 1\n"
    (model / "common/shared.py").write_text("B = 2\n")
    assert (build(model, "./src") / "odd/common/shared.py").read_text() == "B = 2\n"


def test_a_package_called_build_and_the_list_of_an_unpacked_archive_are_sources(tmp_path: Path) -> None:
    written = [
        "setup.py", "PKG-INFO", "odd.egg-info/PKG-INFO", "odd.egg-info/SOURCES.txt", "build/__init__.py", "dist/a.js",
        "build/lib/__init__.py", "inner/setup.py", "inner/build/tool.cmake", ".version",
    ]  # fmt: skip
    left = [
        "inner/build/lib/a.py",
        "inner/a.egg-info/PKG-INFO",
        "inner/build/bdist.linux-x86_64/a",
        "__pycache__/a.pyc",
    ]
    left += ["__pycache__/a.pyc", "venv/pyvenv.cfg", "cache/envs/key/a"]
    for name in (*written, *left):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = {name for name, path in local_projects.files(tmp_path, tmp_path / "cache", Walk()) if path.is_file()}
    assert found == set(written)


def test_a_project_that_leads_back_to_itself_and_holds_the_cache_is_copied_once(tmp_path: Path) -> None:
    write_project(tmp_path / "m")
    (tmp_path / "m/loop").symlink_to(".")
    (tmp_path / "m/weights.bin").touch()
    os.truncate(tmp_path / "m/weights.bin", local_projects.LARGE)
    known = {tmp_path / "m": [*local_projects.sums(tmp_path / "m", tmp_path / "m/cache", Walk())]}
    mirror = local_projects.Mirror(tmp_path / "m/cache/tree", tmp_path / "m/files", tmp_path / "m/cache", known)
    mirror.fill([tmp_path / "m"])
    copy = mirror.of(tmp_path / "m")
    assert there(copy) == {"odd", "odd/__init__.py", "odd/old.py", "pyproject.toml", "backend.py", "weights.bin"}
    assert (copy / "weights.bin").is_symlink(), "what is large is linked"


def test_a_place_that_variables_name_or_that_a_url_quotes_is_known_by_its_content(tmp_path: Path) -> None:
    for line in ("${PROJECT_ROOT}/my src", "${PLACE}/my src", "odd @ file://{root}/my%20src", "odd @ my src"):
        model = ModelSpec(
            name="m", target="m:M", root=tmp_path, config={"requirements": [line.replace("{root}", str(tmp_path))]}
        )
        shutil.rmtree(tmp_path / "my src", ignore_errors=True)
        write_project(tmp_path / "my src")
        keys = {key_of(model, {"PLACE": str(tmp_path)})}
        (tmp_path / "my src/odd/.hidden").write_text("1")
        keys.add(key_of(model, {"PLACE": str(tmp_path)}))
        (tmp_path / "my src/odd/.hidden").chmod(0o755)
        keys.add(key_of(model, {"PLACE": str(tmp_path)}))
        assert len(keys) == 3, line


def test_files_that_variables_and_settings_of_uv_name_are_part_of_the_key(tmp_path: Path) -> None:
    model = ModelSpec(name="m", target="m:M", root=tmp_path / "models/m", config={"requirements": ["six"]})
    model.root.mkdir(parents=True)
    keys = [key_of(model, {"UV_CONSTRAINT": str(tmp_path / "all.txt")})]
    (tmp_path / "all.txt").write_text("six<1.17\n")
    keys.append(key_of(model, {"UV_CONSTRAINT": str(tmp_path / "all.txt")}))
    (tmp_path / "all.txt").write_text("six<1.16\n")
    keys.append(key_of(model, {"UV_CONSTRAINT": str(tmp_path / "all.txt")}))
    (tmp_path / "uv.toml").write_text("offline = true\n")
    keys.append(key_of(model, {"UV_CONSTRAINT": str(tmp_path / "all.txt")}))
    assert len(set(keys)) == 4
    assert key_of(model) == key_of(replace(model, name="other"))


def test_a_project_that_leads_to_others_without_end_is_refused(tmp_path: Path) -> None:
    """Two links to itself are two paths, four, eight …"""
    for name in "ab":
        (tmp_path / name).symlink_to(".")
    (tmp_path / "pyproject.toml").write_text('[tool.uv.sources]\na = {path = "a"}\nb = {path = "b"}\n')
    with pytest.raises(ConfigError, match="leads to more than 200 projects"):
        local_projects.sources(tmp_path, False)


def test_a_place_of_more_files_than_a_project_has_is_refused_before_any_more_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_projects, "MOST_FILES", 20)
    read: list[Path] = []
    monkeypatch.setattr(local_projects, "fingerprint", lambda path: read.append(path) or "sum")
    model = ModelSpec(name="m", target="m:M", root=tmp_path / "m", config={"requirements": ["a @ ../a", "b @ ../b"]})
    model.root.mkdir()
    for number in range(15):
        for name in "ab":
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{number}.py").touch()
    with pytest.raises(ConfigError, match=r"/b: requirements lead to more than 20 files: name only the directory of a"):
        key_of(model)
    assert len(read) == 20


def test_files_that_nobody_could_read_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    monkeypatch.setattr(local_projects, "fingerprint", lambda path: read.append(path) or "sum")
    (tmp_path / "a").mkdir()
    with (tmp_path / "a" / "huge").open("wb") as file:
        file.truncate(local_projects.MOST_BYTES + 1)
    for line in ("a @ ./a", "./a/huge.whl"):
        (tmp_path / "a" / "huge").rename(tmp_path / "a" / "huge.whl") if line.endswith("whl") else None
        model = ModelSpec(name="m", target="m:M", root=tmp_path, config={"requirements": [line]})
        with pytest.raises(ConfigError, match="requirements lead to files of more than 16 GiB"):
            key_of(model)
    assert not read


def test_requirements_that_include_each_other_are_read_once_and_are_not_without_end(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.txt").write_text(f"name{number}\n" + f"-r {number + 1}.txt\n-c {number + 1}.txt\n" * 2)
    (tmp_path / "40.txt").touch()
    model = ModelSpec(name="m", target="m:M", root=tmp_path, config={"requirements": ["-r 0.txt"]})
    assert key_of(model)
    lines = build_lines.Lines(virtualenvs.asked(model), tmp_path, tmp_path, {}, tmp_path / "rest")
    (tmp_path / "rest").mkdir()
    rewritten = lines.rewritten(tmp_path / "aside")
    assert [line for line in rewritten if line.startswith("name")] == [f"name{number}" for number in range(40)]
    assert len(list(requirements.lacking(model, {}, isolated=False))) < 100
    for number in range(40, 300):
        (tmp_path / f"{number}.txt").write_text(f"-r {number + 1}.txt\n")
    with pytest.raises(ConfigError, match="more than 200 files"):
        key_of(model)


WORKSPACE = "[tool.uv.sources]\nother = {{ workspace = true }}\n[tool.uv.workspace]\nmembers = {members}\n"


@pytest.mark.parametrize(
    "pattern, found",
    [
        ("packages/*", {"packages/a", "packages/b", "packages/link"}),
        ("packages/[ab]", {"packages/a", "packages/b"}),
        ("packages/a", {"packages/a"}),
        ("**/inner", {"packages/b/inner"}),
        ("../beside", {"../beside"}),
        ("packages/file", set()),
        ("/", set()),
        ("", set()),
    ],
)
def test_members_of_a_workspace_are_those_that_its_patterns_mean(tmp_path: Path, pattern: str, found: set[str]) -> None:
    for place in ("a", "b/inner"):
        (tmp_path / "top/packages" / place).mkdir(parents=True)
    (tmp_path / "top/packages/file").touch()
    (tmp_path / "beside/inner").mkdir(parents=True)
    (tmp_path / "top/packages/link").symlink_to(tmp_path / "beside")
    (tmp_path / "top/pyproject.toml").write_text(WORKSPACE.format(members=[pattern]))
    members = local_projects._members(tmp_path / "top")
    assert {os.path.relpath(place, tmp_path / "top") for place in members} == {os.path.normpath(name) for name in found}


@pytest.mark.parametrize("pattern", ["**", "*/*", "../**"])
def test_a_workspace_whose_members_are_sought_everywhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    monkeypatch.setattr(local_projects, "MOST_LOOKED", 20)
    for number in range(30):
        (tmp_path / "project/a" / str(number)).mkdir(parents=True)
    (tmp_path / "project/pyproject.toml").write_text(WORKSPACE.format(members=[pattern]))
    with pytest.raises(ConfigError, match="too many places"):
        local_projects.sources(tmp_path / "project", False)


def test_nothing_behind_a_link_is_tidied_away(tmp_path: Path) -> None:
    (tmp_path / "project/inner").mkdir(parents=True)
    (tmp_path / "beside").mkdir()
    (tmp_path / "project/link").symlink_to(tmp_path / "beside")
    with local_projects.tidied({tmp_path / "project": False}, threading.Event()):
        for place in ("beside/x.egg-info", "project/inner/x.egg-info", "project/x.egg-info", "project/build/lib"):
            (tmp_path / place).mkdir(parents=True)
    assert there(tmp_path) == {"project", "project/inner", "project/link", "beside", "beside/x.egg-info"}


def test_what_is_put_in_the_place_of_a_project_meanwhile_is_not_tidied(tmp_path: Path) -> None:
    for place in ("project/inner", "beside/x.egg-info"):
        (tmp_path / place).mkdir(parents=True)
    with local_projects.tidied({tmp_path / "project": True}, threading.Event()):
        (tmp_path / "project").rename(tmp_path / "built")
        (tmp_path / "project").symlink_to("beside")
        (tmp_path / "built/inner").rmdir()
        (tmp_path / "built/inner").symlink_to("../beside")
        (tmp_path / "built/y.egg-info").mkdir()
    assert there(tmp_path) == {"project", "beside", "beside/x.egg-info", "built", "built/inner"}


def mirror_of(project: Path, tmp_path: Path) -> local_projects.Mirror:
    known = {project: [*local_projects.sums(project, tmp_path / "cache", Walk())]}
    return local_projects.Mirror(tmp_path / "cache/tree", tmp_path / "cache/files", tmp_path / "cache", known)


def test_a_large_file_that_becomes_a_directory_has_nothing_written_through_the_link_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither within a copy, nor where the copy of a project in there would be."""
    project, elsewhere, large = tmp_path / "project", tmp_path / "elsewhere", tmp_path / "elsewhere/large"
    for place in (project, elsewhere, tmp_path / "inner/deep"):
        place.mkdir(parents=True)
    large.touch()
    os.truncate(large, local_projects.LARGE)
    (project / "x").symlink_to(large)
    mirror, found = mirror_of(project, tmp_path), list(local_projects.files(project, tmp_path / "cache", Walk()))

    def turned() -> Iterator[tuple[str, Path]]:
        yield from found
        large.unlink()
        large.symlink_to(tmp_path / "inner")
        yield "x/new.py", project.parent / "project.py"

    (tmp_path / "project.py").touch()
    monkeypatch.setattr(local_projects, "files", lambda *args: turned())
    with pytest.raises(ConfigError, match="has changed while"):
        mirror.fill([project])
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="project/x: has changed while"):
        mirror.fill([project / "x/deep"])
    assert there(tmp_path / "inner") == {"deep"}


def test_a_copy_follows_a_path_once_and_opens_nothing_but_files(tmp_path: Path) -> None:
    """A pipe would hold the build up for ever."""
    (tmp_path / "project").mkdir()
    os.mkfifo(tmp_path / "project/pipe")
    (tmp_path / "project/a.py").touch()
    (tmp_path / "project/gone").symlink_to("nowhere")
    (tmp_path / "project/loop").symlink_to("loop")
    mirror = mirror_of(tmp_path / "project", tmp_path)
    mirror.fill([tmp_path / "project"])
    assert there(mirror.of(tmp_path / "project")) == {"a.py"}


@pytest.mark.anyio
async def test_a_project_that_somebody_holds_is_waited_for_until_that_is_given_up(tmp_path: Path) -> None:
    held = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        given_up = threading.Event()

        async def enter() -> None:
            async with virtualenvs._entered(local_projects.tidied({tmp_path: False}, given_up), given_up):
                raise AssertionError("it was not waited for")

        entering = asyncio.create_task(enter())
        await asyncio.sleep(0)  # it has begun
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
    finally:
        os.close(held)
