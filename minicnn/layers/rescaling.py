"""From bytes to small numbers."""

from typing import Any

import numpy as np

from minicnn import kernels
from minicnn.checks import number
from minicnn.layers.base import Layer


class Rescaling(Layer):
    """Multiply and shift: y = x * scale + offset, in the layer's float type, from uint8 or float images.

    In float32, x * float32(1/255) is not x / 255 for 126 of the 256 bytes; Keras multiplies, and so does this layer.

    Parameters
    ----------
    scale, offset : float
    name : str, optional

    Raises
    ------
    ArgumentError
        If one of the two is not a finite number.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.layers import Rescaling
    >>> Rescaling(1 / 2, offset=-1).build((3,)).forward(np.array([[0, 1, 255]], np.uint8))
    array([[ -1. ,  -0.5, 126.5]], dtype=float32)
    """

    def __init__(self, scale: float, offset: float = 0.0, name: str | None = None) -> None:
        super().__init__(name)
        self.scale = number("Rescaling(scale)", scale)
        self.offset = number("Rescaling(offset)", offset)

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """Return x * scale + offset, of x's shape."""
        x = self.check(x, cast=False)
        return kernels.room(x).rescale(x, self.scale, self.offset, self.dtype)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dy * scale."""
        return self.check_gradient(dy) * self.scale

    def get_config(self) -> dict[str, Any]:
        return {"scale": self.scale, "offset": self.offset}
