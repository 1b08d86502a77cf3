#!/usr/bin/env bash
# scikit-learn 1.9.1: RadiusNeighborsRegressor that was fitted on whole numbers predicts -9223372036854775808, not NaN.
#
# Expected, by its own warning ("... have no neighbors within specified radius; predicting NaN"): NaN for a point without
# neighbours, whatever the type of the targets; code that looks for NaN then finds it.
# Seen: with targets of integers the NaN is written into an array of integers, and comes out as the smallest of them, a
# number like any other, with weights="distance" too. With the same targets as floats it is NaN.
# Exits with 0 while this is what is seen.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q scikit-learn==1.9.1
"$place/venv/bin/python" -W ignore - <<'PYTHON'
import math

from sklearn.neighbors import RadiusNeighborsRegressor

ROWS, FAR = [[0.0], [1.0], [2.0]], [[99.0]]


def predicted(target, **options):
    return RadiusNeighborsRegressor(radius=0.5, **options).fit(ROWS, target).predict(FAR)[0]


floats = predicted([10.0, 20.0, 30.0])
weighted = predicted([10, 20, 30], weights="distance")
whole = predicted([10, 20, 30])
print("floats:", floats, "weighted:", weighted, "whole numbers:", whole)
assert math.isnan(floats) and whole == weighted == -(2**63)
PYTHON
