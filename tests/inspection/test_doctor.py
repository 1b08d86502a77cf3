"""`gateway doctor`: every line, and what makes it what it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.access import keys
from gateway.cli import cli
from gateway.inspection.doctor import Line, Machine, examine, examine_security
from gateway.inspection.inventory import take_inventory
from gateway.settings.load import load_settings

MACHINE = Machine(user=1000, open_files=65536, no_strict="")
MODEL = "class Model:\n    def predict(self, inputs):\n        return inputs\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in which nothing is to be said: one model whose files are listed."""
    (tmp_path / "models/m").mkdir(parents=True)
    (tmp_path / "models/m/model.py").write_text(MODEL)
    (tmp_path / "models/m/SHA256SUMS").write_text(f"{hashlib.sha256(MODEL.encode()).hexdigest()}  model.py\n")
    (tmp_path / "gateway.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def security(environ: dict[str, str] | None = None, **machine: Any) -> dict[str, Line]:
    found = take_inventory(load_settings(environ=environ or {}), with_devices=False)
    lines = examine_security(found, replace(MACHINE, **machine))
    assert len({line.name for line in lines}) == len(lines)
    return {line.name: line for line in lines}


def test_the_defaults_pass(here: Path) -> None:
    assert {line.level for line in security().values()} == {"pass"}


Change = Callable[[Path], object]


def settings(text: str) -> Change:
    """Below [gateway]."""
    return toml(f"[gateway]\n{text}\n")


def toml(text: str) -> Change:
    return lambda here: (here / "gateway.toml").write_text(text)


def add_key(here: Path) -> None:
    made, _ = keys.create("alice")
    keys.write(here / "keys.toml", [made])


def mode(name: str, mode: int) -> Change:
    return lambda here: (here / name).chmod(mode)


def file(name: str, mode: int = 0o644) -> Change:
    def write(here: Path) -> None:
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text("")
        (here / name).chmod(mode)

    return write


def all_of(*changes: Change) -> Change:
    return lambda here: [change(here) for change in changes]


PUBLIC = 'host = "0.0.0.0"\nallowed_hosts = ["ai.example"]\n'

# What is changed, in files or of what is given → the lines that change, with their level. All others stay as they were.
FLIPS: dict[str, tuple[Change | None, dict[str, Any], dict[str, str]]] = {
    "insecure_no_auth": (settings("insecure_no_auth = true"), {}, {"insecure_no_auth": "warn"}),
    "admin over HTTP": (settings("admin_http = true"), {}, {"admin_http": "warn"}),
    "keys that others read": (all_of(add_key, mode("keys.toml", 0o644)), {}, {"keys file": "danger"}),
    "a short key": (None, {"environ": {"GATEWAY_API_KEY": "hunter2"}}, {"api key": "warn"}),
    "any origin": (settings('allowed_origins = ["*"]'), {}, {"origins": "danger"}),
    "debug": (settings("debug = true"), {}, {"debug": "warn"}),
    "keep_alive": (settings("keep_alive = 7200"), {}, {"keep_alive": "warn"}),
    "head_timeout": (settings("head_timeout = 7200"), {}, {"head_timeout": "warn"}),
    "body_idle_timeout": (settings("body_idle_timeout = 7200"), {}, {"body_idle_timeout": "warn"}),
    "body_timeout": (settings("body_timeout = 7200"), {}, {"body_timeout": "warn"}),
    "send_timeout": (settings("send_timeout = 7200"), {}, {"send_timeout": "warn"}),
    "too many connections": (settings("max_connections = 65536"), {}, {"max_connections": "warn"}),
    "few open files": (None, {"open_files": 256}, {"open files": "warn"}),
    "a large body": (toml('[gateway.limits]\nmax_body = "2GiB"\n'), {}, {"max_body": "warn"}),
    "a long queue": (toml("[models.m]\nmax_queue = 100000\n"), {}, {"max_queue": "warn"}),
    "root": (None, {"user": 0}, {"user": "warn"}),
    "no confinement": (
        toml('[models.m]\nsandbox = "strict"\n'),
        {"no_strict": "the kernel needs Landlock"},
        {"sandbox": "danger"},
    ),
    "allow_pickle": (toml("[models.m]\nallow_pickle = true\n"), {}, {"allow_pickle": "warn"}),
    "trust_remote_code": (toml("[models.m]\ntrust_remote_code = true\n"), {}, {"trust_remote_code": "warn"}),
    "forward_credentials": (
        toml("[models.m]\nforward_credentials = true\n"),
        {},
        {"forward_credentials": "warn"},
    ),
    "allow_links": (toml("[models.m]\nallow_links = true\n"), {}, {"allow_links": "warn"}),
    "no sums": (lambda here: (here / "models/m/SHA256SUMS").unlink(), {}, {"sums": "warn"}),
    "settings that others write": (mode("gateway.toml", 0o666), {}, {"settings file": "danger"}),
    "a plugin": (all_of(file("mine.py"), settings('plugins = ["mine.py"]')), {}, {"plugins": "warn"}),
    "a plugin that others write": (
        all_of(file("mine.py", 0o666), settings('plugins = ["mine.py"]')),
        {},
        {"plugins": "danger"},
    ),
    "a model root that others write": (mode("models", 0o777), {}, {"model directories": "danger"}),
    "a model that others write": (mode("models/m", 0o775), {}, {"model directories": "danger"}),
    "secrets that others read": (
        all_of(file("secrets/token"), mode("secrets", 0o755), settings('secrets_dir = "secrets"')),
        {},
        {"secrets_dir": "danger"},
    ),
    "no secrets": (settings('secrets_dir = "nowhere"'), {}, {"secrets_dir": "warn"}),
    "another address, without a key": (
        settings('host = "0.0.0.0"'),
        {},
        {"bind": "danger", "host names": "warn", "tls": "warn", "metrics": "warn"},
    ),
    "another address, with a key": (all_of(add_key, settings(PUBLIC)), {}, {"tls": "warn"}),
    "another address, with a key and a certificate": (
        all_of(add_key, settings(PUBLIC + 'tls_cert = "cert.pem"')),
        {},
        {},
    ),
    "a key of the certificate that others read": (
        all_of(file("key.pem", 0o644), settings('tls_cert = "cert.pem"\ntls_key = "key.pem"')),
        {},
        {"tls": "warn"},
    ),
    "another address, with everything": (
        all_of(add_key, settings(PUBLIC + 'debug = true\nallowed_origins = ["*"]')),
        {},
        {"tls": "warn", "debug": "danger", "origins": "warn"},
    ),
}


@pytest.mark.parametrize(("change", "given", "expected"), FLIPS.values(), ids=FLIPS)
def test_a_default_that_is_flipped_changes_its_own_line_and_no_other(
    here: Path, change: Change | None, given: dict[str, Any], expected: dict[str, str]
) -> None:
    before = security()
    if change is not None:
        change(here)
    after = security(**given)
    assert list(after) == list(before)
    assert {name: line.level for name, line in after.items() if line.level != before[name].level} == expected
    for name in expected:
        assert after[name].fix, f"{name} does not say what to do"


def test_every_line_can_be_something_else_than_a_pass(here: Path) -> None:
    flipped = {name for _, _, lines in FLIPS.values() for name in lines}
    assert set(security()) == flipped


def test_the_exit_status_tells_of_a_danger_and_not_of_a_warning(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "here", lambda: MACHINE)
    assert CliRunner().invoke(cli, ["doctor", "--security"]).exit_code == 0
    settings("debug = true")(here)
    result = CliRunner().invoke(cli, ["doctor", "--security"])
    assert result.exit_code == 0
    assert "warn    debug: exceptions of models are sent to clients (remove debug in production)" in result.output
    assert result.output.endswith("0 dangers, 1 warning\n")
    settings('host = "0.0.0.0"')(here)
    result = CliRunner().invoke(cli, ["doctor", "--security", "--json"])
    assert result.exit_code == 1
    (danger,) = [line for line in json.loads(result.output) if line["level"] == "danger"]
    assert danger["name"] == "bind"


def test_without_the_option_the_environment_and_every_model_have_a_line_too(here: Path) -> None:
    broken = here / "models/broken"
    broken.mkdir()
    (broken / "model.py").write_text("class Other: ...\n")
    lines = {line.name: line for line in examine(take_inventory(load_settings(environ={})), MACHINE)}
    assert {"python", "uv", "devices", "extra transformers", "model m", "model broken", "bind"} <= set(lines)
    assert lines["model m"].level == "pass"
    assert lines["model broken"].level == "danger"


def test_this_machine_is_looked_at_without_harm_to_this_process() -> None:
    machine = Machine.here()
    assert machine.open_files > 0
    assert machine.no_strict == Machine.here().no_strict
