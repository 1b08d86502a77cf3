"""Pages for people: the start page, and the API page. Everything they need comes from here, nothing from elsewhere.

They are files, the same for everybody, and say nothing of this gateway: what they show they ask for, with the key that
their visitor gives. So they need none themselves, and a browser can open them where keys exist.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ..errors import UnknownURL

FILES = Path(__file__).with_name("static")
HTML, STYLE, SCRIPT = "text/html", "text/css", "text/javascript"  # Litestar adds the charset to texts
START, API = "start.html", "api.html"  # at / and /docs
ASSETS = {"style.css": STYLE, "page.js": SCRIPT, "start.js": SCRIPT, "api.js": SCRIPT}
SHELL = frozenset({"/", "/docs", *(f"/docs/{name}" for name in ASSETS)})
# Nothing but these files and calls to this gateway, no script in a page, no form that is sent: a key gets into no URL.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def asset(name: str) -> bytes:
    """The content of one of `ASSETS`.

    Raises:
        UnknownURL: there is no such file.
    """
    if name not in ASSETS:
        raise UnknownURL(f"no such file: {name[:64]}")
    return content(name)


@cache
def content(name: str) -> bytes:
    return (FILES / name).read_bytes()
