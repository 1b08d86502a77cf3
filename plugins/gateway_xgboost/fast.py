"""Predict with XGBoost's C interface: for one row it takes half the time of `Booster.inplace_predict`.

Python's method describes the array and the settings as JSON again at every call, and validates what `Reader` has
validated. The functions and their settings are those of XGBoost's c_api.h.
"""

from __future__ import annotations

import ctypes
import json
import math
import re
from typing import Any

PLACE = re.compile(r"\A\[[\d:]+\] \S+:\d+: ")


class Predictor:
    """Predicts for matrices of float32. Threads may share it: the library keeps a result for each thread."""

    def __init__(self, booster: Any, rounds: tuple[int, int]) -> None:
        """`rounds` are the first round to use, and the one behind the last: 0 for all."""
        from xgboost.libpath import find_lib_path

        library = ctypes.CDLL(find_lib_path()[0])  # the one that is loaded already
        self._booster = booster  # which owns the handle
        self._handle = booster.handle
        self._predict = library.XGBoosterPredictFromDense
        self._message = library.XGBGetLastError
        self._message.restype = ctypes.c_char_p
        settings = {
            "type": 0,
            "training": False,
            "iteration_begin": rounds[0],
            "iteration_end": rounds[1],
            "missing": math.nan,
            "strict_shape": True,
            "cache_id": 0,
        }
        self._settings = json.dumps(settings).encode()

    def __call__(self, table: Any) -> Any:
        """Return an array with a row of outputs for each row of a contiguous matrix.

        Raises:
            ValueError: with the library's words.
        """
        import numpy

        shape, dimensions = ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64()
        values = ctypes.POINTER(ctypes.c_float)()
        rows, width = table.shape
        array = b'{"data":[%d,true],"shape":[%d,%d],"typestr":"<f4","version":3}' % (table.ctypes.data, rows, width)
        if self._predict(
            self._handle,
            array,
            self._settings,
            None,
            ctypes.byref(shape),
            ctypes.byref(dimensions),
            ctypes.byref(values),
        ):
            raise ValueError(words_of(self._message().decode("utf-8", "replace")))
        sizes = [shape[place] for place in range(dimensions.value)]
        if sizes[1] * rows == 1:
            return numpy.array([[values[0]]], dtype=numpy.float32)
        return numpy.ctypeslib.as_array(values, (rows, math.prod(sizes[1:]))).copy()


def words_of(message: str) -> str:
    """Return the first line of a message of XGBoost, without the time and the place in its source."""
    line = message.partition("\n")[0]
    return PLACE.sub("", line)
