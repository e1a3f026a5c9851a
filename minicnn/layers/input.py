"""Where a graph begins."""

from typing import Any

import numpy as np

from minicnn import kernels
from minicnn.checks import positive_integer
from minicnn.errors import ArgumentError, DtypeError, ShapeError
from minicnn.layers.base import Layer, Node


class InputLayer(Layer):
    """The place where a batch enters a graph; `Input` makes it.

    Parameters
    ----------
    shape, dtype, name : as in `Input`

    Raises
    ------
    ArgumentError
        As in `Input`.
    """

    def __init__(self, shape: Any, dtype: str | None = None, name: str | None = None) -> None:
        super().__init__(name)
        sizes = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
        self.input_shape = self.output_shape = tuple(
            positive_integer("Input(shape): each axis", size) for size in sizes
        )
        if dtype not in (None, "uint8", "float32", "float64"):
            raise ArgumentError(f'Input(dtype) expects "uint8", "float32", "float64" or None. Received: {dtype!r}')
        self.input_dtype = dtype

    def check(self, x: np.ndarray, cast: bool = True) -> np.ndarray:
        """Return the batch x on the chosen device, unless its shape or type is wrong; bytes stay bytes.

        Parameters
        ----------
        x : array (N, ...)
        cast : bool, without effect: what layers need floats make them

        Raises
        ------
        DtypeError, ShapeError
            If x is not an array of numbers, or has not the shape that the model was built for.
        """
        if not hasattr(x, "dtype") or x.dtype.kind not in "uif":
            kind = getattr(x, "dtype", type(x).__name__)
            raise DtypeError(f"the model expects an array of numbers. Received: {kind}. Convert it with numpy.asarray.")
        if x.shape[1:] != self.input_shape:
            expected = ", ".join(["N", *map(str, self.input_shape)])
            raise ShapeError(f"the model expects a batch of shape ({expected}). Received: {x.shape}")
        x = kernels.here(x)
        return x if self.input_dtype is None else x.astype(self.input_dtype, copy=False)

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """Return the batch x, checked; bytes stay bytes until a layer needs floats."""
        return self.check(x)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dy."""
        return dy

    def get_config(self) -> dict[str, Any]:
        return {"shape": list(self.output_shape), "dtype": self.input_dtype}


def Input(shape: tuple[int, ...], dtype: str | None = None, name: str | None = None) -> Node:  # noqa: N802 - Keras's name
    """Begin a graph: a symbolic batch of arrays of `shape`.

    Parameters
    ----------
    shape : tuple of int
        Without the batch axis: (H, W, C) of an image.
    dtype : {None, "uint8", "float32", "float64"}
        None takes batches as they come.
    name : str, optional

    Returns
    -------
    Node
        To call layers on.

    Raises
    ------
    ArgumentError
        If a size is not a positive integer or the dtype is unknown.

    Examples
    --------
    >>> import minicnn
    >>> minicnn.layers.Dense(10)(minicnn.Input((64,)))
    <symbolic tensor of Dense, shape=(None, 10)>
    """
    layer = InputLayer(shape, dtype, name)
    return Node(layer, (), layer.output_shape)
