"""Environments of their own: what makes them one, and what a failed build says. Building one is in tests/e2e."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confining import why_not
from full_disk import full_disk
from held_clearing import held
from identity_keys import key_of

from gateway.environments import virtualenvs
from gateway.errors import ConfigError
from gateway.files import clearing
from gateway.spec import ModelSpec


def spec(root: Path, **config: Any) -> ModelSpec:
    return ModelSpec(name="m", target="model.model:Model", root=root, own_code=True, config=config)


def test_the_same_requirements_share_an_environment_and_others_do_not(tmp_path: Path) -> None:
    one, same = spec(tmp_path / "a", requirements=["six==1.16.0"]), spec(tmp_path / "b", requirements=["six==1.16.0"])
    assert key_of(one) == key_of(same)
    assert key_of(one) != key_of(spec(tmp_path, requirements=["six==1.17.0"]))


def test_models_that_load_at_once_have_the_environment_of_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPython 3.11 tells a thread that asks while another one reads the variables of the build that there are none."""
    before = key_of(spec(tmp_path, requirements=["six"]))
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: None)
    assert key_of(spec(tmp_path, requirements=["six"])) == before


def test_a_changed_requirements_file_makes_another_environment(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("six\n")
    model = spec(tmp_path, requirements_file="requirements.txt")
    before = key_of(model)
    (tmp_path / "requirements.txt").write_text("six>1\n")
    assert key_of(model) != before


def test_the_requirements_txt_beside_a_model_py_is_installed_and_that_of_a_truss_when_it_is_named(
    tmp_path: Path,
) -> None:
    (tmp_path / "requirements.txt").write_text("six\n")
    named = spec(tmp_path, requirements_file="requirements.txt")
    plain = replace(spec(tmp_path), format="python")
    assert key_of(plain) == key_of(replace(named, format="python"))
    assert key_of(plain) != key_of(replace(plain, config={"requirements": ["attrs"]}))
    truss = replace(spec(tmp_path), format="truss")
    assert key_of(truss) != key_of(replace(named, format="truss"))


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("./wheels/x-1-py3-none-any.whl", "wheels/x-1-py3-none-any.whl"),
        ("x @ file://{root}/wheels/x.whl", "wheels/x.whl"),
        ("x @ ./src ; python_version > '3'", "src/x/__init__.py"),
        ("x @ file:./src", "src/x/__init__.py"),
        ("x @ file:src", "src/x/__init__.py"),
        ("-r deep/base.txt", "src/x/__init__.py"),
        ("./src[extra]", "src/x/__init__.py"),
        ("-e src", "src/x/__init__.py"),
        ("-r more.txt", "more.txt"),
        ("--constraint=more.txt", "more.txt"),
        ("-r more.txt", "wheels/deep.whl"),
        ("--find-links wheels", "wheels/deep.whl"),
        ("-r deep/links.txt", "deep/wheels/x.whl"),
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
    (root / "deep").mkdir(exist_ok=True)
    (root / "deep/base.txt").write_text("-r below.txt\n")
    (root / "deep/below.txt").write_text("./src\n")
    (root / "deep/links.txt").write_text("-f wheels\n")
    model = spec(root, requirements=[line.format(root=root)])
    before = key_of(model)
    assert key_of(model) == before
    (root / file).write_text("./wheels/deep.whl\n-r more.txx\n")
    assert key_of(model) != before


def test_another_index_makes_another_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = spec(tmp_path, requirements=["six"])
    before = key_of(model)
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://example.com/simple")
    assert key_of(model) != before


def test_two_gateways_of_one_cache_give_their_workers_each_its_own_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = virtualenvs.import_path(tmp_path)
    (tmp_path / "other/gateway/environments").mkdir(parents=True)
    monkeypatch.setattr(virtualenvs, "__file__", str(tmp_path / "other/gateway/environments/virtualenvs.py"))
    theirs = virtualenvs.import_path(tmp_path)
    assert (theirs / "gateway").resolve() == tmp_path / "other" / "gateway"
    assert (ours / "gateway").resolve() != (theirs / "gateway").resolve()


@pytest.mark.parametrize(
    "line",
    [
        *("./src", "../shared", "-e src", "--editable=./src", "src/x.whl", "x @ file:src", "-r more.txt", "${PWD}/src"),
        *("x-1-py3-none-any.whl", "x-1.tar.gz", "x.zip # which a package could be called"),
    ],
)
def test_two_models_whose_requirements_lead_to_files_share_no_environment(line: str, tmp_path: Path) -> None:
    """Though the files be the same: -e goes on reading those of the model that came first."""
    for name in ("a", "b"):
        (tmp_path / name / "src").mkdir(parents=True)
        (tmp_path / name / "src/x.whl").write_text("same")
        (tmp_path / name / "more.txt").write_text("same")
    one, other = (key_of(spec(tmp_path / name, requirements=["six", line])) for name in ("a", "b"))
    assert one != other


SETTINGS = [
    ("uv.toml", 'find-links = ["wheels"]\n'),
    ("uv.toml", '[[index]]\nname = "mine"\nurl = "./wheels"\nformat = "flat"\n'),
    ("pyproject.toml", '[tool.uv.pip]\nfind-links = ["wheels"]\n'),
]


@pytest.mark.parametrize(("file", "text"), SETTINGS)
def test_two_models_whose_settings_of_uv_are_the_same_share_no_environment(
    file: str, text: str, tmp_path: Path
) -> None:
    """A relative place in them is another one for each."""
    for name in ("a", "b"):
        (tmp_path / name / "wheels").mkdir(parents=True)
        (tmp_path / name / file).write_text(text)
        (tmp_path / name / "wheels/x.whl").write_text("old")
    model = spec(tmp_path / "a", requirements=["x"])
    before = key_of(model)
    assert before != key_of(spec(tmp_path / "b", requirements=["x"]))
    (tmp_path / "a/wheels/x.whl").write_text("new")
    assert before != key_of(model), "what lies there counts as well"


def test_a_relative_place_that_the_operator_sets_is_another_one_for_each_model(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "wheels").mkdir(parents=True)
        (tmp_path / name / "wheels/x.whl").write_text(name)
    models = [spec(tmp_path / name, requirements=["x"]) for name in ("a", "b")]
    for place, count in (("wheels", 2), (str(tmp_path / "a/wheels"), 1)):
        keys = {key_of(model, {"UV_FIND_LINKS": f"https://example.com/x {place}"}) for model in models}
        assert len(keys) == count


def test_what_the_directory_tells_uv_makes_another_environment(tmp_path: Path) -> None:
    keys = [key_of(spec(tmp_path, requirements=["six"]))]
    (tmp_path / "pyproject.toml").write_text('[tool.uv.pip]\nindex-url = "https://example.com/simple"\n')
    keys.append(key_of(spec(tmp_path, requirements=["six"])))
    (tmp_path / "uv.toml").write_text('index-url = "https://example.org/simple"\n')
    keys.append(key_of(spec(tmp_path, requirements=["six"])))
    assert len(set(keys)) == 3


def test_what_the_operator_sets_for_a_model_makes_another_environment_and_his_own_secrets_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = spec(tmp_path, requirements=["six"])
    before = key_of(model)
    monkeypatch.setenv("UV_PUBLISH_TOKEN", "t")
    assert key_of(model) == before
    assert key_of(model, {"CMAKE_ARGS": "-DGGML_CUDA=on"}) != before


def test_dependencies_of_a_pyproject_are_requirements(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1"\ndependencies = ["six", "attrs"]\n')
    assert virtualenvs.requirements_of(spec(tmp_path, requirements_file="pyproject.toml")) == ["six", "attrs"]


def test_a_requirements_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.txt: requirements_file does not exist"):
        virtualenvs.requirements_of(spec(tmp_path, requirements_file="nowhere.txt"))


def test_without_uv_the_pip_line_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtualenvs.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"pip install 'model-gateway\[isolated\]'"):
        asyncio.run(virtualenvs.ensure(spec(tmp_path), print, tmp_path))


def test_a_failed_build_says_the_last_lines_and_is_never_half_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = tmp_path / "uv"
    uv.write_text('#!/bin/sh\n[ "$1" = venv ] && exit 0\necho first line\necho no solution found\nexit 2\n')
    uv.chmod(0o755)
    monkeypatch.setattr(virtualenvs, "find_uv", lambda: str(uv))
    lines: list[str] = []
    model = spec(tmp_path, requirements=["nothing"])
    for _ in range(2):  # the second time it is tried again
        with pytest.raises(ConfigError, match="could not be built:\nfirst line\nno solution found"):
            asyncio.run(virtualenvs.ensure(model, lines.append, tmp_path))
    assert lines.count("no solution found") == 2


def test_a_full_disk_is_told_as_one_and_a_failed_build_gives_its_room_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = tmp_path / "uv"
    uv.write_text('#!/bin/sh\nfor last; do :; done\n[ "$1" = venv ] && echo large > "$last/large"; [ "$1" = venv ]\n')
    uv.chmod(0o755)
    monkeypatch.setattr(virtualenvs, "find_uv", lambda: str(uv))
    model = spec(tmp_path, requirements=["nothing"])
    build = lambda: asyncio.run(virtualenvs.ensure(model, print, tmp_path / "cache"))  # noqa: E731
    with full_disk(), pytest.raises(ConfigError, match=r"nothing can be built in .*: File too large; free some space"):
        build()
    with pytest.raises(ConfigError, match="could not be built"):
        build()
    assert clearing.wait(30)
    assert not [place for place in (tmp_path / "cache" / "envs").iterdir() if place.is_dir()]


def test_nobody_waits_for_what_a_build_leaves_behind(tmp_path: Path) -> None:
    """A loop least of all, nor whoever builds there next: it may be very much."""
    model = spec(tmp_path)
    build = virtualenvs._Build(model, virtualenvs.asked(model), tmp_path / "envs" / "key", {}, print)
    (tmp_path / "envs").mkdir()
    with held():
        for _ in range(2):
            build.clear()
            for number in range(3):
                (tmp_path / "envs" / "key.build" / str(number)).touch()
        build.end()
        left = sorted(path.name.partition(".")[2] for path in (tmp_path / "envs").iterdir())
        assert [name.split(".")[-1] for name in left] == ["", "gone", "gone"], "the directory, and what is cleared"
    assert clearing.wait(30)
    assert [path.name for path in (tmp_path / "envs").iterdir()] == ["key"]


@pytest.mark.parametrize(
    ("config", "listed", "is_fresh"),
    [
        ({"requirements": ["-r more.txt"]}, "six", True),
        ({"requirements": ['-r "more.txt"']}, "six", True),
        ({"requirements": ["attrs", "--constraint=more.txt"]}, "-c {kept}", True),
        ({"requirements_file": "deep/all.txt"}, "-c {kept}", True),
        ({"requirements": ["./x-1.whl[y]", "six"]}, "file://{files}/x-1.whl[y]", True),
        ({"requirements": ["-r https://example.com/more.txt"]}, "-r https://example.com/more.txt", True),
        ({"requirements": ["./src[x] ; python_version > '3'"]}, "file://{copy}/src[x] ; python_version > '3'", True),
        ({"requirements": ["odd @ file:src#subdirectory=a"]}, "odd @ file://{copy}/src#subdirectory=a", True),
        ({"requirements_file": "deep/below.txt"}, "file://{copy}/src", True),
        ({"requirements": ["-e ./src"]}, "-e ./src", True),
        ({"requirements": ["--find-links ./src", "x"]}, "--find-links file://{root}/src", True),
        ({"requirements": ["-f=src", "x"]}, "--find-links file://{root}/src", True),
        ({"requirements": ["-r deep/links.txt"]}, "--find-links file://{root}/deep/wheels", True),
        ({"requirements_file": "deep/links.txt"}, "--find-links file://{root}/deep/wheels", True),
        ({"requirements": ["-f https://example.com/x", "x"]}, "-f https://example.com/x", True),
        ({"requirements": ["six"]}, "six", False),
    ],
)
def test_uv_finds_what_lines_include_and_builds_directories_again(
    config: dict[str, Any], listed: str, is_fresh: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uv looks for an included file beside the one that includes it, and keeps what it has built of a directory."""
    root = tmp_path / "model"
    for name, text in {
        "more.txt": "six",
        "x-1.whl": "",
        "deep/all.txt": "-c ../more.txt",
        "src/pyproject.toml": "",
        "deep/below.txt": "-r last.txt",
        "deep/last.txt": "./src",
        "deep/links.txt": "--find-links ./wheels",
        "deep/wheels/x-1-py3-none-any.whl": "",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    uv = tmp_path / "uv"
    uv.write_text(
        f'#!/bin/sh\nfor last; do :; done\n[ "$1" = venv ] && mkdir -p "$last"\necho "$@" >> {tmp_path}/asked\n'
    )
    uv.chmod(0o755)
    monkeypatch.setattr(virtualenvs, "find_uv", lambda: str(uv))
    asyncio.run(virtualenvs.ensure(spec(root, **config), print, tmp_path / "cache"))
    install = (tmp_path / "asked").read_text().splitlines()[-1]
    assert ("--reinstall" in install) is is_fresh
    lines = Path(install.split()[-1])
    rest = lines.with_suffix(".build")
    places = {
        "root": root.resolve(),
        "copy": f"{rest}/tree{root.resolve()}",
        "kept": f"{rest}/constraints-{sum_of('six' + chr(10))}.txt",
        "files": f"{rest}/files/{sum_of(str(root / 'x-1.whl'))}",
    }
    assert listed.format(**places) in lines.read_text().splitlines()


def sum_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_a_worker_in_an_environment_of_its_own_finds_our_package_and_no_other(tmp_path: Path) -> None:
    directory = virtualenvs.import_path(tmp_path)
    assert [path.name for path in directory.iterdir()] == ["gateway"]
    assert (directory / "gateway" / "wire" / "frames.py").is_file()
    assert virtualenvs.import_path(tmp_path) == directory


# A package whose build says what it sees, and tries what it should not; installed, it holds the answers.
BACKEND = """
import json, os, socket, zipfile

def build(directory):
    found = {}
    for name, line in json.load(open("tries.json")).items():
        try: exec(line, {}); found[name] = None
        except OSError as error: found[name] = type(error).__name__
    found = {"variables": dict(os.environ), **found}
    name = "odd-1-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        wheel.writestr("odd.json", json.dumps(found))
        wheel.writestr("odd-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: odd\\nVersion: 1\\n")
        wheel.writestr("odd-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("odd-1.dist-info/RECORD", "")
    return name

def build_wheel(directory, *args): return build(directory)
def build_editable(directory, *args): return build(directory)
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


# Reads a file of /proc of the process that hides: the first one above that runs what `HIDDEN` is.
ABOVE = """
import os
pid = os.getppid()
while b"memory.hide()" not in open(f"/proc/{pid}/cmdline", "rb").read():
    pid = next(line.split()[1] for line in open(f"/proc/{pid}/status") if line.startswith("PPid:"))
open(f"/proc/{pid}/FILE", "rb").read(1)
"""


def write_odd(model: Path, tries: dict[str, str]) -> None:
    (model / "src").mkdir(parents=True, exist_ok=True)
    (model / "src/pyproject.toml").write_text(PROJECT + '[project]\nname = "odd"\nversion = "1"\n')
    (model / "src/backend.py").write_text(BACKEND)
    (model / "src/tries.json").write_text(json.dumps(tries))


def read_odd(environment: Path) -> dict[str, Any]:
    found = next((environment / "lib").glob("python*/site-packages/odd.json"))
    return json.loads(found.read_text())  # type: ignore[no-any-return]


def build_odd(model: Path, line: str, tries: dict[str, str], cache: Path, **options: Any) -> dict[str, Any]:
    """What the build of the package in src found when the real uv ran it."""
    write_odd(model, tries)
    lines: list[str] = []
    asked = replace(spec(model, requirements=[line]), sandbox=options.pop("sandbox", "basic"))
    python = asyncio.run(virtualenvs.ensure(asked, lines.append, cache, **options))
    assert not list(cache.glob("envs/*.build"))
    return read_odd(python.parents[1])


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is wanted but what the model names."""
    monkeypatch.setattr(virtualenvs, "CHANNEL", ())
    monkeypatch.setenv("UV_OFFLINE", "1")


@pytest.mark.usefixtures("offline")
def test_a_build_that_prints_without_end_is_read_as_a_model_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a budget and a few lines in a turn; and a line may be longer than a buffer."""
    uv = tmp_path / "uv"
    uv.write_text(f"#!{sys.executable}\nprint('x\\n' * 20_000 + 'y' * 300_000)\nraise SystemExit('it is over')\n")
    uv.chmod(0o755)
    monkeypatch.setattr(virtualenvs, "find_uv", lambda: str(uv))
    printed: list[str] = []
    with pytest.raises(ConfigError, match=r"(?s)could not be built.*it is over"):
        asyncio.run(virtualenvs.ensure(spec(tmp_path, requirements=["six"]), printed.append, tmp_path / "cache"))
    assert len(printed) < 4000 and any("lines dropped" in line for line in printed)
    assert max(map(len, printed)) < 4000


def test_a_build_sees_what_its_model_may_and_no_secret_of_the_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GATEWAY_API_KEY", "GATEWAY_SECRET_A", "TRUSS_SECRET_B", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, "a-secret")
    monkeypatch.setenv("UV_INDEX_TEAM_PASSWORD", "of-the-index")
    seen = build_odd(tmp_path / "m", "./src", {}, tmp_path / "cache", variables={"CMAKE_ARGS": "-DX=1"})["variables"]
    assert "a-secret" not in seen.values()
    assert not [name for name in seen if name.startswith(("GW_", "GATEWAY_", "TRUSS_"))]
    assert seen["UV_INDEX_TEAM_PASSWORD"] == "of-the-index"
    assert seen["CMAKE_ARGS"] == "-DX=1"
    assert not Path(seen["TMPDIR"]).exists(), "what is left of a build goes with it"


HIDDEN = """
import asyncio, sys
from dataclasses import replace
from pathlib import Path
from gateway.environments import virtualenvs; from gateway.system import memory
from gateway.spec import ModelSpec
memory.hide()
virtualenvs.CHANNEL = ()
model = ModelSpec(name="m", target="m:M", root=Path(sys.argv[1]), config={"requirements": ["./src"]})
print(asyncio.run(virtualenvs.ensure(model, lambda line: None, Path(sys.argv[2]))).parents[1])
"""


def test_a_build_does_not_read_the_environment_of_the_gateway_by_another_way(tmp_path: Path) -> None:
    """Whoever runs it, root included: of the processes above it, one has hidden itself, as the gateway does."""
    write_odd(tmp_path / "m", {name: ABOVE.replace("FILE", name) for name in ("environ", "mem")})
    code = [sys.executable, "-c", HIDDEN, str(tmp_path / "m"), str(tmp_path / "cache")]
    done = subprocess.run(code, capture_output=True, text=True, timeout=60, env={**os.environ, "UV_OFFLINE": "1"})
    found = read_odd(Path(done.stdout.strip()))
    assert {found["environ"], found["mem"]} == {"PermissionError"}, done.stderr


@pytest.mark.usefixtures("offline")
def test_a_strict_model_is_built_in_its_sandbox_with_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option of its own lines makes uv run its code whatever it was told on the command line, so that is no way."""
    outside, cache, model = tmp_path / "outside", tmp_path / "cache", tmp_path / "m"
    outside.write_text("x")
    (tmp_path / "uv").mkdir()
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tries = {
            "write": f"open({str(outside)!r}, 'w')",
            "write to the model": f"open({str(model / 'src/new')!r}, 'w')",
            "write to uv's cache": f"open({str(tmp_path / 'uv/new')!r}, 'w')",
            "change": f"import os; os.chmod({str(outside)!r}, 0o777)",
            "signal": f"import os; os.kill({os.getpid()}, 0)",
            "connect": f"import socket; socket.create_connection({listener.getsockname()!r})",
        }
        if why_not():
            with pytest.raises(ConfigError, match='sandbox = "strict" is not available'):
                build_odd(model, "./src", tries, cache, sandbox="strict")
            return
        for line in ("./src", "-e ./src"):
            found = build_odd(model, line, tries, cache, sandbox="strict")
            assert found.pop("variables")["UV_CACHE_DIR"].startswith(str(cache / "envs"))
            kept = dict.fromkeys(("write", "write to the model", "write to uv's cache", "change"), "OSError")
            assert found == {**kept, "signal": "ProcessLookupError", "connect": None}


# Plants links where the gateway notes that it is complete, and leaves a process in a session of its own.
LEFT = """
import os, pathlib, time
environment = os.environ["TMPDIR"].removesuffix(".build")
for place in (environment + "/.complete", environment + ".complete"):
    try: os.symlink(OUTSIDE, place)
    except OSError: pass
if not os.fork():
    os.setsid()
    if os.fork(): os._exit(0)
    os.environ.clear()
    os.closerange(0, 100)
    while True:
        pathlib.Path(environment + "/beat").write_text(str(time.monotonic()))
        time.sleep(0.01)
while not os.path.exists(environment + "/beat"): time.sleep(0.01)
"""


@pytest.mark.usefixtures("offline")
def test_what_the_build_of_a_strict_model_has_started_ends_with_it(tmp_path: Path) -> None:
    """It has the network that its model has not. And what the gateway notes afterwards goes through no link of its."""
    outside = tmp_path / "outside"
    tries = {"leave": LEFT.replace("OUTSIDE", repr(str(outside)))}
    if why_not():
        with pytest.raises(ConfigError, match='sandbox = "strict" is not available'):
            build_odd(tmp_path / "m", "./src", tries, tmp_path / "cache", sandbox="strict")
        return
    assert build_odd(tmp_path / "m", "./src", tries, tmp_path / "cache", sandbox="strict")["leave"] is None
    ended = time.monotonic()
    (beat,) = tmp_path.glob("cache/envs/*/beat")
    assert not beat_after(beat, ended)
    assert not outside.exists()


def beat_after(beat: Path, moment: float) -> bool:
    """Whether it is written again, in a hundred times of what that takes."""
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        if (text := beat.read_text()) and float(text) > moment:
            return True
    return False


@pytest.mark.usefixtures("offline")
def test_no_build_runs_when_a_file_is_not_the_one_that_was_listed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (tmp_path / "m").mkdir()
    (tmp_path / "m/SHA256SUMS").write_text("")
    with pytest.raises(ConfigError, match=r"src/.* not listed in SHA256SUMS"):
        build_odd(tmp_path / "m", "./src", {"write": f"open({str(outside)!r}, 'w')"}, tmp_path / "cache")
    assert not outside.exists()


def test_nobody_waits_for_the_reading_of_files_that_was_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may claim to have terabytes. The end of a loop waits for the threads that it knows."""
    begun, over, has_ended = threading.Event(), threading.Event(), threading.Event()

    def read(*args: Any) -> None:
        begun.set()
        over.wait(10)
        has_ended.set()

    async def give_up() -> None:
        build = asyncio.create_task(virtualenvs.ensure(spec(tmp_path), print, tmp_path))
        await asyncio.sleep(0)
        assert begun.wait(10)
        build.cancel()
        await asyncio.wait([build])

    monkeypatch.setattr(virtualenvs, "asked", read)
    asyncio.run(give_up())
    assert not has_ended.is_set()
    over.set()
    assert has_ended.wait(10)


def test_a_build_that_is_given_up_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\nsleep 3600 & echo $!\nwait\n")
    uv.chmod(0o755)
    monkeypatch.setattr(virtualenvs, "find_uv", lambda: str(uv))
    killed, killpg = [], os.killpg

    def kill(pid: int, number: int) -> None:
        killed.append(threading.current_thread())
        killpg(pid, number)

    monkeypatch.setattr(os, "killpg", kill)

    async def give_up() -> int:
        started: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def on_log(line: str) -> None:
            if line.isdigit():
                started.set_result(int(line))

        build = asyncio.create_task(virtualenvs.ensure(spec(tmp_path, requirements=["six"]), on_log, tmp_path))
        async with asyncio.timeout(30):
            pid = await started
        build.cancel()
        await asyncio.wait([build])
        return pid

    pid = asyncio.run(give_up())
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"
    assert killed  # one call, which takes as long as there are processes
    assert threading.main_thread() not in killed
