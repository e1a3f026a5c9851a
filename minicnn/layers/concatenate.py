"""Where two paths of a graph meet and stay side by side."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from minicnn import kernels
from minicnn.errors import ArgumentError, ShapeError
from minicnn.layers.base import Layer, Shape


class Concatenate(Layer):
    """Put two or more inputs one behind the other along an axis, as channels: each dx is its own part of dy.

    Parameters
    ----------
    axis : int
        Counted with the batch axis, which it cannot be: -1, the channels, is 3 of (N, H, W, C).
    name : str, optional

    Raises
    ------
    ArgumentError
        If `axis` is no integer, or is the batch axis.
    ShapeError
        If there are fewer than two inputs, or their shapes differ in another axis, or have not so many axes.

    References
    ----------
    Huang, Liu, van der Maaten and Weinberger, Densely connected convolutional networks, CVPR 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.layers import Concatenate
    >>> layer = Concatenate().build([(2,), (1,)])
    >>> layer.forward([np.array([[1.0, 2.0]], np.float32), np.array([[10.0]], np.float32)])
    array([[ 1.,  2., 10.]], dtype=float32)
    >>> layer.backward(np.array([[3.0, 4.0, 5.0]], np.float32))
    [array([[3., 4.]], dtype=float32), array([[5.]], dtype=float32)]
    """

    merges = True

    def __init__(self, axis: int = -1, name: str | None = None) -> None:
        super().__init__(name)
        if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)) or axis == 0:
            raise ArgumentError(f"Concatenate(axis) expects an integer that is not 0, the batch. Received: {axis!r}")
        self.axis = int(axis)

    def build(self, input_shape: Sequence[Shape]) -> "Concatenate":
        """Fix the output shape for a list of input shapes that differ in one axis alone."""
        shapes = [self.check_rank(shape, None) for shape in input_shape]
        rank = len(shapes[0]) if shapes else 0
        place = self.place = self.axis % (rank + 1)  # counted from the batch axis, which is 0
        others = {(len(shape), *shape[: place - 1], *shape[place:]) for shape in shapes}
        if len(shapes) < 2 or abs(self.axis) > rank or len(others) > 1:
            raise ShapeError(
                f"{self} expects a list of two or more inputs whose shapes have this axis and differ in no other. "
                f"Received: {shapes}, without the batch axis."
            )
        self.ends = list(itertools.accumulate(shape[place - 1] for shape in shapes))
        self.input_shape = shapes
        self.output_shape = (*shapes[0][: place - 1], self.ends[-1], *shapes[0][place:])
        return self

    def forward(self, x: Sequence[np.ndarray], training: bool = False) -> np.ndarray:
        """Return the list of arrays x as one."""
        xs = self.check_each(x)
        return kernels.room(xs[0]).concatenate(xs, self.place)

    def backward(self, dy: np.ndarray) -> list[np.ndarray]:
        """Return for each input its part of dy: views, nothing is copied."""
        dy, before = self.check_gradient(dy), (slice(None),) * self.place
        return [dy[(*before, slice(start, end))] for start, end in itertools.pairwise([0, *self.ends])]

    def get_config(self) -> dict[str, Any]:
        return {"axis": self.axis}
