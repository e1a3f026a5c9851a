"""How gradients change weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minicnn import config, kernels
from minicnn.checks import number
from minicnn.errors import ArgumentError, StateError


class Optimizer:
    """Base class of all optimizers: a subclass says in `step` how one step changes the weights.

    Parameters
    ----------
    learning_rate : float
        At least 0; kept in the float type of the layers, as Keras keeps it.

    Attributes
    ----------
    slots : dict of str to list of numpy.ndarray
        What is kept from step to step, by name ("velocity"): an array for each weight, of its shape. Empty before the
        first step.
    iterations : int
        How many steps were made.

    Raises
    ------
    ArgumentError
        If a number is outside its range.

    Examples
    --------
    An optimizer of one's own is what one step does:

    >>> import numpy as np
    >>> from minicnn.optimizers import Optimizer
    >>> class SignDescent(Optimizer):
    ...     def step(self, room, weights, gradients):
    ...         for w, dw in zip(weights, gradients, strict=True):
    ...             w -= self.learning_rate * np.sign(dw)
    >>> w = np.array([1.0, 2.0], np.float32)
    >>> SignDescent(0.5).apply([np.array([0.1, -7.0], np.float32)], [w])
    >>> w
    array([0.5, 2.5], dtype=float32)
    """

    kept: tuple[str, ...] = ()  # the names of the slots
    counts = False  # True if a step depends on its number

    def __init__(self, learning_rate: float) -> None:
        self._dtype = np.dtype(config.floatx()).type
        self.learning_rate = learning_rate
        self.slots: dict[str, list[np.ndarray]] = {}
        self.iterations = 0
        self.owner: Any = None  # the model whose slots these are

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
            If the slots kept here are those of weights of other shapes.
        DtypeError
            If the weights are not arrays that kernels compute with.
        """
        if not self.slots:
            self.slots = {name: [np.zeros_like(w) for w in weights] for name in self.kept}
        if any([a.shape for a in slot] != [w.shape for w in weights] for slot in self.slots.values()):
            raise StateError("this optimizer has served other weights. Make a new one for each model.")
        self.iterations += 1
        if weights:
            room = kernels.room(weights[0])
            for slot in self.slots.values():
                slot[:] = [array if kernels.room(array) is room else kernels.here(array) for array in slot]
            self.step(room, weights, gradients)

    def step(self, room: Any, weights: Sequence[np.ndarray], gradients: Sequence[np.ndarray]) -> None:
        """Change `weights` and `slots` in place.

        Parameters
        ----------
        room : module of `minicnn.kernels` that computes with these arrays
        weights, gradients : sequences of arrays, pairwise of one shape
        """
        raise NotImplementedError(f"{type(self).__name__} must define step(room, weights, gradients)")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that build an equal optimizer, as plain JSON values."""
        return {"learning_rate": self.learning_rate}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value}' for key, value in self.get_config().items())})"


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    velocity = momentum * velocity - learning_rate * dw; w += velocity.
    Nesterov looks ahead: w += momentum * velocity - learning_rate * dw, with the new velocity.
    The rate is inside the velocity, so after a cut the old velocity persists, unlike in PyTorch's form.

    Parameters
    ----------
    learning_rate : float
        At least 0.
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

    kept = ("velocity",)

    def __init__(self, learning_rate: float = 0.01, momentum: float = 0.0, nesterov: bool = False) -> None:
        super().__init__(learning_rate)
        self.momentum = number("SGD(momentum)", momentum, 0, 1)
        self.nesterov = bool(nesterov)

    def step(self, room: Any, weights: Sequence[np.ndarray], gradients: Sequence[np.ndarray]) -> None:
        """Change the weights and their velocities."""
        velocities = self.slots["velocity"]
        room.sgd_step(weights, gradients, velocities, self.learning_rate, self.momentum, self.nesterov)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}


OPTIMIZERS = {"sgd": SGD}


def get(optimizer: Any) -> Optimizer:
    """Return an optimizer given itself or its name.

    Parameters
    ----------
    optimizer : Optimizer or "sgd"

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
    if isinstance(optimizer, Optimizer):
        return optimizer
    if str(optimizer).lower() not in OPTIMIZERS:
        raise ArgumentError(f"unknown optimizer {optimizer!r}. Expected one of: {', '.join(OPTIMIZERS)}, or an object.")
    return OPTIMIZERS[str(optimizer).lower()]()
