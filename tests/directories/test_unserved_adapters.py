"""An adapter alone is told by the library that made it, and with advice that works for its kind."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from .unserved_cases import make, told

LORA = {"peft_type": "LORA", "base_model_name_or_path": "the/base", "task_type": "CAUSAL_LM"}
MLX = {"fine_tune_type": "lora", "model": "the/base", "lora_parameters": {"rank": 8}, "num_layers": 16}


@pytest.mark.parametrize(
    ("about", "says"),
    [
        (LORA, r"a LORA adapter of the/base, not a whole model \(merge it into its base \(peft: merge_and_unload"),
        (LORA | {"task_type": "SEQ_CLS"}, r"for SEQ_CLS, not a whole model \(write a model\.py.*with peft.*classify"),
        (LORA | {"task_type": "SEQ_2_SEQ_LM"}, r"for SEQ_2_SEQ_LM.*with peft, and has a method predict"),
        (LORA | {"alora_invocation_tokens": [1, 2]}, "computed for each input, so it cannot be merged"),
        (LORA | {"layer_replication": [[0, 2], [1, 3]]}, "cannot be merged"),
        (LORA | {"alora_invocation_tokens": None}, "merge_and_unload"),
    ],
)
def test_an_adapter_of_peft_is_merged_where_that_makes_a_model_that_is_served(
    about: dict[str, Any], says: str, tmp_path: Path
) -> None:
    assert re.search(says, told(make(tmp_path, "adapter_model.safetensors", adapter_config=about)))


@pytest.mark.parametrize(
    "kind", ["PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "ADAPTION_PROMPT", "XLORA"]
)
def test_an_adapter_that_changes_no_weights_is_not_to_be_merged(kind: str, tmp_path: Path) -> None:
    line = told(make(tmp_path, "adapter_model.safetensors", adapter_config={**LORA, "peft_type": kind}))
    assert f"a {kind} adapter of the/base" in line
    assert "cannot be merged (write a model.py whose class loads it and its base with peft" in line
    assert "a method chat_completions" in line
    assert "merge_and_unload" not in line


@pytest.mark.parametrize(
    ("names", "about", "says"),
    [
        (
            ("adapters.safetensors", "0000100_adapters.safetensors"),
            MLX,
            r"of mlx-lm \(lora\) of the/base.*mlx_lm\.fuse",
        ),
        (
            ("adapters.safetensors",),
            MLX | {"fine_tune_type": "dora"},
            r"of mlx-lm \(dora\).*mlx_lm\.fuse --model the/b",
        ),
        (("adapters.npz",), {"lora_layers": 16, "lora_parameters": {}}, r"of mlx-lm, .*--model BASE --adapter-path"),
        (("adapters.safetensors",), {}, r"of mlx-lm, not a whole model.*mlx_lm\.fuse"),
    ],
)
@pytest.mark.parametrize("has_config", [False, True])
def test_an_adapter_of_mlx_is_fused_and_not_merged_by_peft(
    names: tuple[str, ...], about: dict[str, Any], says: str, has_config: bool, tmp_path: Path
) -> None:
    base = {"config": {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}} if has_config else {}
    line = told(make(tmp_path, *names, adapter_config=about, **base))
    assert re.search(says, line)
    assert "peft" not in line


def test_a_base_that_has_blanks_in_its_name_is_quoted(tmp_path: Path) -> None:
    line = told(make(tmp_path, "adapters.safetensors", adapter_config={**MLX, "model": "my models/it; ls"}))
    assert "--model 'my models/it; ls' --adapter-path" in line


def test_an_adapter_of_adapterhub_is_told_by_its_library(tmp_path: Path) -> None:
    about = {"config": {"architecture": "lora"}, "model_class": "BertAdapterModel", "model_name": "the/base"}
    line = told(make(tmp_path, "pytorch_adapter.bin", adapter_config=about))
    assert "an adapter of the library adapters of the/base" in line
    assert "peft" not in line


def test_weights_of_an_adapter_without_its_config_are_told_to_get_it(tmp_path: Path) -> None:
    assert "without its adapter_config.json" in told(make(tmp_path, "adapter_model.safetensors"))
