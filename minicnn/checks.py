"""Checks of arguments that several modules make at their door."""

import math
from typing import Any

import numpy as np

from minicnn.errors import ArgumentError


def positive_integer(name: str, value: Any) -> int:
    """Return `value` as an int if it is a whole number of at least 1; the error calls it `name`.

    >>> positive_integer("batch_size", 64)
    64
    """
    return _integer(name, value, 1)


def whole_number(name: str, value: Any) -> int:
    """Return `value` as an int if it is a whole number of at least 0, such as a seed; the error calls it `name`.

    >>> whole_number("seed", 1)
    1
    """
    return _integer(name, value, 0)


def number(name: str, value: Any, least: float = -math.inf, most: float = math.inf, below: float = math.inf) -> float:
    """Return `value` as a float if it is a finite number between others, less than `below`; the error calls it `name`.

    >>> number("momentum", 0.9, 0, 1)
    0.9
    """
    plain = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not (plain and math.isfinite(value) and least <= value <= most and value < below):
        span = f" >= {least}" * (least > -math.inf) + f" and <= {most}" * (most < math.inf)
        span += f" and < {below}" * (below < math.inf)
        raise ArgumentError(f"{name} expects a finite number{span}. Received: {value!r}")
    return float(value)


def _integer(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ArgumentError(f"{name} expects an integer >= {least}. Received: {value!r}")
    return int(value)
