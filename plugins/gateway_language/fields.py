"""The table of request fields of a language model, beyond those of its route.

It covers vLLM, SGLang, llama.cpp, Ollama, TGI, text-generation-webui, TabbyAPI, LMDeploy, TensorRT-LLM, Mistral,
OpenRouter, KoboldCpp, Aphrodite and MLX, and fields of our other routes. A field that would change the answer is
honoured or refused, unless its value has no effect; a field that only advises the server is ignored. Unknown fields are
ignored, too, unless they are a different spelling of a known one. `MESSAGE` is the same for the keys of a message.
docs/fields.md shows both. It is this long because it is one table, which is compared with the servers as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from gateway_fields import EMPTY, Field, folded, honoured, misspelt, passed, refused, unsupported

from gateway import BadRequest

Source = Literal["chat", "completions"]  # messages rendered by a template, or a prompt


def _aliases(**fields: str) -> dict[str, Field]:
    return {name: Field("honoured", f"the same as `{ours}`", alias=ours) for name, ours in fields.items()}


def _of_prompt(fields: Mapping[str, Field], only: Source | None = None) -> dict[str, Field]:
    return {name: replace(field, only=only or field.only, of_prompt=True) for name, field in fields.items()}


def _elsewhere(only: Source, *neutral: Any, names: str, instead: str = "") -> dict[str, Field]:
    rows = refused(*neutral, names=names, instead=instead)
    return {name: replace(field, only=only) for name, field in rows.items()}


_HONOURED = {
    **honoured(
        top_k="only this many of the most likely tokens may be drawn; 0 and -1 mean all",
        min_p="only tokens with at least this probability, relative to the most likely one",
        typical_p="locally typical sampling: tokens whose information is close to the expected value; 1 means all",
        repetition_penalty="logits of tokens that occur in prompt or answer are divided by it",
        repeat_last_n="how many last tokens `repetition_penalty` considers; -1 means all",
        stop_token_ids="tokens that end the answer, in addition to the model's own",
        ignore_eos="the model's own end tokens do not end the answer",
        min_tokens="neither an end token nor a stop string ends the answer before it has this many tokens",
        include_stop_str_in_output="the answer includes the stop string, or the text of the stop token",
        bad_words="texts that the answer does not contain",
        allowed_token_ids="the only tokens that may be generated; an end token only if it is among them",
        priority="waiting prompts with a lower value are read first",
    ),
    **honoured(({"type": "text"},), response_format="the answer is JSON, or JSON that obeys a schema"),
    **honoured(
        EMPTY,
        structured_outputs="the same as vLLM means it: `json`, `json_object`, `regex`, `choice` or `grammar`",
        guided_json="a JSON schema that the answer obeys",
        guided_regex="a regular expression that the whole answer matches",
        guided_choice="texts, one of which is the answer",
        guided_grammar="a grammar of the answer, in Lark or GBNF",
        grammar="a grammar of the answer, in GBNF or Lark",
        format="the same as Ollama means it: `json`, or a JSON schema",
    ),
    **honoured((False,), guided_json_object="the answer is a JSON object"),
    **honoured(json_schema="a JSON schema that the answer obeys"),
    **_of_prompt(
        honoured(
            truncate_prompt_tokens="only this many tokens at the end of the prompt are read; -1 means as many as fit",
            truncation_side="`right` keeps the first tokens of the prompt instead",
            add_special_tokens="whether the tokenizer adds special tokens; by default to a prompt, not to messages",
            reasoning_effort="passed to templates that think or mention it; `none` and `minimal` turn thinking off",
        )
    ),
    **_of_prompt(honoured((False,), echo="the answer begins with the prompt"), "completions"),
    **_of_prompt(honoured((True,), add_generation_prompt="false: the prompt does not begin an answer"), "chat"),
    **_of_prompt(
        {
            **honoured(
                EMPTY,
                chat_template_kwargs="variables for the template",
                documents="for templates that take documents, otherwise refused",
                reasoning="an object with `effort`, like `reasoning_effort`, or `enabled`, like `enable_thinking`",
            ),
            **honoured(
                (False,),
                continue_final_message="the answer continues the last message, which must be the assistant's",
                enable_thinking="whether the model thinks; without a switch in its template, it must match the model",
                thinking="the same, also as an object whose `type` is `enabled` or `disabled`",
                think="the same, or a word for `reasoning_effort`",
            ),
        },
        "chat",
    ),
    **_aliases(
        repeat_penalty="repetition_penalty",
        max_new_tokens="max_tokens",
        n_predict="max_tokens",
        num_predict="max_tokens",
        min_new_tokens="min_tokens",
        no_stop_trim="include_stop_str_in_output",
        sampling_seed="seed",
        random_seed="seed",
        sampler_seed="seed",
        add_special="add_special_tokens",
        max_output_tokens="max_tokens",
        max_tokens_to_sample="max_tokens",
        request_output_len="max_tokens",
        stop_sequences="stop",
        stop_sequence="stop",
        stop_words="stop",
        stop_str="stop",
        stopping_strings="stop",
        banned_strings="bad_words",
        rep_pen="repetition_penalty",
        typical="typical_p",
        temp="temperature",
        regex="guided_regex",
    ),
}
_HONOURED["add_special"] = replace(_HONOURED["add_special"], of_prompt=True)

_SYSTEM = "a message of the system (instructions on /v1/responses, system on /v1/messages)"

# Fields of our other routes that this route does not read, or not fully.
ELSEWHERE = {
    **_of_prompt(_elsewhere("chat", names="messages", instead="prompt")),
    **_of_prompt(_elsewhere("completions", names="prompt", instead="messages")),
    **_of_prompt(_elsewhere("chat", [], names="tools functions", instead="them to /v1/chat/completions")),
    **_of_prompt(
        _elsewhere("chat", "auto", "none", names="tool_choice function_call", instead="it to /v1/chat/completions")
    ),
    **_elsewhere("chat", 0, names="top_logprobs", instead="logprobs, a number"),
    **_of_prompt(refused("", [], names="input", instead="messages, or prompt to /v1/completions")),
    **_of_prompt(refused("", [], names="instructions system", instead=_SYSTEM)),
    **_of_prompt(refused(names="previous_response_id conversation", instead="all messages, or this to /v1/responses")),
    **refused({}, {"format": {"type": "text"}}, names="text", instead="response_format, or prompt"),
    **refused({}, names="output_config", instead="reasoning_effort and response_format"),
    **refused({}, names="output_format", instead="response_format"),
    **refused([], names="include", instead="logprobs"),
    **refused(False, names="background"),
    **refused([], names="mcp_servers"),
    **refused(names="thread compaction"),
}

_REFUSED = {
    # the format of the answer
    **refused(*EMPTY, names="structural_tag guided_decoding guided_params guideline"),
    **refused("", names="ebnf grammar_string", instead="guided_grammar"),
    **refused("", names="regex_pattern", instead="guided_regex"),
    **refused("", names="suffix"),
    **refused("", [], names="stop_regex"),
    **refused(names="audio web_search_options"),
    **refused({"type": "content", "content": ""}, names="prediction"),
    **refused(["text"], names="modalities"),
    **refused("message", names="result_format"),
    **refused(True, names="parse_tool_calls separate_reasoning stream_reasoning include_reasoning"),
    **refused(True, names="skip_special_tokens detokenize penalize_nl penalize_newline trim_stop"),
    **refused("auto", "deepseek", names="reasoning_format"),
    **refused(False, names="reasoning_in_content render_special thinking_forced_open"),
    **refused("", names="chat_parser"),
    **refused(False, names="return_full_text return_prompt", instead="echo to /v1/completions"),
    # how tokens are chosen
    **refused(names="do_sample", instead="temperature; 0 is greedy"),
    **refused(False, names="use_beam_search early_stopping watermarking watermark"),
    **refused(1, names="length_penalty best_of n_cmpl num_beams num_beam_groups beam_width"),
    **refused(1, names="num_return_sequences", instead="n"),
    **refused(0, names="diversity_penalty beam_search_diversity_rate"),
    **refused(0, names="mirostat mirostat_mode dry_multiplier xtc_probability dynatemp_range n_indent"),
    **refused(False, names="dynamic_temperature temperature_last token_healing"),
    **refused(0, names="dynatemp_min dynatemp_max smoothing_factor top_a eta_cutoff epsilon_cutoff penalty_alpha skew"),
    **refused(1, names="tfs tfs_z min_temp max_temp guidance_scale cfg_scale top_p_decay"),
    **refused("", names="negative_prompt"),
    **refused(0, names="no_repeat_ngram_size encoder_no_repeat_ngram_size repetition_ngram_size"),
    **refused(1, names="encoder_repetition_penalty hallucination_penalty"),
    **refused(0, names="repetition_decay rep_pen_slope top_p_min prompt_ignore_length"),
    **refused(0, -1, names="repetition_penalty_range penalty_range rep_pen_range", instead="repeat_last_n"),
    **refused(names="repetition_context_size", instead="repeat_last_n"),
    **refused(names="presence_context_size frequency_context_size"),
    **refused(0, 1, names="min_keep"),
    **refused(0, -1, names="top_n_sigma nsigma adaptive_target t_max_predict_ms"),
    **refused(-1, names="thinking_token_budget thinking_budget_tokens reasoning_budget thinking_budget"),
    **refused(-1, names="reasoning_budget_tokens"),
    **refused(names="samplers"),
    **refused(*EMPTY, names="sampler_order sampler_priority"),
    **refused(*EMPTY, names="logits_processors custom_logit_processor custom_params vllm_xargs repetition_detection"),
    **refused(*EMPTY, names="options sampling_params session_params parameters generation_config preset"),
    **refused({}, names="extra_body", instead="its content next to the other fields"),
    # limits of content and length
    **refused(names="max_length", instead="max_tokens"),
    **refused(0, names="min_length", instead="min_tokens"),
    **refused(0, names="max_tokens_second"),
    **refused(False, names="auto_max_new_tokens use_default_badwordsids"),
    **refused(False, names="ban_eos_token bypass_eos bypass_eos_token", instead="ignore_eos"),
    **refused(*EMPTY, names="banned_tokens custom_token_bans suppress_tokens embedding_bias", instead="logit_bias"),
    **refused(*EMPTY, names="token_ban_ranges begin_suppress_tokens sequence_bias force_words_ids"),
    **refused(*EMPTY, names="bad_words_ids", instead="bad_words"),
    **refused(*EMPTY, names="custom_stopping_strings", instead="stop"),
    **refused(names="end_id", instead="stop_token_ids"),
    # additional data in the answer
    **refused(0, False, names="n_probs"),
    **refused(0, names="top_n_tokens", instead="top_logprobs"),
    **refused([], names="logprob_token_ids response_fields"),
    **refused(names="prompt_logprobs"),
    **refused(False, names="return_token_ids return_tokens return_tokens_as_token_ids return_prompt_token_ids"),
    **refused(False, names="return_prompt_text return_hidden_states return_routed_experts return_meta_info"),
    **refused(False, names="return_cached_tokens_details post_sampling_probs _debug_render_only"),
    **refused(False, names="details decoder_input_details return_log_probs verbose enable_response_messages"),
    **refused(False, names="return_logprob return_text_in_logprobs"),
    **refused(0, names="top_logprobs_num", instead="top_logprobs"),
    **refused([], names="token_ids_logprob"),
    **refused(False, names="return_context_logits return_generation_logits"),
    # other weights, other caches, functions of other servers
    **refused(*EMPTY, names="lora lora_path adapter adapter_id adapter_name adapters cache_salt extra_key"),
    **refused(*EMPTY, names="kv_transfer_params ec_transfer_params bootstrap_host bootstrap_port bootstrap_room"),
    **refused(*EMPTY, names="disaggregated_params plugins guardrails search_options search_settings"),
    **refused(*EMPTY, names="moderation nvext"),
    **refused({"mode": "off"}, names="search_parameters"),
    **refused([], names="data_sources"),
    **refused(False, names="interactive_mode enable_search enable_code_interpreter deferred"),
    **_of_prompt(
        {
            **refused("", names="chat_template template task input_prefix input_suffix"),
            **refused("", names="instruction_template instruction_template_str prompt_template tool_prompt memory"),
            **refused("", names="character chat_template_str greeting user_bio personality"),
            **refused({}, {"context_compression": "auto"}, {"context_compression": "disabled"}, names="image"),
            **refused("instruct", names="mode"),
            **refused("", names="system_prompt system_instruction", instead=_SYSTEM),
            **refused("", names="generation_prompt prompt_name"),
            **refused({}, names="previous_response", instead="all messages, or previous_response_id to /v1/responses"),
            **refused([], names="previous_input_messages", instead="all messages, or input to /v1/responses"),
            **refused(*EMPTY, names="mm_processor_kwargs media_io_kwargs images_config multimodal_data image_data"),
            **refused(*EMPTY, names="audio_data video_data"),
            **refused([], names="images context input_extra input_ids input_embeds prompt_embeds transforms"),
            **refused(*EMPTY, names="inputs text_input contents", instead="messages, or prompt to /v1/completions"),
            **refused(False, names="raw truncate shift use_audio_in_video with_pieces safe_prompt"),
            **refused(True, names="parse_special do_preprocess"),
            **refused(True, names="add_bos_token", instead="add_special_tokens"),
            **refused(False, names="continue_", instead="continue_final_message"),
            **refused("", names="response_prefix", instead="continue_final_message"),
            **refused({}, names="template_vars", instead="chat_template_kwargs"),
            **refused(0, names="truncation_length max_context_length", instead="truncate_prompt_tokens"),
            **refused(names="num_ctx prompt_mode role_mapping"),
        }
    ),
}

_PASSED = {
    **passed("tunes `mirostat`", "mirostat_tau mirostat_eta"),
    **passed("tunes `dry_multiplier`", "dry_base dry_allowed_length dry_penalty_last_n dry_sequence_breakers"),
    **passed("tunes `dry_multiplier`", "dry_range"),
    **passed("tunes `xtc_probability`", "xtc_threshold xtc_special_tokens"),
    **passed("tunes `dynatemp_range`", "dynatemp_exponent dynatemp_low dynatemp_high temp_exponent"),
    **passed("tunes `smoothing_factor`", "smoothing_curve"),
    **passed("tunes `repetition_ngram_size`", "repetition_ngram_threshold"),
    **passed("tunes `adaptive_target`", "adaptive_decay"),
    **passed("tunes `grammar`", "grammar_lazy grammar_triggers preserved_tokens grammar_retain_state"),
    **passed("tunes `grammar`", "grammar_type"),
    **passed("tunes `reasoning_budget_tokens`", "reasoning_budget_start_tag reasoning_budget_end_tag"),
    **passed("tunes `reasoning_budget_tokens`", "reasoning_budget_message reasoning_budget_arm_immediately"),
    **passed("tunes `reasoning_budget_tokens`", "reasoning_control"),
    **passed("tunes `return_logprob`", "logprob_start_len"),
    **passed("tunes `guided_json` and the like", "guided_decoding_backend guided_whitespace_pattern"),
    **passed("tunes `skip_special_tokens`", "spaces_between_special_tokens"),
    **passed("tunes `return_routed_experts`", "routed_experts_prompt_start routed_experts_start_len"),
    **passed("tunes `images_config`", "max_dynamic_patch min_dynamic_patch"),
    **passed("belongs to vLLM's render routes", "return_token_offsets return_mm_kwargs"),
    **passed("names the request", "request_id rid session_id custom_labels genkey trace"),
    **passed(
        "is about how the server reuses its cache", "cache_prompt id_slot n_cache_reuse n_keep n_discard num_keep"
    ),
    **passed("is about pace and progress of the stream", "stream_interval sse_ping_interval"),
    **passed("is about pace and progress of the stream", "timings_per_token return_progress incremental_output"),
    **passed("is about how the server runs it", "keep_alive backend_sampling chat_format ngram_corpus_id num_batch"),
    **passed("is about how the server runs it", "num_gpu main_gpu low_vram use_mmap use_mlock num_thread numa"),
    **passed("speculates on tokens, without changing any", "draft_model num_draft_tokens speculative_ngram"),
    **passed("speculates on tokens, without changing any", "prompt_lookup_num_tokens lookahead_config"),
    **passed("speculates on tokens, without changing any", "speculative.n_max speculative.n_min speculative.p_min"),
    **passed("speculates on tokens, without changing any", "speculative.type speculative.ngram_size_n"),
    **passed("speculates on tokens, without changing any", "speculative.ngram_size_m speculative.ngram_m_hits"),
    **passed("fills a batch", "pad_id pad_token_id"),
    **passed("chooses among servers", "routed_dp_rank data_parallel_rank disagg_prefill_dp_rank"),
    **passed("chooses among providers; there is only one here", "models route provider max_price fallbacks"),
    **passed("limits hosted tools; there are none here", "max_tool_calls"),
    **passed("tunes `background`", "background_options"),
    **passed("names an OpenAI program", "access_programs"),
    **passed("shortens long conversations; one that is too long gets 400 here", "context_management"),
    **passed("tunes `mode`", "bot_name user_name name1 name2 chat_instruct_command"),
    **passed("asks for a longer or shorter answer, which chat templates do not support", "verbosity"),
}

TABLE: Mapping[str, Field] = {**_HONOURED, **ELSEWHERE, **_REFUSED, **_PASSED}

# Keys of a message besides `role` and `content`.
MESSAGE: Mapping[str, Field] = {
    **honoured(
        tool_calls="calls of the assistant",
        reasoning_content="thoughts of the assistant",
        refusal="its refusal, after its content",
    ),
    **honoured((False,), prefix="the answer continues this message, which must be the last and the assistant's"),
    **_aliases(function_call="tool_calls", reasoning="reasoning_content", thinking="reasoning_content"),
    **_aliases(reasoning_details="reasoning_content", thinking_blocks="reasoning_content"),
    **_aliases(tool_name="name", partial="prefix"),
    **refused([], names="tools functions", instead="them next to messages"),
    **refused({}, {"type": "text"}, names="response_format"),
    **refused([], names="documents", instead="them next to messages"),
    **refused(*EMPTY, names="images image videos video audios audio"),
    **refused("", names="task"),
    **passed("passed to templates that mention it", "name tool_call_id is_error"),
    **passed("describes the message, and is not part of its content", "id object type status phase created timestamp"),
    **passed("describes the message, and is not part of its content", "annotations citations finish_reason metadata"),
    **passed("is about how the server reuses its cache", "cache_control"),
    **passed("is for training", "weight"),
}
MEANT_IN_MESSAGE = folded(["content", *(name for name, field in MESSAGE.items() if field.does != "passed")])

# Values in `thinking` and `reasoning` that change nothing: the thoughts of all turns reach the template, all are shown,
# and there is one way to think.
NO_CHANGE: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "reasoning": {"context": ("auto", "all_turns"), "mode": ("standard",), "exclude": (False,)},
    "thinking": {"display": ("summarized",), "budget_tokens": (-1,)},
}

# Names that a field may be a misspelling of, apart from case, `-` or `_`. Advisory fields are not included.
_OPENAI = (
    "temperature top_p max_tokens max_completion_tokens stop seed n frequency_penalty presence_penalty logit_bias "
    "logprobs parallel_tool_calls stream_options"
).split()
MEANT = folded([*_OPENAI, *(name for name, field in TABLE.items() if field.does != "passed")])


def check(inputs: Mapping[str, Any], source: Source, *, is_counted: bool = False) -> dict[str, Any]:
    """Return the request with our field names, without fields that have no effect. `is_counted`: only the prompt
    matters.

    Raises:
        BadRequest: unsupported_value for a field that cannot be honoured, invalid_value for contradictory fields.
    """
    read = {name: value for name, value in inputs.items() if value is not None}
    for name in list(read):
        field, value = TABLE.get(name), read[name]
        if field is None:
            if error := misspelt(name, MEANT):
                raise error
        elif is_counted and not field.of_prompt and field.alias != "max_tokens":  # a limit may affect other fields
            del read[name]
        elif field.alias is not None:
            del read[name]
            _rename(read, name, field.alias, value)
        elif field.only == source:
            continue
        elif field.is_neutral(value):
            if field.does != "honoured":
                del read[name]
        elif field.does == "refused":
            raise field.refusal(name)
        elif field.only is not None:
            raise unsupported(f"{name} is supported on {field.only} only", name)
    return read


def check_message(message: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the message without keys that are null or have no effect. `where` is its JSON path.

    Raises:
        BadRequest: unsupported_value for a key that cannot be honoured, or that is spelled differently.
    """
    read = {name: value for name, value in message.items() if value is not None}
    for name in list(read):
        field = MESSAGE.get(name)
        if field is None:
            if error := misspelt(name, MEANT_IN_MESSAGE):
                raise unsupported(f"{where}: {error.message}", f"{where}.{name[:64]}")
        elif field.is_neutral(read[name]):
            del read[name]
        elif field.does == "refused":
            hint = f": send {field.instead}" if field.instead else ""
            raise unsupported(f"this model does not support {name} on a message{hint}", f"{where}.{name}")
    return read


def check_inside(name: str, value: Mapping[str, Any], known: Iterable[str], limit: int | None = None) -> None:
    """Check the keys of an object beyond the `known` ones. A budget of at least the answer's limit has no effect.

    Raises:
        BadRequest: unsupported_value for a key that would change the answer, or that is unknown.
    """
    for key, said in value.items():
        if key in known or said is None or said in NO_CHANGE[name].get(key, ()):
            continue
        if key == "budget_tokens" and type(said) is int and limit is not None and said >= limit:
            continue
        raise unsupported(f"this model does not support {name}.{key[:64]}", f"{name}.{key[:64]}")


def _rename(read: dict[str, Any], name: str, ours: str, value: Any) -> None:
    """Rename a field. A negative limit means no limit, as in llama.cpp and Ollama: the field is then set to None."""
    if name in ("n_predict", "num_predict") and type(value) is int and value < 0:
        value = None
    if ours == "stop" and isinstance(value, str):
        value = [value]
    if read.get(ours, value) != value:
        raise BadRequest(f"{name} and {ours} have different values; send one of them", param=name)
    read[ours] = value
