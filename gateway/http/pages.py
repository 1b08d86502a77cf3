"""Pages for people: the start page, and the API page. Everything they need comes from here, nothing from elsewhere.

The API page is Swagger UI, whose files a pip package brings. Both are for those who sit at the machine, or have a key.
"""

from __future__ import annotations

import html
import importlib.util
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UnknownURL
from ..examples import calls

if TYPE_CHECKING:
    from ..hosted import HostedModel
    from ..hub import Hub, Sees

BUNDLE = "swagger_ui"  # of the distribution swagger-ui-py
ASSETS = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "favicon-32x32.png": "image/png",
    "start.js": "text/javascript; charset=utf-8",
}
API_POLICY = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
START_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"

START_JS = b'SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null});\n'
API_PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Model gateway: API</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #ddd; }
code, pre { font: 14px/1.5 ui-monospace, monospace; }
pre { background: #f4f4f4; padding: .8rem; overflow-x: auto; }
.ready { color: #17692b; } .failed { color: #a8171a; }
"""


@cache
def asset(name: str) -> bytes:
    """The content of one of `ASSETS`.

    Raises:
        UnknownURL: there is no such file.
    """
    if name == "start.js":
        return START_JS
    spec = importlib.util.find_spec(BUNDLE) if name in ASSETS else None  # found, not imported
    if spec is None or not spec.submodule_search_locations:
        raise UnknownURL(f"no such file: {name[:64]}")
    return Path(spec.submodule_search_locations[0], "static", name).read_bytes()


def start_page(hub: Hub, sees: Sees, url: str, with_api_page: bool) -> bytes:
    """What a browser gets at the root: the models that its caller sees, and how to call them."""
    models = hub.seen(sees)
    rows = "".join(_row(hub, model, sees) for model in models)
    links = ["/v1/models", "/openapi.json", "/metrics", "/readyz"]
    if with_api_page:
        links.insert(0, "/docs")
    listed = " · ".join(f'<a href="{link}">{link}</a>' for link in links)
    examples = "".join(f"<pre>{html.escape(example)}</pre>" for example in calls(hub, models, url))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Model gateway</title>'
        f"<style>{STYLE}</style></head><body><h1>Model gateway</h1><p>{listed}</p>"
        f"<table><tr><th>model</th><th>state</th><th>routes</th></tr>{rows}</table>{examples}</body></html>\n"
    ).encode()


def _row(hub: Hub, model: HostedModel, sees: Sees) -> str:
    routes = "<br>".join(f"<code>{html.escape(route)}</code>" for route in hub.routes(model))
    state = f'<span class="{model.state}">{model.state}</span>'
    if model.state != "ready" and model.reason:
        state += f"<br>{html.escape(hub.reason(model, sees, False))}"
    return f"<tr><td>{html.escape(model.name)}</td><td>{state}</td><td>{routes}</td></tr>"
