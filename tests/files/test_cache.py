from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.environments import identity, virtualenvs
from gateway.errors import ConfigError
from gateway.files import fingerprints
from gateway.files.cache import cache_dir, make
from gateway.files.fingerprints import fingerprint
from gateway.spec import ModelSpec


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


def test_a_directory_that_cannot_be_made_is_named_with_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/envs cannot be created: Not a directory; set cache_dir"):
        make(tmp_path / "file" / "envs")


def test_a_user_without_a_home_is_told_to_set_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    for name in ("GATEWAY_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="no home directory for a cache; set cache_dir"):
        cache_dir()
    (tmp_path / "file").write_bytes(b"x")
    assert len(fingerprint(tmp_path / "file")) == 64


def test_what_code_reads_from_a_shared_cache_is_known_by_a_version(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two gateways of different versions find nothing of each other's that they would read in another way."""
    spec = ModelSpec(name="m", target="m:M", root=tmp_path)
    file = tmp_path / "file"
    file.write_bytes(b"x")
    os.utime(file, (0, 0))
    monkeypatch.setattr(fingerprints, "SETTLED", -1.0)

    def kept() -> list[Path]:
        fingerprint(file)
        (sums,) = (path.parent for path in place.glob(f"{fingerprints.SUMS}/*"))
        return [virtualenvs.import_path(), Path(virtualenvs.asked(spec).key), sums]

    before = kept()
    monkeypatch.setattr(virtualenvs, "__version__", "99.0")
    monkeypatch.setattr(identity, "VERSION", "99")
    monkeypatch.setattr(fingerprints, "SUMS", "sums-99")
    after = kept()
    assert all(one != two for one, two in zip(before, after, strict=True))
    assert (before[0] / "gateway").resolve() == (after[0] / "gateway").resolve()
