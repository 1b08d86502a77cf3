from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from gateway_language.gguf import files as it
from gateway_transformers import check_model, find_model
from gguf_headers import Value, gguf, model, write
from hypothesis import given
from hypothesis import strategies as st

from gateway import ConfigError, peek_patterns, peek_weights
from gateway.files import downloads


def test_one_file_is_the_model_whatever_it_is_called(tmp_path: Path) -> None:
    for name in ("any.gguf", "lora-merged.gguf", "x-imatrix-Q4_K_M.gguf", "draft.gguf", "UPPER.GGUF"):
        place = tmp_path / name
        assert it.find(place.parent) is None
        assert it.find(model(place).parent) == place
        place.unlink()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mmproj-model-f16.gguf", {"general_architecture": "clip"}),
        ("vision.gguf", {"general_architecture": "clip"}),
        ("vision.gguf", {"general_architecture": "x", "general_tags": ["a"], "general_type": "mmproj"}),
        ("imatrix.gguf", {"general_type": "imatrix"}),
        ("my-lora.gguf", {"general_architecture": "llama", "general_type": "adapter"}),
        ("style.gguf", {"general_architecture": "llama", "general_type": "adapter"}),
        ("mmproj.gguf", {}),
        ("mtp-Qwen3.gguf", {"general_architecture": "qwen3"}),
        *((f"x-{name}-f16.gguf", {}) for name in ("draft", "drafter", "mtp", "nextn", "eagle", "eagle3", "medusa")),
        ("model.imatrix.gguf", {}),
    ],
)
def test_what_lies_beside_a_model_is_passed_over(name: str, said: dict[str, str], tmp_path: Path) -> None:
    gguf(tmp_path / name, **said)
    assert it.find(tmp_path) is None
    assert it.find(model(tmp_path / "zz.gguf").parent) == tmp_path / "zz.gguf"


@pytest.mark.parametrize("name", ["aa-draft.gguf", "aa-drafter-Q8_0.gguf"])
def test_a_draft_is_a_whole_model_that_its_name_tells(name: str, tmp_path: Path) -> None:
    model(tmp_path / name)
    model(tmp_path / "zz.gguf")
    assert it.find(tmp_path) == tmp_path / "zz.gguf"


@pytest.mark.parametrize(
    "name",
    [
        *("mmproj-aa.gguf", "aa-lora-merged.gguf", "aa-Q4_K_M-imatrix.gguf", "Eagle-7B.gguf", "Medusa-Roleplay.gguf"),
        *("GLM-4.5-Air-MTP.gguf", "Qwen3-dflash.gguf"),
    ],
)
def test_a_whole_model_is_one_though_its_name_has_a_word_of_what_lies_beside(name: str, tmp_path: Path) -> None:
    model(tmp_path / name)
    model(tmp_path / "zz.gguf")
    with pytest.raises(ConfigError, match=rf"several GGUF files \({name}, zz\.gguf\)"):
        it.find(tmp_path)
    assert f"{name} is another model" in (it.say_passed_over(tmp_path, tmp_path / "zz.gguf") or "")


@pytest.mark.parametrize("name", ["tiny-lora-merged", "eagle-chat"])
def test_the_name_of_the_directory_counts_before_every_other_word(name: str, tmp_path: Path) -> None:
    place = tmp_path / name
    model(place / f"{name}.gguf")
    model(place / "base.gguf")
    assert it.find(place) == place / f"{name}.gguf"


def test_a_part_that_was_renamed_is_told_as_a_part(tmp_path: Path) -> None:
    served = model(tmp_path / "a.gguf")
    gguf(tmp_path / "part2.gguf", split_no=1, split_count=3)
    assert it.find(tmp_path) == served
    assert "part2.gguf is part 2 of 3 of a model: rename it to NAME-00002-of-00003.gguf" in (
        it.say_passed_over(tmp_path, served) or ""
    )


@pytest.mark.parametrize("there", [(1,), (2,), (1, 2)])
def test_renamed_parts_are_no_models_and_told_what_to_be_called(there: tuple[int, ...], tmp_path: Path) -> None:
    whole = {"general_architecture": "llama", "tokenizer_ggml_model": "gpt2"}
    for number in there:
        gguf(tmp_path / f"m-{number}.gguf", split_no=number - 1, split_count=2, **(whole if number == 1 else {}))
    calls = ", ".join(f"m-{number}.gguf to NAME-0000{number}-of-00002.gguf" for number in there)
    with pytest.raises(ConfigError, match=f"renamed parts of a model .*: rename {calls}, with the same NAME") as told:
        it.find(tmp_path)
    assert ("download the missing ones" in str(told.value)) == (len(there) < 2)


def test_a_draft_that_has_the_words_of_its_model_has_few_tensors(tmp_path: Path) -> None:
    said: dict[str, Value] = {"general.architecture": "qwen3", "qwen3.block_count": 29, "tokenizer.ggml.model": "gpt2"}
    write(tmp_path / "mtp-aa.gguf", said, tensors=9)
    write(tmp_path / "zz.gguf", said, tensors=99)
    assert it.find(tmp_path) == tmp_path / "zz.gguf"
    assert "mtp-aa.gguf is a draft model" in (it.say_passed_over(tmp_path, tmp_path / "zz.gguf") or "")


@pytest.mark.parametrize("name", ["incomplete-Llama-3.Q4_0.gguf", "Llama-3.incomplete.gguf"])
def test_a_file_that_is_called_incomplete_is_no_model_yet(name: str, tmp_path: Path) -> None:
    served = model(tmp_path / "phi.gguf")
    model(tmp_path / name)
    assert it.find(tmp_path) == served
    assert f"{name} is an unfinished download" in (it.say_passed_over(tmp_path, served) or "")


def test_of_several_the_one_that_is_called_as_the_directory_is_meant(tmp_path: Path) -> None:
    place = tmp_path / "smol"
    for name in ("a.gguf", "Smol.gguf", "z.gguf"):
        model(place / name)
    assert it.find(place) == place / "Smol.gguf"
    model(tmp_path / "snapshot" / "x.gguf")
    model(tmp_path / "snapshot" / "y.gguf")
    assert it.find(tmp_path / "snapshot", ["y"]) == tmp_path / "snapshot" / "y.gguf"


def snapshot(place: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """What the cache holds of a repository, from which models with other patterns took files too."""
    for name in names:
        model(place / name)
    monkeypatch.setattr(downloads, "find_snapshot", lambda entry, *name, own: place)
    monkeypatch.setattr(downloads, "snapshot_folders", lambda name, own: [place])


def directory(place: Path, **patterns: list[str]) -> Path:
    place.mkdir()
    entry = {"source": "hf://somebody/them", **patterns}
    (place / "config.yaml").write_text(json.dumps({"framework": "transformers", "weights": [entry]}))
    return place


def test_patterns_choose_the_file_of_a_snapshot_that_holds_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "0a1b"
    snapshot(place, monkeypatch, "x-Q4.gguf", "x-Q8.gguf", "F16/x-F16.gguf")
    for patterns, name in (
        ({"allow_patterns": ["*Q4*"]}, "x-Q4.gguf"),
        ({"ignore_patterns": ["*Q4*", "F16/"]}, "x-Q8.gguf"),
        ({"allow_patterns": ["F16/*"]}, "F16/x-F16.gguf"),
    ):
        root = directory(tmp_path / name.replace("/", "-"), **patterns)
        assert it.find(peek_weights(root), [root.name], peek_patterns(root)) == place / name
        assert find_model(root, {}).notes == ()
        assert "several" not in " ".join(problem.what for problem in check_model(find_model(root, {})))


def test_of_several_files_of_a_snapshot_the_advice_is_a_pattern(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot(tmp_path / "0a1b", monkeypatch, "x-Q4.gguf", "x-Q8.gguf")
    root = directory(tmp_path / "it")
    with pytest.raises(ConfigError, match=r"several GGUF .*: next to its source, allow_patterns: \[x-Q4\.gguf\]"):
        find_model(root, {})


def test_of_several_without_such_a_name_none_is_guessed(tmp_path: Path) -> None:
    for name in ("a-Q4.gguf", "a-Q8.gguf"):
        model(tmp_path / name)
    with pytest.raises(ConfigError, match=r"several GGUF files \(a-Q4.gguf, a-Q8.gguf\).*file://a-Q4.gguf"):
        it.find(tmp_path)


def test_of_several_in_parts_all_parts_of_one_are_to_be_renamed(tmp_path: Path) -> None:
    place = tmp_path / "chat"
    place.mkdir()
    for name in ("q4", "q8"):
        for number in (1, 2):
            model(place / f"{name}-0000{number}-of-00002.gguf")
    with pytest.raises(ConfigError, match=r"or rename all of its parts to chat-…-of-00002\.gguf$"):
        it.find(place)
    for number in (1, 2):
        (place / f"q4-0000{number}-of-00002.gguf").rename(place / f"chat-0000{number}-of-00002.gguf")
    assert it.find(place) == place / "chat-00001-of-00002.gguf"


def test_parts_are_one_model_and_found_by_their_first(tmp_path: Path) -> None:
    names = [f"big-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    for name in names:
        model(tmp_path / name)
    assert it.find(tmp_path) == tmp_path / names[0]
    assert it.find(tmp_path / names[1]) == tmp_path / names[0]
    assert it.parts(tmp_path / names[2]) == [tmp_path / name for name in names]
    place = tmp_path / "big"
    place.mkdir()
    for name in names:
        (tmp_path / name).rename(place / name)
    model(place / "other.gguf")
    assert it.find(place) == place / names[0]


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_missing_part_is_named(missing: int, tmp_path: Path) -> None:
    for number in {1, 2, 3} - {missing}:
        model(tmp_path / f"big-0000{number}-of-00003.gguf")
    with pytest.raises(ConfigError, match=rf"big-0000{missing}-of-00003.gguf is missing; big has 3 parts"):
        it.find(tmp_path)


def test_of_many_missing_parts_the_first_are_named(tmp_path: Path) -> None:
    model(tmp_path / "big-00001-of-99999.gguf")
    with pytest.raises(ConfigError) as said:
        it.find(tmp_path)
    assert str(said.value).endswith("big-00004-of-99999.gguf and 99995 more are missing; big has 99999 parts")
    assert len(str(said.value)) < 200 + len(str(tmp_path))


@given(st.binary(max_size=80), st.booleans())
def test_any_file_is_looked_into(tmp_path_factory: pytest.TempPathFactory, data: bytes, is_gguf: bool) -> None:
    path = tmp_path_factory.mktemp("files") / "x.gguf"
    path.write_bytes((b"GGUF" if is_gguf else b"") + data)
    peeked = it.first_keys(path)
    assert peeked.said.keys() >= set() and peeked.tensors >= -1


@pytest.mark.parametrize(
    "value",
    [struct.pack("<IIQ", 9, 10, 2**62), struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 5000],
    ids=["an array of more than any file holds", "arrays in arrays in arrays"],
)
def test_a_damaged_header_does_not_stop_the_search_for_models(value: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    said = struct.pack("<Q", 1) + b"a" + struct.pack("<IQ", 8, 1) + b"b"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, 3) + said + (struct.pack("<Q", 1) + b"c" + value) * 2)
    assert it.first_keys(path) == it.Peeked({"a": "b"}, 0)


def test_what_git_lfs_leaves_in_the_place_of_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")

    with pytest.raises(ConfigError, match=r"model\.gguf is a Git LFS pointer.*git lfs pull"):
        it.find(tmp_path)


def test_a_download_that_aria2_has_not_finished_is_told(tmp_path: Path) -> None:
    model(tmp_path / "model.gguf")
    (tmp_path / "model.gguf.aria2").touch()

    with pytest.raises(ConfigError, match=r"model\.gguf is incomplete"):
        it.find(tmp_path)


# ── one file by several names ────────────────────────────────────────────────────────────────────────────────────────

LINKS = pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
Link = Callable[[Path, Path], None]


@LINKS
def test_two_names_of_one_file_are_one_model(link: Link, tmp_path: Path) -> None:
    file = model(tmp_path / "b-Q4_K_M.gguf")
    link(tmp_path / "a.gguf", file)
    assert (found := it.find(tmp_path)) is not None
    assert found.samefile(file)
    assert found == file or link is Path.hardlink_to  # of hard links none is the file itself
    assert it.say_passed_over(tmp_path, found) is None


@LINKS
def test_of_two_names_that_of_the_directory_is_the_model(link: Link, tmp_path: Path) -> None:
    file = model(tmp_path / "a.gguf")
    link(tmp_path / f"{tmp_path.name}.gguf", file)
    model(tmp_path / "other.gguf")
    found = it.find(tmp_path, [tmp_path.name])
    assert found == tmp_path / f"{tmp_path.name}.gguf"
    told = it.say_passed_over(tmp_path, found)
    assert told is not None
    assert "other.gguf is another model" in told
    assert "; a.gguf" not in told and " a.gguf" not in told


def test_two_names_of_one_of_two_files_leave_two(tmp_path: Path) -> None:
    (tmp_path / "c.gguf").symlink_to(model(tmp_path / "a.gguf"))
    model(tmp_path / "b.gguf")
    with pytest.raises(ConfigError, match=r"several GGUF files \(a\.gguf, b\.gguf\)"):
        it.find(tmp_path)


def test_the_first_parts_of_a_model_by_two_names_are_one_model(tmp_path: Path) -> None:
    for number in (1, 2):
        file = model(tmp_path / f"a-0000{number}-of-00002.gguf")
        (tmp_path / f"b-0000{number}-of-00002.gguf").symlink_to(file)
    assert it.find(tmp_path) == tmp_path / "a-00001-of-00002.gguf"


def test_the_header_of_a_file_is_read_once_whatever_it_is_called_and_however_often_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(it, "SETTLED", -1.0)
    model(tmp_path / "0.gguf")
    for number in range(1, 40):
        os.link(tmp_path / "0.gguf", tmp_path / f"{number}.gguf")
    read: list[bytes] = []
    peek = it._peek
    monkeypatch.setattr(it, "_peek", lambda data: (read.append(data), peek(data))[1])
    assert it.find(tmp_path) == tmp_path / "0.gguf"
    assert it.find(tmp_path) == tmp_path / "0.gguf"
    assert len(read) == 1
    before = it.first_keys(tmp_path / "0.gguf")
    gguf(tmp_path / "0.gguf", general_architecture="another")
    assert it.first_keys(tmp_path / "0.gguf") != before


def test_no_more_headers_are_remembered_than_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(it, "SETTLED", -1.0)
    monkeypatch.setattr(it, "REMEMBERED", 4)
    monkeypatch.setattr(it, "_known", {})
    for number in range(9):
        it.first_keys(model(tmp_path / f"{number}.gguf"))
    assert len(it._known) == 4


def test_a_file_that_was_written_just_now_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(it, "_known", {})
    it.first_keys(model(tmp_path / "m.gguf"))
    assert it._known == {}


def test_of_very_many_keys_the_first_are_read() -> None:
    keys = b"".join(struct.pack("<Q4sIB", 4, b"%04d" % number, 0, 1) for number in range(2000))
    peeked = it._peek(struct.pack("<4sIQQ", b"GGUF", 3, 1, 2000) + keys)
    assert len(peeked.said) == it.MOST_KEYS
    assert peeked.names == ()


def test_more_files_than_anybody_has_are_told_and_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(it, "MOST_FILES", 5)
    for number in range(6):
        model(tmp_path / f"{number}.gguf")
    monkeypatch.setattr(it, "_peek", lambda data: pytest.fail("it is read"))
    with pytest.raises(ConfigError, match="more than 5 GGUF files, none of which was read"):
        find_model(tmp_path, {})


def test_patterns_do_not_search_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(it, "MOST_LOOKED_AT", 20)
    disk, root = tmp_path / "disk", tmp_path / "model"
    for number in range(4):
        model(disk / f"{number}" / "x.gguf")
    root.mkdir()
    (root / "config.yaml").write_text(f"weights: [{{source: 'file://{disk}', allow_patterns: ['2/*']}}]\n")
    assert it.find(disk, [], peek_patterns(root)) == disk / "2" / "x.gguf"
    for number in range(4):
        for more in range(10):
            (disk / f"{number}" / f"{more}.txt").touch()
    with pytest.raises(ConfigError, match=r"more than 20 files and folders .* name the folder of the model") as refused:
        it.find(disk, [], peek_patterns(root))
    assert "\n" not in str(refused.value)
