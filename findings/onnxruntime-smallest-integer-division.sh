#!/usr/bin/env bash
# onnxruntime 1.32.0: Div of integers ends the process if the smallest one is divided by -1.
#
# Expected, as for a division by zero, which is an error ("Integer division by zero"): an error, or the wrapped number
# that Mod and NumPy give. A client that may choose both inputs of a Div otherwise ends the server.
# Seen: SIGFPE, for int64 and for int32.
# Exits with 0 while this is what is seen.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q onnxruntime==1.32.0 onnx==1.23.2
cat > "$place/divide.py" <<'PYTHON'
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

kind, divisor = sys.argv[1], int(sys.argv[2])
element = getattr(TensorProto, kind.upper())
inputs = [helper.make_tensor_value_info(name, element, ["n"]) for name in "ab"]
output = helper.make_tensor_value_info("c", element, ["n"])
graph = helper.make_graph([helper.make_node("Div", ["a", "b"], ["c"])], "g", inputs, [output])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
feed = {"a": np.array([np.iinfo(kind).min], kind), "b": np.array([divisor], kind)}
try:
    print(session.run(None, feed))
except Exception as error:
    print(error)
PYTHON
for kind in int32 int64; do
    "$place/venv/bin/python" "$place/divide.py" "$kind" 0 2>&1 | grep "division by zero"
    code=0
    "$place/venv/bin/python" "$place/divide.py" "$kind" -1 || code=$?
    echo "$kind: exit code $code"
    [ "$code" = 136 ] # 128 + SIGFPE
done
