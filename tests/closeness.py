"""How near two computations of the same numbers must be.

The kernels of a library sum in another order on another processor, for another shape of batch, at another alignment.
The rounding that this leaves grows with the numbers that are summed, so it is measured by the largest of them, never
absolutely and never value by value: the value next to zero has the rounding of its neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy

FLOAT32 = 1e-4  # of the largest; some layers of float32 leave 2e-6, a wrong mask, position or weight leaves over 1e-2


def assert_near(found: Any, wanted: Any, within: float = FLOAT32) -> None:
    """Fail unless all of `found` is as near to `wanted` as rounding would leave it; tensors, arrays or lists."""
    found, wanted = numpy.asarray(found, dtype=numpy.float64), numpy.asarray(wanted, dtype=numpy.float64)
    assert found.shape == wanted.shape
    largest = numpy.abs(wanted).max()
    assert numpy.isfinite(largest) and largest > 0, "there is nothing to compare with"
    off = numpy.abs(found - wanted).max() / largest
    assert off <= within, f"off by {off:.2g} of the largest value ({largest:.3g}), {within:g} is rounding"
