"""Train the model of this directory, with the same result each time: python train.py

Gradient boosting of XGBoost on scikit-learn's wines: thirteen measurements, three varieties of Piedmont.
"""

from __future__ import annotations

from pathlib import Path

import xgboost
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split

HERE = Path(__file__).parent
SETTINGS = {"objective": "multi:softprob", "num_class": 3, "max_depth": 3, "eta": 0.3, "nthread": 1}


def main() -> None:
    wines = load_wine()
    train, test, kinds, test_kinds = train_test_split(
        wines.data, wines.target, test_size=0.3, random_state=0, stratify=wines.target
    )
    table = xgboost.DMatrix(train, label=kinds, feature_names=wines.feature_names)
    model = xgboost.train(SETTINGS, table, num_boost_round=12)
    found = model.predict(xgboost.DMatrix(test, feature_names=wines.feature_names)).argmax(1)
    print(f"accuracy on {len(test)} wines that it has not seen: {(found == test_kinds).mean():.3f}")
    model.save_model(HERE / "model.ubj")


if __name__ == "__main__":
    main()
