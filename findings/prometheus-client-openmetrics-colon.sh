#!/usr/bin/env bash
# prometheus_client 0.26.0 (Python): a colon in the name of a metric becomes an underscore in OpenMetrics.
#
# Expected: colons belong to the classic character set of metric names ([a-zA-Z_:][a-zA-Z0-9_:]*), so that no escaping
# scheme touches them; the names are the same in whatever format a scrape asks for. Servers of language models name
# theirs `vllm:…`, `sglang:…`, and stock dashboards ask for these names.
# Seen: to `Accept: application/openmetrics-text; version=1.0.0`, without `escaping=allow-utf-8`, the samples are named
# `vllm_…`, while HELP and TYPE above them say `vllm:…`, so that even the library's own parser takes the samples of a
# histogram for metrics of no type. In `text/plain` the names are right.
# Exits with 0 while this is what is seen.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q prometheus_client==0.26.0
"$place/venv/bin/python" - <<'PYTHON'
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.exposition import choose_encoder

registry = CollectorRegistry()
Counter("vllm:prompt_tokens", "Tokens.", registry=registry)
lines = {}
for accept in ("text/plain", "application/openmetrics-text; version=1.0.0"):
    encode, _ = choose_encoder(accept)
    lines[accept] = [line for line in encode(registry).decode().splitlines() if "created" not in line]
    print(accept, *lines[accept], sep="\n    ")
plain, openmetrics = lines.values()
kept = "vllm:prompt_tokens_total 0.0" in plain
renamed = "# TYPE vllm:prompt_tokens counter" in openmetrics and "vllm_prompt_tokens_total 0.0" in openmetrics
raise SystemExit(0 if kept and renamed else 1)
PYTHON
