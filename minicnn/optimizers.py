"""How gradients change weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minicnn import config, kernels
from minicnn.checks import number
from minicnn.errors import ArgumentError, StateError


class SGD:
    """Stochastic gradient descent with momentum.

    velocity = momentum * velocity - learning_rate * dw; w += velocity.
    Nesterov looks ahead: w += momentum * velocity - learning_rate * dw, with the new velocity.
    The rate is inside the velocity, so after a cut the old velocity persists, unlike in PyTorch's form.

    Parameters
    ----------
    learning_rate : float
        At least 0; kept in the float type of the layers, as Keras keeps it.
    momentum : float
        In [0, 1].
    nesterov : bool

    Raises
    ------
    ArgumentError
        If a number is outside its range.

    References
    ----------
    Sutskever, Martens, Dahl and Hinton, On the importance of initialization and momentum in deep learning, ICML 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.optimizers import SGD
    >>> w = np.array([1.0, 2.0], np.float32)
    >>> SGD(learning_rate=0.5).apply([np.array([1.0, -1.0], np.float32)], [w])
    >>> w
    array([0.5, 2.5], dtype=float32)
    """

    def __init__(self, learning_rate: float = 0.01, momentum: float = 0.0, nesterov: bool = False) -> None:
        self._dtype = np.dtype(config.floatx()).type
        self.learning_rate = learning_rate
        self.momentum = number("SGD(momentum)", momentum, 0, 1)
        self.nesterov = bool(nesterov)
        self.velocities: list[np.ndarray] = []
        self.owner: Any = None  # the model whose velocities these are

    @property
    def learning_rate(self) -> float:
        """Step size, in weights per unit of gradient: the value that the rounded number stands for.

        Raises
        ------
        ArgumentError
            If it is set to what is not a finite number of at least 0.
        """
        return float(self._learning_rate)

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._learning_rate = self._dtype(number("the learning rate", value, 0))

    def apply(self, gradients: Sequence[np.ndarray], weights: Sequence[np.ndarray]) -> None:
        """Change each of `weights` in place by one step against its gradient.

        Parameters
        ----------
        gradients, weights : sequences of arrays, pairwise of one shape

        Raises
        ------
        StateError
            If the velocities kept here are those of weights of other shapes.
        DtypeError
            If the weights are not arrays that kernels compute with.
        """
        if not self.velocities:
            self.velocities = [np.zeros_like(w) for w in weights]
        if [v.shape for v in self.velocities] != [w.shape for w in weights]:
            raise StateError("this optimizer keeps the velocities of another model. Make a new one for each model.")
        if weights:
            room = kernels.room(weights[0])
            if kernels.room(self.velocities[0]) is not room:
                self.velocities = [kernels.here(velocity) for velocity in self.velocities]
            room.sgd_step(weights, gradients, self.velocities, self.learning_rate, self.momentum, self.nesterov)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that build an equal optimizer, as plain JSON values."""
        return {"learning_rate": self.learning_rate, "momentum": self.momentum, "nesterov": self.nesterov}

    def __repr__(self) -> str:
        return f"SGD(learning_rate={self.learning_rate}, momentum={self.momentum}, nesterov={self.nesterov})"


OPTIMIZERS = {"sgd": SGD}


def get(optimizer: Any) -> SGD:
    """Return an optimizer given itself or its name.

    Parameters
    ----------
    optimizer : SGD or "sgd"

    Raises
    ------
    ArgumentError
        If it is neither.

    Examples
    --------
    >>> from minicnn import optimizers
    >>> optimizers.get("sgd")
    SGD(learning_rate=0.009999999776482582, momentum=0.0, nesterov=False)
    """
    if isinstance(optimizer, SGD):
        return optimizer
    if str(optimizer).lower() not in OPTIMIZERS:
        raise ArgumentError(f"unknown optimizer {optimizer!r}. Expected one of: {', '.join(OPTIMIZERS)}, or an object.")
    return OPTIMIZERS[str(optimizer).lower()]()
