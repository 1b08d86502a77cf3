"""Train the model of this directory, with the same result each time: python train.py

Gradient boosting of LightGBM on scikit-learn's diabetes: ten measurements of a patient, and how far the disease has
progressed a year later.
"""

from __future__ import annotations

from pathlib import Path

import lightgbm
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

HERE = Path(__file__).parent
SETTINGS = {
    "objective": "regression_l1",
    "learning_rate": 0.1,
    "num_leaves": 8,
    "min_data_in_leaf": 10,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "seed": 0,
    "verbose": -1,
}


def main() -> None:
    data = load_diabetes(scaled=False)
    train, test, scores, test_scores = train_test_split(data.data, data.target, test_size=0.3, random_state=0)
    table = lightgbm.Dataset(train, scores, feature_name=data.feature_names)
    model = lightgbm.train(SETTINGS, table, num_boost_round=40)
    off = abs(model.predict(test) - test_scores).mean()
    print(f"off by {off:.1f} on average for {len(test)} patients whom it has not seen; scores are 25 to 346")
    model.save_model(HERE / "model.txt")


if __name__ == "__main__":
    main()
