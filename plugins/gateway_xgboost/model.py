"""`XGBoostModel`: a booster of XGBoost, from the file that the library saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway_tabular.columns import Column, Columns
from gateway_tabular.files import model_file
from gateway_tabular.model import Contributions, Scores, TabularModel

from gateway import BadRequest, ConfigError, check_ordinary, opened, weights_path

from .detection import is_model
from .fast import Predictor, words_of
from .structure import SAVE, Model, read_model

FULL = 0.5  # probability above which the second of two classes is predicted, as in XGBClassifier
MARGINS = {"multi:softmax": "multi:softprob"}  # the same model, but with probabilities


class XGBoostModel(TabularModel):
    dtype = "float32"

    def open(self, root: Path) -> None:
        file = model_file(weights_path(self.config, root), root, "xgboost", is_model, SAVE)
        check_ordinary(file)
        self.about = about = read_model(file)
        self.columns = _columns(about)
        self.classes = self.labels(about.classes) if about.classes else ()
        self._library, self._booster = _load(file)
        self._booster.set_param({"nthread": self.threads()})
        if about.objective in MARGINS:
            self._booster.set_param({"objective": MARGINS[about.objective]})
        self._rounds = self._chosen_rounds()
        is_linear = about.booster == "gblinear"  # it computes only for the library's own kind of table
        self._predict = self._of_matrix if is_linear else Predictor(self._booster, self._rounds)

    def _chosen_rounds(self) -> tuple[int, int]:
        """Return the rounds to use: those of the options, or after early stopping the best, as XGBClassifier does."""
        given = self.options.get("rounds")
        if given is None and self.about.best is None:
            return (0, 0)
        if given is None:
            last = self.about.best + 1
            if last < self.about.rounds:
                print(f"it stopped early: the first {last} of its {self.about.rounds} rounds are used, its best")
            return (0, last)
        if type(given) is not int or not 0 < given <= self.about.rounds:
            raise ConfigError(f"config.yaml: options: rounds has to be a whole number from 1 to {self.about.rounds}")
        return (0, given)

    def compute(self, table: Any) -> Scores:
        outputs = self._predict(table)
        if self.about.objective == "binary:logistic" and self.classes:
            ones = outputs[:, 0]
            no, yes = self.classes
            predictions = [yes if one > FULL else no for one in ones.tolist()]
            # 1 - p in float32, as XGBClassifier does it
            return Scores(
                predictions, [[zero, one] for zero, one in zip((1 - ones).tolist(), ones.tolist(), strict=True)]
            )
        if self.about.objective == "binary:hinge" and self.classes:
            return Scores([self.classes[int(value)] for value in outputs[:, 0].tolist()])
        if self.classes:
            return Scores([self.classes[place] for place in outputs.argmax(1).tolist()], outputs.tolist())
        return Scores((outputs[:, 0] if outputs.shape[1] == 1 else outputs).tolist())

    def gives_probabilities(self) -> bool:
        return bool(self.classes) and self.about.objective != "binary:hinge"

    def contributions(self, table: Any) -> Contributions:
        if self.about.has_wide_leaves:
            what = "XGBoost cannot explain trees with several outputs (multi_output_tree)"
            raise BadRequest(what, param="explain", code="unsupported_value")
        options = {"pred_contribs": True, "validate_features": False, "strict_shape": True}
        found = self._booster.predict(self._matrix(table), iteration_range=self._rounds, **options)
        found = found[:, 0] if found.shape[1] == 1 else found
        return Contributions(found[..., :-1].tolist(), found[..., -1].tolist())

    def _of_matrix(self, table: Any) -> Any:
        return self._booster.predict(self._matrix(table), validate_features=False, strict_shape=True)

    def _matrix(self, table: Any) -> Any:
        types = list(self.about.types) or None
        return self._library.DMatrix(table, nthread=self.threads(), feature_types=types, enable_categorical=True)


def _load(file: Path) -> tuple[Any, Any]:
    import xgboost

    with xgboost.config_context(verbosity=0):  # it says that it guesses the format of a file of another name
        try:
            return xgboost, xgboost.Booster(model_file=_as_named(file))
        except xgboost.core.XGBoostError as error:
            what = f"{file.name} cannot be loaded by XGBoost {xgboost.__version__}: {words_of(str(error))}"
            raise ConfigError(what) from error


def _as_named(file: Path) -> Any:
    """Return what the library is to load: JSON with another suffix than .json it would read as UBJSON."""
    with opened(file) as found:
        begin = found.read(2)
        is_json = begin[1:] in (b'"', b"\n", b" ", b"\r", b"\t")
        return bytearray(begin + found.read()) if is_json != (file.suffix == ".json") else str(file)


def _columns(about: Model) -> Columns:
    types = about.types or ("float",) * about.width
    names = about.names or [str(place) for place in range(about.width)]
    columns = [_column(about, place, names[place], types[place]) for place in range(about.width)]
    return Columns(columns, has_names=bool(about.names))


def _column(about: Model, place: int, name: str, kind: str) -> Column:
    if kind != "c":
        return Column(name)
    if place not in about.categories:
        return Column(name, "code")
    names = about.categories[place]
    if cut := sum(value is None for value in names):
        print(f"warning: XGBoost has cut the names of {cut} categories of the column {name}: send other names as texts")
    return Column(name, "known", {value: float(code) for code, value in enumerate(names) if value is not None})
