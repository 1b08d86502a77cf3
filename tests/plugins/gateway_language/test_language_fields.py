"""Every field of the table is honoured, refused, or has nothing to say: none is dropped."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_language.fields import ELSEWHERE, MESSAGE, TABLE, Source, check
from gateway_language.text import StopStrings
from gateway_transformers import find_model
from gateway_transformers.model import LanguageModel
from hypothesis import given
from hypothesis import strategies as st

from gateway import BadRequest
from gateway.dialects.anthropic.count_tokens import CountDialect
from gateway.dialects.anthropic.messages import MessagesDialect
from gateway.dialects.base import Context, Dialect
from gateway.dialects.openai.chat import ChatDialect
from gateway.dialects.openai.completions import CompletionsDialect
from gateway.dialects.openai.input_tokens import InputTokensDialect
from gateway.dialects.responses.route import ResponsesDialect
from gateway.spec import Capabilities, ModelSpec
from gateway.worker.loading.derived_methods import OF_PROMPT, derive
from gateway.worker.loading.descriptor import describe

MODELS = Path(__file__).parents[3] / "models"
PAGE = MODELS.parent / "docs" / "fields.md"
CAPITAL = [{"role": "user", "content": "What is the capital of Iceland?"}]
BEGUN = [*CAPITAL, {"role": "assistant", "content": "Reykj"}]
STRANGE = [{"role": "user", "content": "zq"}]  # the model does not know what to say
DOCUMENT = {"title": "Iceland", "text": "Its capital is Reykjavik."}


def each(names: str, value: Any) -> dict[str, Any]:
    return dict.fromkeys(names.split(), value)


# One value of each field that asks for something.
VALUES: dict[str, Any] = {
    **each("top_k repeat_last_n min_tokens min_new_tokens priority n_predict num_predict", 3),
    **each("max_new_tokens truncate_prompt_tokens sampling_seed random_seed", 3),
    **each("max_output_tokens max_tokens_to_sample request_output_len sampler_seed", 3),
    **each("min_p typical_p typical repetition_penalty repeat_penalty rep_pen", 0.5),
    **each("stop_sequences stop_sequence stop_words stop_str stopping_strings", ["kja"]),
    "banned_strings": ["Reyk"],
    "temp": 2,
    **each("ignore_eos include_stop_str_in_output no_stop_trim echo continue_final_message", True),
    **each("add_special_tokens add_special enable_thinking thinking think", True),
    "stop_token_ids": [76],
    "bad_words": ["Reyk"],
    "allowed_token_ids": [76, 77],
    "truncation_side": "right",
    "add_generation_prompt": False,
    "chat_template_kwargs": {"enable_thinking": True},
    "documents": [DOCUMENT],
    "reasoning": {"effort": "high"},
    "reasoning_effort": "high",
    "response_format": {"type": "json_object"},
    "structured_outputs": {"choice": ["Paris", "Rome"]},
    "guided_json": {"type": "object"},
    "guided_choice": ["Paris", "Rome"],
    "structural_tag": {"structures": []},
    "json_schema": {},  # any JSON
    "modalities": ["text", "audio"],
    "audio": {"voice": "alloy"},
    "prediction": {"type": "content", "content": "Paris"},
    "web_search_options": {"search_context_size": "low"},
    "samplers": [],
    "options": {"num_predict": 3},
    "lora": [{"id": 0, "scale": 0.5}],
    "dry_sequence_breakers": ["."],
    "reasoning_format": "none",
    **each("parse_tool_calls separate_reasoning stream_reasoning include_reasoning", False),
    **each("skip_special_tokens detokenize penalize_nl penalize_newline parse_special", False),
    **each("guided_regex regex ebnf suffix stop_regex", "[0-9]+"),
    **each("guided_grammar grammar", "root ::= [0-9]+"),
    "format": "json",
    **each("chat_template template system task input_prefix input_suffix", "{{ 1 }}"),
    **each("adapter adapter_id lora_path cache_salt extra_key bootstrap_host", "other"),
    **each("custom_logit_processor session_id request_id rid keep_alive ngram_corpus_id", "other"),
    **each("guided_decoding_backend guided_whitespace_pattern chat_format backend_sampling", "other"),
    **each("mm_processor_kwargs media_io_kwargs images_config kv_transfer_params", {"a": 1}),
    **each("ec_transfer_params custom_params vllm_xargs repetition_detection custom_labels", {"a": 1}),
    **each("sampling_params session_params", {"temperature": 1}),
    **each("logits_processors logprob_token_ids response_fields images context input_extra", [1]),
    **each("input_ids input_embeds prompt_embeds multimodal_data image_data", [1]),
    **each("grammar_triggers preserved_tokens", [1]),
    **each("mirostat dry_multiplier xtc_probability dynatemp_range n_indent min_keep best_of", 2),
    **each("n_cmpl length_penalty top_n_sigma adaptive_target t_max_predict_ms n_probs", 2),
    **each("thinking_token_budget thinking_budget_tokens reasoning_budget num_ctx", 2),
    **each("reasoning_budget_tokens top_logprobs_num logprob_start_len", 2),
    **each("speculative.n_max speculative.n_min speculative.p_min speculative.type", 2),
    **each("speculative.ngram_size_n speculative.ngram_size_m speculative.ngram_m_hits", 2),
    **each("thinking_forced_open verbose enable_response_messages return_logprob return_text_in_logprobs", True),
    **each("reasoning_budget_arm_immediately reasoning_control", True),
    **each("generation_prompt prompt_name chat_parser grammar_type reasoning_budget_message", "other"),
    **each("reasoning_budget_start_tag reasoning_budget_end_tag", "<think>"),
    **each("token_ids_logprob audio_data video_data", [1]),
    "previous_response": {"id": "resp_1", "output": []},
    "previous_input_messages": [{"role": "user", "content": "Say: x"}],
    **each("bootstrap_port bootstrap_room prompt_logprobs num_batch num_gpu main_gpu num_thread", 2),
    **each("routed_experts_prompt_start routed_experts_start_len max_dynamic_patch", 2),
    **each("min_dynamic_patch id_slot n_cache_reuse n_keep n_discard num_keep stream_interval", 2),
    **each("sse_ping_interval routed_dp_rank data_parallel_rank disagg_prefill_dp_rank", 2),
    **each("mirostat_tau mirostat_eta dry_base dry_allowed_length dry_penalty_last_n", 2),
    **each("xtc_threshold dynatemp_exponent adaptive_decay tfs_z", 0.5),
    **dict.fromkeys(
        "reasoning_in_content use_beam_search early_stopping watermarking raw truncate shift".split(), True
    ),
    **each("return_token_ids return_tokens return_tokens_as_token_ids return_prompt_token_ids", True),
    **each("return_prompt_text return_hidden_states return_routed_experts return_meta_info", True),
    **each("return_cached_tokens_details post_sampling_probs _debug_render_only with_pieces", True),
    **each("use_audio_in_video low_vram use_mmap use_mlock numa grammar_lazy cache_prompt", True),
    **each("timings_per_token return_progress return_token_offsets return_mm_kwargs", True),
    "spaces_between_special_tokens": False,
    # of other routes
    "messages": [{"role": "user", "content": "Say: x"}],
    "tools": [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}],
    "functions": [{"name": "get_weather", "parameters": {"type": "object"}}],
    "tool_choice": "required",
    "function_call": {"name": "get_weather"},
    "include": ["message.output_text.logprobs"],
    "mcp_servers": [{"type": "url", "url": "https://example.org", "name": "x"}],
    "previous_response_id": "resp_1",
    **each("prompt input instructions", "Say: x"),
    **each("conversation thread compaction", {"id": "x"}),
    **each("text output_config", {"format": {"type": "json_object"}}),
    "output_format": {"type": "json_schema", "schema": {"type": "object"}},
    **each("top_logprobs max_tool_calls", 2),
    "background": True,
    # of other servers
    **each("trim_stop do_preprocess add_bos_token do_sample", False),
    **each("guided_decoding guided_params parameters extra_body generation_config disaggregated_params", {"a": 1}),
    **each("search_options search_settings search_parameters template_vars sequence_bias", {"a": 1}),
    **each("provider trace lookahead_config role_mapping max_price", {"a": 1}),
    **each("guideline grammar_string regex_pattern result_format negative_prompt preset memory", "other"),
    **each("instruction_template instruction_template_str prompt_template tool_prompt", "other"),
    **each("system_prompt system_instruction inputs text_input response_prefix prompt_mode", "other"),
    **each("adapter_name adapters genkey route draft_model", "other"),
    **each("character chat_template_str greeting user_bio mode personality", "other"),
    "moderation": {"model": "m", "policy": {"output": {"mode": "block"}}},
    "nvext": {"guided_choice": ["Paris", "Rome"]},
    "image": {"context_compression": "enabled"},
    "background_options": {"completion_window": "2h"},
    "access_programs": {"a": 1},
    "context_management": [{"type": "compaction", "compact_threshold": 1000}],
    **each("bot_name user_name name1 name2 chat_instruct_command", "other"),
    "data_sources": [{"type": "azure_search", "parameters": {"index_name": "x"}}],
    "verbosity": "low",
    **each("plugins guardrails transforms contents sampler_order sampler_priority banned_tokens", [1]),
    **each("custom_token_bans suppress_tokens embedding_bias token_ban_ranges", [1]),
    **each("begin_suppress_tokens force_words_ids bad_words_ids custom_stopping_strings models fallbacks", [1]),
    **each("render_special return_full_text return_prompt watermark dynamic_temperature", True),
    **each("temperature_last token_healing auto_max_new_tokens use_default_badwordsids", True),
    **each("ban_eos_token bypass_eos bypass_eos_token details decoder_input_details", True),
    **each("return_log_probs return_context_logits return_generation_logits interactive_mode", True),
    **each("enable_search enable_code_interpreter deferred safe_prompt continue_", True),
    **each("guided_json_object grammar_retain_state incremental_output xtc_special_tokens", True),
    **each("num_beams num_beam_groups beam_width num_return_sequences diversity_penalty", 2),
    **each("beam_search_diversity_rate mirostat_mode dynatemp_min dynatemp_max smoothing_factor", 2),
    **each("top_a eta_cutoff epsilon_cutoff penalty_alpha skew min_temp max_temp", 0.5),
    **each("guidance_scale cfg_scale top_p_decay tfs repetition_decay rep_pen_slope top_p_min", 0.5),
    **each("no_repeat_ngram_size encoder_no_repeat_ngram_size repetition_ngram_size", 2),
    **each("encoder_repetition_penalty hallucination_penalty prompt_ignore_length", 2),
    **each("repetition_penalty_range penalty_range rep_pen_range repetition_context_size", 2),
    **each("presence_context_size frequency_context_size nsigma thinking_budget max_length", 2),
    **each("min_length max_tokens_second end_id top_n_tokens truncation_length", 2),
    **each("max_context_length dry_range dynatemp_low dynatemp_high temp_exponent", 2),
    **each("smoothing_curve repetition_ngram_threshold num_draft_tokens speculative_ngram", 2),
    **each("prompt_lookup_num_tokens pad_id pad_token_id", 2),
}

# What else a request has in which an honoured field is seen to work; a seed where something is drawn.
SEEN: dict[str, dict[str, Any]] = {
    **each("top_k min_p typical_p typical", {"temperature": 2, "seed": 5, "messages": STRANGE}),
    **each("sampling_seed random_seed sampler_seed", {"temperature": 2, "seed": None, "messages": STRANGE}),
    "temp": {"seed": 5, "messages": STRANGE},
    "repeat_last_n": {"repetition_penalty": 5},
    "truncation_side": {"truncate_prompt_tokens": 12},
    "continue_final_message": {"messages": BEGUN},
    **each("include_stop_str_in_output no_stop_trim", {"stop": ["kja"]}),
    **each("min_tokens min_new_tokens", {"stop": ["e"]}),
}
LIMITS = {"max_tokens", *(name for name, field in TABLE.items() if field.alias == "max_tokens")}
INVISIBLE = {"priority", "add_special_tokens", "add_special"}  # tested below, where they can be seen
NAMES = {kind: sorted(name for name, field in TABLE.items() if field.does == kind) for kind in ("refused", "passed")}
SCHEMAS = {"guided_json", "json_schema", "format"}  # take any object
HONOURED = sorted(name for name, field in TABLE.items() if field.does == "honoured")


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    pytest.importorskip("transformers")
    home = Path.cwd()
    spec = find_model(MODELS / "tiny-chat", {})
    assert spec is not None
    os.chdir(spec.root)
    found = LanguageModel(config=spec.config, data_dir=spec.root / "data")
    found.load()
    os.chdir(home)
    yield found
    found.unload()


def chat(model: Any, **fields: Any) -> dict[str, Any]:
    """Everything that an answer is, put together."""
    limit = {} if LIMITS & fields.keys() else {"max_tokens": 40}
    return asyncio.run(_collect(model.chat_completions({"messages": CAPITAL, **limit, **fields})))


def complete(model: Any, **fields: Any) -> dict[str, Any]:
    return asyncio.run(_collect(model.completions({"prompt": "Say: one two three", **fields})))


async def _collect(items: Any) -> dict[str, Any]:
    answer: dict[str, Any] = {"content": "", "reasoning_content": ""}
    async for item in items:
        for name, value in ({"content": item} if isinstance(item, str) else item).items():
            answer[name] = answer[name] + value if isinstance(answer.get(name), str) else value
    answer["usage"] = {name: value for name, value in answer["usage"].items() if name.endswith("_tokens")}
    return answer


def refusal(run: Any, *args: Any, **fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        run(*args, **fields)
    return caught.value


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_page_prints_the_table() -> None:
    shown: dict[str, dict[str, str]] = {}
    for line in PAGE.read_text().partition("## Keys of a message")[0].splitlines():
        if line.startswith("## "):
            rows = shown.setdefault(line.removeprefix("## ").lower(), {})
        elif line.startswith("| `"):
            names, text = line.removeprefix("| ").removesuffix(" |").split(" | ", 1)
            found = re.findall(r"`([\w.]+)`", names)
            assert not {name for each in shown.values() for name in each} & {*found}, "it is there twice"
            rows |= dict.fromkeys(found, text)
    refused_by = {None: "", "chat": "; refused by completions", "completions": "; refused by chat"}
    assert {name for rows in shown.values() for name in rows} == TABLE.keys()
    for name, field in TABLE.items():
        neutral = ", ".join(f"`{json.dumps(value)}`" for value in field.neutral) or "nothing"
        if name in ELSEWHERE:
            assert shown["fields of other routes"][name] == f"{field.only or 'neither'} | {field.instead} | {neutral}"
        elif field.does == "refused":
            assert shown["refused"][name] == f"{neutral} | {field.instead}"
        else:
            assert shown[field.does][name] == field.means + refused_by[field.only]


def test_every_field_has_a_value_that_asks_for_something() -> None:
    assert VALUES.keys() == TABLE.keys()
    assert not [name for name, value in VALUES.items() if TABLE[name].is_neutral(value)]


@pytest.mark.parametrize("name", NAMES["refused"])
def test_a_field_that_cannot_be_honoured_is_refused_by_its_name(model: Any, name: str) -> None:
    for source, run in (("chat", chat), ("completions", complete)):
        if source == TABLE[name].only:
            continue
        error = refusal(run, model, **{name: VALUES[name]})
        assert (error.status, error.code, error.param) == (400, "unsupported_value", name)
        assert name in error.message


@pytest.mark.parametrize("name", NAMES["refused"])
def test_its_neutral_values_pass(name: str) -> None:
    for value in (None, *TABLE[name].neutral):
        asked: dict[Source, dict[str, Any]] = {"chat": {"messages": []}, "completions": {"prompt": ""}}
        for source, fields in asked.items():
            assert source == TABLE[name].only or check({**fields, name: value}, source) == fields


def test_fields_that_only_advise_change_nothing(model: Any) -> None:
    plain = chat(model)
    assert chat(model, **{name: VALUES[name] for name in NAMES["passed"]}) == plain


def test_a_field_outside_the_table_passes(model: Any) -> None:
    assert chat(model, something_else={"a": [1]}) == chat(model)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("maxTokens", "max_tokens"),
        ("topP", "top_p"),
        ("top-p", "top_p"),
        ("TOP_K", "top_k"),
        ("stopSequences", "stop_sequences"),
        ("noRepeatNgramSize", "no_repeat_ngram_size"),
        ("enableThinking", "enable_thinking"),
        ("max_tokens_", "max_tokens"),
        ("logProbs", "logprobs"),
    ],
)
def test_a_field_in_another_spelling_is_refused_with_ours(model: Any, name: str, meant: str) -> None:
    for run in (chat, complete):
        error = refusal(run, model, **{name: 1})
        assert (error.code, error.param) == ("unsupported_value", name)
        assert f"did you mean {meant}?" in error.message
        assert run(model, **{name: None})
    assert chat(model, cachePrompt=True) == chat(model)  # advice may be lost


@pytest.mark.parametrize("name", sorted(set(HONOURED) - INVISIBLE - {"echo", "documents"}))
def test_a_field_that_is_honoured_changes_the_answer(model: Any, name: str) -> None:
    more = SEEN.get(name, {})
    assert chat(model, **more, **{name: VALUES[name]}) != chat(model, **more)


@pytest.mark.parametrize("name", [name for name in HONOURED if TABLE[name].only == "chat"])
def test_a_prompt_of_no_messages_refuses_what_is_for_a_template(model: Any, name: str) -> None:
    error = refusal(complete, model, **{name: VALUES[name]})
    assert (error.code, error.param) == ("unsupported_value", name)


@pytest.mark.parametrize("name", [name for name in HONOURED if TABLE[name].only is None])
def test_completions_read_the_same_fields_as_chat(model: Any, name: str) -> None:
    wrong = 1 if name in SCHEMAS else {"an": "object"}
    error = refusal(complete, model, **{name: wrong}) if name != "reasoning_effort" else None
    assert error is None or (error.param or "").split(".")[0] in (name, TABLE[name].alias)


# ── fields of other routes ───────────────────────────────────────────────────────────────────────────────────────────

ROUTES: dict[str, tuple[Dialect, dict[str, Any]]] = {
    "chat": (ChatDialect(), {"messages": CAPITAL, "max_tokens": 20}),
    "completions": (CompletionsDialect(), {"prompt": "Say: one two three"}),
    "responses": (ResponsesDialect(), {"input": CAPITAL[0]["content"], "max_output_tokens": 20}),
    "messages": (MessagesDialect(), {"messages": CAPITAL, "max_tokens": 20}),
}
METHODS = {"completions": "completions"}  # of the others it is chat_completions
# One value of each word of a route that asks for something; what is in `VALUES` is there.
WORDS: dict[str, Any] = {
    "stop": ["e"],
    "stop_sequences": ["e"],
    **each("max_tokens max_completion_tokens max_output_tokens", 2),
    "n": 2,
    "suffix": "x",
    "best_of": 2,
    "logprobs": True,
    "logit_bias": {"76": 100},
    "response_format": {"type": "json_object"},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "reasoning": {"effort": "high"},
    "output_config": {"effort": "high"},
    **each("temperature top_p frequency_penalty presence_penalty", 0.5),
    "seed": 6,
}
SHARED = {"temperature", "top_p", "top_k", "seed", "frequency_penalty", "presence_penalty"}  # same name, same meaning
ADVICE = {"model", "stream", "stream_options", "store", "metadata", "parallel_tool_calls"}


def answered(model: Any, route: str, **fields: Any) -> Any:
    """What a client of the route sees of the answer."""
    dialect, body = ROUTES[route]
    method = METHODS.get(route, "chat_completions")
    prepared = dialect.read({**body, **fields}, method)
    [inputs] = dialect.calls(prepared, Capabilities(supports_n=True, prefill=True))
    inputs = {**inputs, **(prepared.options["prompts"][0] if route == "completions" else {})}
    encoder = dialect.encoder(prepared, Context("m", "0" * 32, 0))

    async def collect() -> None:
        async for item in getattr(model, method)(inputs):
            encoder.feed([item])

    asyncio.run(collect())
    whole = json.loads(encoder.whole()[0])
    shown = json.dumps(whole.get("choices") or whole.get("output") or whole["content"])
    return re.sub(r'"(msg|rs|fc)_\w+"', "", shown)


@pytest.mark.parametrize("route", ROUTES)
def test_no_word_of_another_route_is_without_effect(model: Any, route: str) -> None:
    words = {word: other for other, (dialect, _) in ROUTES.items() for word in dialect.request_schema["properties"]}
    dialect, body = ROUTES[route]
    plain = answered(model, route)
    for word in sorted(words.keys() - dialect.request_schema["properties"].keys() - ADVICE):
        value = WORDS[word] if word in WORDS else VALUES[word]
        if word in SHARED:
            assert dialect.read({**body, word: value}, METHODS.get(route, "chat_completions")).inputs[word] == value
            continue
        try:
            answer = answered(model, route, **{word: value})
        except BadRequest as error:
            assert word in error.message and error.status == 400, (route, word)
        else:
            assert answer != plain, f"{word} of {words[word]} is dropped by {route}"


@pytest.mark.parametrize(
    ("route", "word", "ours"),
    [
        ("responses", "messages", "'input'"),
        ("chat", "input", "messages"),
        ("chat", "prompt", "messages"),
        ("chat", "instructions", "a message of the system"),
        ("chat", "text", "response_format"),
        ("completions", "messages", "prompt"),
        ("completions", "top_logprobs", "logprobs"),
        ("messages", "max_completion_tokens", "'max_tokens'"),
        ("messages", "input", "messages"),
        ("messages", "instructions", "a message of the system (instructions on /v1/responses, system on"),
        ("messages", "stop", "'stop_sequences'"),
    ],
)
def test_the_refusal_of_a_word_says_which_one_the_route_has(model: Any, route: str, word: str, ours: str) -> None:
    error = refusal(answered, model, route, **{word: WORDS.get(word, VALUES.get(word))})
    assert error.code == "unsupported_value" and f"send {ours}" in error.message


@pytest.mark.parametrize("route", ["chat", "completions"])
def test_stops_and_limits_are_honoured_under_every_name(model: Any, route: str) -> None:
    for name in (name for name, field in TABLE.items() if field.alias in ("stop", "max_tokens")):
        value = "e" if TABLE[name].alias == "stop" else 2
        asked = {"stop": ["e"]} if TABLE[name].alias == "stop" else {"max_tokens": 2}
        limit = {"max_tokens": None} if TABLE[name].alias == "max_tokens" else {}
        assert answered(model, route, **limit, **{name: value}) == answered(model, route, **asked) != ""


@pytest.mark.parametrize(
    ("route", "fields"),
    [
        ("responses", {"max_tokens": 2}),
        ("responses", {"max_completion_tokens": 2}),
        ("responses", {"reasoning": {"effort": "low"}, "reasoning_effort": "high"}),
        ("messages", {"max_output_tokens": 2}),
        ("messages", {"max_tokens_to_sample": 2}),
        ("messages", {"output_config": {"effort": "low"}, "reasoning_effort": "high"}),
        ("chat", {"max_output_tokens": 2}),
    ],
)
def test_two_words_for_one_thing_may_not_say_different_things(model: Any, route: str, fields: dict[str, Any]) -> None:
    assert "different values" in refusal(answered, model, route, **fields).message


@pytest.mark.parametrize("name", sorted(TABLE))
def test_no_dialect_loses_a_field_on_its_way_to_the_model(name: str) -> None:
    for route, (dialect, body) in ROUTES.items():
        if name in ELSEWHERE or name in dialect.request_schema["properties"] or TABLE[name].alias == "max_tokens":
            continue  # tested above
        if (route, name) in {
            ("messages", "fallbacks"),
            ("messages", "context_management"),
            ("responses", "max_tool_calls"),
        }:
            continue  # advice to hosted models
        try:
            read = dialect.read({**body, name: VALUES[name]}, METHODS.get(route, "chat_completions"))
            assert read.inputs.get(name) == VALUES[name], dialect
        except BadRequest as error:
            assert error.param == name, dialect


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_alias_and_its_field_may_not_say_different_things(model: Any) -> None:
    assert refusal(chat, model, n_predict=3, max_tokens=40).param == "n_predict"
    assert chat(model, n_predict=40, max_tokens=40) == chat(model)
    assert refusal(chat, model, repeat_penalty=1.1, repetition_penalty=1.2).param == "repeat_penalty"


# ── what they do ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stop_token_ends_the_answer_and_is_no_part_of_it(model: Any) -> None:
    [j] = model.tokenizer("j", add_special_tokens=False)["input_ids"]
    answer = chat(model, stop_token_ids=[j])
    assert (answer["content"], answer["finish_reason"]) == ("Reyk", "stop")
    assert chat(model, stop_token_ids=[j], include_stop_str_in_output=True)["content"] == "Reykj"


def test_the_models_own_end_is_passed_over_and_a_stop_token_is_not(model: Any) -> None:
    answer = chat(model, ignore_eos=True)
    assert answer["finish_reason"] == "length" and answer["usage"]["completion_tokens"] == 40
    assert answer["content"].startswith("Reykjavik") and len(answer["content"]) > len("Reykjavik")
    [j] = model.tokenizer("j", add_special_tokens=False)["input_ids"]
    assert chat(model, ignore_eos=True, stop_token_ids=[j])["content"] == "Reyk"


def test_nothing_ends_the_answer_before_it_has_its_least_tokens(model: Any) -> None:
    tokens = len(model.tokenizer("Reykjavik", add_special_tokens=False)["input_ids"])
    assert chat(model, min_tokens=tokens)["content"] == "Reykjavik"
    longer = chat(model, min_tokens=tokens + 3)
    assert longer["content"].startswith("Reykjavik") and longer["usage"]["completion_tokens"] > tokens + 3
    stopped = [chat(model, min_tokens=least, stop=["kja", "vik"])["content"] for least in range(7)]
    assert stopped == ["Rey"] * 5 + ["Reykja"] * 2  # "kja" is complete with the fifth token
    assert refusal(chat, model, min_tokens=41).param == "min_tokens"


def test_a_stop_string_may_be_a_part_of_the_answer(model: Any) -> None:
    answer = chat(model, stop=["kja"], include_stop_str_in_output=True)
    assert (answer["content"], answer["stop_sequence"]) == ("Reykja", "kja")


def test_bad_words_are_not_said_however_they_are_cut_into_tokens(model: Any) -> None:
    for word in ("Reyk", "k", "javik", "Reykjavik"):
        for how in ({}, {"temperature": 1.5, "seed": 3}):
            answer = chat(model, bad_words=[word, "never"], **how)
            assert word not in answer["content"]
    assert chat(model, bad_words=["never"]) == chat(model)


def test_a_bad_word_with_a_blank_before_it_is_bad_without_it_too(model: Any) -> None:
    assert "Reyk" not in chat(model, bad_words=[" Reyk"])["content"]


@given(
    text=st.text("ab", max_size=12),
    stops=st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=3),
    cuts=st.sets(st.integers(1, 11)),
    keeps=st.booleans(),
    least=st.integers(0, 4),
)
def test_what_stops_is_the_first_that_is_complete_after_the_least(
    text: str, stops: list[str], cuts: set[int], keeps: bool, least: int
) -> None:
    """`least` is how many pieces come before it is armed."""
    marks = sorted({0, *(cut for cut in cuts if cut < len(text)), len(text)})
    pieces = list(itertools.pairwise(marks))
    wanted, found = text, None
    for start, end in pieces[least:]:
        ends = [(at, stop) for stop in stops for at in range(end) if start < at + len(stop) <= end]
        complete = [(at, stop) for at, stop in ends if text.startswith(stop, at)]
        if complete:
            at, found = min(complete)
            wanted = text[: at + len(found) if keeps else at]
            break
    filter = StopStrings(stops, keeps=keeps, armed=False)
    said = ""
    for count, (start, end) in enumerate(pieces):
        filter.armed = count >= least
        said += filter.push(text[start:end])
        if filter.found is not None:
            break
    said += "" if filter.found is not None else filter.rest()
    assert (said, filter.found) == (wanted, found)


def test_a_seed_of_minus_one_is_none(model: Any) -> None:
    how: dict[str, Any] = {"temperature": 2, "seed": -1, "messages": STRANGE}
    assert len({chat(model, **how)["content"] for _ in range(8)}) > 1
    [first, second] = ChatDialect().calls(ChatDialect().read({**how, "n": 2}, "chat_completions"), Capabilities())
    assert first["seed"] == second["seed"] == -1


def test_a_call_that_is_forced_ends_a_thought_that_was_begun(model: Any) -> None:
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
    begun = [*CAPITAL, {"role": "assistant", "content": "<think>\nI look"}]
    answer = chat(model, messages=begun, continue_final_message=True, tools=[tool], tool_choice="required")
    assert answer["tool_calls"] and answer["reasoning_content"] == ""


def test_only_allowed_tokens_are_generated(model: Any) -> None:
    [j] = model.tokenizer("j", add_special_tokens=False)["input_ids"]
    answer = chat(model, allowed_token_ids=[j], max_tokens=5)
    assert (answer["content"], answer["finish_reason"]) == ("jjjjj", "length")
    end = min(model.stop_ids)
    assert chat(model, allowed_token_ids=[end])["content"] == ""
    assert chat(model, allowed_token_ids=[j], bad_words=["j"])["finish_reason"] == "stop"  # nothing may follow


async def collected(items: Any) -> list[Any]:
    return [item async for item in items]


def test_a_stream_tells_the_counts_so_far_when_it_is_asked(model: Any) -> None:
    asked = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    for route in ("chat", "completions"):
        dialect, body = ROUTES[route]
        prepared = dialect.read({"model": "m", **body, **asked}, METHODS.get(route, "chat_completions"))
        [inputs] = dialect.calls(prepared, Capabilities())
        items = asyncio.run(collected(getattr(model, METHODS.get(route, "chat_completions"))(inputs)))
        told = [item["usage"] for item in items if isinstance(item, dict) and "usage" in item]
        counts = [usage["completion_tokens"] for usage in told]
        assert counts == sorted(counts) and len(set(counts)) > 2
        assert {usage["prompt_tokens"] for usage in told} == {told[-1]["prompt_tokens"]}


# ── keys of a message ────────────────────────────────────────────────────────────────────────────────────────────────

CALL = {"name": "get_weather", "arguments": "{}"}
# One value of each key of an assistant's message that asks for something.
KEYS: dict[str, Any] = {
    "tool_calls": [{"id": "a", "type": "function", "function": CALL}],
    "function_call": CALL,
    **each("reasoning_content reasoning thinking refusal", "I cannot."),
    "reasoning_details": [{"type": "reasoning.text", "text": "I cannot."}],
    "thinking_blocks": [{"type": "thinking", "thinking": "I cannot.", "signature": ""}],
    **each("prefix partial", True),
    **each("tools functions images image videos video audios documents", [{"a": 1}]),
    "response_format": {"type": "json_object"},
    "audio": {"id": "audio_1"},
    **each("task tool_name", "other"),
    **each("name tool_call_id id object type status phase created timestamp finish_reason", "other"),
    **each("annotations citations", [{"a": 1}]),
    **each("metadata cache_control", {"type": "ephemeral"}),
    **each("is_error weight", True),
}


def prompt_of(model: Any, *messages: dict[str, Any], **more: Any) -> str:
    return str(model.tokenizer.decode(model.tokenize({"messages": [*CAPITAL, *messages], **more})["tokens"]))


def test_the_page_prints_the_keys_of_a_message() -> None:
    shown: dict[str, str] = {}
    for line in PAGE.read_text().partition("## Keys of a message")[2].splitlines():
        if line.startswith("| `"):
            names, text = line.removeprefix("| ").removesuffix(" |").split(" | ", 1)
            found = re.findall(r"`(\w+)`", names)
            assert not shown.keys() & {*found}, "it is there twice"
            shown |= dict.fromkeys(found, text)
    assert shown.keys() == MESSAGE.keys() == KEYS.keys()
    for name, field in MESSAGE.items():
        neutral = ", ".join(f"`{json.dumps(value)}`" for value in field.neutral) or "nothing"
        hint = f"; send {field.instead}" if field.instead else ""
        assert shown[name] == (f"refused, passes with {neutral}{hint}" if field.does == "refused" else field.means)


@pytest.mark.parametrize("name", sorted(MESSAGE))
def test_a_key_of_a_message_is_honoured_or_refused_by_its_path_or_is_advice(model: Any, name: str) -> None:
    field, said = MESSAGE[name], {"role": "assistant", "content": "Reykj"}
    plain = prompt_of(model, said)
    for nothing in (None, *field.neutral):
        assert prompt_of(model, {**said, name: nothing}) == plain
    if field.does == "refused":
        for ask in (chat, lambda model, **fields: model.tokenize(fields)):
            error = refusal(ask, model, messages=[*CAPITAL, {**said, name: KEYS[name]}])
            assert (error.param, error.code) == (f"messages[1].{name}", "unsupported_value")
            assert name in error.message
    else:
        is_seen = field.does == "honoured" and name != "tool_name"  # the template of this model has no names
        assert (prompt_of(model, {**said, name: KEYS[name]}) != plain) is is_seen


def test_every_word_for_what_was_thought_is_a_thought(model: Any) -> None:
    said = {"role": "assistant", "content": "Reykjavik"}
    names = ["reasoning_content", *(name for name, field in MESSAGE.items() if field.alias == "reasoning_content")]
    assert len({prompt_of(model, {**said, name: KEYS[name]}) for name in names}) == 1
    error = refusal(chat, model, messages=[*CAPITAL, {**said, "reasoning": "a", "thinking": "b"}])
    assert error.param == "messages[1].thinking"
    for name in names:
        assert refusal(chat, model, messages=[*CAPITAL, {**said, name: 5}]).param == f"messages[1].{name}"


def test_a_refusal_is_what_the_assistant_said(model: Any) -> None:
    wanted = prompt_of(model, {"role": "assistant", "content": "I cannot."})
    part = {"type": "refusal", "refusal": "I cannot."}
    assert prompt_of(model, {"role": "assistant", "content": None, "refusal": "I cannot."}) == wanted
    assert prompt_of(model, {"role": "assistant", "content": [part]}) == wanted


def test_the_name_of_a_tool_reaches_a_template_that_has_names(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.tokenizer, "chat_template", "{% for one in messages %}{{ one.name }}{% endfor %}")
    for name in ("name", "tool_name"):
        assert prompt_of(model, {"role": "tool", "content": "grey", name: "weather"}) == "weather"


def test_a_key_of_a_message_in_another_spelling_is_refused_with_ours(model: Any) -> None:
    error = refusal(chat, model, messages=[{**CAPITAL[0], "toolCalls": [1]}])
    assert (error.param, error.code) == ("messages[0].toolCalls", "unsupported_value")
    assert "did you mean tool_calls?" in error.message


@pytest.mark.parametrize("route", ["messages", "responses"])
@pytest.mark.parametrize("name", ["images", "tools", "audio", "tool_calls", "reasoning_content"])
def test_a_message_on_other_routes_has_no_keys_of_chat(model: Any, route: str, name: str) -> None:
    field = "messages" if route == "messages" else "input"
    for ask in (answered, counts):
        assert ask(model, route, **{field: [{**CAPITAL[0], name: None}]})
        error = refusal(ask, model, route, **{field: [{**CAPITAL[0], name: KEYS[name]}]})
        assert (error.param, error.code) == (f"{field}[0].{name}", "unsupported_value")


# ── a budget of thought ──────────────────────────────────────────────────────────────────────────────────────────────


def thinks(budget: Any = 30, **more: Any) -> dict[str, Any]:
    return {"thinking": {"type": "enabled", "budget_tokens": budget, **more}}


LIMIT_OF = {"chat": "max_completion_tokens", "responses": "max_output_tokens"}


@pytest.mark.parametrize("route", LIMIT_OF)
def test_a_budget_of_thought_is_refused_unless_it_bounds_nothing(model: Any, route: str) -> None:
    limit = LIMIT_OF[route]
    for budget, most in ((30, 31), (1, 40), (0, 40), ("30", 20), (True, 1), (5, None)):
        error = refusal(answered, model, route, **thinks(budget), **{limit: most})
        assert (error.param, error.code) == ("thinking.budget_tokens", "unsupported_value")
    free = answered(model, route, thinking={"type": "enabled"}, **{limit: 30})
    for budget in (30, 31, 1024, -1, None):
        assert answered(model, route, **thinks(budget), **{limit: 30}) == free


@pytest.mark.parametrize("route", LIMIT_OF)
def test_what_nobody_knows_within_thinking_is_refused_by_name(model: Any, route: str) -> None:
    for name, value in (("clear_thinking", True), ("display", "omitted"), ("budgetTokens", 30)):
        error = refusal(answered, model, route, thinking={"type": "enabled", name: value})
        assert (error.param, error.code) == (f"thinking.{name}", "unsupported_value")
    assert answered(model, route, thinking={"type": "enabled", "display": "summarized", "keep": None})


def test_a_budget_of_thought_is_refused_where_tokens_are_told_or_counted(model: Any) -> None:
    for limit in ({}, {"max_tokens": 31}, {"max_new_tokens": 31}):
        error = refusal(model.tokenize, {"messages": CAPITAL, **thinks(), **limit})
        assert (error.param, error.code) == ("thinking.budget_tokens", "unsupported_value")
    for name in ("max_tokens", "max_completion_tokens", "max_new_tokens"):
        assert model.tokenize({"messages": CAPITAL, **thinks(), name: 30})["tokens"]
    assert refusal(counts, model, "responses", **thinks()).param == "thinking.budget_tokens"
    assert counts(model, "responses", **thinks(), max_output_tokens=30)


def test_a_budget_of_thought_that_anthropics_clients_have_to_send_passes(model: Any) -> None:
    plain = answered(model, "messages", thinking={"type": "enabled"})
    assert answered(model, "messages", **thinks(1)) == plain
    assert counts(model, "messages", **thinks(1)) == counts(model, "messages", thinking={"type": "enabled"})


def test_a_prompt_is_cut_to_its_last_tokens_or_its_first(model: Any) -> None:
    whole = model.tokenize({"messages": CAPITAL})["tokens"]
    for most, kept in ((5, whole[-5:]), (-1, whole), (1000, whole)):
        assert model.tokenize({"messages": CAPITAL, "truncate_prompt_tokens": most})["tokens"] == kept
        assert chat(model, truncate_prompt_tokens=most)["usage"]["prompt_tokens"] == len(kept)
    right = {"truncate_prompt_tokens": 5, "truncation_side": "right"}
    assert model.tokenize({"messages": CAPITAL, **right})["tokens"] == whole[:5]
    long = [{"role": "user", "content": "one two three " * 400}]
    usage = chat(model, messages=long, truncate_prompt_tokens=-1)["usage"]
    assert usage["prompt_tokens"] == model.max_model_len - 40
    for limit in ({"max_tokens": 40}, {"max_tokens": 3}, {}):  # as many are counted as chat reads
        counted = model.count_tokens(long, inputs={"truncate_prompt_tokens": -1, **limit})
        assert counted == model.max_model_len - limit.get("max_tokens", 1)
    told = model.tokenize({"messages": long, "truncate_prompt_tokens": -1, "n_predict": 40})
    assert len(told["tokens"]) == model.max_model_len - 40
    echoed = complete(model, echo=True, truncate_prompt_tokens=1, max_tokens=0)
    assert echoed["content"] == model.tokenizer.decode(model.prompt_ids({"prompt": "Say: one two three"})[-1:])


def test_the_tokenizers_own_tokens_are_added_when_asked_for(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class WithBos:
        """The tokenizer with a token of its own before everything."""

        chat_template = model.tokenizer.chat_template

        def __getattr__(self, name: str) -> Any:
            return getattr(model.tokenizer, name)

        def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, Any]:
            ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
            return {"input_ids": [7, *ids] if add_special_tokens else ids}

    monkeypatch.setattr(model.prompts, "_tokenizer", WithBos())
    for name in ("add_special_tokens", "add_special"):
        firsts = [model.tokenize({"prompt": "a", name: value})["tokens"][0] == 7 for value in (None, True, False)]
        assert firsts == [True, True, False]
        firsts = [model.tokenize({"messages": CAPITAL, name: value})["tokens"][0] == 7 for value in (None, True, False)]
        assert firsts == [False, True, False]


def test_documents_reach_a_template_that_takes_them(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    error = refusal(chat, model, documents=[DOCUMENT])
    assert (error.code, error.param) == ("unsupported_value", "documents")
    monkeypatch.setattr(model.tokenizer, "chat_template", "{% for one in documents %}{{ one['text'] }}{% endfor %}")
    prompt = model.prompt_ids({"messages": CAPITAL, "documents": [DOCUMENT]})
    assert model.tokenizer.decode(prompt) == DOCUMENT["text"]


@pytest.mark.parametrize(
    "fields",
    [
        {"enable_thinking": True},
        {"thinking": True},
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"think": True},
        {"think": "high"},
        {"reasoning": {"effort": "low"}},
        {"reasoning": {"enabled": True}},
        {"reasoning_effort": "low"},
        {"chat_template_kwargs": {"enable_thinking": True}},
    ],
)
def test_every_word_for_thinking_reaches_the_template(model: Any, fields: dict[str, Any]) -> None:
    assert chat(model, **fields)["reasoning_content"] == "The user asks about Iceland."
    assert not chat(model, **{name: False for name in fields if name in ("enable_thinking", "think", "thinking")})[
        "reasoning_content"
    ]


def test_a_model_that_cannot_be_told_whether_to_think_refuses_it(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.tokenizer, "chat_template", "{{ messages[0].content }}")
    assert refusal(chat, model, think=False).param == "think"  # it has the tokens of a thought
    assert chat(model, enable_thinking=True)
    monkeypatch.setattr(model.prompts, "_thinks", False)
    assert refusal(chat, model, enable_thinking=True).param == "enable_thinking"
    assert chat(model, thinking={"type": "disabled"})
    assert chat(model, reasoning_effort="high")  # advice


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stop_token_ids", [1.5]),
        ("stop_token_ids", [-1]),
        ("allowed_token_ids", []),
        ("allowed_token_ids", [10**6]),
        ("bad_words", [1]),
        ("min_tokens", -1),
        ("min_tokens", True),
        ("truncate_prompt_tokens", 0),
        ("truncate_prompt_tokens", -2),
        ("truncation_side", "top"),
        ("priority", "high"),
        ("repeat_last_n", -2),
        ("typical_p", 2),
        ("ignore_eos", "yes"),
        ("continue_final_message", 1.5),
        ("think", 5),
        ("reasoning", "high"),
        ("reasoning_effort", 0.5),
        ("reasoning", {"max_tokens": 5}),
        ("reasoning", {"exclude": True}),
        ("reasoning", {"context": "current_turn"}),
        ("reasoning", {"mode": "pro"}),
        ("thinking", {"type": "sometimes"}),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(model: Any, name: str, value: Any) -> None:
    error = refusal(chat, model, **{name: value})
    assert error.status == 400 and (error.param or "").startswith(name)


def test_what_reasoning_says_beside_counts_on_responses_too(model: Any) -> None:
    for told in ({"enabled": True}, {"enabled": False}):
        assert answered(model, "responses", reasoning=told) == answered(
            model, "responses", enable_thinking=told["enabled"]
        )
    neutral = {"context": "all_turns", "mode": "standard", "exclude": False, "summary": "auto"}
    assert answered(model, "responses", reasoning=neutral) == answered(model, "responses")
    for name, value in (("max_tokens", 5), ("exclude", True), ("context", "current_turn")):
        assert refusal(answered, model, "responses", reasoning={name: value}).param == f"reasoning.{name}"


def test_what_only_an_answer_heeds_is_nothing_to_tokenize(model: Any) -> None:
    plain = model.tokenize({"messages": CAPITAL})["tokens"]
    told = {name: VALUES[name] for name, field in TABLE.items() if not field.of_prompt}
    assert model.tokenize({"messages": CAPITAL, **told})["tokens"] == plain
    for name in (name for name in NAMES["refused"] if TABLE[name].of_prompt and TABLE[name].only != "chat"):
        assert refusal(model.tokenize, {"messages": CAPITAL, name: VALUES[name]}).param == name


def test_every_word_of_a_chat_that_makes_its_prompt_makes_that_of_tokenize(model: Any) -> None:
    tools = {"tools": VALUES["tools"]}
    marked = {"messages": [*CAPITAL, {**BEGUN[-1], "prefix": True}]}
    named = {"type": "function", "function": {"name": "get_weather"}}
    for more in (tools, *({**tools, "tool_choice": choice} for choice in ("none", "auto", "required", named)), marked):
        counted = len(model.tokenize({"messages": CAPITAL, **more})["tokens"])
        assert chat(model, **more)["usage"]["prompt_tokens"] == counted
        asked = {"messages": CAPITAL, **more}
        assert model.count_tokens(asked["messages"], asked.get("tools"), inputs=asked) == counted
    assert model.tokenize({"messages": CAPITAL, **tools, "tool_choice": "none"}) == model.tokenize(
        {"messages": CAPITAL}
    )


def test_the_values_are_json() -> None:
    assert json.loads(json.dumps(VALUES)) == VALUES


# ── counting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_field_that_makes_a_prompt_counts_where_tokens_are_counted() -> None:
    made = {name for name, field in TABLE.items() if field.of_prompt and field.does == "honoured"} - {"echo"}
    made |= {name for name, field in TABLE.items() if field.alias in made}
    assert {*OF_PROMPT} == {*made, "tool_choice"}


COUNTING: dict[str, tuple[Dialect, dict[str, Any]]] = {
    "messages": (CountDialect(), {"messages": CAPITAL}),
    "responses": (InputTokensDialect(), {"input": CAPITAL[0]["content"]}),
}


def counts(model: Any, route: str, **fields: Any) -> int:
    """What a client of the route is told."""
    dialect, body = COUNTING[route]
    prepared = dialect.read({**body, **fields}, "count_tokens")
    [inputs] = dialect.calls(prepared, Capabilities(prefill=True))
    spec = ModelSpec(name="m", target="model:Model", root=MODELS)
    method = derive(model, describe(model, frozenset({"chat_completions"})), spec).methods["count_tokens"]
    return int(method.function(inputs)["input_tokens"])


OF_PROMPTS = [
    (route, name)
    for route, name in itertools.product(COUNTING, sorted(name for name, field in TABLE.items() if field.of_prompt))
    if name
    not in {*ROUTES[route][0].request_schema["properties"], "functions", "function_call"}  # the route's own words
]


@pytest.mark.parametrize(("route", "name"), OF_PROMPTS)
def test_what_changes_the_prompt_counts_as_chat_reads_it_or_is_refused_as_by_chat(
    model: Any, route: str, name: str
) -> None:
    told = {"chat_template_kwargs": {"shout": True}, "truncate_prompt_tokens": 5}.get(name, VALUES[name])
    dialect, body = ROUTES[route]
    try:
        answer = read(model, dialect, {**body, name: told})
    except BadRequest as error:
        refused = refusal(counts, model, route, **{name: told})
        assert (refused.param, refused.code, refused.message) == (error.param, error.code, error.message)
    else:
        assert counts(model, route, **{name: told}) == answer


def read(model: Any, dialect: Dialect, body: dict[str, Any]) -> int:
    """The tokens of the prompt that chat makes of a request."""
    [inputs] = dialect.calls(dialect.read(body, "chat_completions"), Capabilities(prefill=True))
    return int(chat(model, **inputs)["usage"]["prompt_tokens"])


@pytest.mark.parametrize("route", COUNTING)
def test_a_field_in_another_spelling_is_refused_where_tokens_are_counted(model: Any, route: str) -> None:
    error = refusal(counts, model, route, chatTemplateKwargs={"enable_thinking": False})
    assert (error.param, error.code) == ("chatTemplateKwargs", "unsupported_value")


def test_another_name_for_a_field_of_the_prompt_counts_too() -> None:
    asked = {"prompt": "x", "add_special": False, "n_predict": 5}
    assert check(asked, "completions", is_counted=True) == {"prompt": "x", "add_special_tokens": False, "max_tokens": 5}
