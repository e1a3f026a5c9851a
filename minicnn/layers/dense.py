"""The fully connected layer."""

from typing import Any

import numpy as np

from minicnn import kernels
from minicnn.checks import positive_integer
from minicnn.initializers import glorot_uniform, zeros
from minicnn.layers.activations import Activation, activation_name
from minicnn.layers.base import Layer, Shape


class Dense(Layer):
    """Weigh every input for every unit: y = activation(x @ w + b).

    dw = x^T @ dz, db = the sum of dz over the batch, dx = dz @ w^T.

    Parameters
    ----------
    units : int
        The width of the output.
    activation : {None, "relu", "gelu", "softmax"}
    use_bias : bool
    name : str, optional

    Attributes
    ----------
    params : dict
        "kernel" (In, units), from glorot_uniform, and "bias" (units,), zeros.

    Raises
    ------
    ArgumentError
        If an argument is not as above.
    ShapeError
        If the input is not (N, In): put a Flatten layer before.

    References
    ----------
    Goodfellow, Bengio and Courville, Deep Learning, 2016, section 6.5.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.layers import Dense
    >>> layer = Dense(2).build((3,))
    >>> layer.params["kernel"][:] = [[1, 0], [0, 1], [1, 1]]
    >>> layer.forward(np.array([[1.0, 2.0, 3.0]], np.float32))
    array([[4., 5.]], dtype=float32)
    """

    def __init__(
        self, units: int, activation: str | None = None, use_bias: bool = True, name: str | None = None
    ) -> None:
        super().__init__(name)
        self.units = positive_integer("Dense(units)", units)
        self.activation = Activation(activation)
        self.activation.in_place = True  # nobody else sees the sums
        self.use_bias = bool(use_bias)

    def build(self, input_shape: Shape) -> "Dense":
        """Make the kernel and the bias for inputs of shape (In,)."""
        self.input_shape = self.check_rank(input_shape, ("In",))
        self.output_shape = (self.units,)
        self.add_weight("kernel", (*self.input_shape, self.units), glorot_uniform)
        if self.use_bias:
            self.add_weight("bias", (self.units,), zeros)
        self.activation.build(self.output_shape)
        return self

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """Return y (N, units) for x (N, In)."""
        x, w = self.check(x), self.params["kernel"]
        self.x = x
        b = self.params["bias"] if self.use_bias else np.zeros_like(w, shape=self.units)
        z = kernels.room(x).dense(x, w, b)  # (N, units)
        return self.activation.forward(z)

    def backward(self, dy: np.ndarray, from_logits: bool = False, input_gradient: bool = True) -> np.ndarray | None:
        """Return dx (N, In) for dy (N, units) and fill `grads`.

        Parameters
        ----------
        from_logits : bool, whether dy is the gradient before the activation
        input_gradient : bool; without it dx is not computed
        """
        dy = self.check_gradient(dy)
        dz = dy if from_logits else self.activation.backward(dy)  # (N, units)
        dx, dw, db = kernels.room(dy).dense_backward(dz, self.x, self.params["kernel"], input_gradient)
        self.grads["kernel"] = dw
        if self.use_bias:
            self.grads["bias"] = db
        return dx

    def get_config(self) -> dict[str, Any]:
        return {"units": self.units, "activation": activation_name(self.activation), "use_bias": self.use_bias}
