"""The certificate of the listener: TLS 1.2 and up, read again when its files change."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from pathlib import Path
from typing import Any

from .. import audit, ordinary
from ..errors import ConfigError

log = logging.getLogger("gateway.http")

OUT_OF_DATE = {9: "is not valid yet", 10: "has expired"}  # by OpenSSL's X509_V_ERR_CERT_…


class Certificate:
    """`context` is what the listener uses; a new certificate counts for new connections.

    Raises:
        ConfigError: the files cannot be used.
    """

    def __init__(self, cert: Path, key: Path | None) -> None:
        self._cert, self._key = cert, key
        self._looking = asyncio.Lock()
        self._seen, self._refused = self._stamps(), ""  # and why the files that are there now are not used
        try:
            self.context = self._current = self._read()
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"tls_cert {cert}: {error.strerror or error}") from error
        self.context.sni_callback = self._choose

    async def reload_if_changed(self) -> None:
        """Files that make no sense, as in the middle of being replaced, change nothing."""
        async with self._looking:
            await asyncio.to_thread(self._look)

    def _look(self) -> None:
        stamps = self._stamps()
        if stamps == self._seen:
            return
        try:
            self._current = self._read()
        except (OSError, ssl.SSLError, ConfigError) as error:
            if (reason := str(error)) != self._refused:  # it is looked at again and again
                audit.refused(self._actor(), "change of the certificate", f"it stays as it was: {reason}")
            self._refused = reason
            return
        self._seen, self._refused = stamps, ""
        audit.record(self._actor(), "change of the certificate")

    def _actor(self) -> str:
        return f"a new {self._cert}"

    def _read(self) -> ssl.SSLContext:
        context = _context(self._cert, self._key)
        if what := out_of_date(self._cert, context):  # a swap must not end the gateway, nor may a late renewal
            log.warning("the certificate %s %s: clients will refuse it", self._cert, what)
        return context

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Called at the start of every handshake, with a name or without one."""
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
    """The names and addresses that a certificate is for; none when it cannot be verified, as one that has expired."""
    try:
        pairs: Any = _presented(cert, _context(cert, key)).get(
            "subjectAltName", ()
        )  # typed as all that may be in there
    except (OSError, ValueError, ConfigError):  # ssl's own among them
        return []
    return [name for kind, name in pairs if kind in ("DNS", "IP Address")]


def out_of_date(cert: Path, context: ssl.SSLContext, soon: float = 0.0) -> str | None:
    """Why clients refuse the certificate for its time, or will within `soon` seconds, as a predicate; or None."""
    try:
        found = _presented(cert, context)
    except ssl.SSLCertVerificationError as error:
        return OUT_OF_DATE.get(error.verify_code)
    except (OSError, ValueError):  # it is used for all that, and its clients will tell
        return None
    ends = str(found.get("notAfter", ""))
    return f"expires on {ends}" if ends and ssl.cert_time_to_seconds(ends) - time.time() < soon else None


def expiry(cert: Path, key: Path | None, soon: float) -> str | None:
    """As `out_of_date`, of files that nothing has read yet. None too where they cannot be used."""
    try:
        return out_of_date(cert, _context(cert, key), soon)
    except (OSError, ConfigError):
        return None


def _presented(cert: Path, context: ssl.SSLContext) -> dict[str, Any]:
    """What a client sees of a certificate that vouches for itself. Only a handshake tells, so there is one in memory.

    Raises:
        SSLCertVerificationError: its time has not come, or is over.
        OSError, ValueError: there is no handshake.
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
    """A context with the pair. It is made anew each time: one that fails half way has half of each pair."""

    def no_pass_phrase() -> str:
        """Without this, OpenSSL would ask for it on the terminal and wait for ever."""
        raise ConfigError(f"the key in {key or cert} has a pass phrase, which nobody can be asked for: remove it")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for file in (cert, key):
        if file is not None:
            ordinary.opened(file).close()  # OpenSSL would wait for who has a lease on it, or ends a pipe
    context.load_cert_chain(cert, key, password=no_pass_phrase)
    return context
