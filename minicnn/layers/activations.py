"""Functions applied to a layer's sums: ReLU and softmax, as layers, or by name as another layer's `activation`."""

from typing import Any

import numpy as np

from minicnn import kernels
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


ACTIVATIONS = {"linear": Linear, "relu": ReLU, "softmax": Softmax}


def Activation(name: str | None) -> Layer:  # noqa: N802 - Keras's name, where it is a class
    """Return a new activation layer by its name.

    Parameters
    ----------
    name : {"linear", "relu", "softmax"} or None, which is "linear"

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
