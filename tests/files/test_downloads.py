from __future__ import annotations

import hashlib
import os
import ssl
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
from full_disk import full_disk

from gateway.errors import ConfigError
from gateway.files.cache import cache_dir
from gateway.files.downloads import fetch_file, fetch_snapshot, find_snapshot, keep

CONTENT = bytes(range(256)) * 40
ETAG = '"v1"'


class Files(BaseHTTPRequestHandler):
    """Serves one file with ranges, as its server's `script` says: how many bytes before the connection breaks."""

    server: Any

    def do_GET(self) -> None:
        self.server.seen.append({name.lower(): value for name, value in self.headers.items()})
        if self.path == "/gone":
            self.send_error(404)
            return
        if self.path == "/closed":
            self.send_error(401)
            return
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_port}/file")
            self.end_headers()
            return
        start = 0
        if self.server.sends_any_part or self.headers.get("If-Range") == self.server.etag:
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        content = self.server.content
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.server.in_chunks:
            self.send_header("Transfer-Encoding", "chunked")
        elif self.server.tells_length:
            self.send_header("Content-Length", str(len(content) - start))
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        self.end_headers()
        size = self.server.script.pop(0) if self.server.script else len(CONTENT)
        sent = content[start : start + size]
        if self.server.in_chunks:
            end = b"0\r\n\r\n" if start + size >= len(content) else b""
            sent = b"%x\r\n%b\r\n%b" % (len(sent), sent, end)
        self.wfile.write(sent)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as http:
        found: Any = http
        found.seen, found.script, found.etag = [], [], ETAG
        found.content, found.in_chunks, found.sends_any_part = CONTENT, False, False
        found.tells_length = True
        found.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        http.shutdown()
        thread.join()


def test_a_file_is_fetched_once(server: Any, tmp_path: Path) -> None:
    for _ in range(2):
        fetch_file(f"{server.url}/file", tmp_path / "a" / "file")

    assert (tmp_path / "a" / "file").read_bytes() == CONTENT
    assert len(server.seen) == 1


def test_a_broken_download_is_continued(server: Any, tmp_path: Path) -> None:
    server.script = [1000]
    with pytest.raises(ConfigError, match="connection broke"):
        fetch_file(f"{server.url}/file", tmp_path / "file")

    fetch_file(f"{server.url}/file", tmp_path / "file")

    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.seen[1]["range"] == "bytes=1000-"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "file.lock"]


def test_a_file_whose_end_nobody_tells_is_refused_without_a_sum(server: Any, tmp_path: Path) -> None:
    server.tells_length = False

    with pytest.raises(ConfigError, match="does not send the length of the file"):
        fetch_file(f"{server.url}/file", tmp_path / "file")


def test_a_file_whose_end_nobody_tells_is_compared_with_its_sum(server: Any, tmp_path: Path) -> None:
    server.tells_length, server.script, path = False, [1000], tmp_path / "file"
    sha256 = hashlib.sha256(CONTENT).hexdigest()

    with pytest.raises(ConfigError, match="expected"):
        fetch_file(f"{server.url}/file", path, sha256=sha256)
    fetch_file(f"{server.url}/file", path, sha256=sha256)

    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["file", "deep/file"])
def test_what_was_fetched_is_on_the_disk_before_it_has_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, done = tmp_path / "part", tmp_path / "done"
    fetched = part if name == "file" else part / name
    fetched.parent.mkdir(exist_ok=True, parents=True)
    fetched.write_bytes(CONTENT)
    on_disk = []
    monkeypatch.setattr(os, "fsync", lambda number: on_disk.append((os.fstat(number).st_ino, done.exists())))
    expected = [(fetched.stat().st_ino, False)]

    keep(part, done)

    assert on_disk == expected
    assert done.exists()


def test_a_file_that_changed_meanwhile_is_fetched_anew(server: Any, tmp_path: Path) -> None:
    server.script = [1000]
    with pytest.raises(ConfigError):
        fetch_file(f"{server.url}/file", tmp_path / "file")
    server.etag = '"v2"'

    fetch_file(f"{server.url}/file", tmp_path / "file")

    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("new_tag", ['"v2"', ""])
def test_halves_of_two_files_are_not_joined_where_a_server_sends_a_part_of_the_new_one(
    server: Any, tmp_path: Path, new_tag: str
) -> None:
    server.script = [1000]
    with pytest.raises(ConfigError):
        fetch_file(f"{server.url}/file", tmp_path / "file")
    server.etag, server.content, server.sends_any_part = new_tag, CONTENT[::-1], True

    fetch_file(f"{server.url}/file", tmp_path / "file")

    assert (tmp_path / "file").read_bytes() == server.content


def test_a_file_in_chunks_that_breaks_says_so_and_is_continued(server: Any, tmp_path: Path) -> None:
    server.script, server.in_chunks = [1000], True
    with pytest.raises(ConfigError, match="connection broke"):
        fetch_file(f"{server.url}/file", tmp_path / "file")

    fetch_file(f"{server.url}/file", tmp_path / "file")

    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_tag_for_its_bytes_a_file_is_not_continued(server: Any, tmp_path: Path, etag: str) -> None:
    server.script, server.etag = [1000], etag
    with pytest.raises(ConfigError):
        fetch_file(f"{server.url}/file", tmp_path / "file")

    fetch_file(f"{server.url}/file", tmp_path / "file")

    assert "range" not in server.seen[1]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_part_that_is_longer_than_the_file_is_thrown_away(server: Any, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    (tmp_path / "file.part.etag").write_text(ETAG)

    fetch_file(f"{server.url}/file", tmp_path / "file")

    assert (tmp_path / "file").read_bytes() == CONTENT


def test_sha256_is_checked_before_the_file_counts(server: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected 00"):
        fetch_file(f"{server.url}/file", tmp_path / "file", sha256="00" * 32)
    assert not (tmp_path / "file").exists()
    assert not (tmp_path / "file.part").exists()

    fetch_file(f"{server.url}/file", tmp_path / "file", sha256=hashlib.sha256(CONTENT).hexdigest().upper())
    assert (tmp_path / "file").exists()


def test_a_file_in_the_cache_is_compared_with_its_sum_at_every_use(server: Any, tmp_path: Path) -> None:
    path, right = tmp_path / "file", hashlib.sha256(CONTENT).hexdigest()
    fetch_file(f"{server.url}/file", path, sha256=right)
    fetch_file(f"{server.url}/file", path, sha256=right)
    assert len(server.seen) == 1
    path.write_bytes(CONTENT[:-1] + b"!")  # as long as it was
    fetch_file(f"{server.url}/file", path, sha256=right)
    assert len(server.seen) == 2
    assert path.read_bytes() == CONTENT


def test_what_is_asked_over_tls_is_not_fetched_without(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as http:
        secure: Any = http
        secure.seen, secure.script, secure.etag = [], [], ETAG
        secure.content, secure.in_chunks, secure.sends_any_part = CONTENT, False, False
        secure.tells_length = True
        http.socket = context.wrap_socket(http.socket, server_side=True)
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            url = f"https://localhost:{http.server_port}"
            fetch_file(f"{url}/file", tmp_path / "file")
            with pytest.raises(ConfigError, match="redirects to http, without TLS"):
                fetch_file(f"{url}/moved", tmp_path / "moved")
        finally:
            http.shutdown()
            thread.join()
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert not (tmp_path / "moved").exists()


def test_a_token_goes_to_the_address_but_not_where_it_redirects(server: Any, tmp_path: Path) -> None:
    fetch_file(f"{server.url}/moved", tmp_path / "file", token="s3cret")

    assert [request.get("authorization") for request in server.seen] == ["Bearer s3cret", None]


@pytest.mark.parametrize("path", ["/gone", None])
def test_what_cannot_be_fetched_names_the_address_and_the_way_out(
    server: Any, tmp_path: Path, path: str | None
) -> None:
    url = f"{server.url}{path}" if path else "http://127.0.0.1:1/file"

    with pytest.raises(ConfigError) as caught:
        fetch_file(url, tmp_path / "file")

    assert str(caught.value).startswith(f"weights {url} could not be fetched: ")
    assert "file:// source" in str(caught.value)


def test_on_a_full_disk_nothing_counts_and_room_is_asked_for(server: Any, tmp_path: Path) -> None:
    place = tmp_path / "w.bin"
    with full_disk(at=1000), pytest.raises(ConfigError, match=r"File too large; free some space, or set cache"):
        fetch_file(f"{server.url}/file", place)
    assert not place.exists()
    fetch_file(f"{server.url}/file", place)
    assert place.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ({}, "set auth_secret_name to the secret with a token for it"),
        ({"secret": "hub"}, "the secret hub for it has no value"),
        ({"secret": "hub", "token": "wrong"}, "the secret hub gives no access"),
    ],
)
def test_a_source_that_is_closed_says_what_opens_it(
    server: Any, tmp_path: Path, given: dict[str, str], advice: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        fetch_file(f"{server.url}/closed", tmp_path / "file", **given)

    assert str(caught.value).endswith(f"401: Unauthorized; {advice}")


def test_the_cache_is_where_the_operator_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GATEWAY_CACHE_DIR", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("GATEWAY_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_dir() == Path("/xdg/model-gateway")


# ── Hugging Face ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stands in for huggingface_hub: `error` is raised, `seen` is what it was asked for."""
    found = SimpleNamespace(seen=[], error=None)

    def snapshot_download(repository: str, **arguments: Any) -> str:
        found.seen.append((repository, arguments))
        if found.error:
            raise found.error
        return "/cache/snapshot"

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    return found


def test_a_snapshot_is_asked_for_with_its_patterns_and_token(hub: Any) -> None:
    entry = {"allow_patterns": ["*.json"], "ignore_patterns": []}

    assert fetch_snapshot(entry, "owner/name", "main", token="t") == Path("/cache/snapshot")
    assert hub.seen == [("owner/name", {"revision": "main", "token": "t", "allow_patterns": ["*.json"]})]


def test_looking_for_a_snapshot_asks_nobody(hub: Any) -> None:
    assert find_snapshot({}, "owner/name", None) == Path("/cache/snapshot")
    assert hub.seen[0][1]["local_files_only"] is True

    hub.error = FileNotFoundError("not there")
    assert find_snapshot({}, "owner/name", None) is None


def test_a_snapshot_for_a_secret_is_put_into_its_own_cache_and_sought_in_the_librarys_too(hub: Any) -> None:
    own = Path("/own")
    fetch_snapshot({}, "owner/name", None, token="t", own=own)
    find_snapshot({}, "owner/name", None, own=own)
    assert [asked[1].get("cache_dir") for asked in hub.seen] == [own, own]
    hub.seen.clear()
    hub.error = OSError("offline")
    with pytest.raises(ConfigError, match="could not be fetched"):
        fetch_snapshot({}, "owner/name", None, token="t", own=own)
    assert find_snapshot({}, "owner/name", None, own=own) is None
    assert [asked[1].get("cache_dir") for asked in hub.seen] == [own, None, own, None]


def test_an_offline_load_names_the_repository_and_what_to_do(hub: Any) -> None:
    hub.error = ConnectionError("no route\nmore")

    with pytest.raises(ConfigError) as caught:
        fetch_snapshot({}, "owner/name", "rev", secret="hf_access_token")

    text = str(caught.value)
    assert (
        "weights hf://owner/name@rev are not in the cache and could not be fetched (ConnectionError: no route)" in text
    )
    assert "hf download owner/name" in text
    assert "the secret hf_access_token" in text


def test_a_missing_huggingface_hub_gives_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    assert find_snapshot({}, "owner/name", None) is None
    with pytest.raises(ConfigError, match="pip install huggingface_hub"):
        fetch_snapshot({}, "owner/name", None)


def test_the_real_library_says_that_a_snapshot_is_not_in_an_empty_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    assert find_snapshot({}, "owner/name", None) is None
    assert find_snapshot({}, "not/a/name", None) is None
    with pytest.raises(ConfigError, match="weights hf://owner/name are not in the cache"):
        fetch_snapshot({}, "owner/name", None)
