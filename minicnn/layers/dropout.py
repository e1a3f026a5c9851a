"""Dropout: a new random part of the inputs is left out in each training step."""

from typing import Any

import numpy as np

from minicnn import kernels
from minicnn.checks import number
from minicnn.data.dataset import random_generator
from minicnn.errors import ArgumentError
from minicnn.layers.base import Layer


class Dropout(Layer):
    """Set each input to 0 with probability `rate`, in training only: y = x * kept / (1 - rate).

    What is kept is scaled up, so that the mean of y is x and nothing is left to do in inference. The gradient takes the
    same way: dx = dy * kept / (1 - rate).

    Parameters
    ----------
    rate : float in [0, 1)
    seed : int, Generator or None, which draws a seed from the generator of `minicnn.utils.set_random_seed`
    name : str, optional

    Raises
    ------
    ArgumentError
        If an argument is not as above.

    References
    ----------
    Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, Dropout: a simple way to prevent neural networks from
    overfitting, JMLR 15, 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.layers import Dropout
    >>> layer = Dropout(0.5, seed=1).build((5,))
    >>> layer.forward(np.ones((1, 5), np.float32), training=True)
    array([[0., 2., 2., 2., 0.]], dtype=float32)
    >>> layer.backward(np.ones((1, 5), np.float32))
    array([[0., 2., 2., 2., 0.]], dtype=float32)
    >>> layer.forward(np.ones((1, 5), np.float32))
    array([[1., 1., 1., 1., 1.]], dtype=float32)
    """

    def __init__(self, rate: float, seed: int | np.random.Generator | None = None, name: str | None = None) -> None:
        super().__init__(name)
        self.rate = number("Dropout(rate)", rate, 0, 1)
        if self.rate == 1:
            raise ArgumentError("Dropout(rate) expects a number below 1: nothing would be kept. Received: 1")
        self.seed = None if isinstance(seed, np.random.Generator) else seed
        self.generator: np.random.Generator = random_generator(seed)
        self.kept: np.ndarray | None = None

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """Return y, of x's shape."""
        x, self.kept = self.check(x), None
        if not training or self.rate == 0:
            return x
        draws = self.draw(lambda N: self.generator.random((N, *self.input_shape), np.float32))  # (N, ...)
        self.kept = kernels.here(draws >= self.rate)
        return kernels.room(x).dropout(x, self.kept, 1 / (1 - self.rate))

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dx, of x's shape."""
        dy = self.check_gradient(dy)
        return dy if self.kept is None else kernels.room(dy).dropout(dy, self.kept, 1 / (1 - self.rate))

    def get_config(self) -> dict[str, Any]:
        return {"rate": self.rate, "seed": self.seed}
