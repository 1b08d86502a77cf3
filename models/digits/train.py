"""Train the model of this directory, with the same result each time: python train.py

Scaler and logistic regression on scikit-learn's digits, 8 × 8 pixels of 0 to 16 each.
"""

from __future__ import annotations

from pathlib import Path

import skops.io
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).parent


def main() -> None:
    pixels, digits = load_digits(return_X_y=True)
    train, test, train_digits, test_digits = train_test_split(
        pixels, digits, test_size=0.3, random_state=0, stratify=digits
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, random_state=0))
    model.fit(train, train_digits)
    print(f"accuracy on {len(test)} digits that it has not seen: {model.score(test, test_digits):.3f}")
    skops.io.dump(model, HERE / "model.skops")


if __name__ == "__main__":
    main()
