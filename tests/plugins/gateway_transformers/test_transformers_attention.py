from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from closeness import assert_near  # noqa: E402
from gateway_transformers import adoption, attention  # noqa: E402
from gateway_transformers.adoption import adopt  # noqa: E402
from gateway_transformers.attention import Batch, Cache, Group, UnsupportedModel, forward, group, lay_out  # noqa: E402

Make = Callable[..., Any]


def shapes(groups: list[Group]) -> list[tuple[int, int, int]]:
    return [(one.slot, one.rows, one.length) for one in groups]


def test_neighbours_of_like_length_share_a_call() -> None:
    assert shapes(group([(0, 100), (1, 104), (2, 98)])) == [(0, 3, 104)]


def test_a_gap_between_slots_ends_a_group() -> None:
    assert shapes(group([(0, 10), (1, 10), (3, 10)])) == [(0, 2, 10), (3, 1, 10)]


def test_short_answers_do_not_pay_for_a_long_neighbour() -> None:
    assert shapes(group([(0, 50), (1, 8000), (2, 50), (3, 60)])) == [(0, 1, 50), (1, 1, 8000), (2, 2, 60)]


def test_no_rows_make_no_groups() -> None:
    assert group([]) == []


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("llama", {}),
        ("llama", {"num_key_value_heads": 4}),
        ("llama", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
        ("mistral", {"sliding_window": 7}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 16}),
        ("phi3", {"pad_token_id": 0}),
        ("gpt_neox", {}),
        ("olmo2", {}),
    ],
)
def test_packed_requests_get_the_logits_they_get_alone(
    kind: str, settings: dict[str, Any], make_model: Make, tmp_path: Path
) -> None:
    model = make_model(tmp_path, kind, 300, **settings)
    prompts = [torch.randint(0, 300, (length,)) for length in (30, 5, 17)]
    with torch.inference_mode():
        alone = [model(input_ids=prompt[None], use_cache=False).logits[0, -1] for prompt in prompts]
    lay_out(model)
    adopt(model)
    cache = Cache(4, 64)
    with torch.inference_mode():
        read(model, cache, [(slot + 1, prompt[:-1]) for slot, prompt in enumerate(prompts)], 3)
        rows = [(slot + 1, len(prompt)) for slot, prompt in enumerate(prompts)]
        batch = Batch(
            cache,
            torch.stack([prompt[-1] for prompt in prompts]),
            torch.tensor([length - 1 for _, length in rows]),
            torch.tensor([slot for slot, _ in rows]),
            torch.arange(3),
            group(rows),
        )
        together = forward(model, batch)

    for row, wanted in zip(together, alone, strict=True):
        assert_near(row, wanted)


def read(model: Any, cache: Cache, prompts: list[tuple[int, Any]], pieces: int) -> None:
    """Put prompts into their slots, each in so many pieces, all in one forward a piece."""
    for piece in range(pieces):
        parts = []
        for slot, prompt in prompts:
            start, stop = len(prompt) * piece // pieces, len(prompt) * (piece + 1) // pieces
            parts.append((slot, start, stop, prompt[start:stop]))
        batch = Batch(
            cache,
            torch.cat([ids for *_, ids in parts]),
            torch.cat([torch.arange(start, stop) for _, start, stop, _ in parts]),
            torch.cat([torch.full((stop - start,), slot) for slot, start, stop, _ in parts]),
            torch.tensor([0]),
            [Group(slot, 1, stop - start, stop) for slot, start, stop, _ in parts],
        )
        forward(model, batch)


@pytest.mark.parametrize(
    ("kind", "settings", "why"),
    [
        ("gemma2", {"head_dim": 16}, "softcap"),
        ("bloom", {"n_layer": 2, "n_head": 4}, "does not pass through our cache"),
        ("mamba", {"state_size": 8}, "our cache"),
        ("bert", {"is_decoder": False}, "its tokens attend to later ones"),
        ("bert", {"is_decoder": False, "num_hidden_layers": 1}, "its tokens attend to later ones"),
        ("doge", {}, "a mask that it computes itself"),
    ],
)
def test_a_model_that_cannot_work_with_our_cache_is_refused(
    kind: str, settings: dict[str, Any], why: str, make_model: Make, tmp_path: Path
) -> None:
    model = make_model(tmp_path, kind, 300, **settings)
    with pytest.raises(UnsupportedModel, match=why):
        adopt(model)


def small(*given: Any, **more: Any) -> Any:
    """Attention that is off by less than what a wrong mask does."""
    out, none = attention.attend(*given, **more)
    return out * 1.01, none


def late(*given: Any, **more: Any) -> Any:
    """Attention that is off only behind the first thirty tokens."""
    out, none = attention.attend(*given, **more)
    return torch.where(more["batch"].positions[None, :, None, None] < 30, out, out * 1.5), none


def beside_a_longer_row(*given: Any, **more: Any) -> Any:
    """Attention that is off only for a row that shares its call with a longer one."""
    out, none = attention.attend(*given, **more)
    return (out * 1.5 if more["batch"].groups[0].rows > 1 else out), none


def test_a_model_whose_answers_would_change_is_refused(
    make_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(tmp_path, "llama", 300)
    monkeypatch.setattr(Group, "mask", lambda *_: None)  # every token sees the whole piece
    with pytest.raises(UnsupportedModel, match="answers change"):
        adopt(model)


@pytest.mark.parametrize("wrong", [small, late, beside_a_longer_row])
def test_a_difference_that_is_small_or_comes_late_is_found(
    wrong: Any, make_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A language model that answers a little differently here than everywhere else has answers that nobody expects."""
    model = make_model(tmp_path, "llama", 300)
    monkeypatch.setattr(adoption, "attend", wrong)
    with pytest.raises(UnsupportedModel, match="answers change"):
        adopt(model)


def test_a_difference_by_chance_is_none_of_the_model(
    make_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A router that rounding makes choose another expert for some tokens does so for few."""
    model = make_model(tmp_path, "llama", 300)
    calls = 0

    def once(*given: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        out, none = attention.attend(*given, **more)
        return (out * 1.1 if calls == 1 else out), none

    monkeypatch.setattr(adoption, "attend", once)
    assert adopt(model) > 0


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (kind, dtype)
        for kind in ("llama", "mixtral", "qwen2_moe", "gemma3_text")
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
    ],
)
def test_rounding_is_no_difference(kind: str, dtype: Any, make_model: Make, tmp_path: Path) -> None:
    assert adopt(make_model(tmp_path, kind, 300, initializer_range=0.1).to(dtype)) > 0


def test_a_context_shorter_than_the_comparison_will_do(make_model: Make, tmp_path: Path) -> None:
    assert adopt(make_model(tmp_path, "gpt2", 300, n_positions=16, n_embd=64, n_layer=2, n_head=4)) > 0


def test_the_size_of_a_token_in_the_cache_is_measured(make_model: Make, tmp_path: Path) -> None:
    model = make_model(tmp_path, "llama", 300)
    assert adopt(model) == 2 * 2 * 2 * 16 * 4  # layers, keys and values, heads, width, bytes


def test_an_unused_cache_takes_no_memory() -> None:
    before = resident()
    cache = Cache(64, 4096)
    like = torch.zeros(8, 1, 64)
    batch = Batch(cache, *(torch.zeros(1, dtype=torch.long) for _ in range(4)), [])
    keys, values = cache.store(0, like, like, batch)

    assert keys.nbytes + values.nbytes == 2**30
    assert resident() - before < 50 * 2**20


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_laying_out_the_weights_keeps_the_logits_and_the_shared_embedding(make_model: Make, tmp_path: Path) -> None:
    model = make_model(tmp_path, "llama", 300, tie_word_embeddings=True)
    ids = torch.arange(10)[None]
    with torch.inference_mode():
        before = model(input_ids=ids).logits
        lay_out(model)
        assert_near(model(input_ids=ids).logits, before)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert not model.model.layers[0].mlp.up_proj.weight.is_contiguous()
    half = make_model(tmp_path, "llama", 300).to(torch.bfloat16)
    lay_out(half)
    assert half.model.layers[0].mlp.up_proj.weight.is_contiguous()


def test_the_cache_may_take_half_of_the_free_memory() -> None:
    free = int(
        next(line for line in Path("/proc/meminfo").read_text().splitlines() if "MemAvailable" in line).split()[1]
    )
    assert 0 < attention.cache_memory("cpu") <= 0.6 * free * 1024
