"""The two settings that every layer shares: the float type and the random generator."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from minicnn import checks
from minicnn.errors import ArgumentError

_floatx = "float32"
_generator = np.random.default_rng()


def floatx() -> str:
    """Return the float type that new layers compute in, ``"float32"`` or ``"float64"``.

    >>> import minicnn
    >>> minicnn.floatx()
    'float32'
    """
    return _floatx


def set_floatx(value: str) -> None:
    """Choose the float type of all layers and optimizers built from now on.

    Parameters
    ----------
    value : {"float32", "float64"}
        float32 trains; float64 is twice as slow and is what gradient checks need.

    Raises
    ------
    ArgumentError
        If `value` is neither.

    Examples
    --------
    >>> import minicnn
    >>> minicnn.set_floatx("float64")
    >>> minicnn.layers.Dense(3).build((2,)).params["kernel"].dtype
    dtype('float64')
    >>> minicnn.set_floatx("float32")
    """
    global _floatx
    if value not in ("float32", "float64"):
        raise ArgumentError(f'set_floatx expects "float32" or "float64". Received: {value!r}')
    _floatx = value


@contextmanager
def using_floatx(value: str) -> Iterator[None]:
    """Choose the float type inside the block only.

    Parameters
    ----------
    value : as in `set_floatx`

    Raises
    ------
    ArgumentError
        As in `set_floatx`.

    Examples
    --------
    >>> import minicnn
    >>> with minicnn.using_floatx("float64"):
    ...     minicnn.floatx()
    'float64'
    """
    before = _floatx
    set_floatx(value)
    try:
        yield
    finally:
        set_floatx(before)


def set_random_seed(seed: int) -> None:
    """Seed the generator that initialises weights and that data sets without a seed draw theirs from.

    Parameters
    ----------
    seed : int
        Not negative. The same seed and the same program give the same bits, at any number of threads.

    Raises
    ------
    ArgumentError
        If `seed` is not an integer or is negative.

    Examples
    --------
    >>> import minicnn
    >>> minicnn.utils.set_random_seed(1)
    >>> first = minicnn.layers.Dense(3).build((2,)).params["kernel"]
    >>> minicnn.utils.set_random_seed(1)
    >>> second = minicnn.layers.Dense(3).build((2,)).params["kernel"]
    >>> bool((first == second).all())
    True
    """
    global _generator
    _generator = np.random.default_rng(checks.whole_number("seed", seed))


def generator() -> np.random.Generator:
    """Return the shared generator that `set_random_seed` seeds.

    >>> import minicnn
    >>> minicnn.utils.set_random_seed(7)
    >>> int(minicnn.utils.generator().integers(100))
    94
    """
    return _generator
