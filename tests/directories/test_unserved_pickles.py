"""A pickle is told by what it holds, whatever its file is called; texts that look like one are not."""

from __future__ import annotations

import pickle
import zlib
from pathlib import Path

import pytest

from gateway.directories.unserved.unserved import find_unserved

WEIGHTS = {"weights": list(range(50))}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", ["weights", "forest.v2", "clf.json", "model.txt", "scaler.cfg", ".cache", "a.csv"])
def test_a_pickle_of_any_name_is_seen(tmp_path: Path, name: str, protocol: int) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(WEIGHTS, protocol))
    found = find_unserved(tmp_path)
    assert found is not None and "a pickle" in found.what and f"({name})" in found.what


def test_what_joblib_compressed_is_seen_by_any_name(tmp_path: Path) -> None:
    (tmp_path / "forest.dat2").write_bytes(zlib.compress(pickle.dumps(WEIGHTS)))
    (tmp_path / "forest.yaml").write_bytes(zlib.compress(pickle.dumps(WEIGHTS)))
    found = find_unserved(tmp_path)
    assert found is not None and "(forest.dat2, forest.yaml)" in found.what


@pytest.mark.parametrize("text", ["cat\ndog\n", "(dp0\n", "ccopy_reg\n_reconstructor\n"])
def test_a_text_by_the_name_of_one_is_no_pickle(tmp_path: Path, text: str) -> None:
    (tmp_path / "vocabulary.txt").write_text(text)
    assert find_unserved(tmp_path) is None


def test_one_behind_many_pictures_is_seen_and_none_of_those_is_a_model(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"{number}.png").write_bytes(b"\x89PNG\r\n")
    assert find_unserved(tmp_path) is None
    (tmp_path / "zz").write_bytes(pickle.dumps(WEIGHTS))
    assert "(zz)" in (find_unserved(tmp_path) or pytest.fail("no line")).what
