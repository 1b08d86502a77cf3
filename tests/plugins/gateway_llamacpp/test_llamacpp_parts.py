"""The parts of the engine that know no llama.cpp: sizes, cells, and the tokens that it does not name."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from gateway_language.gguf.header import Header
from gateway_language.sampling import Sampling
from gateway_llamacpp import server, sizes
from gateway_llamacpp.cells import AHEAD, Cells
from gateway_llamacpp.pieces import Pieces
from gateway_llamacpp.request import Request
from gateway_llamacpp.turns import ONLY, SEEDS, Rules
from hypothesis import given
from hypothesis import strategies as st

from gateway import ConfigError

LLAMA = {"context_length": 8192, "block_count": 30, "embedding_length": 576, "attention.head_count": 9}


def header(**more: Any) -> Header:
    said = {**LLAMA, "attention.head_count_kv": 3, **more}
    return Header({"general.architecture": "llama", **{f"llama.{key}": value for key, value in said.items()}}, ())


def plan(**asked: Any) -> sizes.Sizes:
    given = {"slots": 16, "step_tokens": 128, "length": None, "cells": None, "memory": 2**40, **asked}
    return sizes.plan(asked.get("of", header()), **{key: value for key, value in given.items() if key != "of"})


# ── sizes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_in_the_cache_takes_its_keys_and_values_of_all_layers() -> None:
    assert sizes.cell_bytes(header()) == 30 * 3 * (64 + 64) * 2
    wide = header(**{"attention.key_length": 256, "attention.value_length": 128})
    assert sizes.cell_bytes(wide) == 30 * 3 * (256 + 128) * 2
    by_layer = header(**{"attention.head_count_kv": [3] * 10 + [0] * 20})
    assert sizes.cell_bytes(by_layer) == 10 * 3 * (64 + 64) * 2


def test_each_request_may_have_the_whole_context_and_all_together_share_one_cache() -> None:
    found = plan()
    assert (found.length, found.usable) == (8191, 8192)
    assert found.cells % 256 == 0 and found.cells >= found.usable + sizes.SPARE + 2 * 16
    assert plan(length=100).length == 100 and plan(length=100).usable == 16 * sizes.PER_SLOT
    assert plan(cells=20_000).usable == 20_000 and plan(cells=20_000).length == 8191
    assert plan(length=10**6).length == 8191


def test_what_memory_holds_is_the_limit() -> None:
    found = plan(memory=sizes.cell_bytes(header()) * 1000)
    assert found.usable == found.length == 1000 - sizes.SPARE - 32
    assert plan(memory=-1).length == 0


def test_contradictions_and_gaps_are_named() -> None:
    with pytest.raises(ConfigError, match=r"cache_tokens is 100, less than options\.max_model_len, which is 200"):
        plan(length=200, cells=100)
    for missing in LLAMA:
        gap = header(**{missing: None})
        with pytest.raises(ConfigError, match=rf"does not say llama\.{missing}"):
            plan(of=gap)


# ── cells ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_request_waits_until_its_prompt_has_room_and_those_before_it_have_begun() -> None:
    async def run() -> list[str]:
        cells, told, leave = Cells(100), list[str](), asyncio.Event()

        async def hold(name: str, size: int, priority: int = 0) -> None:
            async with cells.hold(size, priority):
                told.append(name)
                await leave.wait()

        tasks = [asyncio.create_task(hold("first", 60))]
        for name, size, priority in (("large", 60, 0), ("small", 5, 0), ("urgent", 5, -1)):
            await asyncio.sleep(0)
            tasks.append(asyncio.create_task(hold(name, size, priority)))
        await asyncio.sleep(0)
        assert told == ["first"]
        leave.set()
        await asyncio.gather(*tasks)
        assert cells.used == 0
        return told

    assert asyncio.run(run()) == ["first", "urgent", "large", "small"]


def test_a_request_that_leaves_while_it_waits_takes_nothing_with_it() -> None:
    async def run() -> None:
        cells = Cells(100)

        async def wait() -> None:
            async with cells.hold(60):
                pytest.fail("there was no room")

        async with cells.hold(60):
            task = asyncio.create_task(wait())
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        late = None
        async with cells.hold(60):
            late = asyncio.create_task(wait())
            await asyncio.sleep(0)
        late.cancel()  # in the same turn of the loop in which it was given its cells
        await asyncio.gather(late, return_exceptions=True)
        assert cells.used == 0

    asyncio.run(run())


def test_the_youngest_gives_up_its_cells_when_they_run_out_and_never_the_last_one() -> None:
    async def run() -> list[bool]:
        cells = Cells(100)
        async with cells.hold(20) as old, cells.hold(20) as young:
            young.evict = lambda: None
            while not young.is_lost:
                old.grow(1)
            assert 90 < cells.used <= 100 and not old.is_lost
            for _ in range(100):
                old.grow(1)
            return [old.is_lost, young.is_lost]

    assert asyncio.run(run()) == [False, True]


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 40)), max_size=12))
def test_whatever_requests_come_all_end_and_all_cells_come_back(asked: list[tuple[int, int]]) -> None:
    async def run() -> None:
        cells = Cells(100)

        async def one(prompt: int, answer: int) -> None:
            done = 0
            while done < answer:
                async with cells.hold(prompt + done) as place:
                    while done < answer and not place.is_lost:
                        await asyncio.sleep(0)
                        done += 1
                        place.grow(1)

        async with asyncio.timeout(20):
            await asyncio.gather(*(one(*each) for each in asked))
        assert cells.used == 0

    asyncio.run(run())
    assert AHEAD < 100


# ── tokens that are not named ────────────────────────────────────────────────────────────────────────────────────────

TOKENS = [b"\xf0", b"\x9f", b"\x98", b"\x80", b"a", b"\xf0\x9f", b" \xf0", b"\x9f\x98", "é".encode()]


@given(st.lists(st.sampled_from("aé😀"), min_size=1, max_size=4), st.randoms())
def test_tokens_are_found_by_the_bytes_of_the_characters_that_they_make(letters: list[str], source: Any) -> None:
    pieces, text = Pieces(TOKENS.__getitem__, len(TOKENS)), "".join(letters)
    written, tokens = text.encode(), []
    while written:
        token = source.choice([each for each, made in enumerate(TOKENS) if written.startswith(made)])
        tokens.append(token)
        written = written[len(TOKENS[token]) :]
    found = pieces.missing(text, tokens[-1], len(tokens) - 1)
    assert len(found) == len(tokens) - 1
    assert b"".join(map(TOKENS.__getitem__, [*found, tokens[-1]])) == text.encode()


def test_bytes_that_were_no_character_are_others_that_are_none() -> None:
    pieces = Pieces(TOKENS.__getitem__, len(TOKENS))
    assert pieces.missing("\ufffda", 4, 2) == [3, 3]
    assert Pieces(lambda token: b"a", 1).missing("\ufffdb", 0, 1) == [0]


# ── the rules of a turn ──────────────────────────────────────────────────────────────────────────────────────────────


def test_what_may_follow_is_one_token_after_the_other() -> None:
    request = Request([1], 9, frozenset({2}), Sampling(begins=((5, 6, 7), (5, 8))), record=_record())
    assert request.forced() == 5
    request.add(5)
    assert request.forced() is None and request.rules().allowed == (6, 8) and request.rules().count == 1
    request.add(8)
    assert request.forced() is None and request.rules().allowed == () and request.rules().count == 7


def test_an_end_is_barred_until_the_answer_is_long_enough() -> None:
    settings = Sampling(min_tokens=3, logit_bias=((4, 1.5), (2, 50.0)))
    early, late = (Rules(settings, at, 10, frozenset({2})) for at in (1, 3))
    assert (early.count, dict(early.bias())) == (2, {4: 1.5, 2: False})
    assert (late.count, dict(late.bias())) == (7, {4: 1.5, 2: 50.0})


def test_the_only_tokens_are_lifted_together_and_keep_their_biases() -> None:
    rules = Rules(Sampling(allowed=(3, 4), logit_bias=((4, -2.0), (9, 7.0))), 0, 5, frozenset())
    assert dict(rules.bias()) == {3: ONLY, 4: ONLY - 2.0, 9: 7.0}


def test_a_seed_is_never_the_one_that_means_none() -> None:
    for seed in (0, 1, -1, -2, SEEDS, SEEDS - 1, SEEDS + 1, 2**63):
        said = Rules(Sampling(seed=seed, temperature=1.0), 0, 5, frozenset()).samplers(9)["seed"]
        assert 0 <= said < SEEDS
    assert "seed" not in Rules(Sampling(), 0, 5, frozenset()).samplers(9)


def _record() -> Any:
    from gateway_language.sampling import Record

    return Record()


# ── the server ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_large_file_is_read_ahead_with_a_word_of_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(server, "LARGE", 1000)
    monkeypatch.setattr(server, "PIECE", 100)
    (tmp_path / "a.gguf").write_bytes(bytes(1000))
    server.read_ahead(tmp_path / "a.gguf")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("reading a.gguf") and lines[-1] == "reading a.gguf: 100 %" and len(lines) == 11
