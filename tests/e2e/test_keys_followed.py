"""Keys of a gateway that runs: what a command changes is in force when the command has said so."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import command

from gateway.access import keys
from gateway.cli import key_changes
from gateway.testing import Gateway

Serve = Callable[..., Gateway]
ECHO = {"m": {"model.py": "class Model:\n    def predict(self, inputs):\n        return inputs\n"}}


def env(place: Path) -> dict[str, str]:
    return {"XDG_RUNTIME_DIR": str(place)}


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`gateway keys` of the settings in `place`."""
    return command(place, "keys", *arguments, **env(place))


def status(gateway: Gateway, path: str, text: str, method: str = "GET") -> int:
    asked = urllib.request.Request(f"{gateway.url}{path}", method=method, headers={"x-api-key": text})
    try:
        with urllib.request.urlopen(asked, timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_revoked_key_has_ended_when_the_command_says_so_and_its_file_may_go(serve: Serve, tmp_path: Path) -> None:
    text = run(tmp_path, "add", "alice").stdout.strip()
    gateway = serve(ECHO, env=env(tmp_path), until="accepting")
    assert status(gateway, "/v1/models", text) == 200
    said = run(tmp_path, "revoke", "alice")
    (tmp_path / "keys.toml").unlink()
    assert status(gateway, "/v1/models", text) == 401
    assert re.search(r"In force: the gateway at .*\.sock has 0 keys of it", said.stdout), said
    who = r"told of by user \S+ \(process \d+\) over the admin socket"
    gateway.wait_for(rf"audit: change of keys by a new \S*keys\.toml \(of user \S+\), {who}: revoked 'alice'")


def test_every_change_is_in_force_at_once(serve: Serve, tmp_path: Path) -> None:
    run(tmp_path, "add", "ops")
    gateway = serve(ECHO, env=env(tmp_path), until="accepting")
    added = run(tmp_path, "add", "alice")
    text = added.stdout.strip()
    assert "has 2 keys of it" in added.stderr and status(gateway, "/v1/models", text) == 200
    assert "In force" in run(tmp_path, "change", "alice", "--scopes", "metrics").stdout
    assert status(gateway, "/v1/models", text) == 403
    successor = run(tmp_path, "rotate", "alice", "--grace", "0m")
    assert "In force" in successor.stderr and status(gateway, "/metrics", text) == 401
    assert status(gateway, "/metrics", successor.stdout.strip()) == 200


def test_a_gateway_that_cannot_follow_is_told_with_its_reason(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_changes, "PATIENCE", 0.5)
    run(tmp_path, "add", "alice")
    gateway = serve(ECHO, env=env(tmp_path), until="accepting")
    os.kill(gateway.process.pid, signal.SIGSTOP)
    try:
        said = run(tmp_path, "add", "bob")
    finally:
        os.kill(gateway.process.pid, signal.SIGCONT)
    assert "did not confirm the change: " in said.stderr and "In force" not in said.stderr


@pytest.mark.parametrize("file", ["keys.toml", "elsewhere.toml"])
def test_who_reaches_no_gateway_that_has_the_file_says_so(serve: Serve, tmp_path: Path, file: str) -> None:
    """One that nobody started, and one whose settings name another file."""
    if file != "keys.toml":
        keys.write(tmp_path / file, [])
        serve(ECHO, env={**env(tmp_path), "GATEWAY_KEYS_FILE": str(tmp_path / file)}, until="accepting")
    assert "No running gateway could be told" in run(tmp_path, "add", "alice").stderr


def test_over_http_nobody_has_the_keys_read_again(serve: Serve, tmp_path: Path) -> None:
    key, text = keys.create("ops", scopes=("infer", "admin"))
    keys.write(tmp_path / "keys.toml", [key])
    gateway = serve(ECHO, env={**env(tmp_path), "GATEWAY_ADMIN_HTTP": "true"}, until="accepting")
    assert status(gateway, "/admin/models", text) == 200
    assert status(gateway, "/admin/keys/reload", text, "POST") == 404
