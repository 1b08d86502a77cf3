"""Fields that a request to a language model may have beside OpenAI's: those of vLLM, SGLang, llama.cpp and Ollama.

The one table of them. A field that would change the answer is honoured or refused, unless its value asks for nothing;
one that only advises the server passes. A field that is not in the table passes, too. docs/fields.md prints it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from gateway import BadRequest

Source = Literal["chat", "completions"]  # messages that a template makes a prompt of, or the prompt itself
EMPTY: tuple[Any, ...] = ("", [], {})


@dataclass(frozen=True, slots=True)
class Field:
    """`means` is what it does, for the documentation. With a value in `neutral`, or null, it asks for nothing."""

    does: Literal["honoured", "refused", "passed"]
    means: str = ""
    neutral: tuple[Any, ...] = EMPTY
    alias: str | None = None  # our name for it
    only: Source | None = None  # refused by the other
    of_prompt: bool = False  # it changes the prompt, so it counts where tokens are only counted


def _honoured(**fields: str) -> dict[str, Field]:
    return {name: Field("honoured", means) for name, means in fields.items()}


def _aliases(**fields: str) -> dict[str, Field]:
    return {name: Field("honoured", f"the same as `{ours}`", alias=ours) for name, ours in fields.items()}


def _of_prompt(only: Source | None, neutral: tuple[Any, ...], **fields: str) -> dict[str, Field]:
    return {name: Field("honoured", means, neutral, only=only, of_prompt=True) for name, means in fields.items()}


def _refused(*neutral: Any, names: str) -> dict[str, Field]:
    return dict.fromkeys(names.split(), Field("refused", neutral=neutral))


def _passed(means: str, names: str) -> dict[str, Field]:
    return dict.fromkeys(names.split(), Field("passed", means))


_HONOURED = {
    **_honoured(
        top_k="only the likeliest so many tokens may be drawn; 0 and -1 are all",
        min_p="only tokens that are at least so likely, measured by the likeliest",
        typical_p="only the tokens that carry about as much news as the model expects; 1 is all of them",
        repetition_penalty="logits of tokens that occur in prompt or answer are divided by it",
        repeat_last_n="how many tokens `repetition_penalty` looks back on; -1 is all of them",
        stop_token_ids="tokens that end the answer, beside the model's own",
        ignore_eos="the model's own end tokens do not end the answer",
        min_tokens="neither an end token nor a stop string ends the answer before it has so many tokens",
        include_stop_str_in_output="the stop string, or the text of the stop token, is the end of the answer",
        bad_words="texts that the answer does not contain",
        allowed_token_ids="the only tokens that may be generated; an end token only where it is among them",
        priority="the lower, the earlier a prompt is read while several wait",
    ),
    **_of_prompt(
        None,
        (),
        truncate_prompt_tokens="only so many tokens of the prompt are read, its last ones; -1 is as many as fit",
        truncation_side="`right` keeps the first tokens of the prompt instead",
        add_special_tokens="whether the tokenizer adds its own: by default to a prompt, not to messages",
        reasoning_effort="reaches a template that thinks or names it; `none` and `minimal` are no thought",
    ),
    **_of_prompt("completions", (False,), echo="the answer begins with the prompt"),
    **_of_prompt("chat", (True,), add_generation_prompt="false: the prompt does not begin an answer"),
    **_of_prompt("chat", (False,), continue_final_message="the answer continues the last message, the assistant's"),
    **_of_prompt(
        "chat",
        EMPTY,
        chat_template_kwargs="variables for the template",
        documents="for a template that takes documents, else refused",
        reasoning="an object with `effort`, as `reasoning_effort`, or `enabled`, as `enable_thinking`",
    ),
    **_of_prompt(
        "chat",
        (False,),
        enable_thinking="whether it thinks, for a template that can be told; else only false passes where none thinks",
        thinking="the same, also as an object whose `type` is `enabled` or `disabled`",
        think="the same, or a word for `reasoning_effort`",
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
        add_special="add_special_tokens",
    ),
}
_HONOURED["add_special"] = replace(_HONOURED["add_special"], of_prompt=True)

_REFUSED = {
    # the form of the answer
    **_refused({"type": "text"}, names="response_format"),
    **_refused(
        "", [], {}, names="structured_outputs guided_json guided_regex guided_choice guided_grammar structural_tag"
    ),
    **_refused("", names="grammar regex ebnf format suffix"),
    **_refused("", [], names="stop_regex"),
    **_refused(names="json_schema prediction audio web_search_options"),
    **_refused(["text"], names="modalities"),
    **_refused(True, names="parse_tool_calls separate_reasoning stream_reasoning include_reasoning"),
    **_refused(True, names="skip_special_tokens detokenize penalize_nl penalize_newline"),
    **_refused("auto", "deepseek", names="reasoning_format"),
    **_refused(False, names="reasoning_in_content"),
    # how tokens are chosen
    **_refused(False, names="use_beam_search early_stopping watermarking"),
    **_refused(1, names="length_penalty best_of n_cmpl tfs_z"),
    **_refused(0, names="mirostat dry_multiplier xtc_probability dynatemp_range n_indent"),
    **_refused(0, 1, names="min_keep"),
    **_refused(0, -1, names="top_n_sigma adaptive_target t_max_predict_ms"),
    **_refused(-1, names="thinking_token_budget thinking_budget_tokens reasoning_budget"),
    **_refused(names="samplers"),
    **_refused(*EMPTY, names="logits_processors custom_logit_processor custom_params vllm_xargs repetition_detection"),
    **_refused(*EMPTY, names="options sampling_params session_params"),
    # what is told beside the answer
    **_refused(0, False, names="n_probs"),
    **_refused([], names="logprob_token_ids response_fields"),
    **_refused(names="prompt_logprobs"),
    **_refused(False, names="return_token_ids return_tokens return_tokens_as_token_ids return_prompt_token_ids"),
    **_refused(False, names="return_prompt_text return_hidden_states return_routed_experts return_meta_info"),
    **_refused(False, names="return_cached_tokens_details post_sampling_probs _debug_render_only"),
    # other weights, other caches, other servers
    **_refused(*EMPTY, names="lora lora_path adapter adapter_id cache_salt extra_key"),
    **_refused(*EMPTY, names="kv_transfer_params ec_transfer_params bootstrap_host bootstrap_port bootstrap_room"),
    **{
        name: replace(field, of_prompt=True)
        for name, field in {
            **_refused("", names="chat_template template system task input_prefix input_suffix"),
            **_refused(*EMPTY, names="mm_processor_kwargs media_io_kwargs images_config multimodal_data image_data"),
            **_refused([], names="images context input_extra input_ids input_embeds prompt_embeds"),
            **_refused(False, names="raw truncate shift use_audio_in_video with_pieces"),
            **_refused(True, names="parse_special"),
            **_refused(names="num_ctx"),
        }.items()
    },
}

_PASSED = {
    **_passed("tunes `mirostat`", "mirostat_tau mirostat_eta"),
    **_passed("tunes `dry_multiplier`", "dry_base dry_allowed_length dry_penalty_last_n dry_sequence_breakers"),
    **_passed("tunes `xtc_probability`", "xtc_threshold"),
    **_passed("tunes `dynatemp_range`", "dynatemp_exponent"),
    **_passed("tunes `adaptive_target`", "adaptive_decay"),
    **_passed("tunes `grammar`", "grammar_lazy grammar_triggers preserved_tokens"),
    **_passed("tunes `guided_json` and the like", "guided_decoding_backend guided_whitespace_pattern"),
    **_passed("tunes `skip_special_tokens`", "spaces_between_special_tokens"),
    **_passed("tunes `return_routed_experts`", "routed_experts_prompt_start routed_experts_start_len"),
    **_passed("tunes `images_config`", "max_dynamic_patch min_dynamic_patch"),
    **_passed("is of vLLM's render routes", "return_token_offsets return_mm_kwargs"),
    **_passed("names the request", "request_id rid session_id custom_labels"),
    **_passed("is how the server reuses its cache", "cache_prompt id_slot n_cache_reuse n_keep n_discard num_keep"),
    **_passed("is how the stream is paced or told of", "stream_interval sse_ping_interval"),
    **_passed("is how the stream is paced or told of", "timings_per_token return_progress"),
    **_passed("is how the server runs the model", "keep_alive backend_sampling chat_format ngram_corpus_id num_batch"),
    **_passed("is how the server runs the model", "num_gpu main_gpu low_vram use_mmap use_mlock num_thread numa"),
    **_passed("chooses among servers", "routed_dp_rank data_parallel_rank disagg_prefill_dp_rank"),
}

TABLE: Mapping[str, Field] = {**_HONOURED, **_REFUSED, **_PASSED}


def check(inputs: Mapping[str, Any], source: Source, *, is_counted: bool = False) -> dict[str, Any]:
    """The request under our names, without what asks for nothing. `is_counted`: only its prompt matters.

    Raises:
        BadRequest: unsupported_value for a field that cannot be honoured, invalid_value for one that says two things.
    """
    read = {name: value for name, value in inputs.items() if value is not None}
    for name in read.keys() & TABLE.keys():
        field, value = TABLE[name], read[name]
        if is_counted and not field.of_prompt:
            del read[name]
        elif field.alias is not None:
            del read[name]
            _rename(read, name, field.alias, value)
        elif value in field.neutral:
            if field.does != "honoured":
                del read[name]
        elif field.does == "refused":
            raise unsupported(f"this model does not support {name}", name)
        elif field.only not in (None, source):
            raise unsupported(f"{name} is supported on {field.only} only", name)
    return read


def _rename(read: dict[str, Any], name: str, ours: str, value: Any) -> None:
    """A negative limit is none, as llama.cpp and Ollama have it: then there is the field with nothing in it."""
    if ours == "max_tokens" and name != "max_new_tokens" and type(value) is int and value < 0:
        value = None
    if read.get(ours, value) != value:
        raise BadRequest(f"{name} and {ours} say different things; send one of them", param=name)
    read[ours] = value


def unsupported(what: str, param: str) -> BadRequest:
    return BadRequest(what, param=param, code="unsupported_value")
