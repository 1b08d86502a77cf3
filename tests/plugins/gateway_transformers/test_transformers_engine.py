from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from gateway_transformers import attention, sampling  # noqa: E402
from gateway_transformers.engine import Engine, EngineFailed, Record, common  # noqa: E402
from gateway_transformers.sampling import Sampling  # noqa: E402

NEVER: frozenset[int] = frozenset()
PROMPTS = [[(7 * start + 3 * at) % 256 for at in range(length)] for start, length in enumerate((3, 40, 9, 1, 25, 14))]


@pytest.fixture
def model(checkpoint: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(checkpoint).eval()


@pytest.fixture
def bare(checkpoint: Path) -> Any:
    """The same model, for tests that ask it while an engine runs the other."""
    return transformers.AutoModelForCausalLM.from_pretrained(checkpoint).eval()


@pytest.fixture
def start(model: Any) -> Iterator[Callable[..., Engine]]:
    engines = []

    def make(**settings: Any) -> Engine:
        engine = Engine(model, **{"slots": 4, "length": 256, "memory": 2**30, "step_tokens": 16, **settings})
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.stop()


async def answer(engine: Engine, prompt: list[int], tokens: int = 12, **settings: Any) -> list[int]:
    stops = settings.pop("stop_ids", NEVER)
    return [token async for step in engine.generate(prompt, tokens, stops, Sampling(**settings)) for token in step]


async def together(engine: Engine, prompts: list[list[int]], **settings: Any) -> list[list[int]]:
    return await asyncio.gather(*(answer(engine, prompt, **settings) for prompt in prompts))


def greedy(model: Any, prompt: list[int], tokens: int = 12) -> list[int]:
    ids = torch.tensor([prompt])
    settings = {"max_new_tokens": tokens, "eos_token_id": -1, "do_sample": False, "pad_token_id": 0}
    output = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    return output[0, len(prompt) :].tolist()


class Gate:
    """Holds the engine's thread before a forward, until `open`; `steps` counts the forwards."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held, self.free = threading.Event(), threading.Event()
        self.sizes: list[int] = []
        self.failing: Exception | None = None
        forward = attention.forward

        def waiting(model: Any, batch: attention.Batch) -> Any:
            self.held.set()
            self.free.wait(10)
            self.sizes.append(len(batch.ids))
            if self.failing is not None:
                raise self.failing
            return forward(model, batch)

        self.patch = lambda: monkeypatch.setattr(attention, "forward", waiting)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.free.set()


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_requests_side_by_side_get_what_generate_gives_each_alone(model: Any, start: Callable[..., Engine]) -> None:
    wanted = [greedy(model, prompt) for prompt in PROMPTS]
    assert asyncio.run(together(start(), PROMPTS)) == wanted


def test_more_requests_than_slots_are_all_answered(start: Callable[..., Engine]) -> None:
    engine = start(slots=2)
    answers = asyncio.run(together(engine, PROMPTS * 3))
    assert [len(tokens) for tokens in answers] == [12] * 18
    assert answers[:6] == answers[6:12] == answers[12:]


def test_running_requests_share_every_forward(start: Callable[..., Engine], gate: Gate) -> None:
    engine = start()
    gate.patch()

    async def run() -> None:
        tasks = [asyncio.create_task(answer(engine, [token], 10)) for token in range(4)]
        await asyncio.to_thread(gate.held.wait, 10)  # the first step took what had come by then
        await asyncio.sleep(0)
        gate.free.set()
        await asyncio.gather(*tasks)

    asyncio.run(run())
    assert gate.sizes.count(4) >= 9
    assert len(gate.sizes) <= 11


def test_a_long_prompt_is_read_beside_running_answers(start: Callable[..., Engine], gate: Gate) -> None:
    engine = start(step_tokens=16)
    gate.patch()
    gate.free.set()

    async def run() -> None:
        async with aclosing(engine.generate([1], 200, NEVER, Sampling())) as first:
            await anext(first)
            await answer(engine, list(range(100)), 2)

    asyncio.run(run())
    assert 17 in gate.sizes  # a piece of the prompt, and the next token of the answer
    assert max(gate.sizes) == 17


def test_an_answer_ends_at_a_stop_token(model: Any, start: Callable[..., Engine]) -> None:
    wanted = greedy(model, PROMPTS[0])
    stop = wanted[5]
    end = wanted.index(stop) + 1
    assert asyncio.run(answer(start(), PROMPTS[0], stop_ids=frozenset({stop}))) == wanted[:end]


def test_tokens_that_piled_up_come_as_one_list(start: Callable[..., Engine]) -> None:
    engine = start()

    async def run() -> list[list[int]]:
        steps = []
        async for step in engine.generate(PROMPTS[0], 12, NEVER, Sampling()):
            steps.append(step)
            if len(steps) == 1:
                await asyncio.to_thread(time.sleep, 0.3)  # a slow reader
        return steps

    steps = asyncio.run(run())
    assert sum(map(len, steps)) == 12
    assert len(steps) < 12


def test_the_same_seed_gives_the_same_answer_in_any_company(start: Callable[..., Engine]) -> None:
    engine = start()
    alone = asyncio.run(answer(engine, PROMPTS[1], temperature=1.0, seed=5))

    async def crowded() -> list[list[int]]:
        mine = answer(engine, PROMPTS[1], temperature=1.0, seed=5)
        others = (answer(engine, prompt, temperature=1.0) for prompt in PROMPTS[2:5])
        return await asyncio.gather(mine, *others)

    assert asyncio.run(crowded())[0] == alone
    assert asyncio.run(answer(engine, PROMPTS[1], temperature=1.0, seed=6)) != alone


def test_an_answer_begins_as_it_has_to_and_goes_on_as_it_likes(bare: Any, start: Callable[..., Engine]) -> None:
    engine = start()
    either = ((5, 6, 7), (5, 9))
    free, bound = (asyncio.run(answer(engine, PROMPTS[0], begins=begins)) for begins in ((), either))
    begun = next(begin for begin in either if tuple(bound[: len(begin)]) == begin)
    assert bound == [*begun, *greedy(bare, [*PROMPTS[0], *begun], 12 - len(begun))]
    assert free == greedy(bare, PROMPTS[0])


def test_scores_are_those_of_the_bare_model_in_any_company(bare: Any, start: Callable[..., Engine]) -> None:
    engine, records = start(step_tokens=16), [Record() for _ in PROMPTS]

    async def scored(prompt: list[int], record: Record) -> list[int]:
        settings = Sampling(logprobs=2, prompt_logprobs=True, frequency_penalty=1.0)
        return [token async for step in engine.generate(prompt, 5, NEVER, settings, record) for token in step]

    async def run() -> list[list[int]]:
        await answer(engine, PROMPTS[1])  # what is cached has scores all the same
        return await asyncio.gather(*map(scored, PROMPTS, records), together(engine, PROMPTS))

    for prompt, record, tokens in zip(PROMPTS, records, asyncio.run(run()), strict=False):
        with torch.inference_mode():
            logprobs = bare(torch.tensor([prompt + tokens])).logits[0].log_softmax(-1)
        assert [score.token for score in [*record.prompt, *record.answer]] == (prompt + tokens)[1:]
        for score, row in zip([*record.prompt, *record.answer], logprobs, strict=False):
            assert score.logprob == pytest.approx(float(row[score.token]), abs=1e-3)
            assert [logprob for _, logprob in score.top] == pytest.approx(row.topk(2).values.tolist(), abs=1e-3)


def test_a_record_says_how_much_of_the_prompt_was_cached(start: Callable[..., Engine]) -> None:
    engine, record = start(), Record()

    async def run() -> None:
        await answer(engine, PROMPTS[1])
        async for _ in engine.generate([*PROMPTS[1], 1, 2], 2, NEVER, Sampling(), record):
            pass

    asyncio.run(run())
    assert (record.cached, record.answer) == (len(PROMPTS[1]), [])


# ── slots ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_next_turn_of_a_conversation_continues_its_slot(
    model: Any, start: Callable[..., Engine], gate: Gate
) -> None:
    first = greedy(model, PROMPTS[1])
    turn = PROMPTS[1] + first + [9, 8, 7]
    second = greedy(model, turn)
    engine = start(step_tokens=256)
    assert asyncio.run(answer(engine, PROMPTS[1])) == first
    gate.patch()
    gate.free.set()

    assert asyncio.run(answer(engine, turn)) == second
    assert gate.sizes[0] == 4  # the last token of the answer had not been computed yet, and three new ones


def test_a_conversation_is_not_written_over_while_there_is_room(start: Callable[..., Engine], gate: Gate) -> None:
    engine = start(slots=2, step_tokens=256)
    long = [token % 256 for token in range(100)]
    asyncio.run(answer(engine, long))
    asyncio.run(answer(engine, [*long[:10], 5, 5, 5]))  # shares its beginning, and takes the empty slot all the same
    gate.patch()
    gate.free.set()
    asyncio.run(answer(engine, [*long, 1, 2]))
    assert gate.sizes[0] == 2


def test_a_prompt_that_is_cached_as_a_whole_is_answered_again(model: Any, start: Callable[..., Engine]) -> None:
    wanted = greedy(model, PROMPTS[4])
    engine = start(slots=1)
    assert [asyncio.run(answer(engine, PROMPTS[4])) for _ in range(3)] == [wanted] * 3


def test_sequences_share_their_beginning() -> None:
    assert common([1, 2, 3], [1, 2, 4, 5]) == 2
    assert common([1, 2], [1, 2, 3]) == 2
    assert common([], [1]) == 0


def test_the_cache_is_sized_by_memory(start: Callable[..., Engine]) -> None:
    engine = start(slots=2, memory=2 * 512 * 100)  # 512 bytes a token
    assert engine.length == 100
    assert engine.cache_bytes == 2 * 512 * 100


def test_what_does_not_fit_is_refused_and_harms_nobody(start: Callable[..., Engine]) -> None:
    engine = start(length=50)

    async def run() -> list[int]:
        other = asyncio.create_task(answer(engine, PROMPTS[0]))
        for prompt, tokens in (([1] * 50, 1), ([1], 50), ([1] * 500, 1), ([], 5), ([1], 0)):
            with pytest.raises(ValueError, match="do not fit"):
                await answer(engine, prompt, tokens)
        return await other

    assert len(asyncio.run(run())) == 12
    assert len(asyncio.run(answer(engine, [1] * 49, 1))) == 1
    assert engine.is_alive


# ── cancelling ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_closed_answer_frees_its_slot_at_the_next_step(start: Callable[..., Engine]) -> None:
    engine = start(slots=1)

    async def run() -> None:
        async with aclosing(engine.generate(PROMPTS[0], 200, NEVER, Sampling())) as steps:
            await anext(steps)
        assert await answer(engine, PROMPTS[2])  # there is one slot only
        assert engine.running == []

    asyncio.run(run())


def test_a_cancelled_caller_frees_its_slot(start: Callable[..., Engine], gate: Gate) -> None:
    engine = start(slots=1)
    gate.patch()

    async def run() -> None:
        task = asyncio.create_task(answer(engine, PROMPTS[0], 200))
        await asyncio.to_thread(gate.held.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.free.set()
        assert await answer(engine, PROMPTS[2])

    asyncio.run(run())


def test_a_request_that_left_while_it_waited_is_never_run(start: Callable[..., Engine], gate: Gate) -> None:
    engine = start(slots=1)
    gate.patch()

    async def run() -> None:
        first = asyncio.create_task(answer(engine, [1], 3))
        await asyncio.to_thread(gate.held.wait, 10)
        second = asyncio.create_task(answer(engine, [2, 3, 4, 5, 6], 3))
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        gate.free.set()
        await first

    asyncio.run(run())
    assert gate.sizes == [1, 1, 1]


def test_callers_whose_loop_is_closed_are_let_go(start: Callable[..., Engine], gate: Gate) -> None:
    engine = start(slots=1)
    gate.patch()
    loop = asyncio.new_event_loop()
    steps: AsyncIterator[list[int]] = engine.generate([1], 200, NEVER, Sampling())
    waiting = loop.create_task(anext(steps))  # type: ignore[arg-type]
    loop.run_until_complete(asyncio.sleep(0.01))
    assert gate.held.wait(10)
    loop.close()
    gate.free.set()

    assert len(asyncio.run(answer(engine, [2], 3))) == 3
    assert engine.is_alive
    del waiting


# ── failing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_failed_step_fails_those_that_ran_and_waited_and_no_others(start: Callable[..., Engine], gate: Gate) -> None:
    engine = start(slots=2)
    gate.patch()
    gate.failing = RuntimeError("out of luck")

    async def run() -> list[Any]:
        tasks = [asyncio.create_task(answer(engine, prompt)) for prompt in PROMPTS[:4]]
        await asyncio.to_thread(gate.held.wait, 10)
        await asyncio.sleep(0.01)
        gate.free.set()
        failed = await asyncio.gather(*tasks, return_exceptions=True)
        gate.failing = None
        return [*failed, await answer(engine, PROMPTS[0])]

    *failed, after = asyncio.run(run())
    assert [type(error) for error in failed] == [EngineFailed] * 4
    assert "out of luck" in str(failed[0])
    assert len(after) == 12
    assert engine.is_alive


def test_a_failure_reaches_those_whose_last_token_it_was(
    start: Callable[..., Engine], gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> int:
        raise ValueError("no such distribution")

    engine = start()
    gate.patch()
    monkeypatch.setattr(sampling, "draw", refuse)

    async def run() -> list[Any]:
        blocker = asyncio.create_task(answer(engine, [1], 2))
        await asyncio.to_thread(gate.held.wait, 10)
        last = asyncio.create_task(answer(engine, [2], 1))
        drawn = asyncio.create_task(answer(engine, [3], 5, temperature=1.0))
        await asyncio.sleep(0.01)
        gate.free.set()
        async with asyncio.timeout(10):
            return await asyncio.gather(blocker, last, drawn, return_exceptions=True)

    assert [type(error) for error in asyncio.run(run())] == [EngineFailed] * 3


def test_memory_that_ran_out_keeps_its_type(start: Callable[..., Engine], gate: Gate) -> None:
    engine = start()
    gate.patch()
    gate.free.set()
    gate.failing = torch.OutOfMemoryError("2 GiB")
    with pytest.raises(torch.OutOfMemoryError, match="2 GiB"):
        asyncio.run(answer(engine, PROMPTS[0]))


def test_an_engine_that_keeps_failing_gives_up_and_says_so(start: Callable[..., Engine], gate: Gate) -> None:
    engine = start()
    gate.patch()
    gate.free.set()
    gate.failing = RuntimeError("CUDA error")
    for _ in range(3):
        with pytest.raises(EngineFailed, match="CUDA error"):
            asyncio.run(answer(engine, PROMPTS[0]))
    engine.thread.join(10)
    assert not engine.is_alive
    with pytest.raises(EngineFailed, match="has ended"):
        asyncio.run(answer(engine, PROMPTS[0]))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_end_of_the_thread_hangs_nobody(start: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = start()

    def exit_(*_: Any) -> None:
        raise SystemExit(3)

    monkeypatch.setattr(attention, "forward", exit_)
    with pytest.raises(EngineFailed, match="SystemExit"):
        asyncio.run(answer(engine, PROMPTS[0]))
    engine.thread.join(10)
    assert not engine.is_alive


def test_stopping_fails_what_was_running(start: Callable[..., Engine]) -> None:
    engine = start()

    async def run() -> None:
        steps = engine.generate(PROMPTS[0], 200, NEVER, Sampling())
        await anext(steps)
        await asyncio.to_thread(engine.stop)
        with pytest.raises(EngineFailed, match="stopped"):
            while True:
                await anext(steps)

    asyncio.run(run())
    assert not engine.is_alive


def test_the_lower_the_priority_the_earlier_a_prompt_is_read(start: Callable[..., Engine], gate: Gate) -> None:
    engine = start(slots=2, step_tokens=8)
    gate.patch()
    order: list[int] = []

    async def ask(priority: int) -> None:
        async for _ in engine.generate([priority + 10] * 20, 1, NEVER, Sampling(), priority=priority):
            order.append(priority)

    async def run() -> None:
        first = asyncio.create_task(ask(2))
        await asyncio.to_thread(gate.held.wait, 10)
        others = [asyncio.create_task(ask(priority)) for priority in (5, 5, -1, 4)]
        await asyncio.sleep(0)  # they are in line
        gate.free.set()
        await asyncio.gather(first, *others)

    asyncio.run(run())
    assert order[:2] == [-1, 2]  # it overtakes the one that was being read
    assert order[2:] == [4, 5, 5]
