"""What the compiled recurrences share: how they are compiled, and the functions that their steps are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import float32
from numba.extending import overload
from torch import Tensor

from lifelong.compiled import Array, compiled

# All fast-math flags but those that assume no NaN and no infinity: a run that diverges must be seen to.
_FASTMATH = {"reassoc", "contract", "arcp", "nsz"}
jit: Callable[[Callable[..., Any]], Callable[..., Any]] = compiled(fastmath=_FASTMATH)
inlined: Callable[[Callable[..., Any]], Callable[..., Any]] = compiled(fastmath=_FASTMATH, forceinline=True)
"""For functions that are compiled into their caller, so that constants of the caller are constants there, too."""


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


@inlined
def add_products(
    total: Array,
    total_row: int,
    value: Array,
    value_strides: tuple[int, int],
    weight: Array,
    weight_row: int,
    shape: tuple[int, int, int],
) -> None:
    """total[r, j] += sum_i value[r, i] weight[i, j], four rows r and four i at a time; the matrices are flat arrays.

    Row r of `total` begins at r * `total_row`, row i of `weight` at i * `weight_row`. Where these two and the number of
    columns are known when the caller is compiled, the compiler sees that rows do not overlap, and makes vector
    instructions of sixteen products at a time; else it cannot.

    Args:
        total: the sums, added to.
        total_row: numbers from row to row of `total`.
        value: the left matrix.
        value_strides: value[r, i] is at r * the first + i * the second.
        weight: the right matrix.
        weight_row: numbers from row to row of `weight`.
        shape: rows and inner length, both multiples of 4, and columns.
    """
    rows, inner, columns = shape
    down, right = value_strides
    for r in range(0, rows, 4):
        out = total[r * total_row :]
        for i in range(0, inner, 4):
            # Slices in place of sums of indices, which the compiler would have to take for possibly negative ones.
            row, of = value[r * down + i * right :], weight[i * weight_row :]
            a0, a1, a2, a3 = row[0], row[right], row[2 * right], row[3 * right]
            row = row[down:]
            b0, b1, b2, b3 = row[0], row[right], row[2 * right], row[3 * right]
            row = row[down:]
            c0, c1, c2, c3 = row[0], row[right], row[2 * right], row[3 * right]
            row = row[down:]
            d0, d1, d2, d3 = row[0], row[right], row[2 * right], row[3 * right]
            for j in range(columns):
                w, x, y, z = of[j], of[weight_row + j], of[2 * weight_row + j], of[3 * weight_row + j]
                out[j] += a0 * w + a1 * x + a2 * y + a3 * z
                out[total_row + j] += b0 * w + b1 * x + b2 * y + b3 * z
                out[2 * total_row + j] += c0 * w + c1 * x + c2 * y + c3 * z
                out[3 * total_row + j] += d0 * w + d1 * x + d2 * y + d3 * z


def as_array(value: Tensor) -> Array:
    """The numbers of a tensor as a contiguous array; a copy only where they are not contiguous yet."""
    array: Array = value.detach().contiguous().numpy()
    return array
