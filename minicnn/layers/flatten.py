"""From images to rows."""

import math

import numpy as np

from minicnn.layers.base import Layer, Shape


class Flatten(Layer):
    """Write each image of (N, H, W, C) as one row: index (h*W + w)*C + c, C order.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.layers import Flatten
    >>> Flatten().build((4, 4, 64)).forward(np.zeros((2, 4, 4, 64), np.float32)).shape
    (2, 1024)
    """

    def build(self, input_shape: Shape) -> "Flatten":
        """Fix the output shape, one axis."""
        self.input_shape = self.check_rank(input_shape, None)
        self.output_shape = (math.prod(self.input_shape),)
        return self

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """Return x as (N, H*W*C)."""
        return self.check(x).reshape(len(x), *self.output_shape)  # (N, H*W*C)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dy as (N, H, W, C)."""
        return self.check_gradient(dy).reshape(len(dy), *self.input_shape)  # (N, H, W, C)
