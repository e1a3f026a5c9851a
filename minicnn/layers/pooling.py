"""Max-pooling: the largest value of each window."""

from typing import Any

import numpy as np

from minicnn import kernels
from minicnn.layers.base import Layer, Shape
from minicnn.layers.windows import check_padding, pair, slide


class MaxPooling2D(Layer):
    """Keep the maximum of each window, channel by channel.

    y[n,i,j,c] = max over u,v of x[n, SH*i+u-top, SW*j+v-left, c]. Each dy goes to the place of its maximum, to the
    first in row-major order if several tie. Padding counts as minus infinity; what no window covers is dropped.

    Parameters
    ----------
    pool_size : int or pair of int
        (PH, PW), in pixels.
    strides : int or pair of int, optional
        (SH, SW); `pool_size` if None.
    padding : {"valid", "same"}
    name : str, optional

    Raises
    ------
    ArgumentError
        If an argument is not as above.
    ShapeError
        If the input is not (N, H, W, C), or is smaller than the window under "valid".

    References
    ----------
    Goodfellow, Bengio and Courville, Deep Learning, 2016, section 9.3.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.layers import MaxPooling2D
    >>> layer = MaxPooling2D(2).build((2, 2, 1))
    >>> layer.forward(np.array([[[[1.0], [5.0]], [[5.0], [2.0]]]], np.float32)).item()
    5.0
    >>> layer.backward(np.ones((1, 1, 1, 1), np.float32)).ravel()
    array([0., 1., 0., 0.], dtype=float32)
    """

    def __init__(
        self,
        pool_size: int | tuple[int, int] = 2,
        strides: int | tuple[int, int] | None = None,
        padding: str = "valid",
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.pool_size = pair(pool_size, "MaxPooling2D(pool_size)")
        self.strides = pair(self.pool_size if strides is None else strides, "MaxPooling2D(strides)")
        self.padding = check_padding(padding)

    def build(self, input_shape: Shape) -> "MaxPooling2D":
        """Fix the output shape for inputs of shape (H, W, C)."""
        H, W, C = self.input_shape = self.check_rank(input_shape, "HWC")
        (OH, OW), self.pads = slide((H, W), self.pool_size, self.strides, self.padding)
        self.output_shape = (OH, OW, C)
        return self

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """Return y (N, OH, OW, C) for x (N, H, W, C)."""
        x = self.check(x)
        y, self.argmax = kernels.room(x).maxpool2d(x, self.pool_size, self.strides, self.pads)
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dx (N, H, W, C) for dy (N, OH, OW, C)."""
        dy, x_shape = self.check_gradient(dy), (len(dy), *self.input_shape)
        return kernels.room(dy).maxpool2d_backward(dy, self.argmax, x_shape, self.pool_size, self.strides, self.pads)

    def get_config(self) -> dict[str, Any]:
        strides = None if self.strides == self.pool_size else list(self.strides)
        return {"pool_size": list(self.pool_size), "strides": strides, "padding": self.padding}
