"""Pages for browsers: the start page and the API page. They load nothing from other servers.

The pages are static files without data of this gateway. They request what they show with the key that the visitor
enters. So they need no key themselves, and a browser can open them where keys exist.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ...errors import UnknownURL
from ..route_table import PAGES

FILES = Path(__file__).with_name("static")
HTML, STYLE, SCRIPT = "text/html", "text/css", "text/javascript"  # Litestar adds the charset to text types
START, API = "start.html", "api.html"  # at / and /docs
ASSETS = {name: STYLE if name.endswith(".css") else SCRIPT for name in PAGES}
# Allow only these files and requests to this gateway: no inline scripts and no form submission, so a key never gets
# into a URL.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def asset(name: str) -> bytes:
    """Return the content of one of `ASSETS`.

    Raises:
        UnknownURL: there is no such file.
    """
    if name not in ASSETS:
        raise UnknownURL(f"no such file: {name[:64]}")
    return content(name)


@cache
def content(name: str) -> bytes:
    return (FILES / name).read_bytes()
