"""Which directories are classifiers and cross encoders, what they answer, and which are refused with what reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gateway_classifiers
import gateway_sentence_transformers
import pytest

pytest.importorskip("transformers")
from classifier_folders import load, save
from gateway_classifiers import find_model

from gateway import ConfigError

CROSS = {"model_type": "CrossEncoder", "prompts": {}, "default_prompt_name": None}
MODULE = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    return {count: save(tmp_path_factory.mktemp(f"labels-{count}"), labels=count) for count in (1, 2)}


@pytest.fixture
def make(folders: dict[int, Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of a checkpoint with other settings in config.json, and other files: objects become JSON."""

    def make(labels: int = 2, files: dict[str, Any] | None = None, **settings: Any) -> Path:
        path = Path(shutil.copytree(folders[labels], tmp_path / "it"))
        config = json.loads((path / "config.json").read_text())
        kept = {key: value for key, value in {**config, **settings}.items() if value is not None}
        (path / "config.json").write_text(json.dumps(kept))
        for name, content in (files or {}).items():
            (path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return make


def refused(path: Path, says: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """The load and `gateway check` say the same."""
    with pytest.raises(ConfigError, match=says) as error:
        load(path, monkeypatch, options=options)
    spec = find_model(path, {})
    assert spec is not None
    (problem,) = gateway_classifiers.check_model(spec)
    assert str(error.value).removeprefix(f"{path}: ") == problem.what
    assert problem.code == "unloadable"


# ── whose directory it is ────────────────────────────────────────────────────────────────────────────────────────────


def test_labels_decide_what_a_directory_answers(folders: dict[int, Path]) -> None:
    many, one = find_model(folders[2], {}), find_model(folders[1], {})
    assert many is not None and one is not None
    assert (many.target, one.target) == (
        "gateway_classifiers.model:Classifier",
        "gateway_classifiers.model:CrossEncoder",
    )
    assert (many.format, many.batching.size, many.limits.slots) == ("classifiers", 32, 64)


def test_the_batch_size_and_the_slots_of_the_operator_count(make: Callable[..., Path]) -> None:
    path = make(files={"config.yaml": "runtime: {batch_size: 8}"})
    spec = find_model(path, {})
    assert spec is not None and (spec.batching.size, spec.limits.slots) == (8, 16)
    spec = find_model(path, {"batch_size": 4, "slots": 3})
    assert spec is not None and (spec.batching.size, spec.limits.slots) == (4, 3)
    spec = find_model(path, {"slots": 3})
    assert spec is not None and (spec.batching.size, spec.limits.slots) == (8, 3)


def test_an_embedding_model_or_own_code_is_not_ours(make: Callable[..., Path]) -> None:
    path = make(files={"modules.json": [MODULE]})
    assert find_model(path, {}) is None and gateway_sentence_transformers.find_model(path, {}) is not None
    (path / "modules.json").unlink()
    assert find_model(path, {}) is not None
    (path / "model.py").write_text("class Model: ...")
    assert find_model(path, {}) is None


def test_the_files_of_a_cross_encoder_do_not_make_it_an_embedding_model(make: Callable[..., Path]) -> None:
    path = make(1, files={"modules.json": [MODULE], "config_sentence_transformers.json": CROSS})
    assert find_model(path, {}) is not None and gateway_sentence_transformers.find_model(path, {}) is None


def test_the_option_task_says_it_before_the_weights_are_there(tmp_path: Path, make: Callable[..., Path]) -> None:
    (tmp_path / "elsewhere").mkdir()
    config = tmp_path / "elsewhere" / "config.yaml"
    config.write_text("framework: classifiers\nweights: [{source: hf://owner/none}]\n")
    for options, name in (({}, "Classifier"), ({"task": "rerank"}, "CrossEncoder")):
        spec = find_model(config.parent, {"options": options})
        assert spec is not None and spec.target.endswith(f":{name}")
    with pytest.raises(ConfigError, match=r"must be one of classify, rerank, zero-shot, not 'score'"):
        find_model(config.parent, {"options": {"task": "score"}})
    with pytest.raises(ConfigError, match=r"options.task is rerank, but config.json has 2 labels.*remove the option"):
        find_model(make(), {"options": {"task": "rerank"}})


def test_labels_that_were_not_known_before_the_download_are_compared(
    folders: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway_classifiers.model import Classifier, CrossEncoder

    for count, kind, task in ((1, Classifier, "rerank"), (2, CrossEncoder, "classify")):
        monkeypatch.chdir(folders[count])
        with pytest.raises(ConfigError, match=f"set options.task to {task}"):
            kind({}).load()


def test_another_kind_under_this_framework_is_named(checkpoint: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(checkpoint, tmp_path / "it"))
    (path / "config.yaml").write_text("framework: classifiers\n")
    spec = find_model(path, {})
    assert spec is not None
    (problem,) = gateway_classifiers.check_model(spec)
    assert "LlamaForCausalLM, a language model" in problem.what


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("labels", "settings", "says"),
    [
        (2, {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": None}, "has 3 labels, and no tensor has as many"),
        (2, {"problem_type": "regression"}, "computes several numbers"),
        (2, {"transformers_weights": "pytorch_model.bin"}, "pytorch_model.bin"),
        (1, {"sbert_ce_default_activation_function": "os.getcwd"}, "with os.getcwd, which is not served"),
        (1, {"sentence_transformers": {"activation_fn": "torch.hub.load"}}, "torch.hub.load, which is not served"),
        (2, {"attn_implementation": "owner/kernel"}, "is code"),
        (2, {"num_hidden_layers": 9}, "lacks 7 of the 9 layers"),
    ],
)
def test_settings_that_cannot_be_served_are_named(
    labels: int, settings: dict[str, Any], says: str, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(make(labels, **settings), says, monkeypatch)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"id2label": {"0": "same", "1": "same"}}, "names two classes same"),
        ({"id2label": {"0": "a", "7": "b"}}, "not numbered from 0 on"),
        ({"id2label": ["a", "b"]}, "does not map numbers to labels"),
        ({"id2label": {}}, "has 0 labels"),
        ({"id2label": None, "num_labels": 100_001}, "num_labels of config.json is 100001"),
        ({"id2label": None, "num_labels": "2"}, "num_labels of config.json is 2"),
    ],
)
def test_labels_that_are_none_are_refused(settings: dict[str, Any], says: str, make: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=says):
        find_model(make(**settings), {})


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"modules.json": [MODULE, {**MODULE, "path": "1", "type": "x.LogitScore"}]}, "lists Transformer, LogitScore"),
        ({"modules.json": [{**MODULE, "path": "../other"}]}, "only a cross encoder of one Transformer"),
        ({"modules.json": [{**MODULE, "type": "evil.Transformer"}]}, "only a cross encoder of one Transformer"),
        ({"modules.json": "{"}, "modules.json is not a list of modules"),
        ({"sentence_bert_config.json": {"model_args": {"trust_remote_code": True}}}, "sets model_args to something"),
        ({"sentence_bert_config.json": {"tokenizer_name_or_path": "../x"}}, "sets tokenizer_name_or_path"),
        ({"sentence_bert_config.json": {"max_seq_length": "all"}}, "which is no length"),
        ({"sentence_bert_config.json": []}, "is not an object"),
        (
            {"config_sentence_transformers.json": {**CROSS, "prompts": {"q": "Q: "}, "default_prompt_name": "q"}},
            "puts a prompt before each text",
        ),
        ({"config_sentence_transformers.json": {**CROSS, "activation_fn": "evil.Sigmoid"}}, "evil.Sigmoid"),
        ({"tokenizer_config.json": {"vocab_file": "../../vocab.txt"}}, "leads out of the directory"),
    ],
)
def test_files_of_a_cross_encoder_that_compute_something_else_are_named(
    files: dict[str, Any], says: str, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(make(1, {"config_sentence_transformers.json": CROSS, **files}), says, monkeypatch)


@pytest.mark.parametrize("is_named", [False, True])
def test_a_pickle_beside_another_file_of_weights_is_not_opened(
    is_named: bool, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(transformers_weights="pytorch_model.bin" if is_named else None)
    (path / "model.safetensors").rename(path / "other.safetensors")
    (path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    refused(path, "its weights are a pickle", monkeypatch)


def test_a_base_model_gets_no_random_head(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file, save_file

    path = make()
    tensors = load_file(path / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if not name.startswith("classifier.")}
    save_file(kept, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ConfigError, match=r"lacks 2 of the tensors of a BertForSequenceClassification, classifier.bias"
    ):
        load(path, monkeypatch)  # its other matrices have two rows too


def test_a_tokenizer_without_words_is_noticed(make: Callable[..., Path]) -> None:
    path = make()
    (path / "tokenizer.json").unlink()
    spec = find_model(path, {})
    assert spec is not None
    (problem,) = gateway_classifiers.check_model(spec)
    assert "tokenizer" in problem.what


def test_two_saves_in_one_directory_are_noted(make: Callable[..., Path]) -> None:
    path = make()
    shutil.copy(path / "model.safetensors", path / "model-00001-of-00002.safetensors")
    spec = find_model(path, {})
    assert spec is not None and any("two saves" in note for note in spec.notes)


def test_the_option_truncate_is_a_flag(folders: dict[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"options.truncate must be true or false, not 'yes'"):
        load(folders[2], monkeypatch, options={"truncate": "yes"})
