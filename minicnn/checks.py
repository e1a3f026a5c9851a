"""Checks of arguments that several modules make at their door."""

from typing import Any

import numpy as np

from minicnn.errors import ArgumentError


def positive_integer(name: str, value: Any) -> int:
    """Return `value` as an int if it is a whole number of at least 1; the error calls it `name`.

    >>> positive_integer("batch_size", 64)
    64
    """
    return _integer(name, value, 1)


def seed(value: Any) -> int:
    """Return `value` as an int if a generator can be seeded with it.

    >>> seed(1)
    1
    """
    return _integer("seed", value, 0)


def _integer(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ArgumentError(f"{name} expects an integer >= {least}. Received: {value!r}")
    return int(value)
