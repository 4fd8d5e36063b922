"""Functions compiled to machine code on first use, and kept for the next process."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from numba import njit

Given = ParamSpec("Given")
Result = TypeVar("Result")


def compiled(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """`function` by numba, free of Python's lock while it runs.

    The machine code is kept beside the package or in the user's cache folder; where neither can be
    written, as in a read-only container, it is compiled anew by every process.
    """
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba found no folder to keep it in
        return njit(nogil=True)(function)
