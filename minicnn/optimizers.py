"""How gradients change weights."""

import math
from collections.abc import Sequence
from types import ModuleType
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
    weight_decay : float or None
        At least 0; before each step, w -= learning_rate * weight_decay * w. The gradient, and what is kept of it, knows
        nothing of that.
    clipnorm : float or None
        Positive; a weight's gradient whose norm, the root of the sum of its squares, is larger is scaled down to it.
    global_clipnorm : float or None
        Positive; the same with all gradients as one, so that their direction stays. Only one of the two can be given.

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
        If a number is outside its range, or both norms are given.

    References
    ----------
    Loshchilov and Hutter, Decoupled weight decay regularization, ICLR 2019, algorithm 2.
    Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks, ICML 2013, algorithm 1.

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

    def __init__(
        self, learning_rate: float, weight_decay: float | None = None,
        clipnorm: float | None = None, global_clipnorm: float | None = None,
    ) -> None:  # fmt: skip
        self._dtype = np.dtype(config.floatx()).type
        self.learning_rate = learning_rate
        kind = type(self).__name__
        self.weight_decay = None if weight_decay is None else number(f"{kind}(weight_decay)", weight_decay, 0)
        self.clipnorm = None if clipnorm is None else self._positive("clipnorm", clipnorm)
        self.global_clipnorm = None if global_clipnorm is None else self._positive("global_clipnorm", global_clipnorm)
        if clipnorm is not None and global_clipnorm is not None:
            raise ArgumentError(
                f"{kind} expects clipnorm, of each gradient, or global_clipnorm, of all in one, not both. "
                f"Received: clipnorm={clipnorm} and global_clipnorm={global_clipnorm}"
            )
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
            self.slots = {name: [np.zeros_like(w, order="C") for w in weights] for name in self.kept}
        if any([a.shape for a in slot] != [w.shape for w in weights] for slot in self.slots.values()):
            raise StateError("this optimizer has served other weights. Make a new one for each model.")
        self.iterations += 1
        if weights:
            room = kernels.room(weights[0])
            for slot in self.slots.values():
                slot[:] = [array if kernels.room(array) is room else kernels.here(array) for array in slot]
            limit = self.clipnorm or self.global_clipnorm
            if limit is not None:
                gradients = room.clip_by_norm(gradients, limit, together=self.clipnorm is None)
            if self.weight_decay:
                room.decay(weights, self.learning_rate * self.weight_decay)
            self.step(room, weights, gradients)

    def step(self, room: ModuleType, weights: Sequence[np.ndarray], gradients: Sequence[np.ndarray]) -> None:
        """Change `weights` and `slots` in place; clipping and decay have been done.

        Parameters
        ----------
        room : the module of `minicnn.kernels` that computes where the weights are
        weights, gradients : sequences of arrays, pairwise of one shape
        """
        raise NotImplementedError(f"{type(self).__name__} must define step(room, weights, gradients)")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that build an equal optimizer, as plain JSON values."""
        chosen = {name: getattr(self, name) for name in ("weight_decay", "clipnorm", "global_clipnorm")}
        return {"learning_rate": self.learning_rate} | {k: v for k, v in chosen.items() if v is not None}

    def _positive(self, name: str, value: Any) -> float:
        """Return `value` as a float if it is positive in the float type of the layers, too."""
        return number(f"{type(self).__name__}({name})", value, float(np.finfo(self._dtype).tiny))

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
    weight_decay, clipnorm, global_clipnorm : float or None
        As in `Optimizer`.

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

    def __init__(
        self, learning_rate: float = 0.01, momentum: float = 0.0, nesterov: bool = False,
        weight_decay: float | None = None, clipnorm: float | None = None, global_clipnorm: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(learning_rate, weight_decay, clipnorm, global_clipnorm)
        self.momentum = number("SGD(momentum)", momentum, 0, 1)
        self.nesterov = bool(nesterov)

    def step(self, room: ModuleType, weights: Sequence[np.ndarray], gradients: Sequence[np.ndarray]) -> None:
        """Change the weights and their velocities."""
        velocities = self.slots["velocity"]
        room.sgd_step(weights, gradients, velocities, self.learning_rate, self.momentum, self.nesterov)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}


class RMSprop(Optimizer):
    """Steps of about one size: each gradient divided by the root of a running mean of its squares.

    square = rho * square + (1 - rho) * dw^2; w -= learning_rate * dw / sqrt(square + epsilon).

    Parameters
    ----------
    learning_rate : float
        At least 0.
    rho : float
        Of the last mean's share in the next, in [0, 1).
    epsilon : float
        Positive; what a root is at least, squared.
    weight_decay, clipnorm, global_clipnorm : float or None
        As in `Optimizer`.

    Raises
    ------
    ArgumentError
        If a number is outside its range.

    References
    ----------
    Goodfellow, Bengio and Courville, Deep Learning, 2016, section 8.5.2, algorithm 8.5.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.optimizers import RMSprop
    >>> w = np.array([1.0, 2.0], np.float32)
    >>> RMSprop(learning_rate=0.5, rho=0.75).apply([np.array([1.0, -100.0], np.float32)], [w])
    >>> w.round(3)
    array([0., 3.], dtype=float32)
    """

    kept = ("square",)

    def __init__(
        self, learning_rate: float = 0.001, rho: float = 0.9, epsilon: float = 1e-7, weight_decay: float | None = None,
        clipnorm: float | None = None, global_clipnorm: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(learning_rate, weight_decay, clipnorm, global_clipnorm)
        self.rho = number("RMSprop(rho)", rho, 0, below=1)
        self.epsilon = self._positive("epsilon", epsilon)

    def step(self, room: ModuleType, weights: Sequence[np.ndarray], gradients: Sequence[np.ndarray]) -> None:
        """Change the weights and the mean squares of their gradients."""
        room.rmsprop_step(weights, gradients, self.slots["square"], self.learning_rate, self.rho, self.epsilon)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rho": self.rho, "epsilon": self.epsilon}


class Adam(Optimizer):
    """A running mean of the gradients, divided by the root of a running mean of their squares.

    mean += (1 - beta_1) * (dw - mean); square += (1 - beta_2) * (dw^2 - square);
    w -= learning_rate * sqrt(1 - beta_2^t) / (1 - beta_1^t) * mean / (sqrt(square) + epsilon) in step t, from 1.
    Both means begin at 0; the two powers make up for that.

    Parameters
    ----------
    learning_rate : float
        At least 0.
    beta_1, beta_2 : float
        Of the last means' shares in the next, in [0, 1).
    epsilon : float
        Positive; what a root is at least.
    weight_decay, clipnorm, global_clipnorm : float or None
        As in `Optimizer`.

    Raises
    ------
    ArgumentError
        If a number is outside its range.

    References
    ----------
    Kingma and Ba, Adam: a method for stochastic optimization, ICLR 2015, algorithm 1 in the order of section 2's end.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.optimizers import Adam
    >>> w = np.array([1.0, 2.0], np.float32)
    >>> Adam(learning_rate=0.5).apply([np.array([1.0, -100.0], np.float32)], [w])
    >>> w.round(3)
    array([0.5, 2.5], dtype=float32)
    """

    kept = ("mean", "square")
    counts = True

    def __init__(
        self, learning_rate: float = 0.001, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7,
        weight_decay: float | None = None,
        clipnorm: float | None = None, global_clipnorm: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(learning_rate, weight_decay, clipnorm, global_clipnorm)
        self.beta_1 = number(f"{type(self).__name__}(beta_1)", beta_1, 0, below=1)
        self.beta_2 = number(f"{type(self).__name__}(beta_2)", beta_2, 0, below=1)
        self.epsilon = self._positive("epsilon", epsilon)

    def step(self, room: ModuleType, weights: Sequence[np.ndarray], gradients: Sequence[np.ndarray]) -> None:
        """Change the weights and both means."""
        t = self.iterations
        rate = self.learning_rate * math.sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t)
        means, squares = self.slots["mean"], self.slots["square"]
        room.adam_step(weights, gradients, means, squares, rate, self.beta_1, self.beta_2, self.epsilon)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}


class AdamW(Adam):
    """Adam with decoupled weight decay: before each step, w -= learning_rate * weight_decay * w.

    Parameters
    ----------
    learning_rate, weight_decay : float
        At least 0.
    beta_1, beta_2, epsilon, clipnorm, global_clipnorm : as in `Adam`

    Raises
    ------
    ArgumentError
        If a number is outside its range.

    References
    ----------
    Loshchilov and Hutter, Decoupled weight decay regularization, ICLR 2019, algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnn.optimizers import AdamW
    >>> w = np.array([1.0, 2.0], np.float32)
    >>> AdamW(0.5, weight_decay=0.25).apply([np.array([1.0, -100.0], np.float32)], [w])
    >>> w.round(3)
    array([0.375, 2.25 ], dtype=float32)
    """

    def __init__(
        self, learning_rate: float = 0.001, weight_decay: float = 0.004, beta_1: float = 0.9, beta_2: float = 0.999,
        epsilon: float = 1e-7, clipnorm: float | None = None, global_clipnorm: float | None = None,
    ) -> None:  # fmt: skip
        weight_decay = number("AdamW(weight_decay)", weight_decay, 0)  # None is no decay
        super().__init__(learning_rate, beta_1, beta_2, epsilon, weight_decay, clipnorm, global_clipnorm)


OPTIMIZERS = {"sgd": SGD, "rmsprop": RMSprop, "adam": Adam, "adamw": AdamW}


def get(optimizer: Any) -> Optimizer:
    """Return an optimizer given itself or its name.

    Parameters
    ----------
    optimizer : Optimizer, "sgd", "rmsprop", "adam" or "adamw"

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
