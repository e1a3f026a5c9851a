"""Convolution of images."""

from typing import Any

import numpy as np

from minicnn import kernels
from minicnn.checks import positive_integer
from minicnn.initializers import glorot_uniform, zeros
from minicnn.layers.activations import Activation, activation_name
from minicnn.layers.base import Layer, Shape
from minicnn.layers.windows import check_padding, pair, slide


class Conv2D(Layer):
    """Slide F small kernels over an image; in the field's habit "convolution" means correlation, without a flip.

    y[n,i,j,f] = b[f] + sum over u,v,c of x[n, SH*i+u-top, SW*j+v-left, c] * w[u,v,c,f], then the activation.

    Parameters
    ----------
    filters : int
        F, the channels of the output.
    kernel_size, strides : int or pair of int
        (KH, KW) and (SH, SW), in pixels.
    padding : {"valid", "same"}
        No zeros around the image, or as many as keep its size at stride 1.
    activation : {None, "relu", "gelu", "softmax"}
    use_bias : bool
    name : str, optional

    Attributes
    ----------
    params : dict
        "kernel" (KH, KW, C, F), from glorot_uniform, and "bias" (F,), zeros.

    Raises
    ------
    ArgumentError
        If an argument is not as above.
    ShapeError
        If the input is not (N, H, W, C), or is smaller than the kernel under "valid".

    References
    ----------
    Dumoulin and Visin, A guide to convolution arithmetic for deep learning, 2016, arXiv:1603.07285.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.layers import Conv2D
    >>> layer = Conv2D(16, 3, padding="same", activation="relu").build((32, 32, 3))
    >>> layer.forward(np.zeros((2, 32, 32, 3), np.float32)).shape
    (2, 32, 32, 16)
    >>> layer.backward(np.ones((2, 32, 32, 16), np.float32)).shape
    (2, 32, 32, 3)
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = 1,
        padding: str = "valid",
        activation: str | None = None,
        use_bias: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.filters = positive_integer("Conv2D(filters)", filters)
        self.kernel_size = pair(kernel_size, "Conv2D(kernel_size)")
        self.strides = pair(strides, "Conv2D(strides)")
        self.padding = check_padding(padding)
        self.activation = Activation(activation)
        self.activation.in_place = True  # nobody else sees the sums
        self.use_bias = bool(use_bias)

    def build(self, input_shape: Shape) -> "Conv2D":
        """Make the kernel and the bias for inputs of shape (H, W, C)."""
        H, W, C = self.input_shape = self.check_rank(input_shape, "HWC")
        (OH, OW), self.pads = slide((H, W), self.kernel_size, self.strides, self.padding)
        self.output_shape = (OH, OW, self.filters)
        self.add_weight("kernel", (*self.kernel_size, C, self.filters), glorot_uniform)
        if self.use_bias:
            self.add_weight("bias", (self.filters,), zeros)
        self.activation.build(self.output_shape)
        return self

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """Return y (N, OH, OW, F) for x (N, H, W, C)."""
        x, w = self.check(x), self.params["kernel"]
        self.x = x
        b = self.params["bias"] if self.use_bias else np.zeros_like(w, shape=self.filters)
        z = kernels.room(x).conv2d(x, w, b, self.strides, self.pads)  # (N, OH, OW, F)
        return self.activation.forward(z)

    def backward(self, dy: np.ndarray, from_logits: bool = False, input_gradient: bool = True) -> np.ndarray | None:
        """Return dx (N, H, W, C) for dy (N, OH, OW, F) and fill `grads`.

        Parameters
        ----------
        from_logits : bool, whether dy is the gradient before the activation
        input_gradient : bool; without it dx is not computed
        """
        dy = self.check_gradient(dy)
        dz = dy if from_logits else self.activation.backward(dy)  # (N, OH, OW, F)
        dx, dw, db = kernels.room(dy).conv2d_backward(
            dz, self.x, self.params["kernel"], self.strides, self.pads, input_gradient
        )
        self.grads["kernel"] = dw
        if self.use_bias:
            self.grads["bias"] = db
        return dx

    def get_config(self) -> dict[str, Any]:
        return {
            "filters": self.filters,
            "kernel_size": list(self.kernel_size),
            "strides": list(self.strides),
            "padding": self.padding,
            "activation": activation_name(self.activation),
            "use_bias": self.use_bias,
        }
