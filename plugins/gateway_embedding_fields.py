"""The table of request fields for embeddings, and reading a request into an `Ask`.

The fields are those of OpenAI, vLLM, SGLang, llama.cpp, TEI, Infinity, Cohere, Jina, Voyage, Mixedbread, Nomic, Google,
Mistral, Ollama, DashScope and sentence-transformers itself. A field that would change the vectors is honoured, or
refused unless its value has no effect; a field that only advises the server is ignored, and so are unknown fields,
unless they are a different spelling of a known one. docs/embeddings.md shows the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gateway_fields import Field, folded, honoured, misspelt, passed, refused, unsupported

from gateway import BadRequest

Task = Literal["query", "document"] | None
WHOLE = -1  # for `truncate_prompt_tokens`: as many tokens as the model reads


# `model` and `encoding_format` are handled before the model is called.
TABLE: Mapping[str, Field] = {
    **honoured(
        input="one text, or a list of them",
        dimensions="the model's own number; others are refused",
        output_dimension="the name in Cohere, Mistral and Voyage",
        input_type="`query`, `search_query`, `document`, `search_document`, `passage`, or the name of a prompt",
        prompt_name="a prompt of the model by its name",
        prompt="your own text before each input, instead of the model's prompt",
        normalize="`true`: vectors of length 1; `false`: as they were before the model normalized them",
        truncate_prompt_tokens="longer inputs are cut to this many tokens; `-1` means the model's maximum",
        truncate="`true`, `END`, `START`: longer inputs are cut to the model's maximum; `false`, `NONE`: refused",
        truncation="`true` or `false`, the name in Voyage",
        truncation_side="`right` or `left`: the side on which an input is cut",
        truncation_direction="`Right` or `Left`, the name in TEI",
    ),
    # other vectors
    **refused(True, names="use_activation activation", instead="normalize"),
    **refused(names="normalized normalize_embeddings embd_normalize", instead="normalize"),
    **refused(
        names="dimension dimensionality output_dimensionality outputDimensionality truncate_dim", instead="dimensions"
    ),
    **refused(names="task task_type taskType text_type", instead="input_type"),
    **refused("", names="instruction instruct prompt_template query_instruction", instead="prompt"),
    **refused("", names="title lora_path"),
    **refused([], names="embed_overrides"),
    **refused(names="embed_override_token_id"),
    **refused(False, names="late_chunking return_multivector return_sparse"),
    **refused("float", ["float"], names="embedding_type embedding_types embeddingTypes output_dtype"),
    **refused("float32", names="embed_dtype precision"),
    **refused("sentence_embedding", names="output_value"),
    **refused("dense", names="output_type"),
    **refused(names="pooling"),
    **refused("native", "little", names="endianness"),
    # other inputs
    **refused(
        names="inputs inputText text texts sentences content contents query queries documents passages messages",
        instead="input",
    ),
    **refused([], names="image images image_data"),
    **refused("text", names="modality"),
    **refused({}, names="mm_processor_kwargs media_io_kwargs chat_template_kwargs"),
    **refused(names="chat_template"),
    **refused(False, names="add_generation_prompt continue_final_message"),
    **refused(True, names="add_special_tokens"),
    **refused("do_not_pad", names="padding"),
    **refused(
        names="max_tokens max_length max_tokens_per_text max_tokens_per_doc max_chunks_per_doc",
        instead="truncate_prompt_tokens",
    ),
    **refused(0, names="overlap_tokens"),
    **refused(names="auto_truncate long_text_mode", instead="truncate"),
    **refused({}, names="options parameters pooling_params extra_body"),
    # fields of rerank, which handles them itself
    **refused(names="top_n top_k"),
    **refused([], ["text"], names="rank_fields"),
    **refused(False, names="raw_scores rewrite_query return_documents return_text return_input return_embeddings"),
    **passed("identifies the request or its sender", "user metadata request_id rid"),
    **passed("is about how the server works", "priority cache_salt keep_alive"),
}

# Names that a field may be a misspelling of, apart from case, `-` or `_`. Advisory fields are not included.
MEANT = folded(["encoding_format", *(name for name, field in reversed(TABLE.items()) if field.does != "passed")])

ROLES: Mapping[str, Task] = {
    "query": "query",
    "search_query": "query",
    "document": "document",
    "search_document": "document",
    "passage": "document",
}
# The prompts for a role: the first non-empty one is used. sentence-transformers 6.2 does the same in `encode_document`,
# but adds an empty `document` prompt to every model, which then hides `passage` and `corpus`.
PROMPTS_OF: Mapping[Task, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}
SIDES = {"left": "left", "right": "right", "start": "left", "end": "right"}


@dataclass(frozen=True, slots=True)
class Ask:
    """How the texts of a request are converted to vectors."""

    prompt: str | None = None  # put before each text
    task: Task = None
    keep: int | None = None  # tokens that a longer text is cut to, WHOLE for the model's limit; None: it is refused
    side: str | None = None  # where it is cut; None: the tokenizer's default
    normalize: bool | None = None  # None: the model's default


@dataclass(frozen=True, slots=True)
class Known:
    """Properties of a model that requests refer to."""

    prompts: Mapping[str, str]
    default_prompt: str | None
    dimensions: int
    cuts: bool = False  # whether texts are cut by default
    is_nested: bool = False  # whether the first numbers of a vector are one too (Matryoshka): the gateway cuts it


def read(inputs: Mapping[str, Any], known: Known) -> Ask:
    """Read a request.

    Raises:
        BadRequest: a field of the table cannot be honoured, or is invalid.
    """
    for name, value in inputs.items():
        field = TABLE.get(name)
        if value is None:
            continue
        if field is None:
            if error := misspelt(name, MEANT):
                raise error
        elif field.does == "refused" and not field.is_neutral(value):
            raise field.refusal(name)
    for name in ("dimensions", "output_dimension"):
        if known.is_nested and name == "dimensions":
            continue
        if inputs.get(name) not in (None, known.dimensions):
            what = f"this model only gives {known.dimensions} dimensions: leave {name} out"
            raise unsupported(what, name)
    task, prompt = _prompt(inputs, known)
    keep, side = _cut(inputs, known)
    return Ask(prompt, task, keep, side, _flag(inputs, "normalize"))


def _prompt(inputs: Mapping[str, Any], known: Known) -> tuple[Task, str | None]:
    own, name, kind = (_text(inputs, field) for field in ("prompt", "prompt_name", "input_type"))
    if own is not None and name is not None:
        raise BadRequest("send prompt or prompt_name, not both", param="prompt")
    if name is not None and name not in known.prompts:
        raise BadRequest(f"this model has no prompt '{name}' (have: {_list(known.prompts)})", param="prompt_name")
    if kind is not None and kind not in ROLES and kind not in known.prompts:
        have = _list({**ROLES, **known.prompts})
        raise BadRequest(f"this model knows no input_type '{kind}' (have: {have})", param="input_type")
    task = ROLES.get(kind or "")
    if own is not None:
        return task, own
    if name is not None:
        return task, known.prompts[name]
    if kind is None:
        return None, known.default_prompt
    candidates = (kind, *PROMPTS_OF.get(task, ()))
    return task, next((known.prompts[each] for each in candidates if known.prompts.get(each)), "")


def _cut(inputs: Mapping[str, Any], known: Known) -> tuple[int | None, str | None]:
    """Return how many tokens of a too long text are kept, and on which side it is cut."""
    sides: dict[str, str] = {}
    for field in ("truncation_side", "truncation_direction"):
        if (value := _text(inputs, field)) is not None:
            if value.lower() not in ("left", "right"):
                raise BadRequest(f"{field} must be left or right", param=field)
            sides[field] = value.lower()
    wishes: dict[str, bool] = {}
    if isinstance(value := inputs.get("truncate"), str):
        if value.upper() not in ("NONE", "START", "END"):
            raise BadRequest("truncate must be true, false, NONE, START or END", param="truncate")
        wishes["truncate"] = value.upper() != "NONE"
        if wishes["truncate"]:
            sides["truncate"] = SIDES[value.lower()]
    elif (flag := _flag(inputs, "truncate")) is not None:
        wishes["truncate"] = flag
    if (flag := _flag(inputs, "truncation")) is not None:
        wishes["truncation"] = flag
    count = inputs.get("truncate_prompt_tokens")
    if count is not None:
        if type(count) is not int or (count < 1 and count != WHOLE):
            what = "truncate_prompt_tokens must be a whole number of at least 1, or -1 for all that the model reads"
            raise BadRequest(what, param="truncate_prompt_tokens")
        wishes["truncate_prompt_tokens"] = True
    for said in (wishes, sides):
        if len(set(said.values())) > 1:
            raise BadRequest(f"{' and '.join(said)} contradict each other: send one of them", param=next(iter(said)))
    cuts = next(iter(wishes.values()), known.cuts)
    return (WHOLE if count is None else count) if cuts else None, next(iter(sides.values()), None)


def _text(inputs: Mapping[str, Any], name: str) -> str | None:
    value = inputs.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"{name} must be a string", param=name, code="invalid_type")
    return value


def _flag(inputs: Mapping[str, Any], name: str) -> bool | None:
    value = inputs.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadRequest(f"{name} must be true or false", param=name, code="invalid_type")
    return value


def _list(names: Mapping[str, Any]) -> str:
    return ", ".join(names) or "none"
