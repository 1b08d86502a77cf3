"""What a training keeps to go on from is told as that, and never as weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from .unserved_cases import architecture, make, told


@pytest.mark.parametrize(
    "name",
    [
        "optimizer.pt",
        "optimizer.bin",
        "scheduler.pt",
        "rng_state_0.pth",
        "random_states_0.pkl",
        "scaler.pt",
        "training_args.bin",
    ],
)
def test_the_state_of_a_training_is_no_model(name: str, tmp_path: Path) -> None:
    assert told(make(tmp_path / "it", name)).startswith(f"the state of a training, not weights ({name})")


def test_the_optimizer_of_fsdp_is_not_joined_as_weights_are(tmp_path: Path) -> None:
    state = told(make(tmp_path / "optimizer_0", "__0_0.distcp", ".metadata"))
    assert state.startswith("the state of a training, not weights") and "merge-weights" not in state
    assert "merge-weights" in told(make(tmp_path / "pytorch_model_fsdp_0", "__0_0.distcp", ".metadata"))


def test_a_config_beside_the_state_of_a_training_has_no_weights(tmp_path: Path) -> None:
    config = architecture("LlamaForCausalLM", model_type="llama")
    line = told(make(tmp_path / "it", "training_args.bin", "optimizer.pt", config=config))
    assert line.startswith("LlamaForCausalLM, without its weights") and "pickle" not in line


def test_the_state_of_a_training_counts_not_among_other_weights(tmp_path: Path) -> None:
    line = told(make(tmp_path / "it", "model.pt", "optimizer.pt", "training_args.bin"))
    assert "(model.pt)" in line and "other" not in line
