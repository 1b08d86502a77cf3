"""gateway keys: a key is shown once, what it may do is listed, and it can be taken away."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from gateway.access import keys
from gateway.errors import ConfigError

Run = Callable[..., Result]


def test_a_key_is_printed_alone_so_that_a_script_can_keep_it(run: Run) -> None:
    result = run("keys", "add", "alice", "--models", "chat-*, embed", "--rpm", "60", "--max-inflight", "8")
    text = result.stdout.strip()
    (key,) = keys.read(Path("keys.toml"))
    assert keys.find([key], text.encode()) == key
    assert (key.name, key.models, key.rpm, key.max_inflight) == ("alice", ("chat-*", "embed"), 60, 8)
    assert "only time" in result.stderr


def test_a_name_that_a_key_has_is_refused_for_another_caller(run: Run) -> None:
    run("keys", "add", "alice")
    (first,) = keys.read(Path("keys.toml"))
    refused = run("keys", "add", "alice")
    assert refused.exit_code == 2 and not refused.stdout
    assert f"there is already a key 'alice' ({first.id})" in refused.stderr and "gateway keys rotate" in refused.stderr
    assert keys.read(Path("keys.toml")) == (first,)
    run("keys", "revoke", "alice")
    assert run("keys", "add", "alice").exit_code == 0


def test_the_list_shows_what_keys_may_do_and_no_key(run: Run) -> None:
    text = run("keys", "add", "alice", "--expires", "2020-01-31").stdout.strip()
    run("keys", "add", "ops", "--scopes", "admin,metrics")
    first, second = json.loads(run("keys", "list", "--json").stdout)
    assert (first["name"], first["scopes"], first["expired"]) == ("alice", ["infer"], True)
    assert (second["scopes"], second["expires"]) == (["admin", "metrics"], None)
    shown = run("keys", "list").stdout
    assert "alice" in shown and "(over)" in shown and text.rpartition("_")[2] not in shown


def test_a_revoked_key_is_gone(run: Run) -> None:
    run("keys", "add", "alice")
    run("keys", "add", "bob")
    assert "Revoked" in run("keys", "revoke", "alice").stdout
    assert [key.name for key in keys.read(Path("keys.toml"))] == ["bob"]
    again = run("keys", "revoke", "alice")
    assert again.exit_code == 2 and "no key 'alice'" in again.stderr


def test_spans_of_time_are_understood(run: Run) -> None:
    run("keys", "add", "alice", "--expires", "90d")
    (key,) = keys.read(Path("keys.toml"))
    assert key.expires is not None and key.created is not None
    assert abs(key.expires - key.created - datetime.timedelta(days=90)) < datetime.timedelta(minutes=1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(("--scopes", "root"), "have: infer, metrics, admin"), (("--expires", "soon"), "90d"), (("--rpm", "0"), "rpm")],
)
def test_what_makes_no_sense_is_refused(run: Run, arguments: tuple[str, ...], told: str) -> None:
    result = run("keys", "add", "alice", *arguments)
    assert result.exit_code == 2 and told in result.stderr
    assert not Path("keys.toml").exists()


def test_the_file_is_where_the_settings_say(run: Run, tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text("[gateway]\nkeys_file = 'secret/keys.toml'\n")
    run("keys", "add", "alice")
    assert len(keys.read(tmp_path / "secret" / "keys.toml")) == 1


def test_from_elsewhere_the_file_is_beside_the_settings_for_every_command(
    run: Run, models: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models({"echo/model.py": "class Model:\n    def predict(self, inputs):\n        return inputs\n"})
    config = tmp_path / "gateway.toml"
    config.touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    assert run("keys", "add", "alice", "--config", str(config)).exit_code == 0
    assert [key.name for key in keys.read(tmp_path / "keys.toml")] == ["alice"]
    assert "alice" in run("keys", "list", "--config", "../gateway.toml").stdout
    assert f"{tmp_path / 'keys.toml'} has 1 key" in run("doctor", "--security", "--config", str(config)).stdout
    for command in ("check", "plan", "models"):
        assert "echo" in run(command, "--config", "../gateway.toml", "--json").stdout or command == "check"
    assert "1 model can be served" in run("check", "--config", str(config)).stdout
    assert "Revoked" in run("keys", "revoke", "alice", "--config", str(config)).stdout
    assert keys.read(tmp_path / "keys.toml") == ()
    assert list(elsewhere.iterdir()) == []


def test_a_named_file_that_is_missing_is_made_by_add_and_refuses_to_serve(run: Run, tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text("[gateway]\nkeys_file = 'mine.toml'\n")
    refused = run("serve", "--port", "0")
    assert refused.exit_code == 2
    assert "gateway.toml:2: keys_file = mine.toml does not exist, so no request would need a key" in refused.stderr
    assert "mine.toml does not exist" in run("doctor", "--security").stdout
    assert run("keys", "add", "alice").exit_code == 0
    assert run("doctor", "--security").stdout.count("mine.toml has 1 key") == 1


def test_a_link_that_leads_nowhere_is_no_file_without_keys(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").symlink_to(tmp_path / "not-mounted-yet")
    with pytest.raises(ConfigError, match="which does not exist"):
        keys.read(tmp_path / "keys.toml")


def test_limits_of_a_key_are_changed_and_the_key_stays(run: Run) -> None:
    text = run("keys", "add", "alice", "--rpm", "60", "--max-inflight", "8", "--expires", "90d").stdout.strip()
    (before,) = keys.read(Path("keys.toml"))
    assert run("keys", "change", "alice", "--rpm", "120", "--models", "chat-*", "--expires", "none").exit_code == 0
    (key,) = keys.read(Path("keys.toml"))
    assert keys.find([key], text.encode()) == key and key.id == before.id
    assert (key.rpm, key.max_inflight, key.models, key.expires) == (120, 8, ("chat-*",), None)
    assert run("keys", "change", key.id, "--rpm", "none", "--scopes", "infer,metrics").exit_code == 0
    (key,) = keys.read(Path("keys.toml"))
    assert (key.rpm, key.scopes) == (None, ("infer", "metrics"))
    for arguments, told in (((), "nothing to change"), (("--rpm", "0"), "rpm"), (("--scopes", "root"), "have: infer")):
        refused = run("keys", "change", "alice", *arguments)
        assert refused.exit_code == 2 and told in refused.stderr
    assert "no key 'bob'" in run("keys", "change", "bob", "--rpm", "1").stderr


def test_a_rotated_key_has_a_successor_with_its_limits_and_things(run: Run) -> None:
    old_text = run(
        "keys", "add", "alice", "--rpm", "60", "--models", "chat-*", "--scopes", "infer,admin"
    ).stdout.strip()
    result = run("keys", "rotate", "alice")
    old, new = keys.read(Path("keys.toml"))
    now = datetime.datetime.now(datetime.UTC)
    assert (
        keys.find([old, new], old_text.encode()) == old and keys.find([old, new], result.stdout.strip().encode()) == new
    )
    assert (new.name, new.rpm, new.models, new.scopes, new.expires) == (
        "alice",
        60,
        ("chat-*",),
        ("infer", "admin"),
        None,
    )
    assert old.expires is not None and datetime.timedelta(hours=23) < old.expires - now < datetime.timedelta(hours=25)
    assert old.owner == new.owner and old.id != new.id
    several = run("keys", "rotate", "alice")
    assert several.exit_code == 1 and old.id in several.stderr and "by its id" in several.stderr
    assert run("keys", "rotate", new.id, "--grace", "0m").exit_code == 0
    found = keys.read(Path("keys.toml"))
    assert [key.has_expired(now + datetime.timedelta(minutes=1)) for key in found] == [False, True, False]
    assert {key.owner for key in found} == {old.owner}
    assert run("keys", "rotate", old.id, "--grace", "soon").exit_code == 2


def test_several_keys_of_one_name_are_not_touched_without_a_question(run: Run) -> None:
    keys.write(Path("keys.toml"), [keys.create("alice")[0] for _ in range(2)])
    before = keys.read(Path("keys.toml"))
    for command in (("revoke", "alice"), ("change", "alice", "--rpm", "5")):
        asked = run("keys", *command, input="n\n")
        assert asked.exit_code == 1 and "2 keys" in asked.stderr and all(key.id in asked.stderr for key in before)
        assert run("keys", *command, input="").exit_code == 1
        assert keys.read(Path("keys.toml")) == before
    assert run("keys", "change", "alice", "--rpm", "5", "--yes").exit_code == 0
    assert [key.rpm for key in keys.read(Path("keys.toml"))] == [5, 5]
    assert run("keys", "revoke", "alice", input="y\n").exit_code == 0
    assert keys.read(Path("keys.toml")) == ()
