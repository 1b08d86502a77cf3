"""Find out what a fitted scikit-learn estimator reads: strings, objects or a table, and which columns are categories.

Estimators pass their input on: a search to its best estimator, a pipeline to its first step, a voting estimator to all.
`read_by` follows them to those that read the data. Requests are not judged here: the estimator has the last word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Literal

from gateway import ConfigError

# texts: a list of strings · objects: a list of dicts · items: a list of whatever the first step takes
# line: a list of numbers · table: rows of values
Kind = Literal["texts", "objects", "items", "line", "table"]
ENOUGH = 32  # estimators of an ensemble to examine: they are alike
# Attributes with the single estimator that gets this one's input.
INNER = ("best_estimator_", "estimator_", "regressor_", "classifier_")


@dataclass(frozen=True, slots=True)
class Reads:
    """The input of a model. `categories` maps columns whose values are not converted to the replacement for null."""

    kind: Kind = "table"
    width: int | None = None  # columns of its table, if it was fitted on one
    names: tuple[str, ...] = ()  # names of the columns, if any
    categories: Mapping[int, float | None] = field(default_factory=dict)
    are_numbers: bool = True  # as far as the model reveals
    chooses: bool = False  # whether it selects columns, so that others may be missing or extra
    needs: tuple[str, ...] = ()  # packages for tables with column names
    by_name: bool = False  # whether it only accepts a table with column names
    texts: frozenset[int] = frozenset()  # columns that only contain strings
    # columns of dates, which are strings in JSON, and their dtypes
    dates: Mapping[int, str] = field(default_factory=dict)
    known: Mapping[int, tuple[Any, ...]] = field(default_factory=dict)  # categories by column, None for a missing value
    makes_frames: bool = True  # whether a table with names is a frame of pandas, for the model was fitted on one
    refuse_unknown: frozenset[int] = frozenset()  # columns in which other categories are an error


NAN = float("nan")
METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function")
PLAIN = (str, bytes, int, float, complex, type, type(None))


def read_by(model: Any) -> Reads:
    """Find out what the model reads.

    Raises:
        ConfigError: it reads something that a request cannot contain, or must not.
    """
    _refuse_unsafe(model)
    readers = [*_readers(model, None)]
    kinds = dict.fromkeys(reader.kind for reader in readers)
    certain = [kind for kind in kinds if kind != "items"] or list(kinds) or ["table"]
    names = tuple(str(name) for name in getattr(model, "feature_names_in_", ()))
    width = getattr(model, "n_features_in_", None)
    if width is None:  # a pipeline whose first step only passes data on
        width = next((reader.width for reader in readers if reader.width is not None), None)
    kind = certain[0]
    if kind == "items" and width is not None:
        kind = "table"  # a function that was fitted on a table
    categories: dict[int, float | None] = {}
    for reader in readers:
        for column, null in reader.categories.items():
            categories[column] = None if null is None else categories.get(column, null)
    by_name = bool(names) and any(reader.by_name for reader in readers)
    needs = dict.fromkeys(package for reader in readers for package in reader.needs)
    if by_name:
        needs["pandas"] = None
    return Reads(
        kind,
        width,
        names,
        categories,
        not (names or categories) and all(reader.are_numbers for reader in readers),
        any(reader.chooses for reader in readers),
        tuple(needs),
        by_name,
        frozenset().union(*(reader.texts for reader in readers)),
        {column: dtype for reader in readers for column, dtype in reader.dates.items()},
        known={column: values for reader in readers for column, values in reader.known.items()},
        refuse_unknown=frozenset().union(*(reader.refuse_unknown for reader in readers)),
    )


def _refuse_unsafe(model: Any) -> None:
    """Refuse a model with which a request could do more than predict, anywhere in it: steps may pass their input on."""
    waiting, seen = [model], {}
    while waiting:
        part = waiting.pop()
        if isinstance(part, PLAIN) or id(part) in seen:
            continue
        seen[id(part)] = part  # kept alive, so that its id stays unique
        _refuse_files(part)
        _refuse_methods(part)
        if isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, (list, tuple, set, frozenset)):
            waiting += part
        elif getattr(getattr(part, "dtype", None), "kind", "") == "O" and hasattr(part, "flat"):
            waiting += getattr(part, "data", part).flat if hasattr(part, "mask") else part.flat  # masked values too
        waiting += getattr(part, "__dict__", {}).values()
        waiting += (getattr(part, name, None) for name in ("__self__", "func", "args", "keywords"))


def _refuse_files(part: Any) -> None:
    opens = getattr(part, "input", "content")
    if hasattr(part, "build_analyzer") and not _is_one_of(opens, ("content",)):
        raise ConfigError(
            f"the {type(part).__name__} has input={opens!r}: it would open the files that a request names; fit it "
            "on texts (input='content')"
        )


def _refuse_methods(part: Any) -> None:
    """Refuse method names in stacks and chains other than predictions: a saved array could write itself to a file."""
    for attribute in ("stack_method_", "chain_method_"):
        names = getattr(part, attribute, [])
        for name in names if type(names) is list else [names]:
            if not _is_one_of(name, METHODS):
                raise ConfigError(
                    f"the {type(part).__name__} has {attribute}={names!r}: it may call {', '.join(METHODS)}"
                )


def _is_one_of(value: Any, texts: tuple[str, ...]) -> bool:
    """Return whether it is exactly a str and in `texts`: other types may compare as equal to anything."""
    return type(value) is str and value in texts


def missing(reads: Reads) -> str | None:
    """Return the first package that the model needs and that is not installed."""
    return next((name for name in reads.needs if not has(name)), None)


def has(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # it exists but is broken
        return False


# ── finding the estimators that read ─────────────────────────────────────────────────────────────────────────────────


def _readers(model: Any, columns: list[int] | None) -> Iterator[Reads]:
    """Yield what each estimator reads that gets the unchanged input; `columns` are the columns that it gets."""
    output = getattr(model, "_sklearn_output_config", {}).get("transform")
    if output in ("pandas", "polars"):
        yield Reads("items", needs=(output,))
    if hasattr(model, "steps"):
        first, *_ = [step for _, step in model.steps if step not in (None, "passthrough")] or [None]
        yield from _outputs(step for _, step in model.steps if step is not first)
        if first is not None:
            yield from _readers(first, columns)
            yield from _behind_imputers(model, columns)
    elif hasattr(model, "transformer_list"):
        for _, part in model.transformer_list:
            if part not in ("drop", "passthrough"):
                yield from _readers(part, columns)
    elif hasattr(model, "transformers_"):
        yield from _chosen(model, columns)
    elif getattr(model, "_preprocessor", None) is not None:  # gradient boosting that supports categories
        for reads in _chosen(model._preprocessor, columns):
            yield replace(reads, chooses=False)
    else:
        inner = list(_inner(model))
        for one in inner:
            yield from _readers(one, columns)
        if not inner:
            yield _reads(model, columns)


def _outputs(steps: Iterator[Any]) -> Iterator[Reads]:
    """Yield the packages needed by steps that read the output of others."""
    for step in steps:
        output = getattr(step, "_sklearn_output_config", {}).get("transform")
        if output in ("pandas", "polars"):
            yield Reads("items", needs=(output,))


def _behind_imputers(model: Any, columns: list[int] | None) -> Iterator[Reads]:
    """Yield the categories of an encoder that gets the columns of a pipeline with only missing values replaced."""
    for _, step in model.steps:
        if hasattr(step, "categories_"):
            known = {place: tuple(dict.fromkeys((*values, None))) for place, values in _known(step, columns).items()}
            # None is a category if the imputer passed it on, because it replaces only NaN.
            nones = {place: null for place, null in _categories(step, columns).items() if null is None}
            yield Reads(categories=nones, known=known, refuse_unknown=_refuses(step, columns))
        if type(step).__name__ != "SimpleImputer" or getattr(step, "add_indicator", False):
            return


def _inner(model: Any) -> Iterator[Any]:
    for name in INNER:
        if (inner := getattr(model, name, None)) is not None:
            yield inner
            return
    if calibrated := getattr(model, "calibrated_classifiers_", None):
        yield calibrated[0].estimator
    elif hasattr(model, "estimators_") and (hasattr(model, "estimators") or hasattr(model, "estimator")):
        found = [each for each in model.estimators_ if hasattr(each, "get_params")]
        yield from found[:ENOUGH]
    elif type(model).__name__ == "FrozenEstimator":
        yield model.estimator


def _chosen(model: Any, columns: list[int] | None) -> Iterator[Reads]:
    """Yield what the parts of a ColumnTransformer read: each reads some columns of the table."""
    places = getattr(model, "_transformer_to_input_indices", {})
    by_name = any(_is_by_name(chosen) for _, _, chosen in model.transformers_)
    yield Reads(chooses=True, by_name=by_name, are_numbers=False)
    for name, part, _ in model.transformers_:
        mine = list(places.get(name, ()))
        if part in ("drop", "passthrough") or not mine:
            continue
        mine = [columns[place] for place in mine] if columns is not None else mine
        for reads in _readers(part, mine):
            if reads.kind in ("texts", "objects", "items") and not reads.chooses:  # a column of these
                texts = frozenset(mine if reads.kind == "texts" else ())
                yield Reads(categories=dict.fromkeys(mine, NAN), needs=reads.needs, texts=texts)
            else:
                yield reads


def _is_by_name(chosen: Any) -> bool:
    return isinstance(chosen, str) or (isinstance(chosen, list) and any(isinstance(one, str) for one in chosen))


# ── the estimators that read ─────────────────────────────────────────────────────────────────────────────────────────


def _reads(model: Any, columns: list[int] | None) -> Reads:
    from sklearn.utils import InputTags, get_tags

    try:
        tags = get_tags(model).input_tags
    except AttributeError:  # a third-party estimator that only resembles scikit-learn's
        tags = InputTags()
    kind = type(model).__name__
    if not tags.two_d_array and tags.string:
        free = callable(getattr(model, "analyzer", None)) or getattr(model, "input_type", None) is not None
        return Reads("items" if free else "texts")
    if not tags.two_d_array and tags.dict:
        return Reads("objects")
    if not tags.two_d_array and tags.one_d_array:
        return Reads("line")
    if kind in ("DummyClassifier", "DummyRegressor", "_ConstantPredictor", "FeatureHasher"):
        return Reads("items")  # the first three ignore the values, so a list of anything gives as many predictions
    if kind == "FunctionTransformer" and not model.validate:
        return Reads("items", by_name=model.func is not None, are_numbers=False, chooses=True)
    width = getattr(model, "n_features_in_", None) if columns is None else None
    are_numbers = not (tags.categorical or tags.string)
    dates = {
        columns[place] if columns is not None else place: str(known.dtype)
        for place, known in enumerate(getattr(model, "categories_", None) or ())
        if getattr(getattr(known, "dtype", None), "kind", "") == "M"
    }
    return Reads(
        width=width,
        categories=_categories(model, columns),
        are_numbers=are_numbers,
        dates=dates,
        known=_known(model, columns),
        refuse_unknown=_refuses(model, columns, dates),
    )


def _known(model: Any, columns: list[int] | None) -> dict[int, tuple[Any, ...]]:
    """Return the categories of an encoder by column; dates as texts."""
    found = {}
    for place, known in enumerate(getattr(model, "categories_", None) or ()):
        if (kind := getattr(getattr(known, "dtype", None), "kind", "")) and hasattr(known, "tolist"):
            values = (known.astype(str) if kind == "M" else known).tolist()
            plain = (None if value is None or value != value else value for value in values)
            found[columns[place] if columns is not None else place] = tuple(dict.fromkeys(plain))
    return found


def _refuses(model: Any, columns: list[int] | None, dates: Mapping[int, str] = MappingProxyType({})) -> frozenset[int]:
    """Return the columns in which other categories than those of an encoder are an error that names them."""
    is_strict = type(found := getattr(model, "handle_unknown", "")) is str and found == "error"
    return frozenset(_known(model, columns)) - dates.keys() if is_strict else frozenset()


def _categories(model: Any, columns: list[int] | None) -> dict[int, float | None]:
    """Return columns whose values are looked up, so they must not be converted: 5 is not "5", and null is not "nan"."""
    found: dict[int, float | None] = {}
    for place, known in enumerate(getattr(model, "categories_", None) or ()):
        if getattr(getattr(known, "dtype", None), "kind", "f") in "OUSbiu":
            found[place] = None if any(value is None for value in known) else NAN
    if getattr(getattr(model, "_fit_dtype", None), "kind", "") in ("O", "U", "S"):  # an imputer of such values
        null = None if getattr(model, "missing_values", NAN) is None else NAN
        found = dict.fromkeys(range(getattr(model, "n_features_in_", 0)), null)
    return {columns[place] if columns is not None else place: null for place, null in found.items()}
