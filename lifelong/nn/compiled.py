"""What the compiled recurrences share: how they are compiled, and the two functions that their steps are made of.

Numba compiles them when first called and keeps them on disk. They hold no lock, so that threads run beside each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import float32, njit
from numba.extending import overload
from torch import Tensor

Array = npt.NDArray[Any]

# Everything but the assumptions that nothing is NaN or infinite: a run that diverges must be seen to.
_FASTMATH = {"reassoc", "contract", "arcp", "nsz"}
jit = njit(nogil=True, cache=True, error_model="numpy", fastmath=_FASTMATH)


def tanh(x: Any) -> Any:
    """Hyperbolic tangent in compiled code: `tanh_single` of a number in single precision, else the exact one."""
    return math.tanh(x)


@overload(tanh, jit_options={"error_model": "numpy", "fastmath": _FASTMATH})
def _tanh(x: Any) -> Callable[[Any], Any]:
    def single(x: Any) -> Any:
        return tanh_single(x)

    def exact(x: Any) -> Any:
        return math.tanh(x)

    return single if x == float32 else exact


@jit
def tanh_single(x: Any) -> Any:
    """Hyperbolic tangent as x P(x^2) / Q(x^2), within 4e-7; a quotient runs in vector registers, `np.tanh` does not.

    The coefficients are a least-squares fit of the relative error on [-8, 8]; beyond, tanh is 1 to single precision.
    """
    x = np.float32(8.0) if x > np.float32(8.0) else x
    x = np.float32(-8.0) if x < np.float32(-8.0) else x
    u = x * x
    top = np.float32(-1.1640163541305154e-13)
    top = top * u + np.float32(6.390518851636582e-11)
    top = top * u + np.float32(-2.2359829762688776e-08)
    top = top * u + np.float32(1.1652544866145498e-05)
    top = top * u + np.float32(0.0031502832634595634)
    top = top * u + np.float32(0.13125160535494496)
    top = top * u + np.float32(0.9999999982581651)
    bottom = np.float32(0.00026143380810825153)
    bottom = bottom * u + np.float32(0.024678620960015652)
    bottom = bottom * u + np.float32(0.4645849207717111)
    bottom = bottom * u + np.float32(1.0)
    return x * top / bottom


@jit
def add_product(total: Array, value: Array, weight: Array) -> None:
    """total[j] += sum_i value[i] weight[i, j], four rows of the weight at a time."""
    rows, columns = weight.shape
    whole = rows - rows % 4
    for i in range(0, whole, 4):
        a, b, c, d = value[i], value[i + 1], value[i + 2], value[i + 3]
        for j in range(columns):
            total[j] += a * weight[i, j] + b * weight[i + 1, j] + c * weight[i + 2, j] + d * weight[i + 3, j]
    for i in range(whole, rows):
        a = value[i]
        for j in range(columns):
            total[j] += a * weight[i, j]


def as_array(value: Tensor) -> Array:
    """The numbers of a tensor, one after another in memory."""
    array: Array = value.detach().contiguous().numpy()
    return array
