"""Read the settings of a pipeline, config.cfg and meta.json, and check that they name no code and lack no weights.

config.cfg names functions by which spaCy builds the pipeline. Those of spaCy itself that only compute are known here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from configparser import Error, RawConfigParser
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gateway import ConfigError, check_ordinary, has_code, opened, peek_config, peek_json, peek_weights

FRAMEWORK = "spacy"
CONFIG, META, TOKENIZER = "config.cfg", "meta.json", "tokenizer"
LARGEST = 1 << 20  # bytes of config.cfg: a large pipeline has ten thousand
MOST_NAMED = 5
DEEPEST = 50  # sections in sections
LANGUAGE = re.compile(r"[a-z]{2,3}")
NAME = re.compile(r"[\w .-]{1,100}")
# Components of spaCy. Those with weights have a directory of their name.
TRAINED = frozenset(
    "tok2vec tagger morphologizer parser beam_parser beam_ner ner senter trainable_lemmatizer entity_linker textcat "
    "textcat_multilabel spancat spancat_singlelabel span_finder".split()
)
RULES = frozenset(
    "attribute_ruler entity_ruler future_entity_ruler span_ruler lemmatizer sentencizer merge_noun_chunks "
    "merge_entities merge_subtokens token_splitter doc_cleaner".split()
)
OWN = ("spacy.", "spacy-legacy.")
# Functions by their registry. Others read files (KBFromFile), load other pipelines (copy_from_base_model) or are code.
COMPUTE: Mapping[str, re.Pattern[str]] = {
    "architectures": re.compile(r"spacy(-legacy)?\.\w+\.v\d+"),
    "layers": re.compile(r"(spacy(-legacy)?\.)?(?!PyTorch|MXNet|TensorFlow|Keras|TorchScript)\w+\.v\d+"),
    "scorers": re.compile(r"spacy(-legacy)?\.\w+\.v\d+"),
    "vectors": re.compile(r"spacy\.Vectors\.v1"),
    "initializers": re.compile(r"\w+_init\.v1"),
    "tokenizers": re.compile(r"spacy\.(Tokenizer\.v1|(ja\.Japanese|ko\.Korean|th\.Thai)Tokenizer)"),
    "misc": re.compile(
        r"spacy\.(EmptyKB|CandidateGenerator|CandidateBatchGenerator|levenshtein_compare|first_longest_spans_filter"
        r"|(ngram|ngram_range|preset_spans)_suggester|prioritize_(new|existing)_ents_filter)\.v\d+"
    ),
}
TRUST = "if you trust it and its package is installed: [models.NAME] trust_remote_code = true in gateway.toml"
Settings = Mapping[str, Any]


def is_ours(path: Path) -> bool:
    config = peek_config(path)
    if "framework" in config:  # overrides detection
        return bool(config["framework"] == FRAMEWORK)
    if has_code(path) or (place := peek_weights(path)) is None:
        return False
    if not (place / CONFIG).is_file() or not any((place / name).is_file() for name in (META, TOKENIZER)):
        return False  # config.cfg alone describes a training
    try:
        with opened(place / CONFIG) as file:
            return b"[nlp]" in file.read(LARGEST)
    except OSError:
        return False


def check_pipeline(place: Path, *, trusted: bool) -> None:
    """Check a pipeline before its load. `trusted`: the operator allows components that are code.

    Raises:
        ConfigError: it will not load, and why.
    """
    check_ordinary(place)
    settings = read_settings(place)
    _check_meta(place)
    if not trusted:
        say_code(place, settings)
    for name in pipeline_of(place, settings):
        factory = settings["components"][name].get("factory")
        if factory in TRAINED and not (place / name).is_dir():
            raise ConfigError(f"{place}: the weights of its component {name} are missing: get the directory {name} too")


def _check_meta(place: Path) -> None:
    try:
        meta = peek_json(place / META)
    except FileNotFoundError as error:
        raise ConfigError(f"{place}: there is no {META}: get it too") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{place}: {META} cannot be read ({error}): get the pipeline again") from error
    if not isinstance(meta, dict) or "lang" not in meta:
        raise ConfigError(f"{place}: {META} does not say of which language the pipeline is: get it again")


def read_settings(place: Path) -> Settings:
    """Return config.cfg as nested dictionaries. References to other values stay texts.

    Raises:
        ConfigError: it is missing or damaged.
    """
    parser = RawConfigParser(delimiters=("=",), comment_prefixes=("#", ";"))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        with opened(place / CONFIG) as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise ValueError(f"it has more than {LARGEST} bytes")
        parser.read_string(text.decode())
        if parser.defaults():  # they would be repeated in each section
            raise ValueError("it has a section [DEFAULT], which spaCy does not write")
        if any(section.count(".") > DEEPEST for section in parser.sections()):
            raise ValueError(f"a section is nested more than {DEEPEST} levels deep")
    except (OSError, ValueError, Error) as error:
        what = " ".join(str(error).split())
        raise ConfigError(f"{place}: {CONFIG} cannot be read ({what}): get the pipeline again") from error
    found: dict[str, Any] = {}
    for section in parser.sections():
        below = found
        for part in section.split("."):
            below = below.setdefault(part, {})
            if not isinstance(below, dict):
                raise ConfigError(f"{place}: {CONFIG} is damaged: [{section}] is also a value")
        below.update((key, _value(text)) for key, text in parser.items(section))
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def pipeline_of(place: Path, settings: Settings) -> list[str]:
    """Return the names of the components, each of which the settings describe.

    Raises:
        ConfigError: a component is not described.
    """
    nlp, components = settings.get("nlp"), settings.get("components", {})
    names = nlp.get("pipeline") if isinstance(nlp, dict) else None
    if not isinstance(nlp, dict) or not isinstance(names, list) or not isinstance(components, dict):
        raise ConfigError(f"{place}: {CONFIG} does not describe a pipeline ([nlp] pipeline): get it again")
    for name in names:
        if not isinstance(name, str) or not isinstance(components.get(name), dict):
            raise ConfigError(f"{place}: {CONFIG} does not describe its component {name!r}: get it again")
        if not NAME.fullmatch(name) or name.startswith("."):
            raise ConfigError(f"{place}: {CONFIG} has a component with the name {name[:100]!a}, which is no directory")
    return names


def say_code(place: Path, settings: Settings) -> None:
    """Raise `ConfigError` if something of the pipeline is more than a component of spaCy that computes."""
    names = pipeline_of(place, settings)
    nlp = settings["nlp"]
    if not LANGUAGE.fullmatch(str(nlp.get("lang"))):
        raise ConfigError(f"{place}: {CONFIG} has the language {str(nlp.get('lang'))[:100]!a}, which spaCy lacks")
    for hook in ("before_creation", "after_creation", "after_pipeline_creation"):
        if nlp.get(hook) is not None:
            raise _code(place, f"it calls a function at its load ([nlp] {hook})")
    for name in dict.fromkeys([*names, *settings["components"]]):
        component = settings["components"][name]
        if not isinstance(component, dict):
            raise ConfigError(f"{place}: {CONFIG} is damaged: {name} is no component")
        if "source" in component:
            raise _code(
                place, f"its component {name} is a part of another pipeline ({str(component['source'])[:100]!a})"
            )
        factory = component.get("factory")
        if not isinstance(factory, str) or factory not in TRAINED | RULES:
            raise _code(place, f"its component {name} ({str(factory)[:100]!a}) is not one of spaCy's, so it is code")
    for part in ("nlp", "components"):
        for registry, function in _functions(settings[part]):
            known = COMPUTE.get(registry)
            if known is None or not known.fullmatch(function):
                raise _code(
                    place, f"it uses {function[:100]!a} of the {registry[:100]!a}, which may be code, or opens files"
                )


def _functions(found: Any) -> Iterator[tuple[str, str]]:
    """Yield the registry and the name of each function that is called to build a part."""
    if isinstance(found, dict):
        for key, value in found.items():
            if key.startswith("@"):
                yield key[1:], str(value)
            else:
                yield from _functions(value)
    elif isinstance(found, list):
        for each in found:
            yield from _functions(each)


def _code(place: Path, what: str) -> ConfigError:
    return ConfigError(f"{place}: {what}; {TRUST}")


def version_note(place: Path) -> str | None:
    """Return a warning if the pipeline was made for another version of spaCy than the installed one."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # takes longer to import than all of this plugin

    try:
        meta, installed = peek_json(place / META), version("spacy")
        wanted = str(meta.get("spacy_version") or "")
        fits = not wanted or SpecifierSet(wanted).contains(installed, prereleases=True)
    except (OSError, ValueError, AttributeError, InvalidSpecifier, PackageNotFoundError):
        return None
    if fits:
        return None
    return f"the pipeline is for spaCy {wanted}, and {installed} is installed: its answers may differ"
