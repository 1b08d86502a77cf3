"""The TLS certificate of the listener: TLS 1.2 and later, reloaded when its files change."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
import time
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import ordinary
from ..telemetry import audit

log = logging.getLogger("gateway.http")

OUT_OF_DATE = {9: "is not valid yet", 10: "has expired"}  # keys are OpenSSL's X509_V_ERR_CERT_… codes


class Certificate:
    """The certificate in use. The listener uses `context`. A new certificate applies to new connections.

    Raises:
        ConfigError: the files cannot be used.
    """

    def __init__(self, cert: Path, key: Path | None) -> None:
        self._cert, self._key = cert, key
        self._looking = asyncio.Lock()
        self._seen, self._refused = self._stamps(), ""  # the second: why the current files are not used
        try:
            self.context = self._current = self._read()
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"tls_cert {cert}: {error.strerror or error}") from error
        self.context.sni_callback = self._choose

    async def reload_if_changed(self) -> None:
        """Read the files again if they changed. Invalid files, such as during a replacement, change nothing."""
        async with self._looking:
            await asyncio.to_thread(self._look)

    def _look(self) -> None:
        stamps = self._stamps()
        if stamps == self._seen:
            return
        try:
            self._current = self._read()
        except (OSError, ssl.SSLError, ConfigError) as error:
            if (reason := str(error)) != self._refused:  # log each reason once: the files are checked repeatedly
                audit.refused(self._actor(), "change of the certificate", f"it stays as it was: {reason}")
            self._refused = reason
            return
        self._seen, self._refused = stamps, ""
        audit.record(self._actor(), "change of the certificate")

    def _actor(self) -> str:
        return f"a new {self._cert}"

    def _read(self) -> ssl.SSLContext:
        context = _context(self._cert, self._key)
        if what := out_of_date(self._cert, context):  # only a warning: no reload or late renewal may end the gateway
            log.warning("the certificate %s %s: clients will refuse it", self._cert, what)
        if what := exposed(self._cert, self._key):
            log.warning("%s", what)
        return context

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Called at the start of every handshake, with or without a server name."""
        connection.context = self._current

    def _stamps(self) -> list[tuple[int, int]]:
        found = []
        for path in (self._cert, self._key):
            try:
                stat = path.stat() if path is not None else None
            except OSError:
                stat = None
            found.append((stat.st_mtime_ns, stat.st_size) if stat is not None else (0, 0))
        return found


def names_of(cert: Path, key: Path | None) -> list[str]:
    """Return the names and addresses in a certificate, or [] if it cannot be verified, for example expired."""
    try:
        pairs: Any = _presented(cert, _context(cert, key)).get("subjectAltName", ())  # typed loosely in typeshed
    except (OSError, ValueError, ConfigError):  # includes the errors of ssl
        return []
    return [name for kind, name in pairs if kind in ("DNS", "IP Address")]


def exposed(cert: Path, key: Path | None) -> str:
    """Return that other users of this machine may read the key, and so be the gateway; else "". A group may read it."""
    file = key or cert
    try:
        is_open = os.stat(file).st_mode & 0o007
    except OSError:  # it is not there, which another check tells
        return ""
    return f"the key in {file} is open to all users of this machine; run: chmod o= {file}" if is_open else ""


def out_of_date(cert: Path, context: ssl.SSLContext, soon: float = 0.0) -> str | None:
    """Return a predicate on why clients refuse the certificate by its dates, now or in `soon` seconds; else None."""
    try:
        found = _presented(cert, context)
    except ssl.SSLCertVerificationError as error:
        return OUT_OF_DATE.get(error.verify_code)
    except (OSError, ValueError):  # it is used anyway, and clients will report the problem
        return None
    ends = str(found.get("notAfter", ""))
    return f"expires on {ends}" if ends and ssl.cert_time_to_seconds(ends) - time.time() < soon else None


def expiry(cert: Path, key: Path | None, soon: float) -> str | None:
    """Like `out_of_date`, for files that are not loaded yet. None also if they cannot be used."""
    try:
        return out_of_date(cert, _context(cert, key), soon)
    except (OSError, ConfigError):
        return None


def _presented(cert: Path, context: ssl.SSLContext) -> dict[str, Any]:
    """Return the certificate as a client that trusts it sees it. It needs a handshake, which is made in memory.

    Raises:
        SSLCertVerificationError: it is not valid yet, or has expired.
        OSError, ValueError: the handshake fails.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(cert)
    upward, downward = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours, theirs = context.wrap_bio(upward, downward, server_side=True), client.wrap_bio(downward, upward)
    for side in (theirs, ours, theirs, ours):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return theirs.getpeercert() or {}


def _context(cert: Path, key: Path | None) -> ssl.SSLContext:
    """Return a context with certificate and key. It is always a new one, as a failed load leaves it half changed."""

    def no_pass_phrase() -> str:
        """Refuse an encrypted key. Without this callback OpenSSL would prompt on the terminal and wait forever."""
        raise ConfigError(f"the key in {key or cert} has a pass phrase, which the gateway cannot ask for: remove it")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for file in (cert, key):
        if file is not None:
            ordinary.opened(file).close()  # OpenSSL would block on a pipe or on a file with a lease
    context.load_cert_chain(cert, key, password=no_pass_phrase)
    return context
