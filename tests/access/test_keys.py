"""Keys at rest: hashes only, readable by their owner only, and whatever is wrong in the file is named."""

from __future__ import annotations

import datetime
import errno
import fcntl
import os
import stat
import string
from pathlib import Path
from unittest import mock

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from gateway.access import keys
from gateway.access.keys import SCOPES, Key
from gateway.cli import cli
from gateway.errors import ConfigError

NOON = datetime.datetime(2027, 1, 31, 12, tzinfo=datetime.UTC)
names = st.text(min_size=1, max_size=30).filter(lambda text: text.isprintable())
some = st.lists(st.text(string.ascii_lowercase + "*-./", min_size=1, max_size=12), min_size=1, max_size=4).map(tuple)
entries = st.builds(
    Key,
    id=st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=16).filter(lambda text: text != "env"),
    name=names,
    digest=st.text("0123456789abcdef", min_size=64, max_size=64),
    scopes=st.lists(st.sampled_from(SCOPES), min_size=1, max_size=3, unique=True).map(tuple),
    models=some,
    rpm=st.none() | st.integers(1, 10**6),
    max_inflight=st.none() | st.integers(1, 10**4),
    expires=st.none() | st.just(NOON),
    created=st.none() | st.just(NOON),
)


def test_a_key_is_shown_once_and_its_hash_is_kept(tmp_path: Path) -> None:
    key, text = keys.create("alice")
    keys.write(tmp_path / "keys.toml", [key])
    written = (tmp_path / "keys.toml").read_text()
    secret = text.removeprefix(f"gw_{key.id}_")
    assert text.startswith(f"gw_{key.id}_") and len(text) >= len("gw_") + 8 + 1 + 43
    assert text not in written and secret not in written
    assert keys.find(keys.read(tmp_path / "keys.toml"), text.encode()) == key


def test_only_its_owner_can_read_the_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    keys.write(file, [])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        keys.read(file)


@given(st.lists(entries, max_size=5, unique_by=(lambda key: key.id, lambda key: key.digest)))
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, found: list[Key]) -> None:
    file = tmp_path_factory.mktemp("keys") / "keys.toml"
    keys.write(file, found)
    assert keys.read(file) == tuple(found)


def test_a_file_that_is_cut_off_holds_no_key_without_what_restricts_it(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    key, _ = keys.create("alice", models=("chat",), rpm=1, max_inflight=1, expires=NOON)
    keys.write(file, [key])
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        try:
            found = keys.read(file)
        except ConfigError:
            continue
        assert found in ((), (key,))


def test_every_entry_is_compared_whether_it_matches_or_not() -> None:
    ring = [keys.create(name) for name in ("a", "b", "c")]
    for given_key in (ring[0][1], ring[2][1], "wrong"):
        with mock.patch("hmac.compare_digest", wraps=keys.hmac.compare_digest) as compare:
            keys.find([key for key, _ in ring], given_key.encode())
        assert compare.call_count == len(ring)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[keys.a]\n", "sha256"),
        (f"[keys.a]\nsha256 = '{'0' * 64}'\nadmin = true\n", "unknown: admin"),
        (f"[keys.a]\nsha256 = '{'0' * 64}'\nscopes = ['root']\n", "not root"),
        (f"[keys.a]\nsha256 = '{'0' * 64}'\nmodels = 'chat'\n", "a list of strings"),
        (f"[keys.a]\nsha256 = '{'0' * 64}'\nrpm = 0\n", "from 1 on"),
        (f"[keys.a]\nsha256 = '{'0' * 64}'\nexpires = 2027-01-31\n", "a time with an offset"),
        (f"[keys.'a b']\nsha256 = '{'0' * 64}'\n", "lower-case letters and digits"),
        (f"[keys.env]\nsha256 = '{'0' * 64}'\n", "the id of GATEWAY_API_KEY"),
        (
            f"[keys.a]\nsha256 = '{'0' * 64}'\n[keys.b]\nsha256 = '{'0' * 64}'\n",
            r"\[keys.b\] has the sha256 of \[keys.a\]",
        ),
        ("[keys]\na = 1\n", "is not a table"),
        ("key = 1\n", "unknown key"),
        ("[keys.a\n", "keys.toml"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(ConfigError, match=told):
        keys.read(file)


def test_a_full_disk_changes_no_key_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys.toml"
    key, _ = keys.create("alice")
    keys.write(file, [key])
    monkeypatch.setattr(os, "fsync", mock.Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(ConfigError, match="is unchanged: No space left on device"):
        keys.write(file, [])
    assert keys.read(file) == (key,) and list(tmp_path.iterdir()) == [file]


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    key, _ = keys.create("alice")
    file = tmp_path / "keys.toml"
    keys.write(file, [key])
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert list(keys.read(file)) == [key]


def test_a_file_that_is_not_there_holds_no_keys(tmp_path: Path) -> None:
    assert keys.read(tmp_path / "keys.toml") == ()


@pytest.mark.parametrize("order", [["add", "new"], ["revoke", "old"]])
def test_nobody_changes_the_keys_between_reading_and_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: list[str]
) -> None:
    """Who had read the file before a key was revoked would bring it back."""
    keys.write(tmp_path / "keys.toml", [keys.create("old")[0]])
    looked = []

    def is_held() -> bool:
        place = os.open(tmp_path / ".keys.toml.lock", os.O_WRONLY)
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(place)
        return False

    for name in ("read", "write"):
        work = getattr(keys, name)
        monkeypatch.setattr(keys, name, lambda *given, work=work: (looked.append(is_held()), work(*given))[1])
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(cli, ["keys", *order]).exit_code == 0
    assert looked == [True, True] and not is_held()


@pytest.mark.parametrize("name", [".", "keys.toml"])
def test_a_key_is_revoked_though_somebody_has_locked_what_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As a strict model can."""
    keys.write(tmp_path / "keys.toml", [keys.create("old")[0]])
    monkeypatch.chdir(tmp_path)
    place = os.open(tmp_path / name, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        assert CliRunner().invoke(cli, ["keys", "revoke", "old"]).exit_code == 0
    finally:
        os.close(place)
    assert keys.read(tmp_path / "keys.toml") == ()


def test_a_change_of_keys_that_finds_them_locked_ends_and_says_by_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.write(tmp_path / "keys.toml", [keys.create("old")[0]])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keys, "PATIENCE", 0.1)
    with keys.changing(tmp_path / "keys.toml"):
        told = CliRunner().invoke(cli, ["keys", "revoke", "old"])
    assert told.exit_code != 0
    assert "keys.toml cannot be changed now: " in told.output.replace("\n", " ")
    assert ".keys.toml.lock" in told.output and f"process {os.getpid()}" in told.output.replace("\n", " ")
    assert len(keys.read(tmp_path / "keys.toml")) == 1


def test_a_key_is_revoked_by_id_or_all_of_a_name() -> None:
    ring = [keys.create(name)[0] for name in ("alice", "alice", "bob")]
    assert keys.without(ring, ring[0].id) == tuple(ring[1:])
    assert keys.without(ring, "alice") == (ring[2],)
    with pytest.raises(ConfigError, match=r"no key 'carol'.*bob"):
        keys.without(ring, "carol")


def test_a_key_sees_the_models_that_its_patterns_name() -> None:
    key, _ = keys.create("alice", models=("chat-*", "embed"))
    assert [model for model in ("chat-small", "embed", "embedding", "team/chat-small") if key.sees(model)] == [
        "chat-small",
        "embed",
    ]


def test_a_key_is_over_at_its_moment() -> None:
    key, _ = keys.create("alice", expires=NOON)
    assert not key.has_expired(NOON - datetime.timedelta(seconds=1))
    assert key.has_expired(NOON)


@pytest.mark.parametrize("name", ["", "-", "other", "a\nb", "a'b", " a", "a" * 65, "\u202eb", "a|b"])
def test_a_name_that_could_be_taken_for_more_is_none_for_a_new_key(name: str) -> None:
    with pytest.raises(ConfigError, match="is not a valid name for a key"):
        keys.create(name)


def test_an_old_key_with_an_odd_name_is_good_and_can_be_replaced() -> None:
    old = Key(id="a1", name="a'b", digest="0" * 64)
    assert keys.successor(old)[0].name == "a'b"
