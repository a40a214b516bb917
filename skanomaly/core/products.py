"""Matrix products of finite arrays."""

import numpy as np


def product(left, right, out=None):
    """``left @ right`` of finite arrays, into `out` if given, without NumPy's spurious warnings.

    BLAS kernels for small matrices may compute on whatever lies beyond the end of an array and
    drop the result: the product is right, but NumPy sees the floating-point flag and warns.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        return np.matmul(left, right, out=out)
