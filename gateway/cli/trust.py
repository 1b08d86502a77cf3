"""Which certificates a command trusts over HTTPS.

--cacert FILE           certificates issued by those in FILE, for the host name in the URL
the gateway of the      exactly the certificate of `tls_cert`; its host name is not checked
settings themselves
any other               certificates that this machine trusts or that `tls_cert` issued, for the host name in the URL
"""

from __future__ import annotations

import ssl
from pathlib import Path

import click

META = "gateway.cacert"  # key of the option in click's context


def chosen() -> Path | None:
    """Return the file given with --cacert to the running command."""
    context = click.get_current_context(silent=True)
    found: Path | None = None if context is None else context.meta.get(META)
    return found


def context_for(cacert: Path | None, tls_cert: Path | None, is_own: bool) -> tuple[ssl.SSLContext, bytes | None]:
    """Return the TLS context, and the certificate that the server must present, if it must be a certain one.

    Raises:
        ClickException: a file is not a certificate.
    """
    file = cacert
    try:
        context = ssl.create_default_context(cafile=None if cacert is None else str(cacert))
        if cacert is None and tls_cert is not None:
            file = tls_cert
            context.load_verify_locations(tls_cert)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a certificate in the file is trusted without its issuer
        if cacert is not None or tls_cert is None or not is_own:
            return context, None
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context, _first(tls_cert)
    except (OSError, ValueError) as error:  # includes ssl.SSLError
        raise click.ClickException(f"{file}: cannot read a certificate: {error}") from error


def _first(file: Path) -> bytes:
    """Return the first certificate of a file: the server's own precedes its chain."""
    text = file.read_text("ascii", "ignore")
    begin, end = text.find("-----BEGIN CERTIFICATE-----"), text.find("-----END CERTIFICATE-----")
    return ssl.PEM_cert_to_DER_cert(text[begin : end + len("-----END CERTIFICATE-----")])
