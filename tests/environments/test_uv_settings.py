"""Settings of uv: which of them models share, and what the real uv makes of the copy that it gets."""

from __future__ import annotations

import asyncio
import os
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from identity_keys import key_of

from gateway.environments import uv_settings, virtualenvs
from gateway.environments.uv_settings import Settings, settings_of
from gateway.errors import ConfigError
from gateway.files import ordinary
from gateway.spec import ModelSpec


def spec(root: Path, *lines: str) -> ModelSpec:
    config = {"requirements": list(lines)}
    return ModelSpec(name="m", target="model.model:Model", root=root, own_code=True, config=config)


def write_wheel(place: Path, name: str = "odd", module: str = "") -> None:
    place.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(place / f"{name}-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", module)
        wheel.writestr(f"{name}-1.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        wheel.writestr(f"{name}-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}-1.dist-info/RECORD", "")


@pytest.mark.parametrize("name", ["uv.toml", "pyproject.toml"])
@pytest.mark.parametrize("is_above", [False, True])
def test_settings_that_cannot_be_read_refuse_the_build_by_name(name: str, is_above: bool, tmp_path: Path) -> None:
    """uv would read them."""
    model = tmp_path / "m"
    model.mkdir()
    file = (tmp_path if is_above else model) / name
    file.write_text("x =\n")
    with pytest.raises(ConfigError, match=rf"{file}: cannot be read for an environment: it is not TOML"):
        virtualenvs.asked(spec(model, "six"))
    file.write_text("")
    os.truncate(file, ordinary.MOST + 1)
    with pytest.raises(ConfigError, match=rf"{file}: cannot be read for an environment: it has more than"):
        virtualenvs.asked(spec(model, "six"))
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ConfigError, match=rf"{file}: cannot be read for an environment: it is not a regular file"):
        virtualenvs.asked(spec(model, "six"))


PLAIN = [
    'index-url = "https://example.com/simple"',
    'exclude-newer = 2024-01-01T00:00:00Z\nprerelease = "allow"',
    'override-dependencies = ["six<2"]',
    '[pip]\nextra-index-url = ["https://example.com/simple"]\nno-deps = true',
    '[[index]]\nname = "mine"\nurl = "https://example.com/simple"\ndefault = true',
]
OWN = [
    'find-links = ["file://${PROJECT_ROOT}/vendor"]',
    'find-links = ["wheels"]',
    'index-url = "https://example.com/${X}/simple"',
    'override-dependencies = ["six @ file://${PROJECT_ROOT}/vendor/six.whl"]',
    'constraint-dependencies = ["six @ file:///vendor/six.whl"]',
    '[[index]]\nurl = "./wheels"',
    "[[index]]\nurl = 1",
    '[pip]\nfind-links = ["wheels"]',
    '[pip]\ntarget = "/elsewhere"',
    'what-nobody-knows = "x"',
]


@pytest.mark.parametrize("text", [*PLAIN, *OWN])
def test_models_share_an_environment_where_their_settings_mean_the_same_and_nowhere_else(
    text: str, tmp_path: Path
) -> None:
    """Whether or not anything is where they lead to."""
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "uv.toml").write_text(text)
    keys = {key_of(spec(tmp_path / name, "six")) for name in "ab"}
    assert len(keys) == (1 if text in PLAIN else 2)


@pytest.mark.parametrize(
    "text",
    [
        'override-dependencies = ["odd @ file://{place}/odd-1-py3-none-any.whl"]',
        'override-dependencies = ["odd @ file://${{PROJECT_ROOT}}/../vendor/odd-1-py3-none-any.whl"]',
        'find-links = ["file://${{PROJECT_ROOT}}/../vendor"]',
        'find-links = ["{place}"]',
        'find-links = ["../vendor"]',
    ],
)
def test_what_settings_lead_to_is_known_by_its_content(text: str, tmp_path: Path) -> None:
    model = tmp_path / "m"
    model.mkdir()
    (model / "uv.toml").write_text(text.format(place=tmp_path / "vendor"))
    write_wheel(tmp_path / "vendor")
    before = key_of(spec(model, "odd"))
    assert key_of(spec(model, "odd")) == before
    write_wheel(tmp_path / "vendor", module="A = 1\n")
    assert key_of(spec(model, "odd")) != before


def test_the_operators_own_settings_count_and_are_shared_where_they_name_no_place_of_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    keys = []
    for text, count in (("", 1), ('find-links = ["/srv"]', 1), ('find-links = ["${PROJECT_ROOT}/x"]', 2)):
        (tmp_path / "config/uv").mkdir(parents=True, exist_ok=True)
        (tmp_path / "config/uv/uv.toml").write_text(text)
        these = {key_of(spec(tmp_path / name, "six")) for name in "ab"}
        assert len(these) == count
        keys += these
    assert len(set(keys)) == 4


def test_a_copy_of_settings_says_the_same(tmp_path: Path) -> None:
    table: dict[str, Any] = tomllib.loads(
        'a = "\\u0001\\u007f\\"é"\nb = [1, 2.5, inf, true]\nc = 2024-01-01T00:00:00Z\nd = 2024-01-01\n'
        '[e."f g"]\nh = [{i = ""}]\n'
    )
    for name in ("uv.toml", "pyproject.toml"):
        Settings(tmp_path, name, table).write(tmp_path)
        read = settings_of(tmp_path)
        assert (read.name, read.table) == (name, table)
        (tmp_path / "uv.toml").unlink(missing_ok=True)


def test_settings_that_the_operator_has_named_are_the_only_ones(tmp_path: Path) -> None:
    (tmp_path / "uv.toml").write_text("offline = true\n")
    (tmp_path / "mine.toml").write_text("no-index = true\n")
    assert settings_of(tmp_path, "mine.toml").table == {"no-index": True}
    with pytest.raises(ConfigError, match=r"none\.toml: UV_CONFIG_FILE does not exist"):
        settings_of(tmp_path, "none.toml")


SETTINGS = [
    ("uv.toml", 'find-links = ["wheels"]\nno-index = true\n', {}),
    ("uv.toml", 'override-dependencies = ["odd @ file://${PROJECT_ROOT}/wheels/odd-1-py3-none-any.whl"]\n', {}),
    ("pyproject.toml", '[[tool.uv.index]]\nname = "mine"\nurl = "./wheels"\nformat = "flat"\ndefault = true\n', {}),
    (
        "pyproject.toml",
        '[tool.uv]\nno-index = true\nfind-links = ["wheels"]\n[tool.uv.workspace]\nmembers = ["x"]\n',
        {},
    ),
    ("mine.toml", 'find-links = ["wheels"]\nno-index = true\n', {"UV_CONFIG_FILE": "mine.toml"}),
    ("uv.toml", "offline = true\n", {"UV_FIND_LINKS": "wheels", "UV_NO_INDEX": "1"}),
]


@pytest.mark.parametrize(("name", "text", "variables"), SETTINGS)
def test_uv_reads_the_settings_that_were_read_and_finds_what_they_name(
    name: str, text: str, variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others that are there meanwhile, which uv would not even understand, count for nothing."""
    model = tmp_path / "m"
    write_wheel(model / "wheels")
    (model / name).write_text(text)
    monkeypatch.setattr(virtualenvs, "CHANNEL", ())
    monkeypatch.setattr(
        virtualenvs, "_check_contents", lambda spec: [(model / file).write_text("x =") for file in (name, "uv.toml")]
    )
    python = asyncio.run(virtualenvs.ensure(spec(model, "odd"), print, tmp_path / "cache", variables=variables))
    assert list(python.parents[1].glob("lib/python*/site-packages/odd.py"))


def test_every_kind_of_setting_is_known_once() -> None:
    kinds = (uv_settings.HARMLESS, uv_settings.LINES, uv_settings.ADDRESSES, uv_settings.OF_PROJECTS)
    assert sum(map(len, kinds)) == len(frozenset().union(*kinds))
