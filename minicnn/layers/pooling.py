"""Pooling: one number for each window, its largest or its mean."""

from typing import Any

import numpy as np

from minicnn import kernels
from minicnn.layers.base import Layer, Shape
from minicnn.layers.windows import check_padding, pair, slide


class Pooling2D(Layer):
    """What maximum and mean share: a window that slides over each channel by itself."""

    def __init__(
        self,
        pool_size: int | tuple[int, int] = 2,
        strides: int | tuple[int, int] | None = None,
        padding: str = "valid",
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        kind = type(self).__name__
        self.pool_size = pair(pool_size, f"{kind}(pool_size)")
        self.strides = pair(self.pool_size if strides is None else strides, f"{kind}(strides)")
        self.padding = check_padding(padding)

    def build(self, input_shape: Shape) -> "Pooling2D":
        """Fix the output shape for inputs of shape (H, W, C)."""
        H, W, C = self.input_shape = self.check_rank(input_shape, "HWC")
        (OH, OW), self.pads = slide((H, W), self.pool_size, self.strides, self.padding)
        self.output_shape = (OH, OW, C)
        return self

    def get_config(self) -> dict[str, Any]:
        strides = None if self.strides == self.pool_size else list(self.strides)
        return {"pool_size": list(self.pool_size), "strides": strides, "padding": self.padding}


class MaxPooling2D(Pooling2D):
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

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """Return y (N, OH, OW, C) for x (N, H, W, C)."""
        x = self.check(x)
        y, self.argmax = kernels.room(x).maxpool2d(x, self.pool_size, self.strides, self.pads)
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dx (N, H, W, C) for dy (N, OH, OW, C)."""
        dy, x_shape = self.check_gradient(dy), (len(dy), *self.input_shape)
        return kernels.room(dy).maxpool2d_backward(dy, self.argmax, x_shape, self.pool_size, self.strides, self.pads)


class AveragePooling2D(Pooling2D):
    """Keep the mean of each window, channel by channel.

    y[n,i,j,c] = sum over u,v of x[n, SH*i+u-top, SW*j+v-left, c] / count. The sum and `count` are over the pixels of
    the window that are inside the image: padding is no 0 among them. Each of these pixels gets dy / count.

    Parameters
    ----------
    pool_size, strides, padding, name : as in `MaxPooling2D`

    Raises
    ------
    ArgumentError, ShapeError
        As in `MaxPooling2D`.

    References
    ----------
    LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, Proceedings of the IEEE
    86, 1998, section II.B.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.layers import AveragePooling2D
    >>> layer = AveragePooling2D(2, padding="same").build((1, 3, 1))
    >>> layer.forward(np.array([[[[1.0], [5.0], [7.0]]]], np.float32)).ravel()
    array([3., 7.], dtype=float32)
    >>> layer.backward(np.ones((1, 1, 2, 1), np.float32)).ravel()
    array([0.5, 0.5, 1. ], dtype=float32)
    """

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """Return y (N, OH, OW, C) for x (N, H, W, C)."""
        x = self.check(x)
        return kernels.room(x).averagepool2d(x, self.pool_size, self.strides, self.pads)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dx (N, H, W, C) for dy (N, OH, OW, C)."""
        dy, x_shape = self.check_gradient(dy), (len(dy), *self.input_shape)
        return kernels.room(dy).averagepool2d_backward(dy, x_shape, self.pool_size, self.strides, self.pads)


class GlobalAveragePooling2D(Layer):
    """Keep the mean of each channel: y[n,c] = sum over h,w of x[n,h,w,c] / (H*W); each pixel gets dy / (H*W).

    It is average pooling with one window, as large as the image.

    Raises
    ------
    ShapeError
        If the input is not (N, H, W, C).

    References
    ----------
    Lin, Chen and Yan, Network in network, ICLR 2014, section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.layers import GlobalAveragePooling2D
    >>> layer = GlobalAveragePooling2D().build((2, 2, 1))
    >>> layer.forward(np.array([[[[1.0], [5.0]], [[4.0], [2.0]]]], np.float32))
    array([[3.]], dtype=float32)
    """

    def build(self, input_shape: Shape) -> "GlobalAveragePooling2D":
        """Fix the output shape, (C,), for inputs of shape (H, W, C)."""
        H, W, C = self.input_shape = self.check_rank(input_shape, "HWC")
        self.window = (H, W), (1, 1), ((0, 0), (0, 0))  # its size, strides and padding
        self.output_shape = (C,)
        return self

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """Return y (N, C) for x (N, H, W, C)."""
        x = self.check(x)
        y = kernels.room(x).averagepool2d(x, *self.window)  # (N, 1, 1, C)
        return y.reshape(len(x), *self.output_shape)  # (N, C)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dx (N, H, W, C) for dy (N, C)."""
        dy = self.check_gradient(dy)
        N, C = dy.shape
        return kernels.room(dy).averagepool2d_backward(dy.reshape(N, 1, 1, C), (N, *self.input_shape), *self.window)
