"""Functions applied to a layer's sums, as layers of their own, or by name as another layer's `activation`."""

from typing import Any

import numpy as np

from minicnn import kernels
from minicnn.checks import number
from minicnn.errors import ArgumentError
from minicnn.layers.base import Layer


class Linear(Layer):
    """The identity, y = x: what a layer with ``activation=None`` applies."""

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """Return x."""
        return x

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dy."""
        return dy


class ReLU(Layer):
    """Rectified linear unit, y = max(x, 0), element by element on any shape.

    dx = dy where y > 0, else 0; at 0 itself, where no derivative exists, it is 0 as in Keras.

    References
    ----------
    Nair and Hinton, Rectified linear units improve restricted Boltzmann machines, ICML 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.layers import ReLU
    >>> layer = ReLU().build((3,))
    >>> layer.forward(np.array([[-1.0, 0.0, 2.0]], np.float32))
    array([[0., 0., 2.]], dtype=float32)
    >>> layer.backward(np.ones((1, 3), np.float32))
    array([[0., 0., 1.]], dtype=float32)
    """

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """Return max(x, 0), of x's shape."""
        x = self.check(x)
        y = self.y = kernels.room(x).relu(x, self.in_place)
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dy where the output was positive, else 0."""
        dy = self.check_gradient(dy)
        return kernels.room(dy).relu_backward(dy, self.y)


class LeakyReLU(Layer):
    """Rectified linear unit that lets a part of the negative numbers through: y = x if x > 0, else negative_slope * x.

    dx = dy where y > 0, else negative_slope * dy; at 0 itself it is the latter, as in TensorFlow.

    Parameters
    ----------
    negative_slope : float >= 0
        Keras's default is 0.3, PyTorch's 0.01.
    name : str, optional

    Raises
    ------
    ArgumentError
        If `negative_slope` is not as above.

    References
    ----------
    Maas, Hannun and Ng, Rectifier nonlinearities improve neural network acoustic models, ICML 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.layers import LeakyReLU
    >>> layer = LeakyReLU(0.25).build((3,))
    >>> layer.forward(np.array([[-1.0, 0.0, 2.0]], np.float32))
    array([[-0.25,  0.  ,  2.  ]], dtype=float32)
    >>> layer.backward(np.ones((1, 3), np.float32))
    array([[0.25, 0.25, 1.  ]], dtype=float32)
    """

    def __init__(self, negative_slope: float = 0.3, name: str | None = None) -> None:
        super().__init__(name)
        self.negative_slope = number("LeakyReLU(negative_slope)", negative_slope, 0)

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """Return y, of x's shape."""
        x = self.check(x)
        y = self.y = kernels.room(x).leaky_relu(x, self.negative_slope)
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dy where the output was positive, else negative_slope * dy."""
        dy = self.check_gradient(dy)
        return kernels.room(dy).leaky_relu_backward(dy, self.y, self.negative_slope)

    def get_config(self) -> dict[str, Any]:
        return {"negative_slope": self.negative_slope}


class GELU(Layer):
    """Gaussian error linear unit: y = x * P(Z < x), the share of a normal variable Z that lies below x.

    With P(Z < x) = (1 + erf(x / sqrt(2))) / 2 and its slope, the density p(x) = exp(-x^2 / 2) / sqrt(2 * pi):
    dx = dy * (P(Z < x) + x * p(x)). It is the exact form, the default of Keras and PyTorch, not the one with tanh.

    References
    ----------
    Hendrycks and Gimpel, Gaussian error linear units (GELUs), 2016, arXiv:1606.08415.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.layers import GELU
    >>> layer = GELU().build((3,))
    >>> layer.forward(np.array([[-1.0, 0.0, 1.0]], np.float32)).round(4)
    array([[-0.1587,  0.    ,  0.8413]], dtype=float32)
    >>> layer.backward(np.ones((1, 3), np.float32)).round(4)
    array([[-0.0833,  0.5   ,  1.0833]], dtype=float32)
    """

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """Return y, of x's shape; x is kept, since a y below 0 is that of two different x."""
        x = self.x = self.check(x)
        return kernels.room(x).gelu(x)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dy times the slope at x."""
        dy = self.check_gradient(dy)
        return kernels.room(dy).gelu_backward(dy, self.x)


class Softmax(Layer):
    """Probabilities from logits over the last axis, p_k = exp(z_k) / sum_j exp(z_j).

    The Jacobian is dp_k/dz_j = p_k * ((k == j) - p_j), so dz = p * (dp - sum(dp * p)). Trained with cross-entropy the
    two fold into dz = (p - onehot) / N, which the loss computes itself: `backward` then gets `from_logits`.

    References
    ----------
    Goodfellow, Bengio and Courville, Deep Learning, 2016, section 6.2.2.3.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.layers import Softmax
    >>> Softmax().build((2,)).forward(np.array([[0.0, np.log(3.0)]], np.float32))
    array([[0.25, 0.75]], dtype=float32)
    """

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """Return probabilities of x's shape; the logits stay in `z` for the loss."""
        z = self.z = self.check(x)
        p = self.p = kernels.room(z).softmax(z)
        return p

    def backward(self, dy: np.ndarray, from_logits: bool = False) -> np.ndarray:
        """Return dz.

        Parameters
        ----------
        from_logits : bool, whether dy already is dz
        """
        dy = self.check_gradient(dy)
        return dy if from_logits else kernels.room(dy).softmax_backward(dy, self.p)


ACTIVATIONS = {"linear": Linear, "relu": ReLU, "gelu": GELU, "softmax": Softmax}


def Activation(name: str | None) -> Layer:  # noqa: N802 - Keras's name, where it is a class
    """Return a new activation layer by its name.

    Parameters
    ----------
    name : {"linear", "relu", "gelu", "softmax"} or None, which is "linear"

    Raises
    ------
    ArgumentError
        If there is no activation of this name.

    Examples
    --------
    >>> from minicnn import layers
    >>> layers.Activation("relu")
    ReLU()
    """
    if name is not None and (not isinstance(name, str) or name not in ACTIVATIONS):
        raise ArgumentError(f"unknown activation {name!r}. Expected one of: {', '.join(ACTIVATIONS)}, or None.")
    return ACTIVATIONS[name or "linear"]()


def activation_name(activation: Layer) -> Any:
    """Return the name by which `Activation` finds it."""
    return {kind: name for name, kind in ACTIVATIONS.items()}[type(activation)]
