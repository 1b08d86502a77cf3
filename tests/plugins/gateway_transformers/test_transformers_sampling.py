from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from gateway_language.sampling import Sampling  # noqa: E402
from gateway_transformers.sampling import candidates, draw, generator, penalise, score  # noqa: E402

LOGITS = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()


def odds(logits: Any = LOGITS, **settings: Any) -> dict[int, float]:
    """What each token is drawn with."""
    tokens, weights = candidates(logits, Sampling(temperature=1.0, **settings))
    ids = range(len(weights)) if tokens is None else tokens.tolist()
    shares = (weights / weights.sum()).tolist()
    return {token: share for token, share in sorted(zip(ids, shares, strict=True)) if share > 0}


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, {0: 0.5, 1: 0.3, 2: 0.15, 3: 0.05}),
        ({"top_k": 2}, {0: 0.625, 1: 0.375}),
        ({"top_k": 1}, {0: 1.0}),
        ({"top_k": 9}, {0: 0.5, 1: 0.3, 2: 0.15, 3: 0.05}),
        ({"top_p": 0.6}, {0: 0.625, 1: 0.375}),  # the token that crosses the line is in
        ({"top_p": 0.49}, {0: 1.0}),
        ({"top_p": 0.0}, {0: 1.0}),
        ({"top_k": 3, "top_p": 0.6}, {0: 0.625, 1: 0.375}),
        ({"min_p": 0.2}, {0: 0.526, 1: 0.316, 2: 0.158}),
        ({"top_p": 0.9, "min_p": 0.5}, {0: 0.625, 1: 0.375}),
    ],
)
def test_candidates_are_cut_as_the_request_says(settings: dict[str, Any], wanted: dict[int, float]) -> None:
    assert odds(**settings) == pytest.approx(wanted, abs=1e-3)


def test_a_nucleus_of_many_tokens_is_exact() -> None:
    logits = torch.zeros(5000)  # flat: 90 % of the mass are 4,500 tokens, more than are ranked at first
    assert len(odds(logits, top_p=0.9)) == pytest.approx(4500, rel=1e-3)  # sums of thousands are rounded


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    generator = torch.Generator().manual_seed(0)
    settings = Sampling(temperature=1.0)
    counts = Counter(draw(LOGITS, settings, generator, [], []) for _ in range(4000))
    for token, share in enumerate((0.5, 0.3, 0.15, 0.05)):
        assert counts[token] / 4000 == pytest.approx(share, abs=0.03)


def test_a_high_temperature_levels_and_a_low_one_sharpens() -> None:
    def first(temperature: float) -> float:
        generator = torch.Generator().manual_seed(0)
        settings = Sampling(temperature=temperature)
        return [draw(LOGITS, settings, generator, [], []) for _ in range(500)].count(0) / 500

    assert first(0.1) > 0.95
    assert first(1.0) == pytest.approx(0.5, abs=0.06)
    assert first(2.0) < 0.45


def test_temperature_zero_takes_the_likeliest_after_penalties() -> None:
    settings = Sampling(frequency_penalty=1.0)
    source = generator(settings)
    assert draw(LOGITS, settings, source, [0, 0, 0], []) == 0  # the prompt does not count
    assert draw(LOGITS, settings, source, [], [0, 0]) == 1


def test_penalties_and_bias_change_the_logits_of_their_tokens() -> None:
    logits = torch.tensor([1.0, -1.0, 2.0, 0.0])

    def after(**settings: Any) -> list[float]:
        return penalise(logits, Sampling(**settings), [0, 1], [2, 2]).tolist()

    assert after(presence_penalty=0.5) == [1.0, -1.0, 1.5, 0.0]
    assert after(frequency_penalty=0.5) == [1.0, -1.0, 1.0, 0.0]
    assert after(repetition_penalty=2.0) == [0.5, -2.0, 1.0, 0.0]  # away from what is there, prompt included
    assert after(logit_bias=((3, 5.0),)) == [1.0, -1.0, 2.0, 5.0]
    assert logits.tolist() == [1.0, -1.0, 2.0, 0.0]


@pytest.mark.parametrize("seed", [0, 7, -1, 2**70])
def test_any_whole_number_is_a_seed(seed: int) -> None:
    settings = Sampling(temperature=1.0, seed=seed)
    one, other = generator(settings), generator(settings)
    logits = torch.zeros(1000)
    assert [draw(logits, settings, one, [], []) for _ in range(5)] == [
        draw(logits, settings, other, [], []) for _ in range(5)
    ]


def test_without_a_seed_answers_differ() -> None:
    settings = Sampling(temperature=1.0)
    drawn = {draw(torch.zeros(1_000_000), settings, generator(settings), [], []) for _ in range(5)}
    assert len(drawn) > 1


def test_only_plain_temperature_zero_is_greedy() -> None:
    assert Sampling().is_greedy
    assert Sampling(top_p=0.5, seed=3).is_greedy
    assert not Sampling(temperature=0.1).is_greedy
    assert not Sampling(logit_bias=((1, 1.0),)).is_greedy
    assert not Sampling(repetition_penalty=1.1).is_greedy


def test_an_answer_may_begin_in_one_of_several_ways() -> None:
    settings = Sampling(begins=((1, 2), (1, 3, 4), (5,)))
    assert settings.may_follow([]) == [1, 5]
    assert settings.may_follow([1]) == [2, 3]
    assert settings.may_follow([1, 3]) == [4]
    assert settings.may_follow([1, 2]) == settings.may_follow([5]) == settings.may_follow([1, 3, 4]) == []
    assert not settings.is_greedy
    logits = torch.tensor([9.0, 1.0, 8.0, 2.0, 7.0, 0.0])
    assert [draw(logits, settings, generator(settings), [], answer) for answer in ([], [1], [1, 2])] == [1, 2, 0]


def test_a_score_is_of_the_logits_as_they_are() -> None:
    scored = score(torch.tensor([0.0, 2.0, 1.0]), 0, 2)
    assert scored.token == 0 and scored.logprob == pytest.approx(-2.4076, abs=1e-3)
    assert [token for token, _ in scored.top] == [1, 2]
    assert scored.top[0][1] == pytest.approx(-0.4076, abs=1e-3)


@pytest.mark.parametrize("mass", [0.05, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("seed", range(5))
def test_typical_tokens_are_those_of_the_library(mass: float, seed: int) -> None:
    library = pytest.importorskip("transformers")
    logits = torch.randn(50, generator=torch.Generator().manual_seed(seed)) * 2
    kept = library.TypicalLogitsWarper(mass)(torch.tensor([[0]]), logits[None].clone())[0].softmax(0)
    wanted = {token: share for token, share in enumerate(kept.tolist()) if share > 0}
    assert odds(logits, typical_p=mass) == pytest.approx(wanted, abs=1e-6)


def greedily(settings: Sampling, answer: Any = (), ends: Any = ()) -> int:
    return draw(LOGITS, settings, torch.Generator(), [0], answer, ends)


def test_only_allowed_tokens_are_drawn() -> None:
    assert greedily(Sampling(allowed=(3, 2))) == 2
    drawn = {
        draw(LOGITS, Sampling(temperature=2.0, allowed=(3, 2)), torch.Generator().manual_seed(seed), [], [])
        for seed in range(50)
    }
    assert drawn == {2, 3}


def test_no_end_is_drawn_before_the_least_number_of_tokens() -> None:
    settings = Sampling(min_tokens=2)
    assert [greedily(settings, answer, ends={0, 1}) for answer in ([], [2], [2, 2])] == [2, 2, 0]
    assert greedily(settings, [], ends={10**6}) == 0  # an end that the model cannot say


def test_a_token_that_may_not_follow_is_passed_over() -> None:
    settings = Sampling(forbids=lambda answer, token: token == len(answer))
    assert [greedily(settings, answer) for answer in ([], [5], [5, 5])] == [1, 0, 0]


def test_where_nothing_may_follow_the_answer_ends() -> None:
    settings = Sampling(allowed=(2,), forbids=lambda answer, token: True)
    assert greedily(settings, [], ends={3}) == 3


def test_a_call_that_is_forced_is_begun_whatever_else_is_asked_for() -> None:
    settings = Sampling(begins=((3, 1),), allowed=(0,), min_tokens=5, forbids=lambda answer, token: True)
    assert [greedily(settings, answer, ends={1}) for answer in ([], [3])] == [3, 1]


def test_the_penalty_of_repetition_looks_back_as_far_as_it_is_told() -> None:
    def penalised(last: int) -> list[int]:
        logits = penalise(LOGITS, Sampling(repetition_penalty=2.0, repeat_last_n=last), [0, 1], [2])
        return [token for token in range(4) if logits[token] != LOGITS[token]]

    assert [penalised(last) for last in (0, 1, 2, 3, 9, -1)] == [[], [2], [1, 2], [0, 1, 2], [0, 1, 2], [0, 1, 2]]
