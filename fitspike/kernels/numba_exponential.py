"""exp of whole arrays inside compiled kernels, written so that it becomes vector instructions; imported by kernels only."""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload


def exp_in_place(x: np.ndarray, scale: np.ndarray) -> None:
    """Replace x by exp(x); callable from compiled code only.

    x : contiguous, float32 (relative error 1e-7, arguments cut to -87 .. 88) or float64 (4e-16; up to 700, so that sums stay finite;
        0 below -708)
    scale : scratch of x's size, float32 or float64 as x
    """
    raise NotImplementedError("exp_in_place runs in compiled code only.")


@overload(exp_in_place)
def _compiled(x, scale):  # numba reads types, not annotations
    # Cephes' reduction: exp(x) = 2^k exp(r), |r| <= log(2) / 2; 2^k is written as the exponent bits of a float.
    if x.dtype == types.float32:

        def single(x, scale):
            power = scale.view(np.int32)
            for i in range(x.size):
                v = np.float32(88.0) if x[i] > np.float32(88.0) else x[i]  # NaN stays NaN
                v = np.float32(-87.0) if v < np.float32(-87.0) else v
                k = np.floor(v * np.float32(1.44269504) + np.float32(0.5))
                r = v - k * np.float32(0.693359375) + k * np.float32(2.12194440e-4)
                y = np.float32(1.9875691500e-4)
                y = y * r + np.float32(1.3981999507e-3)
                y = y * r + np.float32(8.3334519073e-3)
                y = y * r + np.float32(4.1665795894e-2)
                y = y * r + np.float32(1.6666665459e-1)
                y = y * r + np.float32(5.0000001201e-1)
                x[i] = y * r * r + r + np.float32(1.0)
                power[i] = (np.int32(k) + np.int32(127)) << np.int32(23)
            for i in range(x.size):
                x[i] *= scale[i]

        return single

    def double(x, scale):
        power = scale.view(np.int64)
        for i in range(x.size):
            v = 700.0 if x[i] > 700.0 else x[i]
            v = -708.0 if v < -708.0 else v
            k = np.floor(v * 1.4426950408889634 + 0.5)
            r = v - k * 6.93145751953125e-1 - k * 1.42860682030941723212e-6
            # Taylor series to r^13: the remainder is below 1e-17 for |r| <= 0.347.
            y = 1.6059043836821613e-10
            y = y * r + 2.08767569878681e-09
            y = y * r + 2.505210838544172e-08
            y = y * r + 2.755731922398589e-07
            y = y * r + 2.7557319223985893e-06
            y = y * r + 2.48015873015873e-05
            y = y * r + 1.984126984126984e-04
            y = y * r + 1.388888888888889e-03
            y = y * r + 8.333333333333333e-03
            y = y * r + 4.1666666666666664e-02
            y = y * r + 1.6666666666666666e-01
            y = y * r + 0.5
            bits = (np.int64(np.int32(k)) + np.int64(1023)) << np.int64(52)
            power[i] = np.int64(0) if x[i] < -708.0 else bits
            x[i] = y * r * r + r + 1.0
        for i in range(x.size):
            x[i] *= scale[i]

    return double
