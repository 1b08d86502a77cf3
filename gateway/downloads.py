"""Fetch files into a cache: Hugging Face snapshots and addresses. What for is the business of `weights.py`.

Libraries are imported in the function that needs them; an offline machine gets the name of what is missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from .cache import advice_on, make
from .errors import ConfigError
from .fingerprints import fingerprint

CHUNK = 1024 * 1024
TIMEOUT = 30.0  # seconds without a byte, not for the whole of a file
BROKE = "the connection broke; the next load continues where it stopped"
UNTOLD = "the server says neither how long the file is nor where it ends; give its entry the sha256 of the file"


def find_snapshot(entry: Mapping[str, Any], repository: str, revision: str | None) -> Path | None:
    """Return the snapshot when the Hugging Face cache holds it, without asking anybody."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        return None
    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True, **_patterns(entry)))
    except (OSError, ValueError):  # not in the cache (LocalEntryNotFoundError is both), or no such kind of name
        return None


def fetch_snapshot(
    entry: Mapping[str, Any],
    repository: str,
    revision: str | None,
    *,
    token: str | None = None,
    secret: str | None = None,
) -> Path:
    """Download a snapshot, with huggingface_hub's own progress bars, resume and cache."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ConfigError(f"weights hf://{repository} need huggingface_hub; run: pip install huggingface_hub") from None
    name = f"{repository}@{revision}" if revision else repository
    try:
        return Path(snapshot_download(repository, revision=revision, token=token, **_patterns(entry)))
    except Exception as error:  # a dozen kinds, by version, of httpx, requests and huggingface_hub
        access = f"the secret {secret} holds a token with access" if secret else "auth_secret_name names a token"
        raise ConfigError(
            f"weights hf://{name} are not in the cache and could not be fetched ({type(error).__name__}: "
            f"{_first_line(error)}); when offline, run `hf download {repository}` on a machine with a connection and "
            f"copy its cache, or use a file:// source; for a private repository see that {access}"
        ) from error


def _patterns(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entry[name] for name in ("allow_patterns", "ignore_patterns") if entry.get(name)}


def fetch_file(
    url: str, path: Path, *, sha256: str | None = None, token: str | None = None, secret: str | None = None
) -> None:
    """Download `url` to `path`, continuing what an earlier try left there. One process at a time does it.

    A file that is there is what is asked for when it has the sum `sha256`, at every use; another one is fetched again.
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
                raise ConfigError(f"weights {url}: sha256 is {found}, expected {sha256}; the file was thrown away")
            keep(part, path)
    except OSError as error:
        fail(url, error, _closed(error, secret, token))


def keep(part: Path, path: Path) -> None:
    """Give what was fetched, a file or a directory, its name. It is on the disk before: a power cut must not leave an
    empty file whose name says that it is whole."""
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
        """What was asked over TLS is not answered without: anybody on the way could be the one who answers."""

        def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
            if req.type == "https" and not newurl.startswith("https:"):
                raise OSError(f"it redirects to {newurl.partition(':')[0]}, without TLS")
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    request = urllib.request.Request(url, headers={"User-Agent": "model-gateway", "Accept-Encoding": "identity"})
    if token:
        # unredirected: a redirect to another host's storage must not receive it
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    tag = part.with_name(f"{part.name}.etag")  # of what the part is a part of: halves of two files do not fit
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
                if etag.startswith('"'):  # weak ones do not vouch for the bytes
                    tag.write_text(etag)
            with part.open("ab" if resumed else "wb") as file:
                while chunk := answer.read(CHUNK):
                    file.write(chunk)
            length = answer.headers.get("Content-Length", "")
    except urllib.error.HTTPError as error:
        if error.code != 416 or not done:
            raise
        part.unlink()  # nothing lies behind what we have, so it is not what the server has
        return _download(url, part, token, is_compared)
    except http.client.HTTPException as error:  # the file came in chunks, the last of them did not
        raise OSError(BROKE) from error
    # a connection that breaks looks like the end of the file when it is read in chunks
    if length.isdigit() and part.stat().st_size - (done if resumed else 0) < int(length):
        raise OSError(BROKE)
    tag.unlink(missing_ok=True)
    return None


def _goes_on(headers: Mapping[str, str], done: int, tag: str) -> bool:
    """Whether a part that a server sent follows what we have. Some send it whatever `If-Range` says."""
    return headers.get("ETag") == tag and headers.get("Content-Range", "").startswith(f"bytes {done}-")


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Replicas of a model load at the same time and want the same file."""
    make(path.parent)
    with path.with_name(f"{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fail(url: str, error: Exception, advice: str = "") -> NoReturn:
    what = f"weights {url} could not be fetched: {_first_line(error)}"
    advice = advice or advice_on(error) or "when offline, download it elsewhere and use a file:// source"
    raise ConfigError(f"{what}; {advice}") from error


def _closed(error: OSError, secret: str | None, token: str | None) -> str:
    """What opens a source that says it is closed; nothing for other errors."""
    if getattr(error, "code", None) not in (401, 403):
        return ""
    if secret is None:
        return "auth_secret_name names the secret with a token that opens it"
    return f"the secret {secret} does not open it" if token else f"the secret {secret}, which opens it, has no value"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
