"""The certificate of the listener: which files it takes, and what it says of the others."""

from __future__ import annotations

import asyncio
import datetime
import os
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization as written

from gateway.errors import ConfigError
from gateway.http.tls import Certificate, expiry, exposed

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def pair(
    place: Path, since: datetime.datetime = NOW - DAY, until: datetime.datetime = NOW + 90 * DAY
) -> tuple[Path, Path]:
    issued = trustme.CA().issue_cert("localhost", not_before=since, not_after=until)
    cert, key = place / "cert.pem", place / "key.pem"
    issued.cert_chain_pems[0].write_to_path(str(cert))
    issued.private_key_pem.write_to_path(str(key))
    key.chmod(0o600)
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
    asyncio.run(certificate.reload_if_changed())
    (told,) = (record for record in caplog.records if record.name == "gateway.audit")
    assert (vars(told)["action"], told.levelname) == ("change of the certificate", "WARNING")
    assert vars(told)["outcome"].startswith("failed: it stays as it was: ") and "has a pass phrase" in caplog.text
    asyncio.run(certificate.reload_if_changed())
    assert len(caplog.records) == 1, "it is looked at twice a minute"


@pytest.mark.timeout(20)  # a pipe is waited for without end
def test_a_pipe_in_the_place_of_the_pair_holds_up_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cert, key = pair(tmp_path)
    certificate = Certificate(cert, key)
    for file in (key, cert):
        file.unlink()
        os.mkfifo(file)
        asyncio.run(certificate.reload_if_changed())
        assert "stays as it was" in caplog.records[-1].getMessage()
        assert "not a regular file" in caplog.records[-1].getMessage()


OUT_OF_DATE = [(NOW - 9 * DAY, NOW - DAY, "has expired"), (NOW + DAY, NOW + 9 * DAY, "is not valid yet")]


@pytest.mark.parametrize(("since", "until", "says"), OUT_OF_DATE)
def test_a_certificate_whose_time_is_not_now_is_served_and_told_of_at_the_start_and_at_a_swap(
    since: datetime.datetime, until: datetime.datetime, says: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    line = f"the certificate {tmp_path / 'cert.pem'} {says}: clients will refuse it"
    Certificate(*pair(tmp_path, since, until))
    assert [record.getMessage() for record in caplog.records] == [line]
    certificate = Certificate(*pair(tmp_path))
    assert len(caplog.records) == 1, "a good one has no line"
    pair(tmp_path, since, until)
    asyncio.run(certificate.reload_if_changed())
    assert caplog.records[1].getMessage() == line


def test_a_certificate_that_expires_soon_is_told_of_to_who_asks_ahead(tmp_path: Path) -> None:
    cert, key = pair(tmp_path, until=NOW + 3 * DAY)
    assert expiry(cert, key, soon=DAY.total_seconds()) is None
    assert (expiry(cert, key, soon=4 * DAY.total_seconds()) or "").startswith("expires on ")


@pytest.mark.parametrize(("mode", "is_told"), [(0o600, False), (0o640, False), (0o644, True), (0o601, True)])
def test_a_key_that_all_users_may_read_is_told_of_at_the_start_and_at_a_swap(
    mode: int, is_told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = pair(tmp_path)
    key.chmod(mode)
    told = [f"the key in {key} is open to all users of this machine; run: chmod o= {key}"] * is_told
    certificate = Certificate(cert, key)
    assert [record.getMessage() for record in caplog.records] == told
    pair(tmp_path)
    key.chmod(mode)
    asyncio.run(certificate.reload_if_changed())
    lines = [record.getMessage() for record in caplog.records if record.name != "gateway.audit"]
    assert lines == told * 2 and bool(exposed(cert, key)) is is_told
    cert.chmod(mode)
    assert bool(exposed(cert, None)) is is_told, "the key may be in the file of the certificate"
    assert exposed(cert, tmp_path / "absent") == ""
