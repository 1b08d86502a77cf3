"""The certificate of the listener: TLS 1.2 and up, read again when its files change."""

from __future__ import annotations

import contextlib
import logging
import ssl
from pathlib import Path
from typing import Any

from ..errors import ConfigError

log = logging.getLogger("gateway.http")


class Certificate:
    """`context` is what the listener uses; a new certificate counts for new connections.

    Raises:
        ConfigError: the files cannot be used.
    """

    def __init__(self, cert: Path, key: Path | None) -> None:
        self._cert, self._key = cert, key
        self._seen = self._stamps()
        try:
            self.context = self._current = self._read()
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"tls_cert {cert}: {error.strerror or error}") from error
        self.context.sni_callback = self._choose

    def reload_if_changed(self) -> None:
        """Files that make no sense, as in the middle of being replaced, change nothing."""
        stamps = self._stamps()
        if stamps == self._seen:
            return
        try:
            self._current = self._read()
        except (OSError, ssl.SSLError, ConfigError) as error:
            log.error("the certificate stays as it was: %s: %s", self._cert, error)
            return
        self._seen = stamps
        log.info("the certificate was read again")

    def _read(self) -> ssl.SSLContext:
        """A context with the pair. It is made anew each time: one that fails half way has half of each pair."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._cert, self._key, password=self._no_pass_phrase)
        return context

    def _no_pass_phrase(self) -> str:
        """Without this, OpenSSL would ask for it on the terminal and wait for ever."""
        raise ConfigError(
            f"the key in {self._key or self._cert} has a pass phrase, which nobody can be asked for: remove it"
        )

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
    """The names and addresses that a certificate is for; none when it cannot be verified, as one that has expired.

    Only a handshake tells them, so there is one in memory.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        client.load_verify_locations(cert)
        upward, downward = ssl.MemoryBIO(), ssl.MemoryBIO()
        ours = Certificate(cert, key).context.wrap_bio(upward, downward, server_side=True)
        theirs = client.wrap_bio(downward, upward)
        for side in (theirs, ours, theirs, ours):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
        pairs: Any = (theirs.getpeercert() or {}).get("subjectAltName", ())  # typed as all that a certificate may hold
    except (OSError, ValueError, ConfigError):  # ssl's own among them
        return []
    return [name for kind, name in pairs if kind in ("DNS", "IP Address")]
