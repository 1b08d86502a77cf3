#!/usr/bin/env bash
# openai 3.54.0 (Python): a comment behind an event with an `id:` ends the loop over a stream.
#
# Expected, by the WHATWG's standard for server-sent events: a comment such as `: ping`, which servers and proxies send to
# keep a silent connection open, means nothing, whatever came before it; an event without data is not dispatched.
# Seen: the SDK keeps the last id for ever, takes the blank line behind the comment for an event with empty data, and
# raises json.JSONDecodeError in the user's loop, after the first chunk. Without the `id:` line the same stream is read.
# Exits with 0 while this is what is seen.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q openai==3.54.0
"$place/venv/bin/python" - <<'PYTHON'
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import openai

CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}


class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        with_id = self.path.startswith("/ids/")
        for number, text in enumerate(("one", "two")):
            choices = [{"index": 0, "delta": {"content": text}, "finish_reason": None}]
            event = f"data: {json.dumps({**CHUNK, 'choices': choices})}\n\n: ping\n\n"
            self.wfile.write(((f"id: {number}\n" if with_id else "") + event).encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *given):
        pass


def read(path):
    texts = []
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/{path}", api_key="k", max_retries=0)
    try:
        for chunk in client.chat.completions.create(model="m", messages=[], stream=True):
            texts.append(chunk.choices[0].delta.content)
    except json.JSONDecodeError as error:
        return texts, type(error).__name__
    return texts, None


server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
without, with_ids = read("plain"), read("ids")
print("without ids:", *without)
print("with ids:   ", *with_ids)
server.shutdown()
raise SystemExit(0 if without == (["one", "two"], None) and with_ids == (["one"], "JSONDecodeError") else 1)
PYTHON
