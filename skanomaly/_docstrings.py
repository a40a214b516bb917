"""Parts that several docstrings share, written once."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

_T = TypeVar("_T")
_PLACEHOLDER = re.compile(r"^( *)%\((\w+)\)s$", re.MULTILINE)


def document(blocks: Mapping[str, str]) -> Callable[[_T], _T]:
    """Decorator that replaces each line ``%(name)s`` of a docstring by the block of that name.

    Of a class, the docstrings of its methods are filled in too.

    Parameters
    ----------
    blocks : mapping of str to str
        The text of each name, such as the entry of a parameter. It is brought to the indentation
        of the line that it replaces.

    Returns
    -------
    callable
        Takes a function or a class, and returns it with its docstring filled in.

    Examples
    --------
    >>> @document({"n_jobs": "n_jobs : int\\n    Workers of joblib."})
    ... def run(n_jobs):
    ...     '''Run.
    ...
    ...     %(n_jobs)s
    ...     '''
    >>> print(inspect.getdoc(run))
    Run.
    <BLANKLINE>
    n_jobs : int
        Workers of joblib.
    """

    def fill(target: _T) -> _T:
        if inspect.isclass(target):
            for method in filter(inspect.isfunction, vars(target).values()):
                fill(method)
        if target.__doc__ is not None:  # python -OO drops docstrings

            def block(match: re.Match[str]) -> str:
                lines = inspect.cleandoc(blocks[match[2]]).splitlines()
                return "\n".join(f"{match[1]}{line}" if line else "" for line in lines)

            target.__doc__ = _PLACEHOLDER.sub(block, target.__doc__)
        return target

    return fill
