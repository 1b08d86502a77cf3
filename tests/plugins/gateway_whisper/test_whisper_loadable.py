"""Which directories are Whisper, computed by what, and which are refused with what reason."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gateway_whisper
import pytest

pytest.importorskip("transformers")
pytest.importorskip("soundfile")
pytest.importorskip("ctranslate2")
from gateway_whisper import CHECKPOINT, CONVERTED, find_model
from gateway_whisper.binary import fault
from whisper_folders import convert, load, save_whisper

from gateway import ConfigError


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("whisper")
    made = save_whisper(root / "checkpoint")
    return {"checkpoint": made, "converted": convert(made, root / "converted")}


@pytest.fixture
def make(folders: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy with other files: objects become JSON, None goes, and `...` merges into what is there."""

    def make(kind: str, **files: Any) -> Path:
        path = Path(shutil.copytree(folders[kind], tmp_path / "it"))
        for stem, content in files.items():
            file = path / f"{stem}.json" if "_bin" not in stem else path / stem.replace("_bin", ".bin")
            if content is None:
                file.unlink()
            elif isinstance(content, bytes):
                file.write_bytes(content)
            elif isinstance(content, str):
                file.write_text(content)
            else:
                merged = {**json.loads(file.read_text()), **content}
                file.write_text(json.dumps({key: value for key, value in merged.items() if value is not None}))
        return path

    return make


def test_both_kinds_are_recognised_and_checked_without_their_libraries(folders: dict[str, Path]) -> None:
    for kind, target in (("checkpoint", CHECKPOINT), ("converted", CONVERTED)):
        spec = find_model(folders[kind], {})
        assert spec is not None and (spec.target, spec.format, spec.limits.slots) == (target, "whisper", 1)
    code = (
        "import sys; sys.path.insert(0, 'plugins'); import gateway_whisper as it, pathlib\n"
        "for each in sys.argv[1:]:\n"
        "    assert list(it.check_model(it.find_model(pathlib.Path(each), {}))) == []\n"
        "assert not {'torch', 'transformers', 'ctranslate2', 'soundfile', 'numpy'} & set(sys.modules)\n"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code, *map(str, folders.values())], check=True, cwd=root, timeout=100)


def test_own_code_and_other_weights_of_ctranslate_are_not_ours(make: Callable[..., Path]) -> None:
    path = make("converted", model_bin=b"\x06\0\0\0\x10\0TransformerSpec\0" + bytes(100))
    assert find_model(path, {}) is None
    shutil.rmtree(path)
    path = make("converted")
    (path / "model.py").write_text("class Model: ...")
    assert find_model(path, {}) is None


@pytest.mark.parametrize(
    ("kind", "files", "says"),
    [
        ("checkpoint", {"preprocessor_config": None}, "no preprocessor_config.json"),
        ("checkpoint", {"preprocessor_config": {"feature_size": 10**9}}, "feature_size in preprocessor_config.json is"),
        ("checkpoint", {"generation_config": {"no_timestamps_token_id": None}}, "lacks no_timestamps_token_id"),
        ("checkpoint", {"generation_config": "{"}, "generation_config.json cannot be read"),
        ("checkpoint", {"config": {"auto_map": {"AutoModel": "x.Y"}, "model_type": "own"}}, "code that comes with it"),
        ("checkpoint", {"tokenizer_config": {"vocab_file": "../../x"}}, "leads out of the directory"),
        ("converted", {"tokenizer": None}, "no tokenizer.json: get that of the model that was converted"),
        ("converted", {"tokenizer": "{"}, "tokenizer.json cannot be read"),
        ("converted", {"vocabulary": None}, "no vocabulary.json"),
        ("converted", {"preprocessor_config": {"chunk_length": 86_400}}, "chunk_length in preprocessor_config.json is"),
        ("converted", {"config": "[]"}, "config.json is not an object"),
    ],
)
def test_a_folder_that_cannot_be_served_is_named(
    kind: str, files: dict[str, Any], says: str, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(kind, **files)
    with pytest.raises(ConfigError, match=says) as error:
        load(path, monkeypatch)
    spec = find_model(path, {})
    assert spec is not None
    (problem,) = gateway_whisper.check_model(spec)
    assert str(error.value).removeprefix(f"{path}: ") == problem.what
    assert problem.code == "unloadable"


def test_sizes_in_converted_weights_have_to_fit_each_other(folders: dict[str, Path], tmp_path: Path) -> None:
    data = (folders["converted"] / "model.bin").read_bytes()
    file, of = tmp_path / "model.bin", random.Random(0)
    for end in [*range(4, 200), *(of.randrange(4, len(data)) for _ in range(200)), len(data) - 1]:
        file.write_bytes(data[:end])
        assert fault(file) is not None
    file.write_bytes(data + b"\0")
    assert fault(file) == f"has {len(data) + 1:,} bytes, and its variables {len(data):,}"
    for _ in range(500):  # whatever is written in it, it is read to its end or told
        odd = bytearray(data)
        odd[of.randrange(400)] = of.randrange(256)
        file.write_bytes(odd)
        assert fault(file) is None or len(fault(file) or "") < 200
    file.write_bytes(data)
    assert fault(file) is None


def test_missing_layers_fail_the_load(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"lacks .* of the tensors of a WhisperForConditionalGeneration"):
        load(make("checkpoint", config={"encoder_layers": 9}), monkeypatch)


def test_weights_that_are_cut_fail_the_load(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = make("converted")
    whole = (path / "model.bin").read_bytes()
    (path / "model.bin").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="CTranslate2 cannot load this checkpoint"):
        load(path, monkeypatch)


def test_a_pickle_is_not_opened(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = make("checkpoint")
    (path / "model.safetensors").rename(path / "other.safetensors")
    (path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ConfigError, match="its weights are a pickle"):
        load(path, monkeypatch)


def test_its_languages_are_those_of_the_libraries() -> None:
    from faster_whisper.tokenizer import _LANGUAGE_CODES
    from gateway_whisper.languages import NAMES
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    assert LANGUAGES == NAMES and set(_LANGUAGE_CODES) == set(NAMES)
