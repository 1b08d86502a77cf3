"""Small random encoders of transformers, and the same weights as GGUF files for llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'-"
WORDS = "the cat dog sat on a mat red green apple pear is not query document what eat do search".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [*SPECIAL, *WORDS, *(letter for letter in LETTERS if letter not in WORDS), *(f"##{c}" for c in LETTERS)]
LAYERS, WIDTH, HEADS, CONTEXT = 2, 64, 4, 96
POOLING = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}


def bert(labels: int | None = None) -> Any:
    """Return a BertModel, or with `labels` a BertForSequenceClassification, whose numbers spread enough to compare."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
        **({} if labels is None else {"num_labels": labels}),
    )
    return (BertModel(config) if labels is None else BertForSequenceClassification(config)).eval()


def bert_tokenizer() -> Any:
    """The tokenizer of `VOCABULARY`, as transformers makes it."""
    from transformers import BertTokenizer

    return BertTokenizer(vocab={token: index for index, token in enumerate(VOCABULARY)}, do_lower_case=True)


def write_bert(path: Path, model: Any, pooling: str | None = "mean", **added: Any) -> Path:
    """Write a Bert as llama.cpp's converter does. `added` are further keys of its header, of strings or lists."""
    import gguf

    out = gguf.GGUFWriter(path, "bert")
    _sizes(out, model.config.intermediate_size)
    out.add_layer_norm_eps(model.config.layer_norm_eps)
    out.add_causal_attention(False)
    if pooling is not None:
        out.add_uint32("bert.pooling_type", POOLING[pooling])
    out.add_token_type_count(2)
    out.add_tokenizer_model("bert")
    out.add_tokenizer_pre("default")
    out.add_token_list(
        [token[2:] if token[:2] == "##" else token if token in SPECIAL else f"▁{token}" for token in VOCABULARY]
    )
    out.add_token_types([3 if token in SPECIAL else 1 for token in VOCABULARY])
    for name in ("pad", "unk", "sep", "mask"):
        getattr(out, f"add_{name}_token_id")(SPECIAL.index(f"[{name.upper()}]"))
    out.add_bos_token_id(SPECIAL.index("[CLS]"))
    out.add_eos_token_id(SPECIAL.index("[SEP]"))
    out.add_add_bos_token(True)
    out.add_add_eos_token(True)
    out.add_add_sep_token(False)
    _more(out, added)
    names = {
        "embeddings.word_embeddings": "token_embd",
        "embeddings.position_embeddings": "position_embd",
        "embeddings.token_type_embeddings": "token_types",
        "embeddings.LayerNorm": "token_embd_norm",
        "attention.self.query": "attn_q",
        "attention.self.key": "attn_k",
        "attention.self.value": "attn_v",
        "attention.output.dense": "attn_output",
        "attention.output.LayerNorm": "attn_output_norm",
        "intermediate.dense": "ffn_up",
        "output.dense": "ffn_down",
        "output.LayerNorm": "layer_output_norm",
        "pooler.dense": "cls",
        "classifier": "cls.output",
    }
    is_ranking = hasattr(model, "classifier")
    for name, data in model.state_dict().items():
        name = name.removeprefix("bert.")
        if "position_ids" in name or (name.startswith("pooler") and not is_ranking):
            continue
        _add(out, name, names, data)
    return _written(out, path)


def qwen3() -> Any:
    """Return a Qwen3Model, as embedding models are made of."""
    import torch
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(7)
    config = Qwen3Config(
        vocab_size=512,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=256,
        initializer_range=0.2,
    )
    return Qwen3Model(config).eval()


def write_qwen3(
    path: Path, model: Any, pooling: str | None = "last", tensors: dict[str, Any] | None = None, **added: Any
) -> Path:
    """Write it with the vocabulary of tiny-chat, whose texts end with the end token as those of Qwen's embedders do."""
    import gguf
    from gguf_models import vocabulary

    out = gguf.GGUFWriter(path, "qwen3")
    config = model.config
    _sizes(out, config.intermediate_size, config.max_position_embeddings)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_key_length(config.head_dim)
    out.add_value_length(config.head_dim)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if pooling is not None:
        out.add_uint32("qwen3.pooling_type", POOLING[pooling])
    vocabulary(out)
    out.add_add_eos_token(True)
    _more(out, added)
    names = {
        "embed_tokens": "token_embd",
        "norm": "output_norm",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for name, data in model.state_dict().items():
        _add(out, name, names, data)
    for name, data in (tensors or {}).items():
        out.add_tensor(name, data.float().numpy())
    return _written(out, path)


def _sizes(out: Any, inner: int, context: int = CONTEXT) -> None:
    out.add_context_length(context)
    out.add_embedding_length(WIDTH)
    out.add_feed_forward_length(inner)
    out.add_block_count(LAYERS)
    out.add_head_count(HEADS)


def _more(out: Any, added: dict[str, Any]) -> None:
    for key, value in added.items():
        (out.add_array if isinstance(value, list) else out.add_string)(key.replace("__", "."), value)


def _add(out: Any, name: str, names: dict[str, str], data: Any) -> None:
    stem, _, kind = name.rpartition(".")
    for prefix in ("encoder.layer.", "layers."):
        if stem.startswith(prefix):
            number, _, stem = stem.removeprefix(prefix).partition(".")
            out.add_tensor(f"blk.{number}.{names[stem]}.{kind}", data.float().numpy())
            return
    out.add_tensor(f"{names[stem]}.{kind}", data.float().numpy())


def _written(out: Any, path: Path) -> Path:
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path
