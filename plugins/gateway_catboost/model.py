"""`CatBoostModel`: a model of CatBoost, from the file that the library saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway_tabular.columns import Column, Columns
from gateway_tabular.files import model_file
from gateway_tabular.model import Contributions, Scores, TabularModel

from gateway import ConfigError, check_ordinary, weights_path

from .detection import SAVE, check_whole, is_model
from .rows import CatBoostReader

HALF = 0.5  # probability above which the second of two classes is predicted
OF_LABELS = ("MultiLogloss", "MultiCrossEntropy")  # several labels for each row
# What the regressor of the library predicts for these objectives, in place of a raw score.
KINDS = {"Poisson": "Exponent", "Tweedie": "Exponent", "RMSEWithUncertainty": "RMSEWithUncertainty"}


class CatBoostModel(TabularModel):
    def open(self, root: Path) -> None:
        file = model_file(weights_path(self.config, root), root, "catboost", is_model, SAVE)
        check_ordinary(file)
        kind = check_whole(file)
        import catboost

        self._library = catboost
        try:
            self._model = model = catboost.CatBoost().load_model(str(file), format=kind)
        except catboost.CatBoostError as error:
            what = f"{file.name} cannot be loaded by CatBoost {catboost.__version__}: {error}"
            raise ConfigError(f"{what}; get it again, or save it with {SAVE}") from error
        if model.get_embedding_feature_indices():
            raise ConfigError(
                f"{file.name} has columns of vectors (embedding_features): write a model.py that loads it"
            )
        self._texts, self._categories = model.get_text_feature_indices(), model.get_cat_feature_indices()
        names = list(map(str, model.feature_names_))
        others = {*self._texts, *self._categories}
        columns = [Column(name, "text" if place in others else "number") for place, name in enumerate(names)]
        self.columns = Columns(columns, has_names=names != [str(place) for place in range(len(names))])
        self.objective = str(model.get_all_params().get("loss_function", "")).partition(":")[0]
        labels = getattr(model, "classes_", None)
        labels = [] if labels is None else [getattr(label, "item", lambda label=label: label)() for label in labels]
        self.classes = (labels if self.options.get("classes") is None else self.labels(len(labels))) if labels else ()
        self._settings = {"thread_count": self.threads()}

    def make_reader(self) -> CatBoostReader:
        return CatBoostReader(self.columns, frozenset(self._texts))

    def compute(self, table: Any) -> Scores:
        if not self.classes:
            kind = KINDS.get(self.objective, "RawFormulaVal")
            return Scores(self._model.predict(table, prediction_type=kind, **self._settings).tolist())
        found = self._model.predict(table, prediction_type="Probability", **self._settings)
        if self.objective in OF_LABELS:
            return Scores([[int(one > HALF) for one in row] for row in found.tolist()], found.tolist())
        if len(self.classes) == 2 and found.shape[1] == 2:
            no, yes = self.classes
            return Scores([yes if one > HALF else no for one in found[:, 1].tolist()], found.tolist())
        return Scores([self.classes[place] for place in found.argmax(1).tolist()], found.tolist())

    def contributions(self, table: Any) -> Contributions:
        pool = self._library.Pool(table, cat_features=self._categories, text_features=self._texts)
        found = self._model.get_feature_importance(pool, type="ShapValues", **self._settings)
        return Contributions(found[..., :-1].tolist(), found[..., -1].tolist())
