"""gateway new --from: weights that exist become a model directory; if they cannot, it says why and leaves nothing."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import Result

Run = Callable[..., Result]
DEMOS = Path(__file__).parents[2] / "models"


def served(run: Run) -> dict[str, str]:
    return {row["name"]: row["format"] for row in json.loads(run("models", "--json").stdout)}


@pytest.mark.parametrize(
    ("source", "format"),
    [
        (DEMOS / "wine/model.ubj", "xgboost"),
        (DEMOS / "digits-cnn/model.onnx", "onnx"),
        (DEMOS / "digits/model.skops", "sklearn"),
        (DEMOS / "digits", "sklearn"),
        (DEMOS / "diabetes", "lightgbm"),
        (DEMOS / "tiny-chat", "transformers"),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_a_file_or_a_directory_is_served_where_it_is(run: Run, source: Path, format: str) -> None:
    result = run("new", "models/mine", "--from", str(source))
    assert result.exit_code == 0, result.output
    assert f"a model of {format}" in result.stdout and "It answers " in result.stdout
    assert result.stdout.splitlines()[-1] == "  gateway serve --models models"
    assert [path.name for path in Path("models/mine").iterdir()] == ["config.yaml"]
    assert yaml.safe_load(Path("models/mine/config.yaml").read_text()) == {"weights": [{"source": source.as_uri()}]}
    assert run("check").exit_code == 0
    assert served(run) == {"mine": format}


def test_a_path_with_odd_characters_is_written_so_that_it_is_read_as_it_is(run: Run) -> None:
    place = Path("a: b #c/it's").absolute()
    place.mkdir(parents=True)
    (place / "model.ubj").write_bytes((DEMOS / "wine/model.ubj").read_bytes())
    assert run("new", "models/mine", "--from", str(place)).exit_code == 0
    assert served(run) == {"mine": "xgboost"}


def test_a_pickle_needs_a_line_of_the_operator_which_is_shown(run: Run) -> None:
    from sklearn.linear_model import LinearRegression

    Path("a.pkl").write_bytes(pickle.dumps(LinearRegression().fit([[1], [2]], [1, 2])))
    shown = run("new", "models/mine", "--from", "a.pkl").stdout.splitlines()
    start = shown.index('  [models."mine"]')
    assert shown[start + 1].startswith("  allow_pickle = true")
    assert run("check").exit_code == 1  # not yet allowed
    Path("gateway.toml").write_text("\n".join(shown[start : start + 2]) + "\n")
    assert run("check").exit_code == 0
    assert served(run) == {"mine": "sklearn"}


def test_a_repository_of_the_hub_needs_the_name_of_its_framework(run: Run) -> None:
    refused = run("new", "models/mine", "--from", "hf:owner/name")
    assert refused.exit_code == 1 and "--framework" in refused.output and "transformers" in refused.output
    assert run("new", "models/mine", "--from", "hf:owner/name@v1", "--framework", "transformers").exit_code == 0
    assert yaml.safe_load(Path("models/mine/config.yaml").read_text()) == {
        "weights": [{"source": "hf://owner/name@v1"}],
        "framework": "transformers",
    }


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--from", "nosuch"], "no such file or directory"),
        (["--from", "./no/such"], "no such file or directory"),
        (["--from", "notes.txt"], "no plugin serves it"),
        (["--from", "model.tflite"], "TensorFlow Lite"),
        (["--from", str(DEMOS / "shout")], "is a model directory already"),
        (["--from", "owner/name", "--framework", "nonesuch"], "no plugin serves framework 'nonesuch' (have: "),
        (["--from", "notes.txt", "--template", "chat"], "exclude each other"),
        (["--framework", "transformers"], "--framework says what the weights of --from are"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_what_cannot_be_served_leaves_nothing_behind(run: Run, options: list[str], told: str) -> None:
    Path("notes.txt").write_text("nothing")
    Path("model.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(64))
    result = run("new", "models/mine", *options)
    assert result.exit_code != 0 and told in result.output
    assert not Path("models/mine").exists()


def test_an_empty_directory_that_was_there_is_left_as_it_was(run: Run) -> None:
    Path("models/mine").mkdir(parents=True)
    Path("notes.txt").write_text("nothing")
    assert run("new", "models/mine", "--from", "notes.txt").exit_code == 1
    assert list(Path("models/mine").iterdir()) == []
