"""HTTPS: the real SDK over it, a certificate that is renewed, and settings that are read again."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme
from commands import command
from openai import OpenAI

from gateway.cli.operator import Operator
from gateway.testing import Gateway

Serve = Callable[..., Gateway]
MODEL = {"m": {"model.py": "class Model:\n    def chat_completions(self, inputs):\n        yield from ('fi', 'ne')\n"}}


class Authority:
    """Certificates for this machine, and whom to trust for them."""

    def __init__(self, place: Path) -> None:
        self._ca, self.cert, self.key = trustme.CA(), place / "cert.pem", place / "key.pem"
        self.trust = ssl.create_default_context()
        self._ca.configure_trust(self.trust)
        self.root = self._ca.cert_pem.bytes()
        self.renew()

    def renew(self) -> None:
        issued = self._ca.issue_cert("localhost", "127.0.0.1")
        self.key.touch(0o600)
        issued.private_key_pem.write_to_path(self.key)
        self.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))

    def seen(self, gateway: Gateway) -> bytes:
        """The certificate that the gateway shows now."""
        port = int(gateway.url.rpartition(":")[2])
        plain = socket.create_connection(("127.0.0.1", port), timeout=10)
        with self.trust.wrap_socket(plain, server_hostname="localhost") as wrapped:
            return wrapped.getpeercert(binary_form=True) or b""


@pytest.fixture
def secure(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Gateway, Authority]:
    authority = Authority(tmp_path)
    options = ["--tls-cert", str(authority.cert), "--tls-key", str(authority.key)]
    gateway = serve(MODEL, *options, until="accepting")
    gateway.wait_for("model 'm' is ready")
    return gateway, authority


def test_the_sdk_streams_over_https(secure: tuple[Gateway, Authority]) -> None:
    gateway, authority = secure
    assert gateway.url.startswith("https://")
    client = OpenAI(
        base_url=f"{gateway.url}/v1", api_key="unused", http_client=httpx2.Client(verify=authority.trust), timeout=30
    )
    messages: Any = [{"role": "user", "content": "hi"}]
    assert client.chat.completions.create(model="m", messages=messages).choices[0].message.content == "fine"
    stream = client.chat.completions.create(model="m", messages=messages, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == "fine"


def test_commands_trust_the_certificate_of_the_settings_or_the_one_that_they_are_told(
    secure: tuple[Gateway, Authority], tmp_path: Path
) -> None:
    gateway, authority = secure
    port = gateway.url.rpartition(":")[2]
    place = tmp_path / "client"
    place.mkdir()

    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return command(place, *arguments, **env)

    stranger = run("chat", "m", "hi", "--url", gateway.url)
    assert stranger.returncode == 1 and "--cacert FILE" in stranger.stderr
    (place / "ca.pem").write_bytes(authority.root)
    told = run("chat", "m", "hi", "--cacert", "ca.pem", GATEWAY_URL=f"https://localhost:{port}")
    assert told.stdout == "fine\n", told.stderr
    (place / "gateway.toml").write_text(f"[gateway]\nport = {port}\ntls_cert = '{authority.cert}'\n")
    for url in ({}, {"GATEWAY_URL": gateway.url}):
        assert run("chat", "m", "hi", **url).stdout == "fine\n"
        assert "/v1/chat/completions" in run("models", "--live", **url).stdout
    authority.renew()  # and the gateway has not read it yet: it might be anybody
    other = run("chat", "m", "hi")
    assert other.returncode == 1 and "does not use the certificate" in other.stderr


def test_a_renewed_certificate_is_shown_after_a_signal_and_a_broken_one_is_not(
    secure: tuple[Gateway, Authority],
) -> None:
    gateway, authority = secure
    first = authority.seen(gateway)
    authority.renew()
    gateway.process.send_signal(signal.SIGHUP)
    gateway.wait_for("change of the certificate by a new .*: done")
    second = authority.seen(gateway)
    assert second != first
    old = authority.key.read_bytes()
    authority.renew()
    authority.key.write_bytes(old)  # in the middle of a renewal: a certificate and the key of another
    gateway.process.send_signal(signal.SIGHUP)
    gateway.wait_for("change of the certificate by a new .*: failed: it stays as it was")
    assert authority.seen(gateway) == second
    authority.cert.write_text("no certificate")
    gateway.process.send_signal(signal.SIGHUP)
    gateway.wait_for("(?s)failed: it stays as it was.*failed: it stays as it was")
    assert authority.seen(gateway) == second


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
def test_old_protocols_and_plain_http_are_refused(secure: tuple[Gateway, Authority]) -> None:
    gateway, authority = secure
    authority.trust.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, OSError)):
        authority.seen(gateway)
    with pytest.raises(OSError):
        urllib.request.urlopen(gateway.url.replace("https", "http") + "/livez", timeout=10)


def test_a_certificate_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "models/m").mkdir(parents=True)
    (tmp_path / "models/m/model.py").write_text(MODEL["m"]["model.py"])
    start = [sys.executable, "-m", "gateway", "serve", "--port", "0", "--tls-cert", "nowhere.pem"]
    done = subprocess.run(start, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "tls_cert nowhere.pem: No such file" in done.stderr


def test_a_signal_has_the_settings_read_again_and_reloads_what_changed(serve: Serve, tmp_path: Path) -> None:
    slow = {"model.py": "class Model:\n    def predict(self, x):\n        return 1\n"}
    gateway = serve({"m": slow, "n": slow}, env={"XDG_RUNTIME_DIR": str(tmp_path)})
    operator = Operator(next(tmp_path.glob("*.sock")))

    def slots() -> dict[str, int]:
        return {model["id"]: model["slots"] for model in operator.ask("GET", "/admin/models")["models"]}

    assert slots() == {"m": 1, "n": 1}
    (tmp_path / "gateway.toml").write_text("[gateway]\ndrain_timeout = 7\n[models.m]\nslots = 3\n")
    gateway.process.send_signal(signal.SIGHUP)
    gateway.wait_for("the settings were read again")
    assert slots() == {"m": 3, "n": 1}
    told = "audit: change of settings by SIGHUP: "
    assert f"{told}after the next start: gateway.drain_timeout from 30.0 to 7.0" in gateway.log
    assert f"{told}models.m.slots from none to 3" in gateway.log
    (tmp_path / "gateway.toml").write_text("[gateway]\ndrain_timeout = 7\n[models.m]\nslots = 4\n")
    gateway.process.send_signal(signal.SIGHUP)
    gateway.wait_for("models.m.slots from 3 to 4")
    assert gateway.log.count("after the next start") == 1  # and not at each signal from then on
    (tmp_path / "gateway.toml").write_text("[gateway]\nzebra = 1\n")
    gateway.process.send_signal(signal.SIGHUP)
    gateway.wait_for("change of settings by SIGHUP: failed: they stay as they were: .*zebra")
    body = json.dumps({}).encode()
    with urllib.request.urlopen(f"{gateway.url}/models/m/predict", data=body, timeout=10) as response:
        assert response.status == 200
