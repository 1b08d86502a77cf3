"""A GGUF file on llama.cpp, compared with the same weights on torch and with llama.cpp itself."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("xllamacpp")
pytest.importorskip("torch")

import gateway_llamacpp
from gateway_language.engines import EngineFailed
from gateway_language.sampling import Record, Sampling
from gateway_llamacpp import server
from gguf_models import TINY, loaded, words_of_tiny_chat, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import BadRequest, ConfigError

COUNT = [{"role": "user", "content": "Count to 17."}]
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tiny")
    write(folder / "tiny.gguf")
    with words_of_tiny_chat():
        yield folder


@pytest.fixture(scope="module")
def model(place: Path) -> Iterator[Any]:
    with loaded(place, "llamacpp") as model:
        yield model


@pytest.fixture(scope="module")
def on_torch(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GATEWAY_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        with loaded(place, "torch") as model:
            yield model


async def collect(items: Any) -> tuple[str, dict[str, Any], list[Any]]:
    """The text of an answer, its end, and the log probabilities of its tokens."""
    events = [item async for item in items]
    said = [{"content": event} if isinstance(event, str) else event for event in events]
    scores = [entry for event in said for entry in event.get("logprobs", {}).get("content", [])]
    return "".join(event.get("content") or "" for event in said), events[-1], scores


def chat(model: Any, messages: Any = COUNT, **fields: Any) -> tuple[str, dict[str, Any], list[Any]]:
    return asyncio.run(collect(model.chat_completions({"messages": messages, "max_tokens": 60, **fields})))


def complete(model: Any, prompt: Any, **fields: Any) -> tuple[str, dict[str, Any], list[Any]]:
    return asyncio.run(collect(model.completions({"prompt": prompt, **fields})))


async def tokens_of(model: Any, prompt: list[int], count: int, sampling: Sampling | None = None) -> list[int]:
    ends: frozenset[int] = frozenset()
    return [
        token async for found in model.engine.generate(prompt, count, ends, sampling or Sampling()) for token in found
    ]


# ── the same answers ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_tokens_are_those_of_llama_cpp_itself(model: Any) -> None:
    """Its own function, asked the plain way, gives the same greedy text for 200 prompts of random words."""
    source, end = random.Random(5), model.tokenizer.eos_token_id

    def bare(prompt: list[int]) -> tuple[str, int]:
        body = {"prompt": prompt, "max_tokens": 12, "temperature": 0, "logit_bias": [[end, False], [0, False]]}
        answer = model.engine.server.handle_completions(body)
        return answer["choices"][0]["text"], answer["usage"]["completion_tokens"]

    async def ours(prompt: list[int]) -> tuple[str, int]:
        tokens = await tokens_of(model, prompt, 12, Sampling(logit_bias=((end, -1000.0), (0, -1000.0))))
        return model.tokenizer.decode(tokens), len(tokens)

    async def run(prompts: list[list[int]]) -> list[tuple[str, int]]:
        return [await ours(prompt) for prompt in prompts]

    prompts = [[source.randrange(3, 506) for _ in range(source.randint(1, 20))] for _ in range(200)]
    found = asyncio.run(run(prompts))
    wrong = [
        (prompt, ours, theirs)
        for prompt, ours in zip(prompts, found, strict=True)
        if ours != (theirs := bare(prompt)) and "\ufffd" not in theirs[0]
    ]
    assert wrong == []


REQUESTS: list[dict[str, Any]] = [
    {},
    {"messages": FRANCE},
    {"max_tokens": 5},
    {"stop": [" 7"]},
    {"stop": [" 7"], "include_stop_str_in_output": True},
    {"stop": ["2"], "min_tokens": 8},
    {"messages": FRANCE, "min_tokens": 12},
    {"messages": FRANCE, "ignore_eos": True, "max_tokens": 20},
    {"bad_words": ["5", "11"]},
    {"bad_words": [" 3 4"]},
    {"allowed_token_ids": [9, 10, 11, 12, 2]},
    {"stop_token_ids": [20, 21, 22, 23, 24, 25]},
    {"logit_bias": {"2": 100}},
    {"logit_bias": {"2": -100}, "max_tokens": 70},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 1.3, "repeat_last_n": 4},
    {"top_k": 1, "temperature": 1.5, "seed": 3},
    {"top_p": 0.001, "temperature": 1.5, "seed": 3},
    {"min_p": 1.0, "temperature": 1.5, "seed": 3},
    {"typical_p": 0.0001, "temperature": 0.1, "seed": 3},
    {"continue_final_message": True, "messages": [*COUNT, {"role": "assistant", "content": "1 2 3"}]},
    {"truncate_prompt_tokens": 9},
]


@pytest.mark.parametrize("fields", REQUESTS, ids=lambda fields: json.dumps(fields)[:60])
def test_both_engines_answer_alike(fields: dict[str, Any], model: Any, on_torch: Any) -> None:
    (text, end, _), (wanted, other_end, _) = chat(model, **fields), chat(on_torch, **fields)
    assert (text, end["finish_reason"], end.get("stop_sequence")) == (
        wanted,
        other_end["finish_reason"],
        other_end.get("stop_sequence"),
    )
    for usage in (end["usage"], other_end["usage"]):
        del usage["prompt_tokens_details"]
    assert end["usage"] == other_end["usage"]


def test_log_probabilities_are_those_of_the_model(model: Any, on_torch: Any) -> None:
    for fields in ({"temperature": 0.0}, {"temperature": 0.5, "top_k": 1}):
        (_, _, scores), (_, _, wanted) = (
            chat(each, logprobs=True, top_logprobs=5, **fields) for each in (model, on_torch)
        )
        assert [entry["token"] for entry in scores] == [entry["token"] for entry in wanted]
        assert [entry["logprob"] for entry in scores] == pytest.approx([e["logprob"] for e in wanted], abs=2e-2)
        for entry, other in zip(scores, wanted, strict=True):
            assert entry["bytes"] == other["bytes"] and len(entry["top_logprobs"]) == 5
            assert entry["top_logprobs"][0]["token"] == other["top_logprobs"][0]["token"]


def test_prompts_and_their_tokens_are_the_same(model: Any, on_torch: Any) -> None:
    examples = [json.loads(line) for line in (TINY / "examples.jsonl").read_text().splitlines()[::7]]
    for example in examples:
        inputs = {"messages": example["messages"], "tools": example.get("tools")}
        assert model.prompt_ids(inputs) == on_torch.prompt_ids(inputs)
    asked = {"prompt": "One, two <|im_end|> 3 😀", "return_token_strs": True}
    assert model.tokenize(asked) == on_torch.tokenize(asked)
    assert model.count_tokens(COUNT) == on_torch.count_tokens(COUNT)


# ── sampling ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_seed_repeats_an_answer_and_none_does_not(model: Any) -> None:
    hot = {"temperature": 2.0, "max_tokens": 40}
    one, other = (chat(model, seed=7, **hot)[0] for _ in range(2))
    assert one == other
    assert len({chat(model, seed=seed, **hot)[0] for seed in (1, 2, 3)}) == 3
    assert len({chat(model, **hot)[0] for _ in range(8)}) > 2


@pytest.mark.parametrize("penalty", ["presence_penalty", "frequency_penalty"])
def test_penalties_keep_tokens_from_coming_again(penalty: str, model: Any) -> None:
    prompts = [[token, token + 1, token] for token in range(20, 40)]
    fields = {"max_tokens": 20, "ignore_eos": True, "logit_bias": {"2": -100, "0": -100}}
    plain, changed = (
        [len(set(complete(model, prompt, **fields, **more)[0])) for prompt in prompts] for more in ({}, {penalty: 2.0})
    )
    assert sum(changed) > sum(plain)


def test_characters_of_several_tokens_come_whole_and_every_token_is_counted(model: Any) -> None:
    words = model.tokenizer.get_vocab()
    letters = {token: number for token, number in words.items() if len(token) == 1}
    from gateway_language.vocabulary import byte_letters

    of_byte = {byte: letters[letter] for letter, byte in byte_letters().items() if letter in letters}
    wanted = [of_byte[byte] for byte in "é😀".encode()]
    for seed in range(40):
        fields = {"allowed_token_ids": wanted, "temperature": 2.0, "seed": seed, "max_tokens": 24, "logprobs": True}
        text, end, scores = chat(model, min_tokens=seed % 24, **fields)
        assert end["usage"]["completion_tokens"] == 24
        assert set(text.replace("\ufffd", "").encode()) <= set("é😀".encode())
        assert len(scores) <= 24


# ── room ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_answer_may_fill_the_context(model: Any) -> None:
    room = model.max_model_len - len(model.prompt_ids({"messages": COUNT}))
    for fields in ({"max_tokens": room}, {"max_tokens": None}):
        _, end, _ = chat(model, ignore_eos=True, logit_bias={"2": -100, "0": -100}, **fields)
        assert (end["usage"]["completion_tokens"], end["finish_reason"]) == (room, "length")
    with pytest.raises(BadRequest) as caught:
        chat(model, max_tokens=room + 1)
    assert caught.value.code == "context_length_exceeded"


def test_when_the_cache_is_full_requests_wait_and_are_answered_as_alone(place: Path) -> None:
    """Sixteen answers of 150 tokens in a cache for two or three of them."""

    async def together(model: Any, prompts: list[list[int]]) -> list[list[int]]:
        return await asyncio.gather(*(tokens_of(model, prompt, 150) for prompt in prompts))

    with loaded(place, "llamacpp", options={"max_model_len": 300, "cache_tokens": 400}) as model:
        prompts = [
            model.prompt_ids({"messages": [{"role": "user", "content": f"Count to {number}."}]})
            for number in range(3, 19)
        ]
        alone = [asyncio.run(tokens_of(model, prompt, 150)) for prompt in prompts]
        evicted = _count_evictions(model)
        assert asyncio.run(together(model, prompts)) == alone
        assert evicted and model.engine.cells.used == 0


def _count_evictions(model: Any) -> list[int]:
    """Note each place that is lost."""
    seen: list[int] = []
    cells, grown = model.engine.cells, model.engine.cells.grown

    def counted(count: int) -> None:
        grown(count)
        if any(place.is_lost for place in cells._places):
            seen.append(count)

    cells.grown = counted
    return seen


def test_tokens_that_are_cached_are_told(model: Any) -> None:
    story = [{"role": "user", "content": "Repeat: " + "one two three " * 12}]
    chat(model, story)
    _, end, _ = chat(model, story)
    usage = end["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"] - 1


# ── leaving, stopping, failing ───────────────────────────────────────────────────────────────────────────────────────


def test_who_leaves_frees_the_slot(model: Any) -> None:
    async def leave() -> None:
        stream = model.chat_completions({"messages": COUNT, "ignore_eos": True, "max_tokens": 900})
        async with aclosing(stream) as items:
            async for _ in items:
                break

    async def run() -> list[int]:
        await asyncio.gather(*(leave() for _ in range(40)))
        return await tokens_of(model, [5], 3)

    assert len(asyncio.run(run())) == 3
    assert model.engine.cells.used == 0 and not model.engine._turns


def test_a_prompt_need_not_be_read_to_its_end_when_nobody_waits_for_it(place: Path) -> None:
    """A step reads sixteen tokens, so the request can end after each of them."""
    with loaded(place, "llamacpp", options={"step_tokens": 16}, predict_concurrency=1) as model:

        async def run() -> list[int]:
            long = asyncio.create_task(tokens_of(model, [5] * 900, 3))
            await asyncio.sleep(0)  # the request has begun
            assert model.engine._turns
            long.cancel()
            await asyncio.gather(long, return_exceptions=True)
            return await tokens_of(model, [7], 3)

        assert len(asyncio.run(run())) == 3


def test_requests_that_run_while_the_model_is_unloaded_fail_by_name(place: Path) -> None:
    with loaded(place, "llamacpp") as model:

        async def run() -> None:
            items = model.engine.generate([5], 900, frozenset(), Sampling())
            await anext(items)
            model.unload()
            assert not model.is_healthy()
            with pytest.raises(EngineFailed, match="the engine was stopped"):
                async for _ in items:
                    pass
            with pytest.raises(EngineFailed, match="the engine was stopped"):
                await tokens_of(model, [5], 3)

        asyncio.run(run())


def test_what_llama_cpp_refuses_is_told_in_its_words(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway_llamacpp import turns

    monkeypatch.setattr(turns, "SAMPLERS", (1, 2))
    with pytest.raises(EngineFailed, match=r"llama\.cpp failed: .*samplers"):
        chat(model, temperature=1.0)


def test_a_file_that_llama_cpp_cannot_load_is_told_in_its_words(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf")
    data = (tmp_path / "a.gguf").read_bytes()
    (tmp_path / "a.gguf").write_bytes(data.replace(b"blk.3.ffn_up.weight", b"blk.3.ffn_xx.weight"))
    with pytest.raises(ConfigError, match=r"llama\.cpp cannot load a\.gguf: .*ffn_up"):
        _load(tmp_path)
    (tmp_path / "a.gguf").write_bytes(data[:-100])
    with pytest.raises(ConfigError, match=r"a\.gguf breaks off"):
        _load(tmp_path)


def _load(place: Path, **options: Any) -> None:
    with words_of_tiny_chat(), loaded(place, "llamacpp", options=options):
        pytest.fail("it was loaded")


def test_options_are_checked_by_name(place: Path) -> None:
    for name in ("max_model_len", "cache_tokens", "step_tokens"):
        with pytest.raises(ConfigError, match=rf"options\.{name} must be a whole number of at least 1, not 'many'"):
            _load(place, **{name: "many"})
    with pytest.raises(ConfigError, match="no chat template is called 'rag'"):
        _load(place, chat_template="rag")


def test_steps_of_one_token_of_a_prompt_are_enough_for_all_slots(place: Path) -> None:
    with loaded(place, "llamacpp", options={"step_tokens": 1}) as model:
        assert chat(model, FRANCE)[0] == "Paris"


def test_a_model_in_parts_is_one_model(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", part=20)
    parts = sorted(tmp_path.glob("*.gguf"))
    assert len(parts) == 2 and parts[0].name == "a-00001-of-00002.gguf"
    with words_of_tiny_chat(), loaded(tmp_path, "llamacpp") as model:
        assert chat(model, FRANCE)[0] == "Paris"
    parts[1].unlink()
    with pytest.raises(ConfigError, match=r"a-00002-of-00002\.gguf is missing; a has 2 parts"):
        _load(tmp_path)


def test_without_a_template_it_completes_but_does_not_chat(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", chat_template="")
    with words_of_tiny_chat(), loaded(tmp_path, "llamacpp") as model:
        assert complete(model, "The capital of France is", max_tokens=9)[0] == " Paris."
        with pytest.raises(BadRequest, match="no chat template, so it cannot chat"):
            chat(model)


# ── the process ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_signals_are_the_worker_s_and_nobody_can_connect(place: Path) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        ports = _listening()
        with loaded(place, "llamacpp") as model:
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard == [signal.SIGTERM]
            assert _listening() == ports
            address = model.engine.server.listening_address
            assert address.startswith("unix://") and not Path(address.removeprefix("unix://")).parent.exists()
            assert complete(model, "The capital of France is", max_tokens=9)[0] == " Paris."
    finally:
        signal.signal(signal.SIGTERM, before)


def _listening() -> set[str]:
    """The addresses at which this process listens with TCP."""
    ours = set()
    for each in Path("/proc/self/fd").iterdir():
        try:
            ours.add(os.readlink(each))
        except OSError:
            continue
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path("/proc/self/net", name).read_text().splitlines()[1:]
    ]
    return {line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in ours}


def test_the_start_says_which_engine_it_is_and_why(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with loaded(place, "llamacpp"):
        said = capsys.readouterr().out.splitlines()
    assert any(
        line.startswith("engine: llama.cpp (xllamacpp 20") and line.endswith("as its settings say") for line in said
    )
    assert any("slots: 16, tokens in each: 1023, in all together: 8192" in line for line in said)


def test_loads_and_unloads_leave_nothing_behind(place: Path) -> None:
    with loaded(place, "llamacpp"):
        pass
    threads = len(os.listdir("/proc/self/task"))
    for _ in range(3):
        with loaded(place, "llamacpp") as model:
            chat(model)
    assert len(os.listdir("/proc/self/task")) <= threads


def test_check_reports_a_damaged_file_without_llama_cpp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.gguf")
    spec = gateway_llamacpp.find_model(tmp_path, {"options": {"engine": "llamacpp"}})
    assert spec is not None
    monkeypatch.setattr(server, "open_server", lambda *_: pytest.fail("it was opened"))
    assert list(gateway_llamacpp.check_model(spec)) == []
    (tmp_path / "a.gguf").write_bytes((tmp_path / "a.gguf").read_bytes()[:-100])
    (problem,) = gateway_llamacpp.check_model(spec)
    assert (problem.level, problem.code) == ("error", "invalid_gguf") and "breaks off" in problem.what


# ── any request ──────────────────────────────────────────────────────────────────────────────────────────────────────

ODD = st.sampled_from([None, True, False, 0, 1, -1, 2, 0.5, 1e9, "", "x", [], ["x"], [3], {}, {"3": 1}, {"a": "b"}])
NAMES = (
    "temperature top_p top_k min_p typical_p seed presence_penalty frequency_penalty repetition_penalty repeat_last_n "
    "logit_bias logprobs top_logprobs stop min_tokens bad_words allowed_token_ids stop_token_ids ignore_eos priority "
    "max_tokens echo add_special_tokens truncate_prompt_tokens include_stop_str_in_output n_predict grammar "
    "response_format"
).split()


@settings(max_examples=1000, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), ODD, max_size=5), st.sampled_from(["chat", "completions"]))
def test_any_request_is_answered_or_refused(model: Any, fields: dict[str, Any], source: str) -> None:
    fields = {"max_tokens": 3, **fields}
    if fields["max_tokens"] in (None, 1e9):
        fields["max_tokens"] = 2
    try:
        text, end, _ = chat(model, **fields) if source == "chat" else complete(model, "One", **fields)
    except BadRequest:
        return
    assert end["finish_reason"] in ("stop", "length") and isinstance(text, str)


def test_a_record_is_filled_as_tokens_come(model: Any) -> None:
    async def run() -> Record:
        record = Record()
        async for _ in model.engine.generate([5, 6, 7], 4, frozenset(), Sampling(logprobs=2), record):
            assert record.answer
        return record

    record = asyncio.run(run())
    assert len(record.answer) == 4 and all(score is not None and len(score.top) == 2 for score in record.answer)
