"""skops, imported without what it has no need of.

It looks at every module of scikit-learn, one of which imports torch: that takes seconds, and fails
where torch is broken, which no model without a network needs.
"""

from __future__ import annotations

import sys

_TORCH = "sklearn.externals.array_api_compat.torch"

_is_loaded = _TORCH in sys.modules
if not _is_loaded:
    sys.modules[_TORCH] = None  # type: ignore[assignment] # which says that there is no such module
try:
    import skops.io as skops_io
finally:
    if not _is_loaded:
        del sys.modules[_TORCH]

__all__ = ["skops_io"]
