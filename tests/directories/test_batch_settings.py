"""The settings of batches: config.yaml, the operator's table, and the slots that result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.directories.code.source import inspect_source
from gateway.directories.config.config import read_config
from gateway.directories.describe import apply_overrides, describe
from gateway.errors import ConfigError
from gateway.settings.load import load_settings
from gateway.spec import Batching, ModelSpec


def spec(path: Path, config: str, **overrides: Any) -> ModelSpec:
    (path / "config.yaml").write_text(config)
    return describe(path, target="model:Model", format="python", overrides=overrides, own_code=True)


def test_the_keys_of_config_yaml_are_read_and_those_of_the_operator_win(tmp_path: Path) -> None:
    text = (
        "runtime: {batch_size: '8', batch_delay: 5ms, batch_concurrency: 2, batch_cost: tokens, batch_budget: 100, "
        "batch_key: shape, batch_sort: true, batch_on_error: fail}"
    )
    found = spec(tmp_path, text)
    expected = Batching(
        size=8, delay=0.005, concurrency=2, cost="tokens", budget=100.0, key="shape", sort=True, on_error="fail"
    )
    assert found.batching == expected
    assert found.limits.slots == 24
    other = spec(tmp_path, text, batch_size=2, batch_on_error="isolate", batch_sort=False)
    assert (other.batching.size, other.batching.on_error, other.batching.sort) == (2, "isolate", False)
    assert other.limits.slots == 6
    assert apply_overrides(other, {"batch_size": 2, "batch_on_error": "isolate", "batch_sort": False}) == other


@pytest.mark.parametrize(
    ("config", "overrides", "slots"),
    [
        ("runtime: {batch_size: 8}", {}, 16),
        ("runtime: {batch_size: 8}", {"limits": {"slots": 3}}, 16),
        ("runtime: {batch_size: 8, predict_concurrency: 5}", {}, 5),
        ("runtime: {batch_size: 8}", {"slots": 7}, 7),
        ("runtime: {batch_size: 8}", {"predict_concurrency": 9}, 9),
        ("runtime: {batch_delay: 1}", {}, 1),
        ("", {"batch_size": 4, "batch_concurrency": 3}, 16),
    ],
)
def test_slots_are_places_for_the_next_batch_unless_they_are_set(
    tmp_path: Path, config: str, overrides: dict[str, Any], slots: int
) -> None:
    found = spec(tmp_path, config, **overrides)
    assert found.limits.slots == slots == found.config["runtime"]["predict_concurrency"]


def test_a_config_without_batches_is_the_one_of_truss(tmp_path: Path) -> None:
    assert not [key for key in spec(tmp_path, "").config["runtime"] if key.startswith("batch")]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("batch_size: 0", "runtime.batch_size must be from 1 to 8192"),
        ("batch_size: 9000", "runtime.batch_size must be from 1 to 8192"),
        ("batch_size: many", "runtime.batch_size must be a whole number"),
        ("batch_concurrency: 0", "runtime.batch_concurrency must be at least 1"),
        ("batch_delay: soon", 'runtime.batch_delay must be seconds, such as 0.005 or "5ms"'),
        ("batch_delay: -1", "runtime.batch_delay must be seconds"),
        ("batch_budget: 0", "runtime.batch_budget must be above 0"),
        ("batch_on_error: retry", "runtime.batch_on_error must be isolate or fail, not retry"),
        ("batch_sizes: 8", "unknown key runtime.batch_sizes (did you mean batch_size?)"),
    ],
)
def test_a_wrong_setting_is_named_with_its_line(tmp_path: Path, setting: str, told: str) -> None:
    (tmp_path / "config.yaml").write_text(f"\nruntime:\n  {setting}\n")
    problems = read_config(tmp_path).problems
    assert [told in str(problem) and ":3" in problem.where for problem in problems] == [True]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("batch_size = 0", "a whole number"),
        ('batch_on_error = "retry"', "isolate or fail"),
        ("batch_budget = -1", "a number above 0"),
        ("batch_sizes = 4", "did you mean batch_size?"),
    ],
)
def test_a_wrong_setting_of_the_operator_is_refused(tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "gateway.toml").write_text(f"[models.m]\n{line}\n")
    with pytest.raises(ConfigError, match=told.replace("?", r"\?")):
        load_settings(tmp_path / "gateway.toml", environ={})


@pytest.mark.parametrize("name", ["batch_budget: 5", "batch_sort: true"])
def test_what_needs_costs_is_refused_without_them(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name.partition(':')[0]} needs batch_cost"):
        spec(tmp_path, f"runtime: {{batch_size: 2, {name}}}")


# ── what the source tells ────────────────────────────────────────────────────────────────────────────────────────────

BATCH = "  def predict_batch(self, inputs): return inputs\n"


@pytest.mark.parametrize(
    ("methods", "settings", "told"),
    [
        (BATCH, {}, []),
        (BATCH, {"size": 4}, []),
        ("  def predict_batch(self, inputs, requests): return inputs\n", {"size": 4}, []),
        ("  def embeddings_batch(self, inputs): return inputs\n", {"size": 4}, []),
        (BATCH, {"delay": 0.1}, [("no_effect", "batch_delay has no effect without batch_size")]),
        (
            "  def predict(self, x): return x\n",
            {"size": 4},
            [("no_batch_method", "batch_size is set, but the class has no method for batches")],
        ),
        (
            "  def predict(self, x): return x\n  def predict_batchs(self, inputs): return inputs\n",
            {"size": 4},
            [
                ("misspelt", "nothing calls `predict_batchs`"),
                ("no_batch_method", "batch_size is set, but the class has no method for batches"),
            ],
        ),
        (
            "  def predict_batchs(self, inputs): return inputs\n",
            {},
            [("no_method", "a model needs one of the methods predict, chat_completions, embeddings")],
        ),
        (
            BATCH + "  def shape(self, item): return 1\n",
            {"size": 4, "key": "shapes", "cost": "tokens"},
            [
                ("no_batch_method", "batch_cost names `tokens`, but the class has no such method"),
                ("no_batch_method", "batch_key names `shapes`, but the class has no such method"),
            ],
        ),
        (
            "  def predict_batch(self, inputs, more): return inputs\n",
            {"size": 4},
            [("bad_signature", "`predict_batch` gets a list of inputs")],
        ),
        (
            BATCH + "  def predict(self, x): return x\n",
            {},
            [("unused_batch", "`predict_batch` is not used, because batch_size is not set")],
        ),
        (BATCH + "  def predict(self, x): return self.predict_batch([x])[0]\n", {}, []),
    ],
)
def test_check_names_mistakes_without_running_the_class(
    tmp_path: Path, methods: str, settings: dict[str, Any], told: list[tuple[str, str]]
) -> None:
    (tmp_path / "model.py").write_text(f"class Model:\n{methods}")
    problems = inspect_source(tmp_path / "model.py", "Model", batching=Batching(**settings))
    found = [(problem.code, problem.what) for problem in problems]
    assert len(found) == len(told)
    for (code, what), (expected, beginning) in zip(found, told, strict=True):
        assert code == expected and what.startswith(beginning)
