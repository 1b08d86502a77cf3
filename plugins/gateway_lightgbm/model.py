"""`LightGBMModel`: a booster of LightGBM, from the file that the library saves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway_tabular.columns import Column, Columns
from gateway_tabular.files import model_file
from gateway_tabular.model import Contributions, Scores, TabularModel

from gateway import BadRequest, ConfigError, check_ordinary, weights_path

from .detection import is_model
from .structure import SAVE, Model, read_checked

HALF = 0.5  # probability above which the second of two classes is predicted, as in LGBMClassifier


class LightGBMModel(TabularModel):
    def open(self, root: Path) -> None:
        file = model_file(weights_path(self.config, root), root, "lightgbm", is_model, SAVE)
        check_ordinary(file)
        self.about, text = read_checked(file)
        about = self.about
        self.columns = _columns(about, self._category_columns())
        self.is_binary = about.objective == "binary"
        is_classifier = self.is_binary or about.objective.startswith("multiclass")
        self.classes = self.labels(2 if self.is_binary else about.outputs) if is_classifier else ()
        import lightgbm

        try:
            self._booster = lightgbm.Booster(model_str=text)
        except lightgbm.basic.LightGBMError as error:
            what = f"{file.name} cannot be loaded by LightGBM {lightgbm.__version__}: {error}"
            raise ConfigError(what) from error
        self._settings = {"num_threads": self.threads(), "validate_features": False}

    def _category_columns(self) -> tuple[int, ...] | None:
        """Return the columns that were categories of pandas, if options name them: the file only has the categories."""
        given = self.options.get("category_columns")
        if given is None:
            return None
        places = {name: place for place, name in enumerate(self.about.names)}
        if not isinstance(given, list) or not all(isinstance(name, str) and name in places for name in given):
            raise ConfigError("config.yaml: options: category_columns has to be a list of names of columns")
        if len(given) != len(self.about.pandas):
            raise ConfigError(f"config.yaml: options: category_columns has to name {len(self.about.pandas)} columns")
        return tuple(places[name] for name in given)

    def compute(self, table: Any) -> Scores:
        outputs = self._booster.predict(table, **self._settings)
        if self.is_binary:
            no, yes = self.classes
            ones = outputs.tolist()
            return Scores([yes if one > HALF else no for one in ones], [[1.0 - one, one] for one in ones])
        if self.classes:
            return Scores([self.classes[place] for place in outputs.argmax(1).tolist()], outputs.tolist())
        return Scores(outputs.tolist())

    def contributions(self, table: Any) -> Contributions:
        if self.about.is_linear:
            what = "LightGBM cannot explain trees whose leaves compute (linear_tree)"
            raise BadRequest(what, param="explain", code="unsupported_value")
        found = self._booster.predict(table, pred_contrib=True, **self._settings)
        if self.about.outputs > 1:
            found = found.reshape(len(table), self.about.outputs, self.columns.width + 1)
        return Contributions(found[..., :-1].tolist(), found[..., -1].tolist())


def _columns(about: Model, named: Sequence[int] | None) -> Columns:
    of_pandas = named if named is not None else _of_pandas(about)
    categories = dict(zip(of_pandas, about.pandas, strict=True)) if of_pandas is not None else {}
    if of_pandas is None:
        print(
            "warning: which columns were categories of pandas is not in the file: send the numbers of categories, or "
            "name the columns in config.yaml: options: category_columns, in the order of the table"
        )
    columns = [_column(about, place, name, categories.get(place)) for place, name in enumerate(about.names)]
    return Columns(columns, has_names=about.has_names)


def _column(about: Model, place: int, name: str, categories: Sequence[Any] | None) -> Column:
    if categories is not None:
        return Column(name, "known", {value: float(code) for code, value in enumerate(categories)})
    return Column(name, "code" if place in about.is_categorical else "number")


def _of_pandas(about: Model) -> tuple[int, ...] | None:
    """Return the columns of categories of pandas, if they can only be the columns of categories."""
    columns = tuple(sorted(about.is_categorical))
    if not about.pandas:
        return ()
    fits = len(columns) == len(about.pandas) and all(
        max(about.known[column], default=0) < len(categories)
        for column, categories in zip(columns, about.pandas, strict=True)
    )
    return columns if fits else None
