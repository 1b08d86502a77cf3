"""Whom a command believes to be the gateway that it wants to talk to over HTTPS.

--cacert FILE           whoever has a certificate that FILE vouches for, for the name in the URL
the gateway of the      the very certificate of `tls_cert`: it need not bear the name of this machine's loopback
settings themselves
any other               whom this machine trusts, or whom `tls_cert` vouches for, for the name in the URL
"""

from __future__ import annotations

import ssl
from pathlib import Path

import click

META = "gateway.cacert"  # where the option is kept


def chosen() -> Path | None:
    """The file of --cacert of the command that runs."""
    context = click.get_current_context(silent=True)
    found: Path | None = None if context is None else context.meta.get(META)
    return found


def context_for(cacert: Path | None, tls_cert: Path | None, is_own: bool) -> tuple[ssl.SSLContext, bytes | None]:
    """The context, and the one certificate that the other side must have, if it must.

    Raises:
        ClickException: a file is no certificate.
    """
    file = cacert
    try:
        context = ssl.create_default_context(cafile=None if cacert is None else str(cacert))
        if cacert is None and tls_cert is not None:
            file = tls_cert
            context.load_verify_locations(tls_cert)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a certificate that is in the file needs no other
        if cacert is not None or tls_cert is None or not is_own:
            return context, None
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context, _first(tls_cert)
    except (OSError, ValueError) as error:  # ssl's own among them
        raise click.ClickException(f"{file}: no certificate can be read: {error}") from error


def _first(file: Path) -> bytes:
    """Its own certificate stands before its chain."""
    text = file.read_text("ascii", "ignore")
    begin, end = text.find("-----BEGIN CERTIFICATE-----"), text.find("-----END CERTIFICATE-----")
    return ssl.PEM_cert_to_DER_cert(text[begin : end + len("-----END CERTIFICATE-----")])
