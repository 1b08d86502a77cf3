"""Which directories are served with which task, and which are refused with what reason."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gateway_pipelines
import pytest

pytest.importorskip("transformers")
from gateway_pipelines import find_model
from pipeline_folders import ANIMALS, ENTITIES, load, named, save_images, save_sounds, save_texts

from gateway import ConfigError

SEVEN = {str(number): f"label {number}" for number in range(7)}
TASKS = ["token-classification", "fill-mask", "question-answering", "image-classification", "audio-classification"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tasks")
    return {
        "token-classification": save_texts(root / "entities", "AutoModelForTokenClassification", **named(ENTITIES)),
        "fill-mask": save_texts(root / "gaps", "AutoModelForMaskedLM"),
        "question-answering": save_texts(root / "answers", "AutoModelForQuestionAnswering"),
        "image-classification": save_images(root / "images"),
        "audio-classification": save_sounds(root / "sounds"),
    }


@pytest.fixture
def make(folders: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of a checkpoint with other settings in config.json, and other files: objects become JSON, None goes."""

    def make(task: str, files: dict[str, Any] | None = None, **settings: Any) -> Path:
        path = Path(shutil.copytree(folders[task], tmp_path / "it"))
        config = json.loads((path / "config.json").read_text())
        kept = {key: value for key, value in {**config, **settings}.items() if value is not None}
        (path / "config.json").write_text(json.dumps(kept))
        for name, content in (files or {}).items():
            if content is None:
                (path / name).unlink()
            else:
                (path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return make


def refused(path: Path, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The load and `gateway check` say the same."""
    with pytest.raises(ConfigError, match=says) as error:
        load(path, monkeypatch)
    spec = find_model(path, {})
    assert spec is not None
    (problem,) = gateway_pipelines.check_model(spec)
    assert str(error.value).removeprefix(f"{path}: ") == problem.what
    assert problem.code == "unloadable"


@pytest.mark.parametrize("task", TASKS)
def test_the_architecture_decides_the_task(task: str, folders: dict[str, Path]) -> None:
    from gateway_pipelines.tasks import BY_NAME

    spec = find_model(folders[task], {})
    assert spec is not None and spec.target == BY_NAME[task].target and spec.format == "pipelines"
    assert spec.batching.size == BY_NAME[task].batch and spec.needs[:2] == ("transformers", "torch")
    assert list(gateway_pipelines.check_model(spec)) == []
    assert any("sentence-transformers" in note for note in spec.asides) is (task == "fill-mask")


def test_a_directory_is_recognised_and_checked_without_the_library(folders: dict[str, Path]) -> None:
    code = (
        "import sys; sys.path.insert(0, 'plugins'); import gateway_pipelines as it, pathlib\n"
        "for each in sys.argv[1:]:\n"
        "    assert list(it.check_model(it.find_model(pathlib.Path(each), {}))) == []\n"
        "assert not {'torch', 'transformers', 'PIL', 'soundfile', 'numpy'} & set(sys.modules), sys.modules\n"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code, *map(str, folders.values())], check=True, cwd=root, timeout=100)


def test_own_code_and_other_frameworks_are_not_ours(make: Callable[..., Path]) -> None:
    path = make("fill-mask", files={"config.yaml": "framework: sentence-transformers"})
    assert find_model(path, {}) is None
    (path / "config.yaml").write_text("framework: pipelines\n")
    spec = find_model(path, {})
    assert spec is not None and spec.asides == ()
    (path / "config.yaml").unlink()
    (path / "model.py").write_text("class Model: ...")
    assert find_model(path, {}) is None
    (path / "model.py").unlink()
    (path / "modules.json").write_text("[]")
    assert find_model(path, {}) is None


def test_features_are_an_option(folders: dict[str, Path], make: Callable[..., Path]) -> None:
    path = make("fill-mask", files={"config.yaml": "framework: pipelines"}, architectures=["BertModel"])
    spec = find_model(path, {})
    assert spec is not None and spec.target.endswith(":Features")
    spec = find_model(folders["fill-mask"], {"options": {"task": "feature-extraction"}})
    assert spec is not None and spec.target.endswith(":Features")
    for task, options, says in (
        ("fill-mask", "question-answering", "is question-answering, but config.json has BertForMaskedLM, a model that"),
        ("image-classification", "feature-extraction", "but config.json has ViTForImageClassification"),
        ("fill-mask", "summarization", "must be one of token-classification, .*, not 'summarization'"),
    ):
        with pytest.raises(ConfigError, match=says):
            find_model(folders[task], {"options": {"task": options}})


def test_the_option_task_says_it_before_the_weights_are_there(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("framework: pipelines\nweights: [{source: hf://owner/none}]\n")
    spec = find_model(tmp_path, {"options": {"task": "audio-classification"}})
    assert spec is not None and spec.target.endswith(":Sounds") and spec.needs[-1] == "soundfile"


@pytest.mark.parametrize(
    ("task", "settings", "files", "says"),
    [
        ("token-classification", {"id2label": SEVEN, "label2id": None}, {}, "has 7 labels, and no tensor has as many"),
        ("token-classification", {"id2label": {"0": "O", "1": "O"}, "label2id": None}, {}, "names two classes O"),
        ("fill-mask", {"attn_implementation": "owner/kernel"}, {}, "is code"),
        ("fill-mask", {"auto_map": {"AutoModel": "code.Model"}, "model_type": "own"}, {}, "code that comes with it"),
        ("fill-mask", {"num_hidden_layers": 9}, {}, "lacks 7 of the 9 layers"),
        ("question-answering", {}, {"tokenizer_config.json": {"vocab_file": "../../x"}}, "leads out of the directory"),
        ("image-classification", {}, {"preprocessor_config.json": None}, "no preprocessor_config.json"),
        ("image-classification", {}, {"preprocessor_config.json": "["}, "preprocessor_config.json cannot be read"),
        (
            "image-classification",
            {},
            {"preprocessor_config.json": {"image_processor_type": "ViTImageProcessor", "size": {"height": 10**9}}},
            "size in its processor's settings is 1000000000",
        ),
        (
            "audio-classification",
            {},
            {"preprocessor_config.json": {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 0}},
            "feature_size in its processor's settings is 0",
        ),
    ],
)
def test_settings_that_cannot_be_served_are_named(
    task: str,
    settings: dict[str, Any],
    files: dict[str, Any],
    says: str,
    make: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused(make(task, files, **settings), says, monkeypatch)


@pytest.mark.parametrize("task", TASKS)
def test_a_pickle_is_not_opened(task: str, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(task)
    (path / "model.safetensors").rename(path / "other.safetensors")
    (path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    refused(path, "its weights are a pickle", monkeypatch)


def test_a_base_model_gets_no_random_head(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file, save_file

    path = make("question-answering")
    tensors = load_file(path / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if not name.startswith("qa_outputs.")}
    save_file(kept, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks 2 of the tensors of a BertForQuestionAnswering, qa_outputs.bias"):
        load(path, monkeypatch)


def test_a_code_processor_is_not_run(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    code = {"image_processor_type": "Own", "auto_map": {"AutoImageProcessor": "evil.Own"}, "size": {"height": 16}}
    path = make("image-classification", {"preprocessor_config.json": code, "evil.py": "raise SystemExit(1)\n"})
    with pytest.raises(ConfigError, match="what prepares its inputs cannot be loaded"):
        load(path, monkeypatch)


def test_labels_of_two_kinds_of_sound_models_are_recognised() -> None:
    from gateway.directories.unserved.architectures import describe_architecture

    for name, keys in (("Wav2Vec2ForSequenceClassification", {"conv_dim": [9]}), ("ASTForAudioClassification", {})):
        found = describe_architecture({"architectures": [name], **keys, **named(ANIMALS)})
        assert found is not None and found.task == "audio-classification" and "the plugin pipelines" in found.fix
