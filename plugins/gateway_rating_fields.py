"""The request fields of classify, rerank and score: what is honoured, and what would change the answer and is refused.

Other fields are ignored, unless they are a different spelling of one of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway_fields import Field, folded, honoured, misspelt, refused, unsupported

from gateway import BadRequest

WHOLE = -1  # for `truncate_prompt_tokens`: as many tokens as the model reads
# Names of vLLM, TEI, Infinity, Cohere, Jina and Voyage. The gateway itself handles `model`, `top_n` and the documents.
TABLE: Mapping[str, Field] = {
    **honoured(
        truncate="`true`: longer texts are cut to what the model reads; `false`: refused",
        truncation="the name in Voyage",
        truncate_prompt_tokens="`-1`: as `truncate`",
    ),
    **refused(True, names="use_activation activation softmax add_special_tokens"),
    **refused(False, names="raw_scores add_generation_prompt return_embeddings"),
    **refused("", names="instruction instruct prompt prompt_name prompt_template chat_template lora_path"),
    **refused([], ["text"], names="rank_fields"),
    **refused({}, names="chat_template_kwargs mm_processor_kwargs"),
    **refused([], names="messages images candidate_labels"),  # zero_shot takes the labels, and what belongs to them
    **refused(names="hypothesis_template"),
    **refused(False, names="multi_label"),
    **refused(names="max_tokens_per_doc max_chunks_per_doc max_length max_tokens", instead="truncate"),
    **refused("right", "Right", names="truncation_side truncation_direction", instead="truncate"),
    **refused(0, names="overlap_tokens", instead="truncate"),
}
MEANT = folded(list(TABLE))


def cuts(inputs: Mapping[str, Any], default: bool) -> bool:
    """Return whether the texts of a request are cut if they are too long.

    Raises:
        BadRequest: a field cannot be honoured, or is invalid.
    """
    wishes: dict[str, bool] = {}
    for name, value in inputs.items():
        if value is None:
            continue
        field = TABLE.get(name)
        if field is None:
            if error := misspelt(name, MEANT):
                raise error
        elif field.does == "refused":
            if not field.is_neutral(value):
                raise field.refusal(name)
        elif name == "truncate_prompt_tokens":
            if value != WHOLE or isinstance(value, bool):
                raise unsupported("truncate_prompt_tokens can only be -1, all that the model reads", name)
            wishes[name] = True
        elif not isinstance(value, bool):
            raise BadRequest(f"{name} must be true or false", param=name, code="invalid_type")
        else:
            wishes[name] = value
    if len(set(wishes.values())) > 1:
        raise BadRequest(f"{' and '.join(wishes)} contradict each other: send one of them", param=next(iter(wishes)))
    return next(iter(wishes.values()), default)
