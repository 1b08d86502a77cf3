"""Download files into a cache: Hugging Face snapshots and URLs. `weights.py` decides which.

Libraries are imported in the functions that need them. On an offline machine, the error names what is missing.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from ..errors import ConfigError
from . import locks
from .cache import advice_on, make
from .fingerprints import fingerprint

CHUNK = 1024 * 1024
TIMEOUT = 30.0  # seconds without receiving data, not for a whole file
BROKE = "the connection broke; the next load continues where it stopped"
UNTOLD = "the server does not send the length of the file; add its sha256 to the entry"


def snapshot_folders(repository: str, own: Path | None = None) -> list[Path]:
    """Return the directories in which `find_snapshot` and `fetch_snapshot` find the snapshots of a repository."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return [cache / f"models--{repository.replace('/', '--')}" for cache in (own, Path(HF_HUB_CACHE)) if cache]


def find_snapshot(
    entry: Mapping[str, Any], repository: str, revision: str | None, *, own: Path | None = None
) -> Path | None:
    """Return the snapshot if the cache `own` or the Hugging Face cache has it, without network access."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        return None
    for place in [_in(own), _in(None)] if own else [_in(None)]:
        with suppress(OSError, ValueError):  # not in the cache (LocalEntryNotFoundError is both), or an invalid name
            more = {**place, **_patterns(entry)}
            return Path(snapshot_download(repository, revision=revision, local_files_only=True, **more))
    return None


def fetch_snapshot(
    entry: Mapping[str, Any],
    repository: str,
    revision: str | None,
    *,
    token: str | None = None,
    secret: str | None = None,
    own: Path | None = None,
) -> Path:
    """Download a snapshot with huggingface_hub, which has its own progress bars, resume and cache.

    `own` is another cache. If the snapshot cannot be downloaded there, the one in the library's cache, which all models
    share, is used: an operator may have put it there.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ConfigError(f"weights hf://{repository} need huggingface_hub; run: pip install huggingface_hub") from None
    name = f"{repository}@{revision}" if revision else repository
    try:
        more = {**_in(own), **_patterns(entry)}
        return Path(snapshot_download(repository, revision=revision, token=token, **more))
    except Exception as error:  # many types, depending on the versions of httpx, requests and huggingface_hub
        if own and (found := find_snapshot(entry, repository, revision)):
            return found
        access = f"the secret {secret} holds a token with access" if secret else "auth_secret_name names a token"
        raise ConfigError(
            f"weights hf://{name} are not in the cache and could not be fetched ({type(error).__name__}: "
            f"{_first_line(error)}); when offline, run `hf download {repository}` on a machine with a connection and "
            f"copy its cache, or use a file:// source; for a private repository check that {access}"
        ) from error


def _in(cache: Path | None) -> dict[str, Any]:
    return {"cache_dir": cache} if cache else {}


def _patterns(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entry[name] for name in ("allow_patterns", "ignore_patterns") if entry.get(name)}


def fetch_file(
    url: str, path: Path, *, sha256: str | None = None, token: str | None = None, secret: str | None = None
) -> None:
    """Download `url` to `path`, resuming an earlier attempt. Only one process at a time does this.

    With `sha256`, an existing file is compared at every use, and downloaded again if it differs.
    """
    if _is_it(path, sha256):
        return
    try:
        with lock(path):
            if _is_it(path, sha256):
                return
            part = path.with_name(f"{path.name}.part")
            _download(url, part, token, is_compared=sha256 is not None)
            if sha256 and (found := _digest(part)) != sha256.lower():
                part.unlink()
                raise ConfigError(f"weights {url}: sha256 is {found}, expected {sha256}; the file was deleted")
            keep(part, path)
    except OSError as error:
        fail(url, error, _closed(error, secret, token))


def keep(part: Path, path: Path) -> None:
    """Move a downloaded file or directory to its final name, after it is flushed to disk.

    Otherwise a power failure could leave an empty file under the name of a complete one.
    """
    for file in filter(Path.is_file, part.rglob("*") if part.is_dir() else (part,)):
        with file.open("rb") as written:
            os.fsync(written.fileno())
    os.replace(part, path)


def _is_it(path: Path, sha256: str | None) -> bool:
    return path.exists() and (sha256 is None or fingerprint(path) == sha256.lower())


def _download(url: str, part: Path, token: str | None, is_compared: bool) -> None:
    import http.client  # a third of a megabyte of modules that most models never need
    import urllib.error
    import urllib.request

    class _Redirects(urllib.request.HTTPRedirectHandler):
        """Refuse redirects from HTTPS to HTTP: the answer could come from anyone on the network."""

        def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
            if req.type == "https" and not newurl.startswith("https:"):
                raise OSError(f"it redirects to {newurl.partition(':')[0]}, without TLS")
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    request = urllib.request.Request(url, headers={"User-Agent": "model-gateway", "Accept-Encoding": "identity"})
    if token:
        # unredirected: a redirect to another host's storage must not receive it
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    tag = part.with_name(f"{part.name}.etag")  # ETag of the partial file: parts of two versions must not be joined
    done = part.stat().st_size if part.exists() and tag.exists() else 0
    if done:
        request.add_header("Range", f"bytes={done}-")
        request.add_header("If-Range", tag.read_text())
    try:
        with urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT) as answer:
            if answer.length is None and not answer.chunked and not is_compared:
                raise OSError(UNTOLD)
            resumed = bool(done) and answer.status == 206
            if resumed and not _goes_on(answer.headers, done, tag.read_text()):
                part.unlink()
                return _download(url, part, token, is_compared)
            etag = answer.headers.get("ETag", "")
            if not resumed:
                tag.unlink(missing_ok=True)
                if etag.startswith('"'):  # weak ETags do not guarantee identical bytes
                    tag.write_text(etag)
            with part.open("ab" if resumed else "wb") as file:
                while chunk := answer.read(CHUNK):
                    file.write(chunk)
            length = answer.headers.get("Content-Length", "")
    except urllib.error.HTTPError as error:
        if error.code != 416 or not done:
            raise
        part.unlink()  # no data follows what we have, so the server's file is another one
        return _download(url, part, token, is_compared)
    except http.client.HTTPException as error:  # the last chunk of a chunked response is missing
        raise OSError(BROKE) from error
    # with chunked reads, a broken connection looks like the end of the file
    if length.isdigit() and part.stat().st_size - (done if resumed else 0) < int(length):
        raise OSError(BROKE)
    tag.unlink(missing_ok=True)
    return None


def _goes_on(headers: Mapping[str, str], done: int, tag: str) -> bool:
    """Return whether a partial response continues our part. Some servers ignore `If-Range`."""
    return headers.get("ETag") == tag and headers.get("Content-Range", "").startswith(f"bytes {done}-")


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock for a path: replicas of a model load at the same time and download the same file."""
    make(path.parent)
    with locks.locked(path.with_name(f"{path.name}.lock"), tell=_say, why=f"{path.name} cannot be fetched"):
        yield


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def fail(url: str, error: Exception, advice: str = "") -> NoReturn:
    what = f"weights {url} could not be fetched: {_first_line(error)}"
    advice = advice or advice_on(error) or "when offline, download it elsewhere and use a file:// source"
    raise ConfigError(f"{what}; {advice}") from error


def _closed(error: OSError, secret: str | None, token: str | None) -> str:
    """Return how to authorize a source that refused access; "" for other errors."""
    if getattr(error, "code", None) not in (401, 403):
        return ""
    if secret is None:
        return "set auth_secret_name to the secret with a token for it"
    return f"the secret {secret} gives no access" if token else f"the secret {secret} for it has no value"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
