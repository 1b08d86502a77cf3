"""What a checkpoint says about its labels and scores: config.json, and the files of a cross encoder beside it.

The library imports the function that a cross encoder names, and creates what it names; here only the known ones count,
and nothing is imported by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from gateway_checkpoints import unloadable
from gateway_checkpoints.labels import object_of

from gateway import peek_json

Function = Literal["sigmoid", "softmax", "identity"]
ABOUT = "config_sentence_transformers.json"
MODULES = "modules.json"
MODULE = "sentence_bert_config.json"  # of the only module
TRANSFORMER = re.compile(
    r"sentence_transformers\.(models|base\.modules|cross_encoder\.modules)(\.transformer)?\.Transformer"
)
FUNCTION = re.compile(r"torch\.nn\.(?:modules\.(?:activation|linear)\.)?(Sigmoid|Identity)")
# What sentence-transformers writes for a cross encoder, and values with which the library computes what we do.
FLAT: Mapping[str, tuple[Any, ...]] = {
    "transformer_task": ("sequence-classification",),
    "modality_config": ({"text": {"method": "forward", "method_output_name": "logits"}},),
    "module_output_name": ("scores",),
    "do_lower_case": (False,),
    "unpad_inputs": (None, False),
}


def entailment_of(labels: Sequence[str]) -> int | None:
    """Return the number of the label that says that one text follows from another; None if there is none."""
    return next((number for number, label in enumerate(labels) if label.lower().startswith("entail")), None)


def function_of(place: Path, config: Mapping[str, Any], labels: int) -> Function:
    """Return the function from the model's numbers to probabilities or scores.

    1. several labels: softmax, or sigmoid if each is decided on its own  2. what a cross encoder names  3. a regression
    gives its number  4. sigmoid, the default of cross encoders
    """
    kind = config.get("problem_type")
    if labels > 1 and kind == "regression":
        raise unloadable(place, "it computes several numbers (problem_type in config.json), which are no probabilities")
    if labels > 1:
        return "sigmoid" if kind == "multi_label_classification" else "softmax"
    if name := _named(place, config):
        found = FUNCTION.fullmatch(name)
        if found is None:
            what = f"it computes its scores with {name[:100]}, which is not served"
            raise unloadable(place, f"{what}: only torch.nn.Sigmoid and torch.nn.Identity are")
        return "sigmoid" if found[1] == "Sigmoid" else "identity"
    return "identity" if kind == "regression" else "sigmoid"


def _named(place: Path, config: Mapping[str, Any]) -> str | None:
    """Return the name of the function, from where the versions of sentence-transformers look, in their order."""
    within = config.get("sentence_transformers")
    said = (
        object_of(place, ABOUT).get("activation_fn"),
        within.get("activation_fn") if isinstance(within, dict) else None,
        config.get("sbert_ce_default_activation_function"),
    )
    return next((str(name) for name in said if name is not None), None)


def say_other_modules(place: Path) -> None:
    """Raise `ConfigError` for a cross encoder that computes more than the network in its folder."""
    about, module = object_of(place, ABOUT), object_of(place, MODULE)
    try:
        listed = [(str(each["type"]), str(each["path"])) for each in peek_json(place / MODULES)]
    except FileNotFoundError:
        listed = []
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise unloadable(place, f"{MODULES} is not a list of modules ({error}): get it again") from error
    if listed and (len(listed) > 1 or listed[0][1] or not TRANSFORMER.fullmatch(listed[0][0])):
        what = f"{MODULES} lists {', '.join(kind.rpartition('.')[2] for kind, _ in listed)[:100]}"
        raise unloadable(place, f"{what}, and only a cross encoder of one Transformer beside it is served")
    prompts, name = about.get("prompts"), about.get("default_prompt_name")
    if name is not None and (not isinstance(prompts, dict) or prompts.get(name) != ""):
        raise unloadable(place, f"{ABOUT} puts a prompt before each text (default_prompt_name), which is not served")
    for key, value in module.items():
        if key != "max_seq_length" and value not in FLAT.get(key, ()):
            raise unloadable(place, f"{MODULE} sets {key[:100]} to something that is not served")


def length_of(place: Path) -> int | None:
    """Return the length that a cross encoder was saved with, in tokens."""
    length = object_of(place, MODULE).get("max_seq_length")
    if length is not None and (type(length) is not int or length < 1):
        raise unloadable(place, f"max_seq_length of {MODULE} is {str(length)[:50]}, which is no length: correct it")
    return length
