"""The library passes what configs of modules say to its classes: only what is known to be harmless may stand there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from gateway_sentence_transformers import check_model, find_model, module_configs
from gateway_sentence_transformers.loadable import say_unloadable
from st_folders import loaded

from gateway import ConfigError

FILE = "sentence_bert_config.json"


@pytest.fixture
def copied(embedder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(embedder, tmp_path / "it")


def told(place: Path) -> list[str]:
    spec = find_model(place, {})
    assert spec is not None
    return [f"{problem.where}: {problem.what}" for problem in check_model(spec) if problem.level == "error"]


def write(file: Path, **more: Any) -> None:
    before = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**before, **more}))


REFUSED = {
    "model_args.weights_only": {"model_args": {"weights_only": False}},
    "model_kwargs.weights_only": {"model_kwargs": {"weights_only": True}},
    "model_args.attn_implementation": {"model_args": {"attn_implementation": "some/kernel"}},
    "model_args.use_safetensors": {"model_args": {"use_safetensors": False}},
    "model_args.dtype": {"model_args": {"dtype": "hub"}},
    "model_args.…": {"model_args": [1]},
    "tokenizer_args.vocab_file": {"tokenizer_args": {"vocab_file": "vocab"}},
    "processor_kwargs.padding_side": {"processor_kwargs": {"padding_side": {"a": 1}}},
    "config_args.gguf_file": {"config_args": {"gguf_file": "x.gguf"}},
    "config_kwargs._configuration_file": {"config_kwargs": {"_configuration_file": "x.json"}},
    "transformer_task": {"transformer_task": "retrieval"},
    "modality_config.text.method = 'save_pretrained'": {"modality_config": {"text": {"method": "save_pretrained"}}},
    "modality_config.text.other": {"modality_config": {"text": {"other": 1}}},
    "processing_kwargs.text.return_tensors": {"processing_kwargs": {"text": {"return_tensors": "pt"}}},
    "processing_kwargs.chat_template.chat_template": {"processing_kwargs": {"chat_template": {"chat_template": "x"}}},
    "backend": {"backend": "onnx"},
    "model_name_or_path": {"model_name_or_path": "elsewhere"},
}


@pytest.mark.parametrize("where", REFUSED)
def test_an_argument_that_is_not_known_to_be_harmless_is_refused_before_the_library_gets_it(
    where: str, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(copied / FILE, **REFUSED[where])
    with pytest.raises(ConfigError) as refused:
        loaded(copied, monkeypatch)
    assert f"{FILE} sets {where}, an argument" in str(refused.value)
    assert "[models.NAME] trust_remote_code = true" in str(refused.value)
    assert told(copied) == [str(refused.value)]


@pytest.mark.parametrize("kind", "bert roberta distilbert camembert albert xlm-roberta xlnet".split())
def test_every_name_of_the_file_is_looked_at(kind: str, copied: Path) -> None:
    name = f"sentence_{kind}_config.json"
    (copied / FILE).unlink(missing_ok=True)
    write(copied / name, model_args={"weights_only": False})
    assert f"{name} sets model_args.weights_only" in told(copied)[0]


@pytest.mark.parametrize("name", ["/elsewhere", "../elsewhere"])
def test_no_tokenizer_is_elsewhere(name: str, copied: Path) -> None:
    write(copied / FILE, tokenizer_name_or_path=name)
    assert "leads out of the directory" in told(copied)[0]


def test_what_is_trusted_may_choose(copied: Path) -> None:
    write(copied / FILE, model_args={"weights_only": True})
    say_unloadable(copied, trusted=True)


def test_arguments_that_folders_have_are_passed_on(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        copied / FILE,
        max_seq_length=32,
        do_lower_case=False,
        tokenizer_name_or_path=None,
        model_args={"attn_implementation": "eager", "torch_dtype": "float32", "trust_remote_code": True},
        tokenizer_args={"padding_side": "right", "model_max_length": 32},
        config_args={"output_hidden_states": False},
        modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        module_output_name="token_embeddings",
        processing_kwargs={"text": {"padding": True}, "chat_template": {"add_generation_prompt": True}},
    )
    assert told(copied) == []
    loaded(copied, monkeypatch).unload()


MODULES = {
    "Dense": {"in_features": 32, "init_weight": [1]},
    "Dropout": {"dropout": 0.1, "other": 1},
    "BoW": {"vocab": ["cat"], "other": 1},
    "WordWeights": {"vocab": ["cat"], "word_weights": {}, "other": 1},
    "LayerNorm": {"dimension": 32, "other": 1},
    "Pooling": {"embedding_dimension": 32, "other": 1},
    "WeightedLayerPooling": {"embedding_dimension": 32, "layer_weights": [1]},
}


@pytest.mark.parametrize("kind", MODULES)
def test_so_it_is_with_every_module(kind: str, copied: Path) -> None:
    modules = json.loads((copied / "modules.json").read_text())
    path = f"sentence_transformers.models.{kind}"
    modules.append({"idx": 2, "name": "2", "path": "2_It", "type": path})
    (copied / "modules.json").write_text(json.dumps(modules))
    (copied / "2_It").mkdir()
    write(copied / "2_It/config.json", **MODULES[kind])
    assert f"config.json sets {[*MODULES[kind]][-1]}, an argument" in told(copied)[0]


def test_a_router_gets_the_parameters_of_one(copied: Path) -> None:
    file = copied / "router_config.json"
    types = {"": "sentence_transformers.models.Transformer"}
    file.write_text(json.dumps({"types": types, "structure": {"query": [""]}, "parameters": {"sub_modules": {}}}))
    path = "sentence_transformers.base.modules.router.Router"
    (copied / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": path}]))
    assert "router_config.json sets sub_modules, an argument" in told(copied)[0]


@pytest.mark.parametrize(
    "kind",
    [
        "sentence_transformers.SentenceTransformer",
        "sentence_transformers.util.import_from_string",
        "sentence_transformers.models.Module",
        "sentence_transformers.models.tokenizer.WordTokenizer",
        "sentence_transformers.util.Pooling",
        "sentence_transformers.models.x.Pooling",
    ],
)
def test_not_everything_that_the_library_has_is_a_module(kind: str, copied: Path) -> None:
    modules = json.loads((copied / "modules.json").read_text())
    modules[1]["type"] = kind
    (copied / "modules.json").write_text(json.dumps(modules))
    assert f"its module {kind} is code" in told(copied)[0]


@pytest.mark.parametrize(
    "kind",
    [
        "sentence_transformers.models.Pooling",
        "sentence_transformers.models.Pooling.Pooling",
        "sentence_transformers.sentence_transformer.modules.Pooling",
        "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    ],
)
def test_a_module_is_served_by_each_of_its_names(kind: str, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = json.loads((copied / "modules.json").read_text())
    modules[1]["type"] = kind
    (copied / "modules.json").write_text(json.dumps(modules))
    assert told(copied) == []
    loaded(copied, monkeypatch).unload()


def test_the_lists_are_those_of_the_library() -> None:
    """Else a new version could save folders that are refused."""
    import inspect

    import sentence_transformers.sentence_transformer.modules as library

    for name in module_configs.MODULES:
        kind = getattr(library, name)
        assert module_configs.is_module(f"{kind.__module__}.{kind.__qualname__}")
        if name in module_configs.KEYS and name != "Transformer":
            given = set(inspect.signature(kind.__init__).parameters) & set(kind.config_keys)
            assert given <= set(module_configs.KEYS[name]), name
    assert set(library.Transformer.config_keys) <= set(module_configs.KEYS["Transformer"])
    for name in module_configs.TOKENIZERS:
        kind = getattr(library.tokenizer.word, name, None) or getattr(library.tokenizer, name)
        assert module_configs.is_tokenizer(f"{kind.__module__}.{kind.__qualname__}")
