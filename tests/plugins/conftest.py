"""Tiny models with random weights: real in all but what they say."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch comes: more threads than cores are far slower
os.environ["KERAS_BACKEND"] = "torch"  # Keras imports one library when it is imported, and writes its settings
os.environ["KERAS_HOME"] = str(Path(tempfile.gettempdir()) / "keras")
PLUGINS = Path(__file__).parent.parent.parent / "plugins"
if str(PLUGINS) not in sys.path:
    sys.path.insert(0, str(PLUGINS))

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}{% if shout is defined %}!{% endif %}"
)
SPECIAL = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]


def save_tokenizer(folder: Path, *, template: str | None = TEMPLATE, special: Sequence[str] = ()) -> int:
    """A byte-level tokenizer without merges; returns the size of its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([*SPECIAL, *special])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")
    fast.chat_template = template
    fast.save_pretrained(folder)
    return len(fast)


def save_model(folder: Path, kind: str, vocabulary: int, **settings: Any) -> Any:
    """A random model of two layers; returns it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    values = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
        "initializer_range": 0.3,  # or every token would be as likely as any other
        "bos_token_id": None,
        "eos_token_id": 256,
        "pad_token_id": None,
    }
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=vocabulary, **{**values, **settings})
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Any]:
    """`save_model`, for tests that want another one."""
    return save_model


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., int]:
    return save_tokenizer


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 0.1 M parameters that speaks bytes."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("checkpoint")
    save_model(folder, "llama", save_tokenizer(folder))
    return folder


@pytest.fixture(scope="session")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of three layers with the mean of its tokens, as the library saves it."""
    pytest.importorskip("sentence_transformers")
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from st_folders import WORDS
    from transformers import AutoConfig, AutoModel, BertTokenizer

    base, folder = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("embedder")
    (base / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    BertTokenizer(str(base / "vocab.txt")).save_pretrained(base)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = AutoConfig.for_model("bert", vocab_size=len(WORDS), initializer_range=0.3, **sizes)
    AutoModel.from_config(config).save_pretrained(base)
    modules = [Transformer(str(base)), Pooling(32)]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return folder


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Load the LanguageModel of a directory on torch, as a worker does: by its spec, in its directory."""
    from gateway_language.gguf.serving import has_gguf
    from gateway_transformers import find_model
    from gateway_transformers.model import LanguageModel

    loaded = []

    def start(path: Path, **overrides: Any) -> Any:
        options = {**overrides.pop("options", {}), **({"engine": "torch"} if has_gguf(path) else {})}
        spec = find_model(path, {**overrides, "options": options})
        assert spec is not None, f"{path} is not recognised"
        monkeypatch.chdir(path)
        model = LanguageModel(config=spec.config, data_dir=spec.data_dir)
        loaded.append(model)
        model.load()
        return model

    yield start
    for model in loaded:
        model.unload()
