"""Where two paths of a graph meet."""

import functools
import operator
from collections.abc import Sequence

import numpy as np

from minicnn.errors import ShapeError
from minicnn.layers.base import Layer, Shape


class Add(Layer):
    """Add two or more inputs of one shape, as a residual block does: y = x1 + x2 + ...; each dx is dy.

    Raises
    ------
    ShapeError
        If there are fewer than two inputs, or their shapes differ: nothing is broadcast.

    References
    ----------
    He, Zhang, Ren and Sun, Deep residual learning for image recognition, CVPR 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.layers import Add
    >>> layer = Add().build([(2,), (2,)])
    >>> layer.forward([np.array([[1.0, 2.0]], np.float32), np.array([[10.0, 20.0]], np.float32)])
    array([[11., 22.]], dtype=float32)
    """

    merges = True

    def build(self, input_shape: Sequence[Shape]) -> "Add":
        """Fix the output shape for a list of equal input shapes."""
        shapes = [tuple(shape) if isinstance(shape, (tuple, list)) else shape for shape in input_shape]
        if len(shapes) < 2 or any(shape != shapes[0] for shape in shapes):
            raise ShapeError(f"Add expects a list of two or more inputs of the same shape. Received: {shapes}")
        self.input_shape, self.output_shape = shapes, shapes[0]
        return self

    def forward(self, x: Sequence[np.ndarray], training: bool = False) -> np.ndarray:
        """Return the sum of the list of arrays x."""
        return functools.reduce(operator.add, self.check_each(x))

    def backward(self, dy: np.ndarray) -> list[np.ndarray]:
        """Return dy once for each input."""
        return [self.check_gradient(dy)] * len(self.input_shape)
