from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest

from gateway import describe, weights_path
from gateway.errors import ConfigError
from gateway.files.buckets import BUCKETS, fetch_bucket

KEYS = json.dumps({"aws_access_key_id": "id", "aws_secret_access_key": "s3cret"})


class Library:
    """fsspec with a bucket in memory, which remembers how it was asked for one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.memory = fsspec.filesystem("memory")
        self.memory.pipe({"/bucket/dir/a.json": b"1", "/bucket/dir/deep/b.bin": b"2", "/bucket/dir/deep/c.md": b"3"})
        monkeypatch.setattr(fsspec, "filesystem", self._filesystem)

    def _filesystem(self, protocol: str, **options: Any) -> Any:
        self.asked.append((protocol, options))
        return self.memory


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    return Library(monkeypatch)


def files(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("url", "package"),
    [
        ("s3://bucket/key", "s3fs"),
        ("gs://bucket/key", "gcsfs"),
        ("r2://account.bucket/key", "s3fs"),
        ("azure://account/container/key", "adlfs"),
    ],
)
def test_a_bucket_without_its_library_gives_the_pip_line(
    url: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ConfigError, match=f"pip install fsspec {package}"):
        fetch_bucket({"source": url}, tmp_path / "key")


def test_every_kind_of_bucket_has_an_implementation_that_fsspec_knows_by_that_name() -> None:
    from fsspec.registry import known_implementations

    for kind in BUCKETS.values():
        assert kind.package in known_implementations[kind.protocol]["class"]


def test_a_prefix_or_a_file_is_copied(library: Library, tmp_path: Path) -> None:
    (tmp_path / "dir.part").mkdir()  # of an earlier try

    fetch_bucket({"source": "gs://bucket/dir/"}, tmp_path / "dir")
    fetch_bucket({"source": "gs://bucket/dir/a.json"}, tmp_path / "a")

    assert files(tmp_path / "dir") == {"a.json": b"1", "deep/b.bin": b"2", "deep/c.md": b"3"}
    assert (tmp_path / "a").read_bytes() == b"1"
    with pytest.raises(ConfigError, match="weights gs://bucket/gone could not be fetched"):
        fetch_bucket({"source": "gs://bucket/gone"}, tmp_path / "gone")


def test_patterns_choose_among_the_files_of_a_bucket_as_among_those_of_a_snapshot(
    library: Library, tmp_path: Path
) -> None:
    entry = {"source": "s3://bucket/dir", "allow_patterns": ["*.bin", "*.md"], "ignore_patterns": ["*.md"]}
    fetch_bucket(entry, tmp_path / "some")
    assert files(tmp_path / "some") == {"deep/b.bin": b"2"}

    fetch_bucket({"source": "s3://bucket/dir", "ignore_patterns": ["deep/"]}, tmp_path / "others")
    assert files(tmp_path / "others") == {"a.json": b"1"}

    one = {"source": "s3://bucket/dir/a.json", "allow_patterns": ["*.json"]}
    fetch_bucket(one, tmp_path / "one")
    assert (tmp_path / "one").read_bytes() == b"1"

    with pytest.raises(ConfigError, match=r"the patterns select no file \(there are: a\.json, deep/b\.bin"):
        fetch_bucket({"source": "s3://bucket/dir", "allow_patterns": ["*.pt"]}, tmp_path / "none")


@pytest.mark.parametrize("patterns", [{}, {"allow_patterns": ["*"]}])
def test_a_name_in_a_bucket_that_leads_out_of_its_place_writes_nothing(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patterns: dict[str, Any]
) -> None:
    names = ["/bucket/dir/a.json", "/bucket/dir/../../escaped"]  # S3 and the others take such keys
    monkeypatch.setattr(library.memory, "find", lambda place, **options: names)
    (tmp_path / "cache").mkdir()
    with pytest.raises(ConfigError, match=r"leads out of its directory: '\.\./\.\./escaped'"):
        fetch_bucket({"source": "s3://bucket/dir", **patterns}, tmp_path / "cache" / "dir")
    assert not (tmp_path / "escaped").exists() and not (tmp_path / "cache" / "dir").exists()


@pytest.mark.parametrize(
    ("url", "secret", "protocol", "options"),
    [
        ("s3://bucket/dir", None, "s3", {}),
        ("s3://bucket/dir", KEYS, "s3", {"key": "id", "secret": "s3cret"}),
        (
            "s3://bucket/dir",
            '{"access_key_id": "i", "secret_access_key": "s", "region": "eu", "session_token": "t"}',
            "s3",
            {"key": "i", "secret": "s", "token": "t", "client_kwargs": {"region_name": "eu"}},
        ),
        (
            "r2://account.bucket/dir",
            KEYS,
            "s3",
            {"key": "id", "secret": "s3cret", "endpoint_url": "https://account.r2.cloudflarestorage.com"},
        ),
        ("gs://bucket/dir", '{"type": "service_account"}', "gs", {"token": {"type": "service_account"}}),
        ("azure://account/bucket/dir", '{"account_key": "k"}', "abfs", {"account_name": "account", "account_key": "k"}),
    ],
)
def test_the_address_and_the_secret_say_how_a_bucket_is_opened(
    library: Library, tmp_path: Path, url: str, secret: str | None, protocol: str, options: dict[str, Any]
) -> None:
    fetch_bucket({"source": url}, tmp_path / "dir", secret="keys", credentials=secret)
    assert library.asked == [(protocol, options)]
    assert (tmp_path / "dir" / "a.json").read_bytes() == b"1"


@pytest.mark.parametrize(
    ("url", "secret", "told"),
    [
        (
            "s3://bucket/dir",
            "s3cret",
            'for s3://bucket/path must be JSON, such as {"aws_access_key_id"',
        ),
        ("r2://a.bucket/dir", "[1]", "the secret keys for r2://account.bucket/path must be JSON"),
        ("azure://a/c/p", '{"key": "s3cret"}', "has none of account_key, sas_token, connection_string"),
        ("gs://bucket/dir", "s3cret", 'must be JSON, such as {"type": "service_account"'),
        ("r2://bucket/dir", None, "expected r2://account.bucket/path"),
        ("azure://account", None, "expected azure://account/container/path"),
    ],
)
def test_a_wrong_address_or_secret_is_told_without_the_secret(
    library: Library, tmp_path: Path, url: str, secret: str | None, told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        fetch_bucket({"source": url}, tmp_path / "dir", secret="keys", credentials=secret)
    assert told in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_the_secret_that_an_entry_names_in_auth_opens_its_bucket(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "config.yaml").write_text(
        "weights:\n- {source: s3://bucket/dir, auth: {auth_method: CUSTOM_SECRET, auth_secret_name: keys}}\n"
    )
    spec = describe(tmp_path, target="a:B", format="a", overrides={"secrets": ("keys",)})
    weights_path(spec.config, tmp_path, secrets={"keys": KEYS})
    assert library.asked == [("s3", {"key": "id", "secret": "s3cret"})]
    assert spec.secrets == ("keys",)  # so that its value reaches the process that fetches
