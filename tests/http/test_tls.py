"""The certificate of the listener: which files it takes, and what it says of the others."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization as written

from gateway.errors import ConfigError
from gateway.http.tls import Certificate


def pair(place: Path) -> tuple[Path, Path]:
    issued = trustme.CA().issue_cert("localhost")
    cert, key = place / "cert.pem", place / "key.pem"
    issued.cert_chain_pems[0].write_to_path(str(cert))
    issued.private_key_pem.write_to_path(str(key))
    return cert, key


def lock(key: Path) -> None:
    """Encrypt a key with a pass phrase."""
    found = written.load_pem_private_key(key.read_bytes(), None)
    encrypted = written.BestAvailableEncryption(b"sesame")
    key.write_bytes(found.private_bytes(written.Encoding.PEM, written.PrivateFormat.PKCS8, encrypted))


def test_a_key_with_a_pass_phrase_stops_the_start_and_nobody_is_asked(tmp_path: Path) -> None:
    cert, key = pair(tmp_path)
    lock(key)
    with pytest.raises(ConfigError, match=r"key\.pem has a pass phrase"):
        Certificate(cert, key)


def test_a_key_with_a_pass_phrase_does_not_replace_the_pair_of_a_running_gateway(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = pair(tmp_path)
    certificate = Certificate(cert, key)
    lock(key)
    with caplog.at_level(logging.ERROR, "gateway.http"):
        certificate.reload_if_changed()
    assert "stays as it was" in caplog.text and "has a pass phrase" in caplog.text
