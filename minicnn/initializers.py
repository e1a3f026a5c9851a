"""How weights begin: drawn from a given generator, so that a run can be repeated."""

import math

import numpy as np


def glorot_uniform(shape: tuple[int, ...], generator: np.random.Generator, dtype: str = "float32") -> np.ndarray:
    """Draw a kernel whose signals neither grow nor fade from layer to layer, forward or backward.

    uniform(-limit, limit) with limit = sqrt(6 / (fan_in + fan_out)); a convolution's fans count its KH*KW places.

    Parameters
    ----------
    shape : tuple of int
        (In, Out) of a dense kernel or (KH, KW, C, F) of a convolution.
    generator : numpy.random.Generator
        Where the numbers come from; they are drawn in float64 and then rounded to `dtype`.
    dtype : {"float32", "float64"}

    Returns
    -------
    numpy.ndarray
        Of `shape` and `dtype`.

    References
    ----------
    Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, AISTATS 2010, eq. 16.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.initializers import glorot_uniform
    >>> kernel = glorot_uniform((3, 3, 3, 16), np.random.default_rng(0))
    >>> bool(abs(kernel).max() < (6 / (9 * 3 + 9 * 16)) ** 0.5)
    True
    """
    places = math.prod(shape[:-2])
    limit = math.sqrt(6 / (places * shape[-2] + places * shape[-1]))
    return generator.uniform(-limit, limit, shape).astype(dtype)


def zeros(shape: tuple[int, ...], generator: np.random.Generator, dtype: str = "float32") -> np.ndarray:
    """Return zeros of the given shape, with which biases begin.

    Parameters
    ----------
    shape, dtype : as in `glorot_uniform`
    generator : numpy.random.Generator, which is not used

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.initializers import zeros
    >>> zeros((2,), np.random.default_rng(0))
    array([0., 0.], dtype=float32)
    """
    return np.zeros(shape, dtype)


def ones(shape: tuple[int, ...], generator: np.random.Generator, dtype: str = "float32") -> np.ndarray:
    """Return ones of the given shape, with which batch normalization scales at first.

    Parameters
    ----------
    shape, dtype : as in `glorot_uniform`
    generator : numpy.random.Generator, which is not used

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.initializers import ones
    >>> ones((2,), np.random.default_rng(0))
    array([1., 1.], dtype=float32)
    """
    return np.ones(shape, dtype)
