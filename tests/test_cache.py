from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.cache import cache_dir
from gateway.errors import ConfigError


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "cache"
    place.mkdir(mode=0o700)
    monkeypatch.setenv("GATEWAY_CACHE_DIR", str(place))
    return place


def test_a_directory_of_ours_alone_is_used_as_it_is(place: Path) -> None:
    assert cache_dir() == place
    place.chmod(0o775)  # the umask of many systems, with a group for each user
    assert cache_dir() == place


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_where_everybody_writes_each_user_has_a_directory(place: Path, mode: int) -> None:
    place.chmod(mode)
    assert cache_dir() == place / f"user-{os.getuid()}"


def test_where_a_group_writes_each_user_has_a_directory(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.chmod(0o2775)
    monkeypatch.setattr(os, "getgid", lambda: place.stat().st_gid + 1)
    assert cache_dir() == place / f"user-{os.getuid()}"


def test_two_users_of_one_directory_never_share_what_is_in_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.chmod(0o1777)
    mine = cache_dir()
    monkeypatch.setattr(os, "getuid", lambda: place.stat().st_uid + 1)
    assert cache_dir() not in (mine, place)
    cache_dir().mkdir()  # by somebody else, who has our name
    with pytest.raises(ConfigError, match="belongs to another user"):
        cache_dir()


def test_what_somebody_else_filled_is_read_where_it_is(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: place.stat().st_uid + 1)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert cache_dir() == place
