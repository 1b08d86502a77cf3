"""Files of a model directory that are small, or many, and of which each part was once compared with each other part.

A start, a reload and `gateway check` look at every directory: its files decide how many labels, names, parts, patterns
and sources there are, and none of these numbers may be multiplied by itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from costs import least_seconds
from gateway_checkpoints import labels
from gateway_checkpoints.weights import say_weights
from gateway_language.gguf import files as gguf
from gateway_spacy.settings import read_settings
from gateway_tabular.columns import _any_of
from gateway_transformers.directories import say_incomplete
from gateway_xgboost.structure import _each_once

from gateway import ConfigError, named_file
from gateway.directories.config.config import read_config
from gateway.directories.unserved import architectures, companions
from gateway.files import ordinary

MANY = 30_000


def refused(work: Callable[[], object], told: str) -> Callable[[], None]:
    def run() -> None:
        with pytest.raises((ConfigError, ValueError), match=told):
            work()

    return run


def test_a_label_that_is_there_twice_is_found_in_one_pass(tmp_path: Path) -> None:
    named = {str(number): f"label {number}" for number in range(MANY)} | {str(MANY - 1): f"label {MANY - 2}"}
    work = refused(lambda: labels.labels_of(tmp_path, {"id2label": named}), f"names two classes label {MANY - 2}")
    assert least_seconds(work, 0.5) < 0.5


def test_an_empty_label_that_is_there_twice_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="names two classes"):
        labels.labels_of(tmp_path, {"id2label": {"0": "", "1": "a", "2": ""}})


def test_a_name_that_is_there_twice_is_found_in_one_pass() -> None:
    pairs: list[tuple[str, Any]] = [(str(number), 0) for number in range(MANY)]
    work = refused(lambda: _each_once([*pairs, pairs[-1]]), f"'{MANY - 1}' is there twice")
    assert least_seconds(work, 0.5) < 0.5


def test_the_schemas_of_very_many_columns_are_told_apart_in_one_pass() -> None:
    schemas: list[dict[str, Any]] = [{"enum": [f"category {number}", None]} for number in range(MANY // 3)]
    found: list[Any] = []
    assert least_seconds(lambda: found.append(_any_of([*schemas, *schemas])), 0.5) < 0.5
    assert found[0] == {"anyOf": schemas}


@pytest.mark.parametrize("name", ["{}", "a/{}", "a/b/c/{}"])
def test_files_name_only_so_many_others_as_a_model_has(name: str, tmp_path: Path) -> None:
    """Whether a name leads out of the directory is asked of the file system, for each of its parts."""
    (tmp_path / "config.json").write_text("{}")
    index = {"weight_map": {str(number): name.format(number) for number in range(ordinary.MOST_PARTS + 1)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    for look in (say_incomplete, say_weights):
        with (
            ordinary.within(tmp_path, allow_links=False),
            pytest.raises(ConfigError, match=r"index\.json names more files than any model has"),
        ):
            look(tmp_path)


def test_a_name_of_very_many_parts_is_one_too_many(tmp_path: Path) -> None:
    with (
        ordinary.within(tmp_path, allow_links=False),
        pytest.raises(ConfigError, match=r"a\.json names more files than any model has"),
    ):
        named_file(tmp_path, "a/" * (ordinary.MOST_PARTS + 1), "a.json")


def test_a_name_counts_once_however_often_it_is_looked_at(tmp_path: Path) -> None:
    with ordinary.within(tmp_path, allow_links=False):
        for number in range(ordinary.MOST_PARTS + 10):
            named_file(tmp_path, f"part-{number % 10}", "index.json")


def test_parts_that_a_name_claims_are_not_looked_for_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m-00001-of-99999.gguf").write_bytes(b"GGUF")
    (tmp_path / "model-00001-of-99999.safetensors").touch()
    asked: list[Path] = []
    is_file = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda path, **more: asked.append(path) or is_file(path, **more))
    with pytest.raises(ConfigError, match="and 99995 more are missing; m has 99999 parts"):
        gguf.parts(tmp_path / "m-00001-of-99999.gguf")
    with pytest.raises(ConfigError, match="one of 99999 parts by its name: no model has so many"):
        say_incomplete(tmp_path)
    assert len(asked) < 10


LONG = "file:///" + "a" * 5000
DEEP = "file:///" + "a/" * 200
WEIGHTS = {
    "many": ([{"source": "file://a"}] * 101, "weights has 101 entries, and may have 100"),
    "long": ([{"source": LONG}], r"weights\[0\]\.source has 5008 characters, and may have 4096"),
    "deep": ([{"source": DEEP}], r"weights\[0\]\.source has more than 100 levels"),
    "a deep place": (
        [{"source": "file://a", "mount_location": "/a" * 200}],
        r"weights\[0\]\.mount_location has more than 100 levels",
    ),
    "patterns": (
        [{"source": "file://a", "allow_patterns": ["a"] * 101}],
        r"weights\[0\]\.allow_patterns has 101 patterns, and may have 100",
    ),
    "a long pattern": (
        [{"source": "file://a", "ignore_patterns": ["*a" * 600]}],
        r"weights\[0\]\.ignore_patterns has a pattern of more than 1000 characters",
    ),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_a_config_names_only_so_many_weights_as_a_model_has(kind: str, tmp_path: Path) -> None:
    entries, told = WEIGHTS[kind]
    (tmp_path / "config.yaml").write_text(json.dumps({"weights": entries}))
    (error,) = read_config(tmp_path).errors[:1]
    with pytest.raises(ValueError, match=told):
        raise ValueError(str(error))


def test_as_many_weights_as_a_model_may_have_are_no_problem(tmp_path: Path) -> None:
    entry = {"source": "file://" + "a/" * 90, "allow_patterns": ["a"] * 100}
    (tmp_path / "config.yaml").write_text(json.dumps({"weights": [entry] * 100}))
    assert not read_config(tmp_path).errors


def test_of_very_many_architectures_a_few_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    describe = architectures._describe
    monkeypatch.setattr(architectures, "_describe", lambda name, config: looked.append(name) or describe(name, config))
    found = architectures.describe_architecture({"architectures": ["XForImageClassification"] * MANY})
    assert found is not None and found.task == "image-classification"
    assert len(looked) <= architectures.MOST_NAMES


def test_files_that_go_with_any_file_of_a_kind_are_looked_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory may have as many files of the one kind as of the other."""
    models, shards = [f"m{number}.json" for number in range(200)], [f"group1-shard{n}of200.bin" for n in range(200)]
    compared: list[str] = []
    matches = companions.fnmatchcase
    monkeypatch.setattr(companions, "fnmatchcase", lambda name, *more: compared.append(name) or matches(name, *more))
    (tmp_path / "m7.json").write_text('{"modelTopology": {}}')
    found = companions.companions(tmp_path, [*models, *shards, "m7.weights.bin"])
    assert found == {*shards, "m7.weights.bin"}
    assert len(compared) < 3 * (len(models) + len(shards))


def test_settings_of_a_pipeline_are_not_repeated_in_each_section(tmp_path: Path) -> None:
    """Of `configparser`, whose [DEFAULT] is part of all others."""
    for text, told in (
        ('[DEFAULT]\na = 1\n\n[nlp]\nlang = "en"\n', r"a section \[DEFAULT\], which spaCy does not write"),
        (f"[{'a.' * 100}b]\nc = 1\n", "a section is nested more than 50 levels deep"),
    ):
        (tmp_path / "config.cfg").write_text(text)
        with pytest.raises(ConfigError, match=told):
            read_settings(tmp_path)
